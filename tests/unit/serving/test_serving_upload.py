"""Upload: the graph comes last, what arrived is read back, interruptions go on."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tfmtl.serving.golden import write_golden
from tfmtl.serving.manifest import MANIFEST, write_manifest
from tfmtl.serving.upload import UploadError, sweep_upload, upload
from tfmtl.serving.verify import verify

gfile = tf.io.gfile


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """A small version with a manifest."""
    folder = tmp_path_factory.mktemp("upload") / "3"
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    function = tf.function(lambda x: {"y": 2.0 * x}).get_concrete_function(spec)
    tf.saved_model.save(tf.Module(), str(folder), function)
    rows = np.ones((2, 2), "float32")
    write_golden(folder, {"x": rows}, {"y": 2 * rows})
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "words.txt").write_text("at\nde\n")
    write_manifest(folder, {"number": 3})
    return folder


@pytest.fixture(params=["local", "ram"])
def base(request, tmp_path):
    """A local base, and one of a file system of its own kind."""
    if request.param == "local":
        return str(tmp_path / "bucket" / "ranker")
    return f"ram://{tmp_path.name}/models/ranker"


@pytest.fixture
def copied(monkeypatch):
    """What is copied and renamed, in order; `copied.fail_at` interrupts."""

    class Copied(list):
        fail_at = None

    copied, copy, rename = Copied(), gfile.copy, gfile.rename

    def traced_copy(source, target, overwrite=False):
        if len(copied) == copied.fail_at:
            with gfile.GFile(target, "wb") as file:  # half of it has arrived
                file.write(b"half")
            raise KeyboardInterrupt
        copied.append(target.rpartition("/")[2])
        copy(source, target, overwrite=overwrite)

    def traced_rename(source, target, overwrite=False):
        copied.append("rename")
        rename(source, target, overwrite=overwrite)

    monkeypatch.setattr(gfile, "copy", traced_copy)
    monkeypatch.setattr(gfile, "rename", traced_rename)
    return copied


def contents(folder):
    """All files of a folder of any file system."""
    paths = [
        f"{place}/{name}" for place, _, names in gfile.walk(folder) for name in names
    ]
    found = {}
    for path in filter(gfile.exists, paths):
        with gfile.GFile(path, "rb") as file:
            found[path.removeprefix(folder).lstrip("/")] = file.read()
    return found


def test_upload(version, base, copied):
    assert upload(version, base) == f"{base}/3"
    assert contents(f"{base}/3") == contents(str(version))
    assert copied[0] == "manifest.json"
    assert copied[-2:] == ["part.saved_model.pb", "rename"]


def test_uploaded_version_verifies(version, tmp_path):
    assert verify(upload(version, tmp_path)).problems == ()


def test_existing_version_is_refused(version, base):
    upload(version, base, check=False)
    before = contents(base)
    with pytest.raises(FileExistsError, match=f"is not in {base}. Received: folder="):
        upload(version, base, check=False)
    assert contents(base) == before


def test_same_version_in_other_digits_is_refused(version, base):
    gfile.makedirs(f"{base}/003")
    with pytest.raises(FileExistsError, match="of a version that is not in"):
        upload(version, base, check=False)


def test_version_that_does_not_verify_is_not_sent(version, base, tmp_path):
    spoilt = shutil.copytree(version, tmp_path / "4")
    (spoilt / "assets" / "words.txt").write_text("at\nch\n")
    message = (
        "`folder` should verify. Received: .*4, where assets/words.txt was changed"
    )
    with pytest.raises(ValueError, match=message):
        upload(spoilt, base)
    assert not gfile.exists(base)
    with pytest.raises(ValueError, match="`folder` should be named by a version"):
        upload(version.parent, base)


def test_interrupted_upload_goes_on(version, base, copied):
    number = sum(path.is_file() for path in version.rglob("*"))
    for position in range(1, number):
        copied.clear()
        copied.fail_at, bucket = position, f"{base}/{position}"
        with pytest.raises(KeyboardInterrupt):
            upload(version, bucket, check=False)
        assert not gfile.exists(f"{bucket}/3/saved_model.pb")
        copied.fail_at = None
        assert upload(version, bucket, check=False) == f"{bucket}/3"
        assert len(copied) == number + 1, "nothing is sent twice"
        assert contents(f"{bucket}/3") == contents(str(version))


def test_upload_interrupted_at_its_first_file_is_swept(version, base, copied):
    copied.fail_at = 0
    with pytest.raises(KeyboardInterrupt):
        upload(version, base, check=False)
    copied.fail_at = None
    with pytest.raises(FileExistsError, match="sweep_upload removes one that is not"):
        upload(version, base, check=False)
    sweep_upload(base, 3)
    assert upload(version, base, check=False) == f"{base}/3"


def test_complete_version_is_not_swept(version, base):
    upload(version, base, check=False)
    with pytest.raises(FileExistsError, match="Received: version=3, complete in"):
        sweep_upload(base, 3)
    assert contents(f"{base}/3") == contents(str(version))
    sweep_upload(base, 4)


def test_part_of_another_upload_is_refused(version, base, copied, tmp_path):
    other = shutil.copytree(version, tmp_path / "other" / "3")
    write_manifest(other, {"number": 4})
    copied.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        upload(other, base, check=False)
    before = contents(base)
    with pytest.raises(FileExistsError, match="sweep_upload"):
        upload(version, base, check=False)
    assert contents(base) == before


def test_what_arrives_changed_cannot_be_loaded(version, base, monkeypatch):
    copy = gfile.copy

    def flipping(source, target, overwrite=False):
        copy(source, target, overwrite=overwrite)
        if target.endswith("words.txt"):
            with gfile.GFile(target, "wb") as file:
                file.write(b"at\ndf\n")

    monkeypatch.setattr(gfile, "copy", flipping)
    message = r"\['assets/words.txt'\], so that saved_model.pb was left out"
    with pytest.raises(UploadError, match=message):
        upload(version, base, check=False)
    assert not gfile.exists(f"{base}/3/saved_model.pb")


def test_strange_file_beside_the_upload_is_noticed(version, base, copied):
    copied.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        upload(version, base, check=False)
    copied.fail_at = None
    with gfile.GFile(f"{base}/3/strange", "wb") as file:
        file.write(b"x")
    with pytest.raises(UploadError, match=r"\['strange'\]"):
        upload(version, base, check=False)
    assert not gfile.exists(f"{base}/3/saved_model.pb")
    assert gfile.exists(f"{base}/3/{MANIFEST}")
