"""Publishing while processes are killed, the disk is full, others publish too.

A reader, a process of its own, polls the base as a model server does and checks every
version at first sight. Publishers are processes too, and killed by SIGKILL.
"""

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfmtl.serving import export, versions
from tfmtl.serving.golden import write_golden
from tfmtl.serving.manifest import check_manifest, read_manifest, write_manifest
from tfmtl.serving.publish import DiskFullError, publish, staging
from tfmtl.serving.verify import verify

PUBLISHERS = 8
REFUSED = 3  # a publisher's exit status where the version exists
SECONDS = 120  # after which a process hangs

# Forked from a process that has imported all this: a publisher starts in milliseconds.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(["pytest", "tfmtl.serving.verify"])


def publish_copy(ready, base, number, version=None, kill=None):
    """A publisher: copies a version made before into its staging and publishes it.

    With `kill` it ends itself, so many calls and returns after a moment: `"staging"`,
    `"publish"`, or `"rename"`.
    """
    moment, steps = kill or (None, 0)
    if moment == "staging":
        kill_oneself(steps)
    try:
        with staging(base) as folder:
            shutil.copytree(ready, folder, dirs_exist_ok=True)
            write_manifest(folder, {"number": number})
            if moment in ("publish", "rename"):
                kill_oneself(steps, os.rename if moment == "rename" else None)
            publish(folder, base, version, timeout=SECONDS)
    except FileExistsError:
        sys.exit(REFUSED)


def kill_oneself(steps, function=None):
    """Ends the process by SIGKILL a number of calls and returns from now.

    Or from the call of a function, which 0 steps forestall.
    """
    left = None if function else steps

    def count(frame, event, argument):
        nonlocal left
        if left is None and argument is function:
            left = steps
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left = left and left - 1

    sys.setprofile(count)


def publish_together(barrier, *arguments):
    """A publisher that starts at the same time as others."""
    barrier.wait(SECONDS)
    publish_copy(*arguments)


def poll(base, connection):
    """The reader; ends after a last look when it is sent something."""
    seen, problems, lost = set(), [], set()
    last = False
    while not last:
        last = connection.poll(0.001)
        found = {child.name for child in base.iterdir() if is_integer(child.name)}
        for name in sorted(found - seen):
            problems += [f"{name}: {line}" for line in check_manifest(base / name)]
        seen |= found
        lost |= seen - found
    connection.send((sorted(map(int, seen)), problems, sorted(lost)))


def is_integer(name):
    """What a model server takes for a version, and more."""
    try:
        int(name)
    except ValueError:
        return False
    return True


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """A complete version but for the manifest."""
    folder = tmp_path_factory.mktemp("ready") / "version"
    table = np.random.default_rng(0).normal(size=(2, 50_000)).astype("float32")
    module = tf.Module()
    module.table = tf.Variable(table)
    spec = tf.TensorSpec((None, 2), tf.float32, name="x")
    function = tf.function(lambda x: {"y": x @ module.table})
    tf.saved_model.save(module, str(folder), function.get_concrete_function(spec))
    rows = np.ones((2, 2), "float32")
    write_golden(folder, {"x": rows}, {"y": rows @ table})
    return folder


@pytest.fixture
def base(ready, tmp_path):
    """A base with one version."""
    with staging(tmp_path / "ranker") as folder:
        shutil.copytree(ready, folder, dirs_exist_ok=True)
        write_manifest(folder, {"number": 0})
        publish(folder, tmp_path / "ranker")
    return tmp_path / "ranker"


@pytest.fixture
def reader(base):
    """The reader of a base with one version."""
    with reading(base) as end:
        yield end


@contextlib.contextmanager
def reading(base):
    """Starts the reader; calling it ends the reader and gives what it saw."""
    here, there = context.Pipe()
    process = context.Process(target=poll, args=(base, there), daemon=True)
    process.start()

    def end():
        here.send("end")
        assert here.poll(SECONDS)
        return here.recv()

    try:
        yield end
    finally:
        process.kill()
        process.join(SECONDS)


def start(*arguments):
    process = context.Process(target=publish_copy, args=arguments)
    process.start()
    return process


def ended(process):
    """A process's exit status; it must not hang."""
    process.join(SECONDS)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join(SECONDS)
    assert status is not None, "a publisher hangs"
    return status


def names(folder):
    return sorted(child.name for child in folder.iterdir())


def assert_whole(base, seen):
    """All versions verify, none is lost, nothing else is there."""
    numbers, problems, lost = seen
    assert problems == []
    assert lost == []
    assert numbers == list(versions(base)) == list(range(1, len(numbers) + 1))
    assert names(base) == sorted(map(str, numbers))
    assert [check_manifest(base / str(number)) for number in numbers] == [[]] * len(
        numbers
    )
    assert verify(base / str(numbers[-1])).problems == ()


@pytest.mark.parametrize("kills", [24, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_at_any_moment(ready, base, reader, kills):
    generator = np.random.default_rng(kills)
    begun = time.monotonic()
    assert ended(start(ready, base, -1)) == 0
    whole = time.monotonic() - begun
    killed = left_behind = 0
    moments = [("staging", 9_000), ("publish", 1_500), ("rename", 60), None]
    for number in range(kills):
        if moment := moments[number % 4]:
            kill = (moment[0], int(generator.integers(moment[1])))
            status = ended(start(ready, base, number, None, kill))
        else:
            process = start(ready, base, number)
            process.join(generator.uniform(0, whole))
            process.kill()
            status = ended(process)
        assert status in (0, -signal.SIGKILL)
        killed += status != 0
        left_behind += any(name.startswith(".staging-") for name in names(base))
    assert killed > kills / 2
    assert left_behind > kills / 4
    assert ended(start(ready, base, kills)) == 0
    assert_whole(base, reader())


def test_publishers_at_once_get_different_numbers(ready, base, reader):
    barrier = context.Barrier(PUBLISHERS)
    processes = [
        context.Process(target=publish_together, args=(barrier, ready, base, number))
        for number in range(1, PUBLISHERS + 1)
    ]
    for process in processes:
        process.start()
    assert [ended(process) for process in processes] == [0] * PUBLISHERS
    assert_whole(base, reader())
    facts = [read_manifest(base / str(v))["facts"] for v in versions(base)]
    assert sorted(fact["number"] for fact in facts) == list(range(PUBLISHERS + 1))
    assert facts[0] == {"number": 0}


def test_of_publishers_at_once_of_one_number_one_succeeds(ready, base, reader):
    for version, expected in ((1, 0), (2, 1)):
        barrier = context.Barrier(PUBLISHERS)
        processes = [
            context.Process(
                target=publish_together, args=(barrier, ready, base, number, version)
            )
            for number in range(1, PUBLISHERS + 1)
        ]
        for process in processes:
            process.start()
        statuses = sorted(ended(process) for process in processes)
        refused = PUBLISHERS - expected
        assert statuses == [0] * expected + [REFUSED] * refused
    assert_whole(base, reader())
    assert read_manifest(base / "1")["facts"] == {"number": 0}


@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_among_others_that_live(ready, base, reader, rounds):
    """Locks of the killed are taken over; staging of the living is left alone."""
    generator = np.random.default_rng(rounds)
    for _ in range(rounds):
        doomed = [
            start(ready, base, 0, None, (moment, int(generator.integers(steps))))
            for moment, steps in (("publish", 1_500), ("rename", 60))
        ]
        living = [start(ready, base, 1) for _ in "12"]
        assert all(ended(process) in (0, -signal.SIGKILL) for process in doomed)
        assert [ended(process) for process in living] == [0, 0]
    with staging(base):
        pass
    numbers, _, _ = seen = reader()
    assert len(numbers) >= 1 + 2 * rounds
    assert_whole(base, seen)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.mark.parametrize("free_kib", [0, 4, 16, 100, 300, 400, 410])
def test_full_disk(ready, small_disk, free_kib):
    base = small_disk / "ranker"
    publish_copy(ready, base, 0)
    before = read_manifest(base / "1")
    with (small_disk / "ballast").open("wb") as file:
        room = shutil.disk_usage(small_disk).free - (free_kib << 10)
        file.write(bytes(room))
    with pytest.raises(DiskFullError, match="No space|should have room"):
        publish_copy(ready, base, 1)
    assert names(base) == ["1"]
    assert read_manifest(base / "1") == before
    assert check_manifest(base / "1") == []
    (small_disk / "ballast").unlink()
    publish_copy(ready, base, 1)
    assert versions(base) == (1, 2)
    assert check_manifest(base / "2") == []


def test_tensorflow_fills_the_disk(small_disk):
    base = small_disk / "ranker"
    module = tf.Module()
    module.table = tf.Variable(tf.zeros((1024, 1024)))
    spec = tf.TensorSpec((None, 1024), tf.float32)
    function = tf.function(lambda x: {"y": x @ module.table})
    function = function.get_concrete_function(spec)
    with pytest.raises(DiskFullError) as raised, staging(base) as folder:
        tf.saved_model.save(module, str(folder), function)
    assert raised.value.filename == str(base)
    assert names(base) == []


@pytest.mark.parametrize(("units", "written"), [(20_000, False), (7_500, True)])
def test_export_fills_the_disk(small_disk, units, written):
    """Weights of 5.2 MB are refused before writing, 1.95 of 2 MB in the middle."""
    x = keras.Input((64,), name="x")
    model = keras.Model({"x": x}, {"y": keras.layers.Dense(units, name="y")(x)})
    base = small_disk / "ranker"
    with pytest.raises(DiskFullError, match=f"{model.count_params() * 4} bytes") as e:
        export(model, base)
    assert (", 0 written" not in str(e.value)) is written
    assert names(base) == []


EXPORTER = """
import sys
import keras
from tfmtl.serving import export

x = keras.Input((64,), name="x")
model = keras.Model({"x": x}, {"y": keras.layers.Dense(20_000, name="y")(x)})
print("ready", flush=True)
export(model, sys.argv[1])
"""


@contextlib.contextmanager
def exporting(base):
    """An exporter whose model is ready; it does not outlive the block."""
    command = [sys.executable, "-c", EXPORTER, str(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_export_is_killed(tmp_path):
    base = tmp_path / "ranker"
    base.mkdir()
    generator = np.random.default_rng(0)
    whole = None
    with reading(base) as end:
        for fraction in (None, *generator.uniform(0, 1, 3), None):
            with exporting(base) as process:
                begun = time.monotonic()
                if fraction is None:
                    assert process.wait(SECONDS) == 0
                    whole = whole or time.monotonic() - begun
                else:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(fraction * whole)
                    process.kill()
                    assert process.wait(SECONDS) in (0, -signal.SIGKILL)
        assert_whole(base, end())
