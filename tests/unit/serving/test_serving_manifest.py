"""The manifest: what it says, and that it notices every change."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfmtl.folding.proof import difference
from tfmtl.serving.golden import read_golden, write_golden
from tfmtl.serving.manifest import (
    MANIFEST,
    check_manifest,
    read_manifest,
    write_manifest,
)
from tfmtl.version import __version__


@pytest.fixture
def folder(tmp_path):
    """The files of a version; no server would load them."""
    proto = saved_model_pb2.SavedModel()
    meta_graph = proto.meta_graphs.add()
    meta_graph.meta_info_def.tags.append("serve")
    meta_graph.signature_def["__saved_model_init_op"].method_name = ""
    signature = meta_graph.signature_def["serving_default"]
    signature.inputs["age"].dtype = signature.outputs["ctr"].dtype = 1
    (tmp_path / "saved_model.pb").write_bytes(proto.SerializeToString())
    (tmp_path / "variables").mkdir()
    (tmp_path / "variables" / "variables.index").write_bytes(b"index")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "words é.txt").write_bytes(b"")
    return tmp_path


def test_contents(folder):
    facts = {"fold": {"connections": [54, 21]}, "tables": None, "é": 1.5}
    written = write_manifest(folder, facts)
    assert read_manifest(folder) == written
    assert sorted(written) == ["created", "facts", "files", "signatures", "versions"]
    assert written["facts"] == facts
    assert sorted(written["files"]) == [
        "assets/words é.txt",
        "saved_model.pb",
        "variables/variables.index",
    ]
    assert written["files"]["assets/words é.txt"] == {
        "bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    assert written["signatures"] == {
        "serving_default": {"inputs": ["age"], "outputs": ["ctr"]}
    }
    assert written["versions"]["tensorflow"] == tf.__version__
    assert written["versions"]["keras"] == keras.__version__
    assert written["versions"]["tfmtl"] == __version__
    assert check_manifest(folder) == []


def test_written_again_it_does_not_list_itself(folder):
    write_manifest(folder)
    assert MANIFEST not in write_manifest(folder)["files"]
    assert check_manifest(folder) == []


@pytest.mark.parametrize("facts", [{"x": object()}, {"x": float("nan")}])
def test_facts_are_json(folder, facts):
    with pytest.raises(ValueError, match="`facts` should be what JSON can hold"):
        write_manifest(folder, facts)
    assert not (folder / MANIFEST).exists()


def test_missing_and_extra_and_changed_files(folder):
    write_manifest(folder)
    (folder / "variables" / "variables.index").unlink()
    (folder / "assets" / "more").write_bytes(b"x")
    (folder / "saved_model.pb").write_bytes(b"y")
    assert check_manifest(folder) == [
        "variables/variables.index is missing",
        "assets/more is not in the manifest",
        "saved_model.pb was changed",
    ]


def test_dangling_link_is_a_change(folder):
    write_manifest(folder)
    (folder / "saved_model.pb").unlink()
    (folder / "saved_model.pb").symlink_to("nowhere")
    [problem] = check_manifest(folder)
    assert problem == "saved_model.pb cannot be read: No such file or directory"


def test_every_flipped_bit_is_noticed(folder):
    write_manifest(folder, {"fold": {"connections": [54, 21]}})
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = file.read_bytes()
        for position in range(0, len(content), 7):
            flipped = bytearray(content)
            flipped[position] ^= 1 << position % 8
            file.write_bytes(flipped)
            assert check_manifest(folder) != [], (file, position)
        file.write_bytes(content)
    assert check_manifest(folder) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"sha256": 1}', b"\xff", b"[" * 100_000],
)
def test_unreadable_manifest(folder, content):
    write_manifest(folder)
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=r"manifest.json (cannot be read|was changed)"):
        read_manifest(folder)
    assert len(check_manifest(folder)) == 1


def test_manifest_without_its_hash_or_files(folder):
    body = write_manifest(folder)
    (folder / MANIFEST).write_text(json.dumps(body))
    with pytest.raises(ValueError, match="cannot be read: KeyError.'sha256'"):
        read_manifest(folder)


def test_no_manifest(folder):
    assert check_manifest(folder) == ["assets.extra/manifest.json is missing"]
    assert check_manifest(folder / "none") == ["assets.extra/manifest.json is missing"]


def test_golden_rows_come_back(tmp_path):
    rows = {
        "age/of user": np.array([1.5, np.nan, 3.0], "float32"),
        "word": np.array([["a\0", ""], ["é", b"\xff"], ["x" * 300, "\0"]], object),
        "id": np.array([1, 2**62, -1]),
        "short": ["de", "at", "ch"],
    }
    outputs = {"click rate é": np.array([[0.5], [0.25], [1.0]], "float32")}
    write_golden(tmp_path, rows, outputs, tolerance=0.05)
    golden = read_golden(tmp_path)
    assert golden.tolerance == 0.05
    assert sorted(golden.rows) == sorted(rows)
    np.testing.assert_array_equal(golden.rows["age/of user"], rows["age/of user"])
    np.testing.assert_array_equal(golden.rows["id"], rows["id"])
    assert golden.rows["id"].dtype == np.int64
    assert golden.rows["word"].tolist() == [
        [b"a\0", b""],
        ["é".encode(), b"\xff"],
        [b"x" * 300, b"\0"],
    ]
    assert golden.rows["short"].tolist() == [b"de", b"at", b"ch"]
    np.testing.assert_array_equal(
        golden.outputs["click rate é"], outputs["click rate é"]
    )


def test_no_golden_rows_at_all(tmp_path):
    empty = np.zeros((0, 2), object)
    write_golden(tmp_path, {"word": empty}, {"y": np.zeros((0, 1))})
    assert read_golden(tmp_path).rows["word"].shape == (0, 2)
    with pytest.raises(FileNotFoundError):
        read_golden(tmp_path / "none")


def test_golden_rows_are_numbers_or_strings(tmp_path):
    rows = {"x": np.array([{}, None], object)}
    with pytest.raises(ValueError, match=r"`inputs\['x'\]` should hold strings"):
        write_golden(tmp_path, rows, {})


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY", b"x" * 100])
def test_unreadable_golden_rows(tmp_path, content):
    write_golden(tmp_path, {"x": [1.0]}, {"y": [1.0]})
    (tmp_path / "assets.extra" / "golden.npz").write_bytes(content)
    with pytest.raises(ValueError, match="golden.npz cannot be read"):
        read_golden(tmp_path)


def test_golden_rows_hold_no_pickle(tmp_path):
    (tmp_path / "assets.extra").mkdir()
    objects = {"rows/x": np.array([{}], object), "tolerance": np.array(1.0)}
    np.savez(tmp_path / "assets.extra" / "golden.npz", **objects)
    with pytest.raises(ValueError, match="cannot be read.*allow_pickle=False"):
        read_golden(tmp_path)


def test_difference():
    assert difference([0.5, 20.0], [0.5, 10.0]) == 1.0
    assert difference([0.25], [0.5]) == 0.25
    assert difference(np.zeros((0, 1)), np.zeros((0, 1))) == 0.0
    assert np.isnan(difference([[1.0]], [1.0]))
    assert np.isnan(difference([np.nan], [1.0]))
    assert difference([np.inf, -np.inf, 5.5], [np.inf, -np.inf, 5.0]) == 0.1


def test_identifiers_are_the_same_or_not():
    assert difference([2**60, 7], [2**60, 7]) == 0.0
    assert difference([2**60 + 1, 7], [2**60, 7]) == np.inf
    texts = np.array([b"a", b"bc"], object)
    assert difference(np.array([b"a", b"bc"]), texts) == 0.0
    assert difference(np.array([b"a", b"bd"]), texts) == np.inf
    assert difference(np.zeros((0, 1), "S1"), np.zeros((0, 1), object)) == 0.0
    assert np.isnan(difference(texts[:1], texts))


def test_keys_of_facts_may_be_numbers(folder):
    write_manifest(folder, {"sizes": {10: 1, 9: 2}})
    assert check_manifest(folder) == []
