"""Loading of untrusted `.keras` files: refused with a reason, in bounded memory."""

import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

import tfmtl
from tfmtl.features import Bucketized, Categorical, Cross, Numeric, Sequence
from tfmtl.serving import loading
from tfmtl.serving.loading import MOST_FILES, UnsafeModelError, load_model
from tfmtl.tasks import Binary, Regression

MEBIBYTE = 2**20
LIMIT = 256 * MEBIBYTE
FILES = ("metadata.json", "config.json", "model.weights.h5")
RECIPES = {
    "single_task": {},
    "shared_bottom": {},
    "omoe": {},
    "mmoe": {},
    "cgc": {},
    "ple": {},
    "adatt": {},
    "cross_stitch": {},
    "snr": {"levels": [(4, 8), (3, 8)]},
}


def columns(rows=40):
    rng = np.random.default_rng(0)
    return {
        "age": rng.normal(40, 10, (rows, 1)).astype("f4"),
        "hour": rng.uniform(0, 24, (rows, 1)).astype("f4"),
        "country": rng.choice(np.array(["at", "de", "ch"], object), (rows, 1)),
        "user": rng.integers(-1, 10**12, (rows, 1)),
        "tags": rng.integers(-1, 20, (rows, 4)),
    }


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Every kind of feature, one with a vocabulary that is a file."""
    file = tmp_path_factory.mktemp("vocabularies") / "tags.txt"
    file.write_text("\n".join(map(str, range(20))))
    specs = [
        Numeric("age"),
        Bucketized("hour", buckets=4),
        Categorical("country"),
        Categorical("user", dtype="int64", hash_bins=50),
        Cross("pair", columns=("country", "user"), hash_bins=30),
        Sequence("tags", dtype="int64", vocabulary=str(file), length=4),
    ]
    return tfmtl.features.adapt(specs, columns())


def saved(model, path):
    model.save(path)
    return path


@pytest.fixture
def without_trial(monkeypatch):
    """Loads in this process alone, which saves an import of TensorFlow."""
    monkeypatch.setattr(loading, "trial", lambda *_: None)


@pytest.fixture
def small(tmp_path):
    """A file of one small layer."""
    keras.utils.set_random_seed(0)
    x = keras.Input((3,), name="x")
    y = keras.layers.Dense(2, name="y")(x)
    return saved(keras.Model({"x": x}, {"y": y}), tmp_path / "small.keras")


def remade(path, contents, name="hostile.keras"):
    """A copy of a file with some entries' contents, or generators of them, replaced."""
    target = path.with_name(name)
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for entry in (*FILES, *(set(contents) - set(FILES))):
            content = contents.get(entry)
            if content is None:
                content = [old.read(entry)]
            with new.open(entry, "w", force_zip64=True) as file:
                for part in content:
                    file.write(part)
    return target


def with_config(path, change, name="hostile.keras"):
    """A copy of a file whose configuration a function has changed."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    change(config)
    return remade(path, {"config.json": [json.dumps(config).encode()]}, name)


def with_weights(path, write, name="hostile.keras"):
    """A copy of a file with other weights, written by a function of an HDF5 file."""
    beside = path.with_suffix(".h5")
    with h5py.File(beside, "w") as file:
        write(file)
    return remade(path, {"model.weights.h5": [beside.read_bytes()]}, name)


def layer_of(config, name):
    [found] = [e for e in config["config"]["layers"] if e["config"]["name"] == name]
    return found


def same(model, loaded, rows):
    expected = model.predict(rows, verbose=0)
    got = loaded.predict(rows, verbose=0)
    for task, value in expected.items():
        np.testing.assert_array_equal(got[task], value)


@pytest.mark.usefixtures("without_trial")
@pytest.mark.parametrize("recipe", RECIPES)
def test_models_load(recipe, features, tmp_path):
    keras.utils.set_random_seed(0)
    tasks = [Binary("click"), Regression("time")]
    build = getattr(tfmtl.models, recipe)
    if recipe == "single_task":
        tasks = tasks[:1]
    model = build(features, tasks, **RECIPES[recipe])
    model.compile("adam")
    path = saved(model, tmp_path / "model.keras")
    rows = {
        name: column.astype(object if column.dtype == object else column.dtype)
        for name, column in columns(8).items()
    }
    loaded = load_model(path)
    assert not loaded.compiled
    same(model, loaded, rows)
    folded = saved(tfmtl.folding.fold(model), tmp_path / "folded.keras")
    same(model, load_model(folded), rows)


@keras.saving.register_keras_serializable(package="tfmtl_tests_loading")
class Scale(keras.layers.Layer):
    """A layer of one's own."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="normal")

    def call(self, inputs):
        return self.scale * inputs


def test_layers_of_ones_own_and_nested_models_load(tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input((4, 3), name="x")
    inner = keras.Sequential([keras.layers.Dense(3), keras.layers.LayerNormalization()])
    y = keras.layers.Bidirectional(keras.layers.LSTM(2))(Scale()(inner(x)))
    model = keras.Model({"x": x}, {"y": y})
    path = saved(model, tmp_path / "model.keras")
    rows = {"x": np.random.default_rng(0).normal(size=(2, 4, 3)).astype("f4")}
    same(model, load_model(path), rows)


@pytest.mark.usefixtures("without_trial")
def test_limit_is_lifted_afterwards(small):
    load_model(small, max_bytes=LIMIT)
    assert np.ones(LIMIT // 4).sum() == LIMIT // 4  # 8 bytes each


@pytest.mark.parametrize("value", [0, -1, True, 1.5, None])
def test_max_bytes_is_checked(small, value):
    message = f"`max_bytes` should be a positive integer. Received: max_bytes={value!r}"
    with pytest.raises(ValueError, match=message):
        load_model(small, max_bytes=value)


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_timeout_is_checked(small, value):
    message = f"`timeout` should be positive. Received: timeout={value!r}"
    with pytest.raises(ValueError, match=message):
        load_model(small, timeout=value)


@pytest.mark.parametrize(
    "name", ["model.h5", "model.zip", "none.keras", "folder.keras"]
)
def test_other_files_are_refused(small, name):
    path = small.with_name(name)
    if name == "folder.keras":
        path.mkdir()
    elif name != "none.keras":
        path.write_bytes(small.read_bytes())
    with pytest.raises(
        UnsafeModelError, match="`path` should be a .keras file. Received: "
    ):
        load_model(path)


@pytest.mark.parametrize(
    "name",
    [
        "../escaped",
        "assets/../../escaped",
        "/tmp/escaped",
        "assets\\..\\escaped",
        "C:x",
        "model.weights.npz",
        "config.json/",
    ],
)
def test_strange_names_are_refused(small, name):
    with zipfile.ZipFile(small, "a") as archive:
        archive.writestr(name, b"")
    with pytest.raises(
        UnsafeModelError, match="holds Keras' own files and assets only"
    ):
        load_model(small)


@pytest.mark.parametrize("name", FILES)
def test_missing_files_are_refused(small, name):
    path = small.with_name("few.keras")
    with zipfile.ZipFile(small) as old, zipfile.ZipFile(path, "w") as new:
        for entry in set(FILES) - {name}:
            new.writestr(entry, old.read(entry))
    with pytest.raises(UnsafeModelError, match="should be a model that holds "):
        load_model(path)


def test_files_that_are_there_twice_are_refused(small):
    with zipfile.ZipFile(small, "a") as archive:
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("config.json", b"{}")
    with pytest.raises(
        UnsafeModelError, match="holds each file once. Received: .*config"
    ):
        load_model(small)


def test_too_many_files_are_refused(small):
    with zipfile.ZipFile(small, "a") as archive:
        for number in range(MOST_FILES):
            archive.writestr(f"assets/{number}", b"")
    with pytest.raises(
        UnsafeModelError, match="at most 10,000 files. Received: 10,003"
    ):
        load_model(small)


def test_broken_archives_are_refused(small):
    content = bytearray(small.read_bytes())
    start = content.index(b"model.weights.h5") + len("model.weights.h5")
    content[start + 100 : start + 200] = bytes(100)
    small.write_bytes(content)
    with pytest.raises(UnsafeModelError, match="is whole. Received: Bad CRC"):
        load_model(small)


@pytest.mark.usefixtures("without_trial")
def test_lambdas_are_refused_even_where_unsafe_loading_is_on(small):
    def add_lambda(config):
        layer_of(config, "y")["config"]["activation"] = {
            "class_name": "__lambda__",
            "config": {"value": ["4wAAAAA=", None, None]},
        }

    def load(path):
        keras.config.enable_unsafe_deserialization()  # in this thread
        return load_model(path)

    path = with_config(small, add_lambda)
    with ThreadPoolExecutor(1) as thread:
        with pytest.raises(UnsafeModelError, match="lambda.*arbitrary code execution"):
            thread.submit(load, path).result()


@pytest.mark.usefixtures("without_trial")
def test_lambda_layers_are_refused(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model({"x": x}, {"y": keras.layers.Lambda(lambda x: x + 1)(x)})
    path = saved(model, tmp_path / "model.keras")
    with pytest.raises(UnsafeModelError, match="Keras loads in safe mode.*Lambda"):
        load_model(path)


@pytest.mark.usefixtures("without_trial")
def test_unknown_layers_are_refused(small):
    def rename(config):
        other = {"module": None, "class_name": "Other", "registered_name": "a>Other"}
        layer_of(config, "y").update(other)

    with pytest.raises(UnsafeModelError, match="Could not locate class 'Other'"):
        load_model(with_config(small, rename))


@pytest.mark.usefixtures("without_trial")
def test_nesting_is_refused(small):
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    path = remade(small, {"config.json": [deep]})
    with pytest.raises(
        UnsafeModelError, match="Keras loads in safe mode .*Received: maximum rec"
    ):
        load_model(path)


def external_link(file):
    file["layers/y/vars/0"] = h5py.ExternalLink("/etc/passwd", "/")


def soft_link(file):
    file["layers/y/vars/0"] = h5py.SoftLink("/elsewhere")


def loop(file):
    file.create_group("layers")["again"] = file["/"]


def external_data(file):
    file.create_dataset("layers/y/vars/0", (9,), "u1", external=[("/etc/passwd", 0, 9)])


def virtual_data(file):
    layout = h5py.VirtualLayout((9,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "data", (9,))
    file.create_virtual_dataset("layers/y/vars/0", layout)


def objects(file):
    file.create_dataset("layers/y/vars/0", data=["a"], dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (external_link, "no links in model.weights.h5. Received: a ExternalLink"),
        (soft_link, "no links in model.weights.h5. Received: a SoftLink"),
        (loop, "each group of model.weights.h5 in one place. Received: '/"),
        (external_data, "numbers in model.weights.h5 that are stored there"),
        (virtual_data, "numbers in model.weights.h5 that are stored there"),
        (objects, "numbers in model.weights.h5 that are stored there"),
    ],
)
def test_weights_that_point_elsewhere_are_refused(small, write, message):
    with pytest.raises(UnsafeModelError, match=f"should be a model that has {message}"):
        load_model(with_weights(small, write))


def test_what_is_no_hdf5_is_refused(small):
    path = remade(small, {"model.weights.h5": [b"something else"]})
    with pytest.raises(
        UnsafeModelError, match="has a readable model.weights.h5. Received:"
    ):
        load_model(path)


def blanks(count):
    """So many MiB of JSON's blanks."""
    return (b" " * MEBIBYTE for _ in range(count))


def declared(file):
    file.create_dataset("layers/y/vars/0", (3, 2), "f4")
    file.create_dataset("layers/y/vars/1", (1, 10**12), "f4", chunks=True)


def other_layer(made, built_on=3, **arguments):
    """A change of a configuration: another layer, with other arguments."""

    def change(config):
        old, new = layer_of(config, "y"), keras.saving.serialize_keras_object(made)
        for key in ("module", "class_name", "registered_name"):
            old[key] = new[key]
        old["config"] = {**new["config"], "name": "y", **arguments}
        old["build_config"] = {"input_shape": [None, built_on]}

    return change


OF_MEMORY = "in 268,435,456 bytes of memory. Received: one that needs more"
MANY = b'{"a":[' + b"{}," * (5 * MEBIBYTE) + b"0]}"


def declared_bombs(small):
    """Hostile files and what is said of them."""
    yield remade(small, {"config.json": blanks(800)}, "1.keras"), "of config.json"
    yield remade(small, {"assets/a": blanks(300)}, "2.keras"), "of files"
    yield with_weights(small, declared, "3.keras"), "of weights"
    yield remade(small, {"config.json": [MANY]}, "4.keras"), OF_MEMORY
    gate = tfmtl.layers.SoftmaxGate(2, 2)
    many = {"num_outputs": 10**5, "num_experts": 10**5}
    yield with_config(small, other_layer(gate, **many), "5.keras"), OF_MEMORY
    experts = tfmtl.layers.Experts(2, 2)
    many = {"num_experts": 10**7, "units": [10**4]}
    yield with_config(small, other_layer(experts, **many), "6.keras"), OF_MEMORY


def bombs_of_weights(small):
    """More of them: each makes TensorFlow wait ten seconds for memory."""
    dense, table = keras.layers.Dense(2), keras.layers.Embedding(3, 2)
    for number, change in enumerate(
        [
            other_layer(dense, units=10**9),
            other_layer(dense, units=10**12),
            other_layer(dense, built_on=10**11),
            other_layer(table, input_dim=10**11),
        ]
    ):
        yield with_config(small, change, f"{number}.keras"), OF_MEMORY


CHILD = """
import json, resource, sys
import tfmtl
from tfmtl.serving import loading
from tfmtl.serving.loading import load_model

loading.trial = lambda *_: None  # what bounds the memory of this process alone

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

small, limit, *paths = sys.argv[1:]
load_model(small)
report = {}
for path in paths:
    before = peak()
    try:
        load_model(path, max_bytes=int(limit))
        reason = "loaded"
    except ValueError as error:
        reason = str(error)
    report[path] = [peak() - before, reason]
load_model(small, max_bytes=int(limit))
print("REPORT" + json.dumps(report))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux'")
@pytest.mark.parametrize(
    "bombs",
    [declared_bombs, pytest.param(bombs_of_weights, marks=pytest.mark.slow)],
)
def test_bombs_are_refused_in_bounded_memory(small, bombs):
    reasons = {str(path): reason for path, reason in bombs(small)}
    assert all(Path(path).stat().st_size < 20 * MEBIBYTE for path in reasons)
    process = subprocess.run(
        [sys.executable, "-c", CHILD, str(small), str(LIMIT), *reasons],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    report = json.loads(process.stdout.split("REPORT")[1])
    for path, reason in reasons.items():
        grown, received = report[path]
        assert reason in received and path in received, (path, received)
        assert grown < LIMIT + 64 * MEBIBYTE, path


@keras.saving.register_keras_serializable(package="tfmtl_tests_loading")
class Crash(keras.layers.Layer):
    """A layer that ends the process, as TensorFlow does for want of memory."""

    def build(self, input_shape):
        os.kill(os.getpid(), signal.SIGSEGV)


def test_what_crashes_ends_another_process(small):
    path = with_config(small, other_layer(Crash()))
    with pytest.raises(
        UnsafeModelError, match="Received: one that ends the process by SIGSEGV, path="
    ):
        load_model(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux'")
def test_allocations_that_tensorflow_does_not_check_end_another_process(small):
    identity = keras.layers.Dense(
        9000, kernel_initializer=keras.initializers.Identity()
    )
    path = with_config(small, other_layer(identity, built_on=9000))
    with pytest.raises(
        UnsafeModelError, match="one that (ends the process|needs more)"
    ):
        load_model(path, max_bytes=403 * 10**6)


def test_time_is_bounded(small):
    with pytest.raises(
        UnsafeModelError, match="Received: one that takes more than 0.1 s"
    ):
        load_model(small, timeout=0.1)


@pytest.mark.usefixtures("without_trial")
def test_loading_several_at_once_leaves_no_limit(tmp_path):
    x = keras.Input((2,), name="x")
    model = keras.Model({"x": x}, {"y": keras.layers.Dense(1)(x)})
    model.save(tmp_path / "model.keras")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(load_model, [tmp_path / "model.keras"] * 5))
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
