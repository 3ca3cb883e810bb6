"""Version folders: numbering, staging, publishing by rename."""

import pytest

from tfmtl.serving import versions
from tfmtl.serving.publish import choose_version, publish, staging


def test_only_whole_integers_are_versions(tmp_path):
    for name in ("1", "003", "4.5", "12a", "-6", "+7", "v8", "9_0", ".staging-1", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file counts too")
    assert versions(tmp_path) == (1, 3, 5)
    assert choose_version(tmp_path, None) == 6


def test_first_version(tmp_path):
    assert versions(tmp_path / "none") == ()
    assert choose_version(tmp_path / "none", None) == 1


@pytest.mark.parametrize("version", [-1, 2**63, 1.0, "1", True])
def test_wrong_versions_are_refused(tmp_path, version):
    message = r"`version` should be an integer from 0.*Received: version="
    with pytest.raises(ValueError, match=message):
        choose_version(tmp_path, version)


def test_same_number_in_other_digits_is_refused(tmp_path):
    (tmp_path / "007").mkdir()
    with pytest.raises(FileExistsError, match=r"none of \[7\].*Received: version=7"):
        choose_version(tmp_path, 7)


def test_staged_folder_is_no_version_and_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), staging(tmp_path) as folder:
        (folder / "half").write_text("written")
        assert folder.parent == tmp_path
        assert versions(tmp_path) == ()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_publish(tmp_path):
    with staging(tmp_path) as folder:
        (folder / "variables").mkdir()
        (folder / "variables" / "data").write_text("x")
        path = publish(folder, tmp_path, 2)
    assert path == tmp_path / "2"
    assert (path / "variables" / "data").read_text() == "x"
    assert [child.name for child in tmp_path.iterdir()] == ["2"]


def test_second_of_two_at_once_is_refused(tmp_path, monkeypatch):
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "live").write_text("x")
    monkeypatch.setattr("tfmtl.serving.publish.choose_version", lambda *_: 2)
    with staging(tmp_path) as folder:
        (folder / "data").write_text("y")
        with pytest.raises(FileExistsError, match="Received: version=2"):
            publish(folder, tmp_path, 2)
    assert [child.name for child in (tmp_path / "2").iterdir()] == ["live"]
