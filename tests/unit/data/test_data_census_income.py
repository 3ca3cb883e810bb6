"""Census-Income: parsing, verification and preparation, on a made-up file and real."""

import gzip
import hashlib
import io
import lzma
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tfmtl.data import census_income
from tfmtl.data.census_income import builder, columns, files, parsing

ROOT = Path(__file__).resolve().parents[3]


def _row(**cells: str) -> str:
    row = {name: f"some {name}" for name in columns.COLUMNS}
    row |= dict.fromkeys(columns.NUMERIC_COLUMNS, "0")
    row |= {"marital_stat": "Divorced", "education": "Children", "income": "- 50000."}
    return ", ".join((row | cells).values()) + "\n"


TRAIN = (
    _row(age="73", race="?", income="50000+.", sex=" Female ")
    + _row(age="20", marital_stat="Never married", year="95")
    + _row(age="41", education="Associates degree-occup /vocational")
    + _row(age="41", education="Associates degree-occup /vocational")
).encode()
TEST = _row(age="50", education="Some college but no degree").encode()


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


@pytest.fixture(autouse=True)
def made_up_checksums(request, monkeypatch):
    if "real_files" not in request.fixturenames:
        checksums = {"train": _sha256(TRAIN), "test": _sha256(TEST)}
        monkeypatch.setattr(census_income.CensusIncome, "SHA256", checksums)


@pytest.fixture
def real_files(census_folder: Path) -> Path:
    return census_folder


@pytest.fixture
def manual_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "manual"
    folder.mkdir()
    (folder / "census-income.data").write_bytes(TRAIN)
    (folder / "census-income.test").write_bytes(TEST)
    return folder


def _uci_zip() -> bytes:
    """A zip that holds a tar.gz that holds the files, like UCI's."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        for name, raw in [
            ("census-income.names", b"| names"),
            ("folder/census-income.data", TRAIN),
            ("folder/census-income.test", TEST),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as archive:
        archive.writestr("census-income.names", "| names")
        archive.writestr("census.tar.gz", tar.getvalue())
    return outer.getvalue()


# Names


def test_every_column_is_a_feature_or_removed():
    names = columns.NUMERIC_COLUMNS + columns.CATEGORICAL_COLUMNS
    assert len(columns.COLUMNS) == len(set(columns.COLUMNS)) == 42
    assert len(names) == 38
    assert set(names) | set(columns.REMOVED_COLUMNS) == set(columns.COLUMNS)
    assert not set(names) & set(columns.REMOVED_COLUMNS)


def test_codes_and_the_year_are_categories():
    assert {
        "detailed_industry_recode",
        "detailed_occupation_recode",
        "own_business_or_self_employed",
        "veterans_benefits",
        "year",
    } <= set(census_income.CATEGORICAL_COLUMNS)


def test_package_does_not_import_tensorflow_datasets():
    code = "import tfmtl.data, sys; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# Parsing


def test_parse_strips_blanks_and_keeps_question_marks():
    example = next(parsing.parse(TRAIN, "made up"))["features"]
    assert list(example) == [*columns.CATEGORICAL_COLUMNS, *columns.NUMERIC_COLUMNS]
    assert example["age"] == 73.0
    assert example["race"] == b"?"
    assert example["sex"] == b"Female"


def test_parse_labels():
    labels = [e["labels"] for e in parsing.parse(TRAIN + TEST, "made up")]
    assert [[float(row[t][0]) for t in columns.TASKS] for row in labels] == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 1],
        [0, 0, 0],
    ]


def test_all_six_degrees_are_college():
    rows = "".join(_row(education=d.decode()) for d in columns.COLLEGE_DEGREES)
    labels = [e["labels"]["college"][0] for e in parsing.parse(rows.encode(), "x")]
    assert labels == [1.0] * 6


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "1, 2, 3\n",
            "`made up` should have 42 columns in every row. "
            "Received: 3 columns in row 2, b'1, 2, 3\\n'",
        ),
        (
            _row(age="old"),
            "`age` should be a number in every row of `made up`. "
            "Received: b'old' in row 2",
        ),
        (
            _row(income="much"),
            "`income` should be one of [b'- 50000.', b'50000+.'] in every row of "
            "`made up`. Received: b'much' in row 2",
        ),
    ],
)
def test_parse_errors_say_what_came(row, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        list(parsing.parse(TEST + row.encode(), "made up"))


# Files


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("", TRAIN),
        (".gz", gzip.compress(TRAIN)),
        (".xz", lzma.compress(TRAIN)),
        (".zip", _uci_zip()),
    ],
)
def test_read_unwraps(tmp_path, suffix, content):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    assert files.read(path, "train", _sha256(TRAIN)) == TRAIN


def test_read_finds_the_other_split_in_the_archive(tmp_path):
    path = tmp_path / "archive"
    path.write_bytes(_uci_zip())
    assert files.read(path, "test", _sha256(TEST)) == TEST


def test_wrong_checksum_says_both(tmp_path):
    path = tmp_path / "census-income.data"
    path.write_bytes(TRAIN[:-1])
    message = (
        f"`census-income.data` should have the SHA-256 {_sha256(TRAIN)} when "
        f"decompressed. Received: {_sha256(TRAIN[:-1])} for the {len(TRAIN) - 1} "
        f"bytes of {path}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        files.read(path, "train", _sha256(TRAIN))


def test_broken_file_names_the_path(tmp_path):
    path = tmp_path / "census-income.data.gz"
    path.write_bytes(gzip.compress(TRAIN)[:-20])
    message = f"`{path}` should be a readable file or archive. Received: EOFError"
    with pytest.raises(ValueError, match=re.escape(message)):
        files.read(path, "train", _sha256(TRAIN))


def test_archive_without_the_file_names_it(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "nothing")
    message = f"`{path}` should hold `census-income.test`. Received: an archive without"
    with pytest.raises(ValueError, match=re.escape(message)):
        files.read(path, "test", _sha256(TEST))


def test_find_takes_each_wrapping(tmp_path):
    (tmp_path / "census-income.data.xz").touch()
    (tmp_path / "census-income.test.gz").touch()
    assert {split: path.name for split, path in files.find(tmp_path).items()} == {
        "train": "census-income.data.xz",
        "test": "census-income.test.gz",
    }


@pytest.mark.parametrize(
    ("present", "missing", "state"),
    [
        ([], "census-income.data", "is empty"),
        (
            ["census-income.data"],
            "census-income.test",
            "holds ['census-income.data']",
        ),
        (None, "census-income.data", "is not a directory"),
    ],
)
def test_find_says_what_is_missing(tmp_path, present, missing, state):
    folder = tmp_path / "folder"
    if present is not None:
        folder.mkdir()
        for name in present:
            (folder / name).touch()
    message = (
        f"`manual_dir` should hold `{missing}`, plain, `.gz` or `.xz`. "
        f"Received: manual_dir={str(folder)!r}, which {state}"
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        files.find(folder)


# Preparation


def test_load_prepares_from_manual_dir_and_reads_again(tmp_path, manual_dir):
    data_dir = tmp_path / "prepared"
    for folder in (manual_dir, None):  # The second time nothing raw is needed.
        features, labels = census_income.load("train", data_dir, folder)
        assert features["age"].tolist() == [73, 20, 41, 41]
        assert features["age"].dtype == np.float32
        assert features["race"].tolist() == [b"?"] + [b"some race"] * 3
        assert features["year"].dtype.kind == "S"
        assert set(features) == {
            *census_income.NUMERIC_COLUMNS,
            *census_income.CATEGORICAL_COLUMNS,
        }
        assert tuple(labels) == census_income.TASKS
        assert labels["college"].tolist() == [[0], [0], [1], [1]]
        assert labels["college"].dtype == np.float32
    features, labels = census_income.load("test", data_dir)
    assert features["age"].tolist() == [50]
    assert labels["income"].shape == (1, 1)


def _prepare(data_dir: Path, manual_dir: Path) -> tfds.core.DatasetBuilder:
    prepared = census_income.CensusIncome(data_dir=data_dir)
    prepared.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
    )
    return prepared


def test_builder_gives_columns_by_name(tmp_path, manual_dir):
    prepared = _prepare(tmp_path / "prepared", manual_dir)
    example = next(iter(tfds.as_numpy(prepared.as_dataset(split="train"))))
    assert example["features"]["age"] == 73.0
    assert example["features"]["sex"] == b"Female"
    assert len(example["features"]) == 38
    assert example["labels"]["income"].tolist() == [1.0]
    pairs = prepared.as_dataset(split="train", as_supervised=True).batch(4)
    assert pairs.element_spec[0]["year"].shape == (None,)
    assert pairs.element_spec[1]["income"].shape == (None, 1)


def test_prepared_folder_describes_itself(tmp_path, manual_dir):
    prepared = _prepare(tmp_path / "prepared", manual_dir)
    again = tfds.builder_from_directory(prepared.data_dir)
    assert again.info.splits["train"].num_examples == 4
    assert again.info.redistribution_info.license == "CC BY 4.0"
    assert "10.24432/C5N30T" in again.info.citation
    example = next(iter(again.as_dataset(split="test").as_numpy_iterator()))
    assert example["features"]["age"] == 50.0


def test_packed_columns_decode_in_numpy():
    feature = builder.PackedColumns(["age"], ["sex", "race"])
    values = {"age": np.float32(3), "sex": b"Male", "race": b"?"}
    assert feature.decode_example_np(feature.encode_example(values)) == values


def test_downloads_and_unpacks_without_local_files(tmp_path, monkeypatch):
    archive = tmp_path / "downloaded"
    archive.write_bytes(_uci_zip())
    asked = []

    def download(self, url):
        asked.append(url)
        return archive

    monkeypatch.setattr(tfds.download.DownloadManager, "download", download)
    features, _ = census_income.load("train", tmp_path / "prepared")
    assert asked == [builder.URL]
    assert len(features["age"]) == 4


def test_files_in_the_default_manual_dir_are_used(tmp_path, manual_dir):
    default = tmp_path / "prepared" / "downloads" / "manual"
    default.parent.mkdir(parents=True)
    manual_dir.rename(default)
    features, _ = census_income.load("test", tmp_path / "prepared")
    assert features["age"].tolist() == [50]


def test_given_manual_dir_is_never_replaced_by_a_download(tmp_path):
    with pytest.raises(FileNotFoundError, match="`manual_dir` should hold"):
        census_income.load("train", tmp_path / "prepared", tmp_path / "nowhere")


def test_wrong_file_prepares_nothing(tmp_path, manual_dir):
    (manual_dir / "census-income.test").write_bytes(TEST + TEST)
    for _ in range(2):
        with pytest.raises(ValueError, match="should have the SHA-256"):
            census_income.load("test", tmp_path / "prepared", manual_dir)


def test_other_file_format_is_named(tmp_path, manual_dir):
    pytest.importorskip("array_record", reason="array_record is not installed")
    prepared = census_income.CensusIncome(data_dir=tmp_path / "prepared")
    prepared.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
        file_format="array_record",
    )
    message = (
        "`data_dir` should hold the dataset as TFRecord files. "
        f"Received: array_record files in {prepared.data_dir}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        census_income.load("train", tmp_path / "prepared")


def test_unknown_split_is_named():
    message = '`split` should be "train" or "test". Received: split=\'valid\''
    with pytest.raises(ValueError, match=re.escape(message)):
        census_income.load("valid")


# The real files


def test_real_test_file_parses(real_files):
    path = files.find(real_files)["test"]
    raw = files.read(path, "test", files.SHA256["test"])
    labels = [example["labels"] for example in parsing.parse(raw, path.name)]
    assert len(labels) == 99_762
    rates = {t: np.mean([row[t][0] for row in labels]) for t in columns.TASKS}
    assert rates == pytest.approx(
        {"income": 0.0620, "never_married": 0.4325, "college": 0.1950}, abs=5e-5
    )


@pytest.mark.slow
def test_real_data_has_the_documented_counts(tmp_path, real_files):
    features, labels = census_income.load("train", tmp_path, real_files)
    assert {len(column) for column in features.values()} == {199_523}
    rates = {task: label.mean() for task, label in labels.items()}
    assert rates == pytest.approx(
        {"income": 0.0621, "never_married": 0.4335, "college": 0.1964}, abs=5e-5
    )
    # `census-income.names` counts the values of each column.
    for name, count in [
        ("age", 91),
        ("weeks_worked_in_year", 53),
        ("detailed_industry_recode", 52),
        ("hispanic_origin", 10),
        ("country_of_birth_self", 43),
        ("year", 2),
    ]:
        assert len(np.unique(features[name])) == count, name
    features, labels = census_income.load("test", tmp_path)
    assert {len(column) for column in features.values()} == {99_762}
    assert labels["college"].mean() == pytest.approx(0.1950, abs=5e-5)
