"""KuaiRand-Pure: both layouts, histories, missing values, splits; made up and real."""

import csv
import gzip
import hashlib
import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_datasets as tfds
from pyarrow import parquet

from tfmtl.data import kuairand_pure
from tfmtl.data.kuairand_pure import (
    builder,
    columns,
    files,
    histories,
    parsing,
    tables,
)

ROOT = Path(__file__).resolve().parents[3]

# The files' columns in their order.
LOG = (
    "user_id,video_id,date,hourmin,time_ms,is_click,is_like,is_follow,is_comment,"
    "is_forward,is_hate,long_view,play_time_ms,duration_ms,profile_stay_time,"
    "comment_stay_time,is_profile_enter,is_rand,tab"
).split(",")
USERS = (
    "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,"
    "follow_user_num,follow_user_num_range,fans_user_num,fans_user_num_range,"
    "friend_user_num,friend_user_num_range,register_days,register_days_range"
).split(",") + [f"onehot_feat{i}" for i in range(18)]
VIDEOS = (
    "video_id,author_id,video_type,upload_dt,upload_type,visible_status,"
    "video_duration,server_width,server_height,music_id,music_type,tag"
).split(",")

NUM_USERS, NUM_VIDEOS = 7, 9  # The last of each is in the log alone.
KNOWN_AFTER = (
    *columns.BINARY_TASKS.values(),
    "play_time_ms",
    "profile_stay_time",
    "comment_stay_time",
)


def _log(days: range, num_rows: int, seed: int) -> list[dict]:
    """Exposures on days of April; 31 is the first of May. Times have ties."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        day, hour = int(rng.choice(days)), int(rng.integers(24))
        date = np.datetime64("2022-04-01") + day - 1
        time_ms = date.astype("M8[ms]").astype(int) + (hour - 8) * 3_600_000
        row = dict.fromkeys(LOG, 0) | {
            "user_id": int(rng.integers(NUM_USERS)),
            "video_id": int(rng.integers(NUM_VIDEOS)),
            "date": int(str(date).replace("-", "")),
            "hourmin": hour * 100,
            "time_ms": int(time_ms) + 1000 * int(rng.integers(2)),
            "play_time_ms": int(rng.integers(60_000)),
            "tab": int(rng.integers(15)),
        }
        for task in columns.BINARY_TASKS.values():
            row[task] = int(rng.integers(2))
        row["duration_ms"] = 0 if row["video_id"] == 3 else 5000 + row["video_id"]
        rows.append(row)
    return rows


# User 5 comes late: no history. The last row is there twice.
EARLY = [row for row in _log(range(8, 22), 400, seed=1) if row["user_id"] != 5]
LATE = [row for row in _log(range(22, 39), 200, seed=2) if row["user_id"] != 5]
LATE += [
    LATE[0] | {"user_id": 5, "date": 20220430, "time_ms": 1651300000000},
    LATE[0] | {"user_id": 5, "date": 20220508, "time_ms": 1652000000000},
]
LATE += [LATE[-1]]
EXPOSURES = [row for row in LATE if row["date"] >= 20220425]
USER_ROWS = [
    dict.fromkeys(USERS, i)
    | {name: f"{name}, {i}" for name in columns.USER_STRING}
    | {"user_id": i, "onehot_feat4": "" if i == 2 else f"{i}.0"}
    for i in range(NUM_USERS - 1)
]
VIDEO_ROWS = [
    dict.fromkeys(VIDEOS, f"{i}.0")
    | {
        "video_id": i,
        "author_id": 10**6 + i,
        "music_id": 9 * 10**9 + i,
        "video_type": "NORMAL",
        "upload_type": "" if i == 1 else "Web",
        "upload_dt": "" if i == 1 else "2022-04-10",
        "video_duration": "" if i == 3 else f"{5000 + i}.0",
        "tag": ["39", "20,43", "1,2,3", ""][i % 4],
    }
    for i in range(NUM_VIDEOS - 1)
]


def _csv(rows: list[dict]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _parquet(rows: list[dict]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _sequences() -> list[dict]:
    """The extract's histories, the slow and obvious way."""
    events = EARLY + [row for row in LATE if row["date"] < 20220425]
    events.sort(key=lambda row: (row["user_id"], row["time_ms"], row["video_id"]))
    result = []
    for user in sorted({row["user_id"] for row in events}):
        own = [row for row in events if row["user_id"] == user]
        liked = [row["video_id"] for row in own if row["is_like"]]
        long_watched = [row["video_id"] for row in own if row["long_view"]]
        result.append(
            {
                "user_id": user,
                "history_len": len(own),
                "last_time_ms": own[-1]["time_ms"],
                "watch_seq": [row["video_id"] for row in own][-50:],
                "like_seq": liked[-50:],
                "long_watch_seq": long_watched[-50:],
            }
        )
    return result


CSV_FILES = {
    files.EARLY_LOG: _csv(EARLY),
    files.LATE_LOG: _csv(LATE),
    files.USERS: _csv(USER_ROWS),
    files.VIDEOS: _csv(VIDEO_ROWS),
}
PARQUET_FILES = {
    files.EXTRACT_LOG: _parquet(EXPOSURES),
    files.EXTRACT_HISTORIES: _parquet(_sequences()),
}
SHA256 = {name: hashlib.sha256(raw).hexdigest() for name, raw in CSV_FILES.items()}
NUM_ROWS = {
    files.EXTRACT_LOG: len(EXPOSURES),
    files.EXTRACT_HISTORIES: len(_sequences()),
}
NUM_TEST = sum(row["date"] >= 20220505 for row in EXPOSURES)
NUM_TRAIN = len(EXPOSURES) - NUM_TEST


@pytest.fixture(autouse=True)
def made_up_files(request, monkeypatch):
    if "real_files" not in request.fixturenames:
        monkeypatch.setattr(kuairand_pure.KuaiRandPure, "SHA256", SHA256)
        monkeypatch.setattr(kuairand_pure.KuaiRandPure, "NUM_ROWS", NUM_ROWS)


@pytest.fixture(scope="session")
def real_files(kuairand_folder: Path) -> Path:
    return kuairand_folder


def _archive(contents: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"KuaiRand-Pure/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def _fill(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in contents.items():
        (folder / name).write_bytes(raw)
    return folder


def _extract(folder: Path) -> Path:
    _fill(folder, PARQUET_FILES)
    for name in (files.USERS, files.VIDEOS):
        (folder / f"{name}.gz").write_bytes(gzip.compress(CSV_FILES[name]))
    return folder


def _csv_folder(folder: Path) -> Path:
    return _fill(folder, CSV_FILES)


def _extracted(folder: Path) -> Path:
    _fill(folder / "KuaiRand-Pure" / "data", CSV_FILES)
    return folder


def _tar(folder: Path) -> Path:
    return _fill(folder, {files.ARCHIVE: _archive(CSV_FILES)})


LAYOUTS = [_extract, _csv_folder, _extracted, _tar]


def _tables(folder: Path) -> tables.Tables:
    return tables.read(files.find(folder), SHA256, NUM_ROWS)


@pytest.fixture
def raw(tmp_path: Path) -> tables.Tables:
    return _tables(_csv_folder(tmp_path / "csv"))


def _assert_equal(actual: dict, expected: dict) -> None:
    assert list(actual) == list(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(actual[name], column, err_msg=name)
        assert actual[name].dtype == column.dtype, name


# Names


def test_every_column_has_one_kind():
    kinds = (
        kuairand_pure.NUMERIC_COLUMNS,
        kuairand_pure.INTEGER_COLUMNS,
        kuairand_pure.STRING_COLUMNS,
        tuple(kuairand_pure.SEQUENCE_COLUMNS),
        kuairand_pure.TIME_COLUMNS,
    )
    names = [name for kind in kinds for name in kind]
    assert len(names) == len(set(names)) == 50
    assert set(kuairand_pure.HISTORIES) < set(kuairand_pure.SEQUENCE_COLUMNS)


def test_nothing_known_after_the_exposure_is_a_feature():
    info = kuairand_pure.KuaiRandPure(data_dir="none").info
    names = info.features["features"].get_tensor_info()
    assert len(names) == 50
    assert not set(names) & {*KNOWN_AFTER, *kuairand_pure.TASKS}


def test_package_does_not_import_tensorflow_datasets():
    code = "import tfmtl.data, sys; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# Files


@pytest.mark.parametrize("layout", LAYOUTS)
def test_find_knows_each_layout(tmp_path, layout):
    found = files.find(layout(tmp_path / "folder"))
    expected = files.EXTRACT_FILES if layout is _extract else files.ARCHIVE_FILES
    assert tuple(found) == expected
    assert all(path.is_file() for path in found.values())


@pytest.mark.parametrize(
    ("present", "missing", "state"),
    [
        ([], files.EARLY_LOG, "is empty"),
        (None, files.EARLY_LOG, "is not a directory"),
        ([files.EARLY_LOG], files.LATE_LOG, f"holds ['{files.EARLY_LOG}']"),
        (
            [files.EXTRACT_LOG],
            files.EXTRACT_HISTORIES,
            f"holds ['{files.EXTRACT_LOG}']",
        ),
    ],
)
def test_find_says_what_is_missing(tmp_path, present, missing, state):
    folder = tmp_path / "folder"
    if present is not None:
        _fill(folder, dict.fromkeys(present, b""))
    message = (
        f"`manual_dir` should hold `{missing}`, plain, `.gz` or `.xz`. "
        f"Received: manual_dir={str(folder)!r}, which {state}"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        files.find(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            files.VIDEOS,
            CSV_FILES[files.VIDEOS][:-1],
            f"`{files.VIDEOS}` should have the SHA-256 {SHA256[files.VIDEOS]} when "
            "decompressed. Received: ",
        ),
        (
            files.EXTRACT_LOG,
            _parquet(EXPOSURES[1:]),
            f"`{files.EXTRACT_LOG}` should have {len(EXPOSURES)} rows. "
            f"Received: {len(EXPOSURES) - 1} rows",
        ),
        (
            files.EXTRACT_LOG,
            _parquet([{"user_id": 1}]),
            f"`{files.EXTRACT_LOG}` should be a table with the columns of "
            "KuaiRand-Pure. Received: ",
        ),
        (
            files.EXTRACT_HISTORIES,
            b"PAR1 no more",
            f"`{files.EXTRACT_HISTORIES}` should be a table with the columns of "
            "KuaiRand-Pure. Received: ",
        ),
    ],
)
def test_wrong_file_says_what_came(tmp_path, name, content, message):
    folder = _extract(tmp_path)
    (folder / f"{name}.gz").unlink(missing_ok=True)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        _tables(folder)


@pytest.mark.parametrize(
    ("old", "new", "received"),
    [(b",tab\n", b",tap\n", "tab"), (b"\n", b"\nx", "invalid value 'x")],
)
def test_wrong_csv_is_named_even_if_its_checksum_is_right(tmp_path, old, new, received):
    folder = _csv_folder(tmp_path)
    content = CSV_FILES[files.LATE_LOG].replace(old, new, 1)
    (folder / files.LATE_LOG).write_bytes(content)
    checksums = SHA256 | {files.LATE_LOG: hashlib.sha256(content).hexdigest()}
    message = f"`{files.LATE_LOG}` should be a table with .* Received: .*{received}"
    with pytest.raises(ValueError, match=message):
        tables.read(files.find(folder), checksums, NUM_ROWS)


# Histories


def test_latest_is_the_last_of_each_user():
    rng = np.random.default_rng(0)
    user_id = np.array([2, 3, 5, 9, 10])
    users = np.sort(rng.choice([2, 5, 9], 40))
    videos = rng.integers(100, size=40)
    expected = np.full((5, 7), -1)
    for row, user in enumerate(user_id):
        recent = videos[users == user][::-1][:7]
        expected[row, : len(recent)] = recent
    result = histories.latest(user_id, users, videos, 7)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.int64


def test_latest_of_no_events_is_padding():
    nothing = np.array([], np.int64)
    assert histories.latest(np.array([4]), nothing, nothing, 2).tolist() == [[-1, -1]]


def test_histories_of_the_logs_are_the_extracts(raw):
    past = raw.histories
    rows = _sequences()
    assert past.user_id.tolist() == [row["user_id"] for row in rows] == [*range(5), 6]
    assert past.num_watched.tolist() == [row["history_len"] for row in rows]
    assert max(past.num_watched) > 50
    for name, source in [
        ("watched", "watch_seq"),
        ("liked", "like_seq"),
        ("long_watched", "long_watch_seq"),
    ]:
        for videos, row in zip(past.videos[name], rows, strict=True):
            recent = row[source][::-1]
            assert videos.tolist() == recent + [-1] * (50 - len(recent))


def test_histories_do_not_change_with_what_comes_after(tmp_path, raw):
    later = [
        row | ({"video_id": 0, "is_like": 1} if row["date"] >= 20220425 else {})
        for row in LATE
    ]
    folder = _csv_folder(tmp_path / "later")
    content = _csv(later)
    (folder / files.LATE_LOG).write_bytes(content)
    checksums = SHA256 | {files.LATE_LOG: hashlib.sha256(content).hexdigest()}
    changed = tables.read(files.find(folder), checksums, NUM_ROWS)
    _assert_equal(changed.histories.videos, raw.histories.videos)


# Parsing


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_give_the_same(tmp_path, raw, layout, split):
    expected_features, expected_labels = parsing.parse(raw, split)
    features, labels = parsing.parse(_tables(layout(tmp_path / "other")), split)
    _assert_equal(features, expected_features)
    _assert_equal(labels, expected_labels)


def test_splits_are_all_rows_by_date_in_order_of_time(raw):
    counts = {}
    for split, first, last in [
        ("train", 20220425, 20220504),
        ("test", 20220505, 20220508),
    ]:
        features, labels = parsing.parse(raw, split)
        counts[split] = len(features["date"])
        assert first <= features["date"].min() <= features["date"].max() <= last
        keys = [features[name].tolist() for name in ("time_ms", "user_id", "video_id")]
        assert [*zip(*keys, strict=True)] == sorted(zip(*keys, strict=True))
        assert {len(column) for column in [*features.values(), *labels.values()]} == {
            counts[split]
        }
    assert counts == {"train": NUM_TRAIN, "test": NUM_TEST}  # The duplicate counts.


def test_rows_are_the_logs(raw):
    exposures = [row for row in EXPOSURES if row["date"] < 20220505]
    exposures.sort(key=lambda r: (r["time_ms"], r["user_id"], r["video_id"]))
    features, labels = parsing.parse(raw, "train")
    for name in ("user_id", "video_id", "tab", "date", "time_ms"):
        assert features[name].tolist() == [row[name] for row in exposures]
    for task, source in columns.BINARY_TASKS.items():
        assert labels[task].tolist() == [row[source] for row in exposures]
    seconds = np.float32([row["play_time_ms"] / 1000 for row in exposures])
    np.testing.assert_array_equal(labels["watch_time"], seconds)
    assert {label.dtype for label in labels.values()} == {np.dtype(np.float32)}
    assert tuple(labels) == kuairand_pure.TASKS


def test_features_do_not_change_with_the_feedback(raw):
    changed = {
        name: column + 1 if name in KNOWN_AFTER else column
        for name, column in raw.log.items()
    }
    expected, _ = parsing.parse(raw, "test")
    _assert_equal(parsing.parse(raw._replace(log=changed), "test")[0], expected)


def test_clock_is_beijings(raw):
    features, _ = parsing.parse(raw, "train")
    expected = features["time_ms"].astype("M8[ms]") + np.timedelta64(8, "h")
    hours = expected.astype("M8[h]").astype(int) % 24
    np.testing.assert_array_equal(features["hour"], hours)
    days = [day.item().weekday() for day in expected.astype("M8[D]")]
    assert features["day_of_week"].tolist() == days
    known = features["video_id"] == 0
    age = (expected.astype("M8[D]") - np.datetime64("2022-04-10")).astype(int)
    np.testing.assert_array_equal(features["video_age"][known], age[known])


def _rows(features: dict, **keys: int) -> dict:
    chosen = np.all([features[name] == key for name, key in keys.items()], axis=0)
    assert chosen.any()
    return {name: column[chosen] for name, column in features.items()}


def test_user_and_video_without_a_row_are_missing(raw):
    features, _ = parsing.parse(raw, "train")
    user = _rows(features, user_id=NUM_USERS - 1)
    video = _rows(features, video_id=NUM_VIDEOS - 1)
    for rows, numbers, codes, strings in [
        (user, columns.USER_NUMERIC, columns.USER_INTEGER, columns.USER_STRING),
        (video, columns.VIDEO_NUMERIC, columns.VIDEO_INTEGER, columns.VIDEO_STRING),
    ]:
        assert all(np.isnan(rows[name]).all() for name in numbers)
        assert all((rows[name] == -1).all() for name in codes)
        assert all((rows[name] == b"").all() for name in strings)
    assert np.isnan(video["video_age"]).all()
    assert (video["tag"] == -1).all()
    # The log knows how long it is.
    np.testing.assert_allclose(video["video_duration"], 5.008)


def test_user_without_a_history_has_padding(raw):
    features, _ = parsing.parse(raw, "train")
    rows = _rows(features, user_id=5)
    assert (rows["num_watched"] == 0).all()
    assert all((rows[name] == -1).all() for name in columns.HISTORIES)
    assert rows["onehot_feat4"].tolist() == [5]


def test_missing_cells(raw):
    features, _ = parsing.parse(raw, "train")
    assert set(_rows(features, user_id=2)["onehot_feat4"]) == {-1}
    assert set(_rows(features, user_id=3)["onehot_feat4"]) == {3}
    video = _rows(features, video_id=1)
    assert set(video["upload_type"]) == {b""}
    assert np.isnan(video["video_age"]).all()
    assert np.isnan(_rows(features, video_id=3)["video_duration"]).all()


def test_cells_keep_their_values(raw):
    features, _ = parsing.parse(raw, "train")
    video = _rows(features, video_id=5)
    assert set(video["music_id"]) == {9_000_000_005}
    assert set(video["upload_type"]) == {b"Web"}
    assert set(video["server_width"]) == {5.0}
    user = _rows(features, user_id=4)
    assert set(user["fans_user_num_range"]) == {b"fans_user_num_range, 4"}
    assert set(user["fans_user_num"]) == {4.0}


@pytest.mark.parametrize(
    ("video", "tags"),
    [(4, [39, -1, -1]), (5, [20, 43, -1]), (6, [1, 2, 3]), (7, [-1, -1, -1])],
)
def test_tags_are_padded(raw, video, tags):
    features, _ = parsing.parse(raw, "train")
    assert _rows(features, video_id=video)["tag"].tolist()[0] == tags


def test_too_many_tags_are_named(raw):
    videos = raw.videos | {"tag": np.full(NUM_VIDEOS - 1, b"1,2,3,4", np.object_)}
    message = "`tag` should list at most 3 tags. Received: b'1,2,3,4'"
    with pytest.raises(ValueError, match=re.escape(message)):
        parsing.parse(raw._replace(videos=videos), "train")


# Preparation


@pytest.mark.parametrize("layout", [_extract, _csv_folder])
def test_load_prepares_and_reads_again(tmp_path, raw, layout):
    manual_dir, data_dir = layout(tmp_path / "manual"), tmp_path / "prepared"
    for folder in (manual_dir, None):  # The second time nothing raw is needed.
        for split, count in [("train", NUM_TRAIN), ("test", NUM_TEST)]:
            features, labels = kuairand_pure.load(split, data_dir, folder)
            parsed_features, parsed_labels = parsing.parse(raw, split)
            assert set(features) == set(parsed_features)
            for name, column in parsed_features.items():
                kind = (
                    "S" if name in kuairand_pure.STRING_COLUMNS else column.dtype.kind
                )
                assert features[name].dtype.kind == kind
                np.testing.assert_array_equal(features[name], column, err_msg=name)
            assert tuple(labels) == kuairand_pure.TASKS
            for task, column in parsed_labels.items():
                assert labels[task].shape == (count, 1)
                np.testing.assert_array_equal(labels[task][:, 0], column)


def test_load_holds_out_the_last_days(tmp_path):
    manual_dir, data_dir = _extract(tmp_path / "manual"), tmp_path / "prepared"
    whole, targets = kuairand_pure.load("train", data_dir, manual_dir)
    for days, first in [(2, 20220503), (4, 20220501), (9, 20220426)]:
        held_out = whole["date"] >= first
        assert 0 < held_out.sum() < NUM_TRAIN
        for split, rows in [("train", ~held_out), ("validation", held_out)]:
            features, labels = kuairand_pure.load(split, data_dir, validation_days=days)
            np.testing.assert_array_equal(features["time_ms"], whole["time_ms"][rows])
            np.testing.assert_array_equal(labels["click"], targets["click"][rows])
    features, _ = kuairand_pure.load("test", data_dir, validation_days=2)
    assert len(features["date"]) == NUM_TEST


def test_load_gives_the_most_recent_of_a_history(tmp_path):
    manual_dir, data_dir = _extract(tmp_path / "manual"), tmp_path / "prepared"
    whole, _ = kuairand_pure.load("test", data_dir, manual_dir)
    features, _ = kuairand_pure.load("test", data_dir, history_length=3)
    for name in kuairand_pure.HISTORIES:
        np.testing.assert_array_equal(features[name], whole[name][:, :3])
    assert features["tag"].shape == (NUM_TEST, 3)


@pytest.mark.parametrize(
    ("split", "arguments", "message"),
    [
        (
            "valid",
            {},
            '`split` should be "train", "validation" or "test". '
            "Received: split='valid'",
        ),
        (
            "validation",
            {},
            "`validation_days` should be from 1 to 9 for 'validation'. "
            "Received: validation_days=0",
        ),
        (
            "train",
            {"validation_days": 10},
            "`validation_days` should be from 0 to 9 for 'train'. "
            "Received: validation_days=10",
        ),
        (
            "train",
            {"history_length": 51},
            "`history_length` should be from 1 to 50. Received: history_length=51",
        ),
    ],
)
def test_load_errors_say_what_came(split, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kuairand_pure.load(split, **arguments)


def test_builder_gives_columns_by_name(tmp_path):
    prepared = kuairand_pure.KuaiRandPure(data_dir=tmp_path / "prepared")
    prepared.download_and_prepare(
        download_config=tfds.download.DownloadConfig(
            manual_dir=_csv_folder(tmp_path / "manual")
        )
    )
    features, labels = kuairand_pure.load("train", tmp_path / "prepared")
    again = tfds.builder_from_directory(prepared.data_dir)
    assert again.info.redistribution_info.license == "CC BY-SA 4.0"
    assert "10.1145/3511808.3557624" in again.info.citation
    assert again.info.splits["train"].num_examples == NUM_TRAIN
    for source in (prepared, again):
        pairs = source.as_dataset(split="train", as_supervised=True).batch(NUM_TRAIN)
        assert pairs.element_spec[0]["watched"].shape == (None, 50)
        assert pairs.element_spec[1]["click"].shape == (None, 1)
        [(batch, targets)] = pairs.as_numpy_iterator()
        for name, column in features.items():
            np.testing.assert_array_equal(batch[name], column, err_msg=name)
        np.testing.assert_array_equal(targets["watch_time"], labels["watch_time"])


def test_downloads_without_local_files(tmp_path, monkeypatch):
    archive = tmp_path / "downloaded"
    archive.write_bytes(_archive(CSV_FILES))
    asked = []

    def download(self, url):
        asked.append(url)
        return archive

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    features, _ = kuairand_pure.load("test", tmp_path / "prepared")
    assert asked == [builder.URL]
    assert len(features["date"]) == NUM_TEST


def test_given_manual_dir_is_never_replaced_by_a_download(tmp_path):
    with pytest.raises(FileNotFoundError, match="`manual_dir` should hold"):
        kuairand_pure.load("train", tmp_path / "prepared", tmp_path / "nowhere")


def test_wrong_file_prepares_nothing(tmp_path):
    folder = _csv_folder(tmp_path / "manual")
    (folder / files.USERS).write_bytes(b"user_id\n1\n")
    for _ in range(2):
        with pytest.raises(ValueError, match="should have the SHA-256"):
            kuairand_pure.load("train", tmp_path / "prepared", folder)


# The real files


def test_real_files_have_the_documented_counts(real_files):
    raw = tables.read(files.find(real_files), files.SHA256, files.NUM_ROWS)
    parsed = {split: parsing.parse(raw, split) for split in ("train", "test")}
    counts = {split: len(features["date"]) for split, (features, _) in parsed.items()}
    assert counts == {"train": 171_671, "test": 56_658}
    rates = {
        task: np.concatenate([labels[task] for _, labels in parsed.values()]).mean()
        for task in kuairand_pure.TASKS
    }
    assert rates == pytest.approx(
        {
            "click": 0.4419,
            "long_view": 0.3108,
            "like": 0.0171,
            "follow": 0.0013,
            "comment": 0.0025,
            "forward": 0.0009,
            "profile_enter": 0.0185,
            "hate": 0.0008,
            "watch_time": 21.4952,
        },
        abs=5e-5,
    )
    features, _ = parsed["test"]
    for name, count in [("user_id", 17_396), ("video_id", 4_956), ("tab", 15)]:
        assert len(np.unique(features[name])) == count, name
    assert features["video_age"].min() >= 23
    assert (features["tag"][:, 0] != -1).mean() > 0.9


def test_real_histories_are_the_archives_earlier_rows(real_files):
    raw = tables.read(files.find(real_files), files.SHA256, files.NUM_ROWS)
    past = raw.histories
    # 1,436,609 rows in the archive's logs of the standard recommender.
    assert past.num_watched.sum() == 1_436_609 - 228_329
    lengths = {name: (videos != -1).sum(1) for name, videos in past.videos.items()}
    np.testing.assert_array_equal(lengths["watched"], np.minimum(past.num_watched, 50))
    assert np.isin(past.videos["watched"], [-1, *raw.videos["video_id"]]).all()
    for row in np.flatnonzero(past.num_watched <= 50)[:500]:
        shown = past.videos["watched"][row].tolist()
        for name in ("liked", "long_watched"):
            at = iter(shown)  # In the same order.
            assert all(v in at for v in past.videos[name][row] if v != -1)


@pytest.mark.slow
def test_real_data_prepares(tmp_path, real_files):
    features, labels = kuairand_pure.load("train", tmp_path, real_files)
    raw = tables.read(files.find(real_files), files.SHA256, files.NUM_ROWS)
    expected, _ = parsing.parse(raw, "train")
    for name, column in expected.items():
        np.testing.assert_array_equal(features[name], column, err_msg=name)
    assert labels["click"].mean() == pytest.approx(0.4433, abs=5e-5)
    features, _ = kuairand_pure.load("validation", tmp_path, validation_days=2)
    assert len(features["date"]) == 36_543
