"""TF Serving's model config: pinned versions, labels, everything else as it was."""

import importlib
import os
import shutil

import pytest
from google.protobuf import text_format

from tfmtl.serving.model_config import Served, label, rollback
from tfmtl.serving.verify import Verification

protos = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")

OTHER = """
  config {
    name: "other"
    base_path: "/models/other"
    model_platform: "tensorflow"
    model_version_policy { all {} }
    version_labels { key: "stable" value: 7 }
    logging_config { sampling_config { sampling_rate: 0.5 } }
  }
"""


@pytest.fixture
def config(tmp_path):
    """Writes a config with an unrelated model, and folders of versions."""

    def write(entry="", versions=(1, 2, 3)):
        for version in versions:
            (tmp_path / "ranker" / str(version)).mkdir(parents=True)
        file = tmp_path / "models.config"
        file.write_text(
            "# The servers read this.\n# Every minute.\nmodel_config_list {"
            f'{OTHER} config {{ name: "ranker" base_path: "{tmp_path}/ranker" '
            f'model_platform: "tensorflow" {entry} }} }}'
        )
        return file

    return write


def read(file):
    proto = text_format.Parse(file.read_text(), protos.ModelServerConfig())
    return {entry.name: entry for entry in proto.model_config_list.config}


def served(file):
    """What the file says about the ranker."""
    entry = read(file)["ranker"]
    assert entry.model_version_policy.WhichOneof("policy_choice") == "specific"
    versions = tuple(entry.model_version_policy.specific.versions)
    return versions, dict(entry.version_labels)


def specific(*versions, **labels):
    """A policy, and labels, as text."""
    wanted = " ".join(f"versions: {version}" for version in versions)
    texts = [f'version_labels {{ key: "{k}" value: {v} }}' for k, v in labels.items()]
    return f"model_version_policy {{ specific {{ {wanted} }} }} {' '.join(texts)}"


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        ("", (2,)),
        ("model_version_policy { latest { num_versions: 1 } }", (2,)),
        ("model_version_policy { latest { num_versions: 3 } }", (1, 2)),
        ("model_version_policy { all {} }", (1, 2)),
        (specific(3), (2,)),
        (specific(2, 3), (2,)),
        (specific(2), (1,)),
        (specific(3, 99), (2,)),
    ],
)
def test_rollback_pins_the_version_before(config, entry, kept):
    file = config(entry)
    assert rollback(file, "ranker", check=False) == Served(kept, {}, False)
    assert served(file) == (kept, {})


def test_everything_else_stays(config):
    file = config()
    before = read(file)["other"]
    rollback(file, "ranker", check=False)
    assert read(file)["other"] == before
    assert read(file)["ranker"].model_platform == "tensorflow"
    lines = file.read_text().splitlines()
    assert lines[:2] == ["# The servers read this.", "# Every minute."]
    assert sorted(path.name for path in file.parent.iterdir()) == [
        "models.config",
        "ranker",
    ]


def test_rollback_to_a_version(config):
    file = config(specific(2, 3))
    assert rollback(file, "ranker", 1, check=False).versions == (1,)
    assert served(file) == ((1,), {})


def test_rollback_of_labels_onto_a_version_that_is_loaded(config):
    file = config(specific(1, 2, 3, canary=3, stable=2, old=1))
    done = rollback(file, "ranker", check=False)
    assert done == Served((1, 2), {"canary": 2, "stable": 2, "old": 1}, False)
    assert served(file) == (done.versions, done.labels)


def test_rollback_of_labels_onto_a_version_that_is_not_takes_two_steps(config):
    file = config(specific(3, stable=3))
    assert rollback(file, "ranker", check=False) == Served((2, 3), {"stable": 3}, True)
    assert served(file) == ((2, 3), {"stable": 3})
    assert rollback(file, "ranker", check=False) == Served((2,), {"stable": 2}, False)
    assert served(file) == ((2,), {"stable": 2})


@pytest.mark.parametrize(
    ("entry", "versions", "to", "message"),
    [
        ("", (3,), None, r"one of \[\], .* version 3, served now. Received: to=None"),
        ("", (), None, r"one of \[\], .* version None, served now"),
        ("", (1, 2, 3), 4, r"one of \[1, 2\], .* Received: to=4"),
        ("", (1, 2, 3), 3, r"one of \[1, 2\], .* Received: to=3"),
        (specific(1), (1, 2, 3), None, r"one of \[\], .* version 1, served now"),
    ],
)
def test_nothing_to_go_back_to(config, tmp_path, entry, versions, to, message):
    (tmp_path / "ranker").mkdir()
    file = config(entry, versions)
    before = file.read_bytes()
    with pytest.raises(ValueError, match="`to` should be " + message):
        rollback(file, "ranker", to, check=False)
    assert file.read_bytes() == before


@pytest.mark.parametrize("command", ["rollback", "label"])
def test_version_that_does_not_verify_is_refused(config, command):
    file = config(specific(3))
    before = file.read_bytes()
    message = "`version` should verify. Received: version=2, where assets.extra/manif"
    with pytest.raises(ValueError, match=message):
        if command == "rollback":
            rollback(file, "ranker")
        else:
            label(file, "ranker", "stable", 2)
    assert file.read_bytes() == before
    assert not (file.parent / ".lock").exists()


def test_version_that_verifies_is_taken(config, monkeypatch):
    verified = []

    def verify(path):
        verified.append(path)
        return Verification(path, ())

    monkeypatch.setattr("tfmtl.serving.model_config.verify", verify)
    file = config()
    assert rollback(file, "ranker").versions == (2,)
    assert verified == [file.parent / "ranker" / "2"]


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        ("", (3,)),
        ("model_version_policy { all {} }", (1, 2, 3)),
        (specific(2, 3), (2, 3)),
    ],
)
def test_label_on_a_version_that_is_loaded_pins_it(config, entry, kept):
    file = config(entry)
    done = label(file, "ranker", "canary", 3, check=False)
    assert done == Served(kept, {"canary": 3}, False)
    assert served(file) == (kept, {"canary": 3})


def test_label_on_a_version_that_is_not_takes_two_steps(config):
    file = config(specific(2, stable=2))
    first = label(file, "ranker", "stable", 3, check=False)
    assert first == Served((2, 3), {"stable": 2}, True)
    assert served(file) == ((2, 3), {"stable": 2})
    second = label(file, "ranker", "stable", 3, check=False)
    assert second == Served((2, 3), {"stable": 3}, False)
    assert served(file) == ((2, 3), {"stable": 3})


def test_label_on_a_missing_version_is_refused(config):
    file = config()
    message = r"`version` should be one of \[1, 2, 3\], .* Received: version=9"
    with pytest.raises(ValueError, match=message):
        label(file, "ranker", "canary", 9, check=False)
    with pytest.raises(ValueError, match="`label` should not be empty"):
        label(file, "ranker", "", 3, check=False)


def test_versions_under_another_path(config, tmp_path):
    file = config()
    os.rename(tmp_path / "ranker", tmp_path / "elsewhere")
    message = "`base` should be the folder of the versions, as it is called here"
    with pytest.raises(ValueError, match=message):
        rollback(file, "ranker", check=False)
    rollback(file, "ranker", base=tmp_path / "elsewhere", check=False)
    assert served(file) == ((2,), {})
    assert read(file)["ranker"].base_path == str(tmp_path / "ranker")


def test_wrong_files_and_models(config, tmp_path):
    file = config()
    message = r"`model` should be one of \['other', 'ranker'\], .*'none'"
    with pytest.raises(ValueError, match=message):
        rollback(file, "none", check=False)
    file.write_text("model_config_list { config { nme: 'x' } }")
    with pytest.raises(
        ValueError, match="`config` should be a model config of TF.*nme"
    ):
        rollback(file, "ranker", check=False)
    with pytest.raises(FileNotFoundError):
        rollback(tmp_path / "none.config", "ranker", check=False)


def test_without_the_extra(config, monkeypatch):
    file, real = config(), importlib.import_module

    def absent(name):
        if name.startswith("tensorflow_serving"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    message = r"need tensorflow-serving-api: `pip install tfmtl\[serving\]`"
    with pytest.raises(ImportError, match=message):
        rollback(file, "ranker", check=False)


def test_a_label_of_a_version_that_is_gone_is_refused(config):
    file = config(specific(1, 2, old=1))
    shutil.rmtree(file.parent / "ranker" / "1")
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"or the server refuses the file.*'old': 1"):
        label(file, "ranker", "canary", 3, check=False)
    assert file.read_bytes() == before
