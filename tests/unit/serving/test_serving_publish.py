"""Version folders: numbering, staging, locks, publishing by rename."""

import errno
import os
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf

from tfmtl.serving import versions
from tfmtl.serving.publish import (
    DiskFullError,
    choose_version,
    folder_of,
    locked,
    publish,
    replace_file,
    staging,
    temporary_files,
)

# Another process that holds a lock file until its standard input ends.
HOLDER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
os.write(descriptor, b"process %d on elsewhere" % os.getpid())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Starts processes that hold a lock file each."""
    holders = []

    def start(file):
        holder = subprocess.Popen(
            [sys.executable, "-I", "-c", HOLDER, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        holders.append(holder)
        assert holder.stdout.readline() == b"held\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate(timeout=30)


def names(folder):
    return sorted(child.name for child in folder.iterdir())


def test_only_whole_integers_are_versions(tmp_path):
    for name in ("1", "003", "4.5", "12a", "-6", "+7", "v8", "9_0", ".staging-1", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "5").write_text("a file counts too")
    assert versions(tmp_path) == (1, 3, 5)
    assert choose_version(tmp_path, None) == 6


def test_first_version(tmp_path):
    assert versions(tmp_path / "none") == ()
    assert choose_version(tmp_path / "none", None) == 1


@pytest.mark.parametrize(
    "version", [-1, 2**63, 1.0, "1", True, np.True_, np.int64(-1), np.float64(1)]
)
def test_wrong_versions_are_refused(tmp_path, version):
    message = r"`version` should be an integer from 0.*Received: version="
    with pytest.raises(ValueError, match=message):
        choose_version(tmp_path, version)


@pytest.mark.parametrize("version", [np.int64(3), np.uint8(3), 3])
def test_versions_may_be_integers_of_any_kind(tmp_path, version):
    chosen = choose_version(tmp_path, version)
    assert chosen == 3 and type(chosen) is int


def test_same_number_in_other_digits_is_refused(tmp_path):
    (tmp_path / "007").mkdir()
    with pytest.raises(FileExistsError, match=r"none of \[7\].*Received: version=7"):
        choose_version(tmp_path, 7)


def test_staged_folder_is_no_version_and_is_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt), staging(tmp_path) as folder:
        (folder / "half").write_text("written")
        assert folder.stat().st_dev == tmp_path.stat().st_dev
        assert versions(tmp_path) == ()
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_publish(tmp_path):
    with staging(tmp_path) as folder:
        (folder / "variables").mkdir()
        (folder / "variables" / "data").write_text("x")
        path = publish(folder, tmp_path, 2)
    assert path == tmp_path / "2"
    assert (path / "variables" / "data").read_text() == "x"
    assert names(tmp_path) == ["2"]
    assert names(path) == ["variables"]


def test_version_is_chosen_when_it_is_published(tmp_path):
    with staging(tmp_path) as first, staging(tmp_path) as second:
        paths = [publish(folder, tmp_path) for folder in (second, first)]
    assert paths == [tmp_path / "1", tmp_path / "2"]


def test_everything_is_on_disk_before_the_name_is(tmp_path, monkeypatch):
    steps = []
    fsync, rename = os.fsync, os.rename

    def traced_sync(descriptor):
        steps.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    def traced_rename(source, target):
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", traced_sync)
    monkeypatch.setattr(os, "rename", traced_rename)
    with staging(tmp_path) as folder:
        (folder / "variables").mkdir()
        (folder / "variables" / "data").write_text("x")
        staged = {str(folder), *(str(path) for path in folder.rglob("*"))}
        publish(folder, tmp_path)
    assert set(steps[:3]) == staged
    assert steps[3:] == ["rename", str(tmp_path)]


@pytest.mark.parametrize("content", [[], ["live"]])
def test_existing_version_is_refused(tmp_path, content):
    (tmp_path / "2").mkdir()
    for name in content:
        (tmp_path / "2" / name).write_text("x")
    with (
        pytest.raises(FileExistsError, match="Received: version=2"),
        staging(tmp_path) as folder,
    ):
        (folder / "data").write_text("y")
        publish(folder, tmp_path, 2)
    assert names(tmp_path) == ["2"]
    assert names(tmp_path / "2") == content


def test_folder_that_appears_at_the_last_moment_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "live").write_text("x")
    monkeypatch.setattr("tfmtl.serving.publish.choose_version", lambda *_: 2)
    with staging(tmp_path) as folder:
        (folder / "data").write_text("y")
        with pytest.raises(FileExistsError, match="Received: version=2"):
            publish(folder, tmp_path, 2)
    assert names(tmp_path / "2") == ["live"]


def test_lock_of_a_living_process_is_respected(tmp_path, hold):
    holder = hold(tmp_path / ".lock")
    message = rf"become free within 0.05 s.*held by process {holder.pid} on elsewhere"
    with (
        pytest.raises(TimeoutError, match=message),
        locked(tmp_path, timeout=0.05),
    ):
        pass
    assert names(tmp_path) == [".lock"]


def test_publishing_waits_for_the_lock_and_leaves_nothing(tmp_path, hold):
    with (
        pytest.raises(TimeoutError, match="held by process"),
        staging(tmp_path) as folder,
    ):
        holder = hold(tmp_path / ".lock")
        publish(folder, tmp_path, timeout=0.05)
    holder.communicate(timeout=30)
    assert names(tmp_path) == [".lock"]


def test_lock_of_a_dead_process_is_taken_over(tmp_path, hold):
    holder = hold(tmp_path / ".lock")
    holder.kill()
    holder.wait(timeout=30)
    assert "elsewhere" in (tmp_path / ".lock").read_text()
    with locked(tmp_path, timeout=0.0):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on")
    assert names(tmp_path) == []


def test_lock_file_removed_by_its_last_holder_is_no_lock(tmp_path, monkeypatch):
    """A process that opened the file before its holder removed it starts again."""
    opened, real = [], os.open

    def removed_once_opened(path, *arguments):
        descriptor = real(path, *arguments)
        if not opened:
            os.unlink(path)
        opened.append(path)
        return descriptor

    monkeypatch.setattr(os, "open", removed_once_opened)
    with locked(tmp_path, timeout=1.0):
        assert (tmp_path / ".lock").exists()
    assert len(opened) == 2


def test_staging_of_the_dead_is_swept_and_of_the_living_is_not(tmp_path, hold):
    for name in ("dead", "living", "without-owner"):
        (tmp_path / f".staging-{name}" / "version").mkdir(parents=True)
        (tmp_path / f".staging-{name}" / "version" / "half").write_text("x")
    holders = [
        hold(tmp_path / f".staging-{name}" / "owner") for name in ("dead", "living")
    ]
    holders[0].kill()
    holders[0].wait(timeout=30)
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "live").write_text("x")
    with staging(tmp_path) as folder:
        own = folder.parent.name
        assert names(tmp_path) == sorted([".staging-living", own, "1"])
        with staging(tmp_path):  # one's own is alive too
            assert folder.is_dir()
    assert names(tmp_path) == [".staging-living", "1"]
    assert (tmp_path / ".staging-living" / "version" / "half").read_text() == "x"
    assert names(tmp_path / "1") == ["live"]


def test_full_disk_has_its_own_error(tmp_path):
    (tmp_path / "1").mkdir()
    with (
        pytest.raises(
            DiskFullError, match=r"unknown number of bytes needed, 3 written"
        ),
        staging(tmp_path) as folder,
        open("/dev/full", "w") as full,
    ):
        (folder / "data").write_text("abc")
        full.write("x")
        full.flush()
    assert names(tmp_path) == ["1"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_tensorflow_on_a_full_disk(tmp_path, code):
    message = f"/models/saved_model.pb; {os.strerror(code)}"
    with pytest.raises(DiskFullError) as raised, staging(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, message)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(tmp_path)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_temporary_folder_is_not_blamed_on_the_versions(
    tmp_path, monkeypatch, code
):
    elsewhere = tmp_path / "tmp"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    message = "which TMPDIR names, should have room. Received: [0-9]+ free"
    with pytest.raises(DiskFullError, match=message) as raised:
        with staging(tmp_path / "base"), temporary_files():
            raise OSError(code, os.strerror(code))
    assert raised.value.filename == str(elsewhere)


def test_other_want_of_resources_is_no_full_disk(tmp_path):
    with pytest.raises(tf.errors.ResourceExhaustedError), staging(tmp_path):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")


def test_too_little_room_is_said_before_writing(tmp_path):
    with (
        pytest.raises(
            DiskFullError, match=f"Received: {2**62} bytes needed, 0 written"
        ),
        staging(tmp_path, needed=2**62),
    ):
        pytest.fail("there is no such disk")
    assert names(tmp_path) == []


def test_replaced_file(tmp_path):
    file = tmp_path / "models.config"
    replace_file(file, b"old")
    file.chmod(0o640)
    replace_file(file, b"new")
    assert file.read_bytes() == b"new"
    assert file.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["models.config"]


def test_file_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    file = tmp_path / "models.config"
    file.write_bytes(b"old")

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["models.config"]


def test_names_beyond_the_largest_version_are_none(tmp_path):
    for name in (str(2**63), "20261126093000123456"):
        (tmp_path / name).mkdir()
    assert versions(tmp_path) == ()
    (tmp_path / str(2**63 - 1)).mkdir()
    with pytest.raises(ValueError, match="from 0 to 2..63 - 1. Received: version=9223"):
        choose_version(tmp_path, None)


def test_a_file_is_no_base(tmp_path):
    (tmp_path / "base").write_text("x")
    message = "`base` should be a folder. Received: base="
    with pytest.raises(NotADirectoryError, match=message), staging(tmp_path / "base"):
        pass


def test_a_lock_left_by_another_user_is_taken(tmp_path, monkeypatch):
    (tmp_path / ".lock").write_text("process 1 of another")
    opened = os.open

    def refuse(path, flags, *mode):
        if flags & os.O_RDWR and str(path).endswith(".lock"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    with locked(tmp_path, timeout=0.0):
        pass


def test_a_link_is_kept(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"


def test_folder_of_a_version(tmp_path):
    for name in ("1", "007", "12a", ".staging-7"):
        (tmp_path / name).mkdir()
    assert folder_of(tmp_path, 1) == tmp_path / "1"
    assert folder_of(tmp_path, 7) == tmp_path / "007"
