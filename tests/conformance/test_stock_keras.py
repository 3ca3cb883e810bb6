"""Layers and recipes beside what stock Keras offers for every model."""

import contextlib
import json
import re
import shutil
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from registry import REGISTRY, Gated, set_weights
from stock_recipes import (
    RECIPES,
    TASKS,
    answers,
    columns,
    labels,
    largest_difference,
    recipe,
)

from tfmtl import layers
from tfmtl.folding import fold
from tfmtl.layers.adapted import adapted
from tfmtl.serving import export

OF_SEVERAL = (
    layers.JointProbability,
    layers.Mixture,
    layers.ScoreFusion,
    layers.SequencePooling,
    layers.TargetAttention,
)
OF_ONE = [
    entry
    for entry in REGISTRY
    if entry.cls not in OF_SEVERAL and not entry.arguments.get("apart")
]
each_layer = pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.id)
each_recipe = pytest.mark.parametrize("name", RECIPES)


class Subclassed(keras.Model):
    """A model of one layer, built when it is called."""

    def __init__(self, entry, **kwargs):
        super().__init__(**kwargs)
        self.entry = entry
        self.tested = entry.layer(name="tested")

    def call(self, inputs, training=None):
        return self.entry.call(self.tested, inputs)


def numbers(output):
    return keras.ops.convert_to_numpy(output)


def size_of(y, output):
    """A loss of any output, also of integers."""
    return keras.ops.mean(keras.ops.square(keras.ops.cast(output, "float32")))


def check_a_step(model, rows):
    """One step of `fit`: all weights stay finite, and move where there are any."""
    model.compile(keras.optimizers.SGD(0.1), loss=size_of)
    expected = contextlib.nullcontext()
    if not model.trainable_weights:
        expected = pytest.warns(UserWarning, match="any trainable weights")
    before = model.get_weights()
    with expected:
        history = model.fit(rows, np.zeros((len(rows), 1)), batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    moved = any(map(np.any, map(np.not_equal, before, model.get_weights())))
    assert moved == bool(model.trainable_weights)


@each_layer
def test_a_layer_in_a_functional_model(entry):
    x = keras.Input(entry.input_shape, dtype=entry.input_dtype)
    model = set_weights(keras.Model(x, entry.called(x, name="tested")))
    rows = entry.rows(8)
    expected = numbers(entry.model()({"x": rows})["y"])
    np.testing.assert_array_equal(numbers(model(rows)), expected)
    check_a_step(model, rows)


@pytest.mark.parametrize("entry", OF_ONE, ids=lambda entry: entry.id)
def test_a_layer_in_a_sequential_model(entry):
    model = keras.Sequential([entry.layer(name="tested")])
    rows = entry.rows(8)
    model.build((None, *entry.input_shape))
    model.set_weights(entry.model().get_weights())
    expected = numbers(entry.model()({"x": rows})["y"])
    np.testing.assert_array_equal(numbers(model(rows)), expected)
    check_a_step(model, rows)


@each_layer
def test_a_layer_in_a_subclassed_model(entry):
    model, rows = Subclassed(entry), entry.rows(8)
    model(rows)  # builds it
    model.set_weights(entry.model().get_weights())
    expected = numbers(entry.model()({"x": rows})["y"])
    np.testing.assert_array_equal(numbers(model(rows)), expected)
    check_a_step(model, rows)


@each_layer
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_step_in_mixed_precision(entry, policy):
    x = keras.Input(entry.input_shape, dtype=entry.input_dtype)
    layer = entry.called(x, name="tested", dtype=policy)
    check_a_step(set_weights(keras.Model(x, layer)), entry.rows(8))


@each_recipe
def test_several_batches_of_which_the_last_is_short(name):
    model = recipe(name)
    rows, y = columns(model, 11), labels(model, 11)
    expected = answers(model, rows)
    got = model.predict(rows, batch_size=4, verbose=0)
    assert largest_difference(got, expected) <= 1e-6
    model.compile("adam")
    history = model.fit(rows, y, batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert {task: p.shape for task, p in got.items()} == {
        task: p.shape for task, p in model.predict(rows, 4, verbose=0).items()
    }


@each_layer
def test_copies_of_a_layer(entry):
    model, rows = entry.model(), {"x": entry.rows(5)}
    copies = [
        keras.models.clone_model(model),
        keras.models.model_from_json(model.to_json()),
    ]
    for copy in copies:
        assert [layer.name for layer in copy.layers] == [x.name for x in model.layers]
        copy.set_weights(model.get_weights())
        expected = numbers(model(rows)["y"])
        np.testing.assert_array_equal(numbers(copy(rows)["y"]), expected)


@each_recipe
def test_a_clone_of_a_compiled_recipe_keeps_its_tasks(name):
    model = recipe(name)
    model.compile("adam")
    clone = keras.models.clone_model(model)
    assert (type(clone), clone.tasks) == (type(model), model.tasks)
    assert clone.get_compile_config() == model.get_compile_config()
    clone.set_weights(model.get_weights())
    rows = columns(model)
    assert largest_difference(answers(clone, rows), answers(model, rows)) == 0


@each_recipe
def test_copies_of_a_recipe_by_its_configuration(name):
    model = recipe(name)
    rows = columns(model)
    copies = [
        type(model).from_config(model.get_config()),
        keras.Model.from_config(model.get_config()),
        keras.models.model_from_json(model.to_json()),
    ]
    for copy in copies:
        copy.set_weights(model.get_weights())
        assert largest_difference(answers(copy, rows), answers(model, rows)) == 0
    # keras.Model is Keras' own and knows no tasks
    assert [getattr(copy, "tasks", None) for copy in copies] == [
        model.tasks,
        None,
        model.tasks,
    ]


@each_recipe
def test_summary_has_every_layer(name):
    model, lines = recipe(name), []
    model.get_layer("rating_tower").trainable = False
    model.summary(200, print_fn=lines.append, expand_nested=True, show_trainable=True)
    text = "\n".join(lines)
    for layer in model.layers:
        assert f" {layer.name} (" in text, layer.name

    def total(kind):
        return int(re.search(rf"{kind} params: ([\d,]+)", text)[1].replace(",", ""))

    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert total("Total") == model.count_params()
    assert total(" Trainable") == trained < model.count_params()


@each_recipe
def test_a_picture_has_every_layer(name):
    pytest.importorskip("pydot", reason="pydot is not installed")
    model = recipe(name)
    dot = keras.utils.model_to_dot(model, show_shapes=True, show_layer_names=True)
    text = dot.to_string()
    assert all(layer.name in text for layer in model.layers)
    assert len(dot.get_edges()) >= len(model.layers) - len(model.input)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_plot_model(tmp_path):
    keras.utils.plot_model(recipe("ple"), tmp_path / "model.png", expand_nested=True)
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")


@each_recipe
def test_any_layer_can_be_an_output(name):
    model = recipe(name)
    rows = columns(model)
    outputs = {layer.name: layer.output for layer in model.layers}
    part = keras.Model(model.input, {**outputs, **model.output})
    found = part(keras.tree.map_structure(keras.ops.convert_to_tensor, rows))
    for task, expected in answers(model, rows).items():
        np.testing.assert_allclose(numbers(found[task]), expected, atol=1e-6)
    for layer in model.layers:
        assert model.get_layer(layer.name) is layer


def with_weights(model):
    return {layer.name: layer for layer in model.layers if layer.weights}


@each_recipe
def test_names_are_the_same_in_every_build(name):
    first = recipe(name)
    recipe("ple")  # uses up numbers that Keras gives to layers without a name
    assert list(with_weights(recipe(name))) == list(with_weights(first))


@each_recipe
def test_weights_go_to_another_model_by_name(name):
    source, target = recipe(name), set_weights(recipe(name, TASKS[:2]), seed=5)
    moved = []
    for layer_name, layer in with_weights(target).items():
        given = source.get_layer(layer_name)
        if [w.shape for w in given.weights] == [w.shape for w in layer.weights]:
            layer.set_weights(given.get_weights())
            moved.append(layer_name)
    # but for the layers between, as many tasks or experts are not there
    assert {"shown_tower", "rating_tower", "shown_position_bias"} <= set(moved)
    assert any("embedding_3" in layer_name for layer_name in moved)
    if name in ("shared_bottom", "omoe", "single_task"):  # equal for these tasks
        assert moved == list(with_weights(target))
        rows = columns(target)
        expected = answers(source, columns(source))
        read = {column: columns(source)[column] for column in rows}
        got = answers(target, read)
        expected = {task: expected[task] for task in got}
        assert largest_difference(got, expected) <= 1e-6


@each_recipe
def test_weights_files(name, tmp_path):
    source, target = recipe(name), set_weights(recipe(name), seed=5)
    rows, path = columns(source), tmp_path / "model.weights.h5"
    assert largest_difference(answers(source, rows), answers(target, rows)) > 1e-3
    source.save_weights(path)
    target.load_weights(path)
    assert largest_difference(answers(source, rows), answers(target, rows)) == 0


def test_weights_files_go_by_class_and_order(tmp_path):
    """Keras' paths in a file are `tower`, `tower_1` …, not the layers' names."""
    source, target = recipe("mmoe"), recipe("mmoe", TASKS[:2])
    path = tmp_path / "model.weights.h5"
    source.save_weights(path)
    with pytest.raises(ValueError, match="`by_name` only supports loading legacy"):
        target.load_weights(path, by_name=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says what it skips
        with pytest.raises(ValueError, match="objects could not be loaded"):
            target.load_weights(path)
        target.load_weights(path, skip_mismatch=True)
    towers = [model.get_layer("rating_tower") for model in (source, target)]
    pairs = zip(*(tower.get_weights() for tower in towers), strict=True)
    assert not all(np.array_equal(*pair) for pair in pairs)  # another task's


def test_a_frozen_layer_stays():
    model = recipe("mmoe")
    frozen = model.get_layer("rating_tower")
    frozen.trainable = False
    assert not frozen.trainable_weights
    kept = frozen.get_weights()
    trained = model.get_layer("shown_tower").get_weights()
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(columns(model), labels(model), verbose=0)
    after = model.get_layer("shown_tower").get_weights()
    assert all(map(np.array_equal, kept, frozen.get_weights()))
    assert not all(map(np.array_equal, trained, after))


@each_recipe
def test_export_of_keras(name, tmp_path):
    model = recipe(name)
    rows = columns(model)
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    served = loaded.serve(
        {column: tf.convert_to_tensor(values) for column, values in rows.items()}
    )
    got = {task: values.numpy() for task, values in served.items()}
    assert largest_difference(got, answers(model, rows)) <= 1e-6


def dense_layers(model):
    """The Dense layers inside towers."""
    towers = [x for x in model.layers if isinstance(x, layers.Tower)]
    parts = [part for tower in towers for part in (*tower.hidden, tower.head)]
    return [part for part in parts if isinstance(part, keras.layers.Dense)]


def with_lora(name):
    model = recipe(name)
    generator = np.random.default_rng(4)
    for layer in dense_layers(model):
        layer.enable_lora(2)
        for weight in (layer.lora_kernel_a, layer.lora_kernel_b):
            weight.assign(generator.normal(scale=0.3, size=weight.shape))
    return model


def quantized(name, mode, **kwargs):
    """A quantised model, and the messages of the warnings."""
    model = recipe(name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model.quantize(mode, **kwargs)
    return model, {str(warning.message) for warning in caught}


def check_copies(model, tmp_path):
    """Saved, cloned and folded it gives the same outputs, and is what it was."""
    rows = columns(model)
    expected = answers(model, rows)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    clone = type(model).from_config(model.get_config())
    clone.set_weights(model.get_weights())
    for copy in (loaded, clone):
        assert largest_difference(answers(copy, rows), expected) <= 1e-6
        parts = [dense_layers(x) for x in (copy, model)]
        made = [json.dumps(adapted(x[:2])) for x in parts]
        assert made[0] == made[1] != "{}"
    folded = fold(model)
    read = {column: rows[column] for column in folded.input}
    assert largest_difference(answers(folded, read), expected) <= 1e-5
    return folded


@each_recipe
def test_lora(name, tmp_path):
    model, plain = with_lora(name), recipe(name)
    rows = columns(model)
    assert largest_difference(answers(model, rows), answers(plain, rows)) > 1e-3
    folded = check_copies(model, tmp_path)
    assert not any(layer.lora_enabled for layer in dense_layers(folded))


def test_adapters_train_and_kernels_stay():
    model = with_lora("mmoe")
    parts = [(layer.weights[0], layer.lora_kernel_b) for layer in dense_layers(model)]
    before = [[weight.numpy() for weight in pair] for pair in parts]
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(columns(model), labels(model), verbose=0)
    for (kernel, adapter), (old_kernel, old_adapter) in zip(parts, before, strict=True):
        np.testing.assert_array_equal(kernel.numpy(), old_kernel)
        assert not np.array_equal(adapter.numpy(), old_adapter)


@pytest.mark.parametrize(
    "name, mode, tolerance",
    [*((name, "int8", 0.05) for name in RECIPES), ("ple", "int4", 0.5)],
)
def test_quantized(name, mode, tolerance, tmp_path):
    model, messages = quantized(name, mode)
    rows = columns(model)
    difference = largest_difference(answers(model, rows), answers(recipe(name), rows))
    assert 0 < difference <= tolerance
    folded = check_copies(model, tmp_path)
    for copy in (model, folded):
        assert {layer.quantization_mode for layer in dense_layers(copy)} == {mode}
    kinds = (keras.layers.Dense, keras.layers.Embedding, layers.Tower)
    plain = recipe(name)
    for layer in model.layers:  # Keras leaves all others as they are
        if not isinstance(layer, kinds):
            pairs = zip(
                layer.get_weights(),
                plain.get_layer(layer.name).get_weights(),
                strict=True,
            )
            assert all(np.array_equal(*pair) for pair in pairs), layer.name
    message = "Layer FieldEmbedding does not have a `quantize` method implemented."
    assert message in messages


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_model_is_exported(mode, tmp_path):
    model, _ = quantized("mmoe", mode)
    assert export(model, tmp_path / "model").difference <= 1e-5
    assert export(model, tmp_path / "model", fold=True).difference <= 1e-5


def test_layers_are_left_out_of_quantization(tmp_path):
    model, _ = quantized("ple", "int8", filters=lambda layer: layer.name != "head")
    found = {x.name: x.quantization_mode for x in dense_layers(model)}
    assert found == {"hidden_1": "int8", "head": None}
    check_copies(model, tmp_path)


def test_float8_trains_and_saves_but_does_not_fold(tmp_path):
    model, _ = quantized("mmoe", "float8")
    rows = columns(model)
    model.compile("adam")
    model.fit(rows, labels(model), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert largest_difference(answers(loaded, rows), answers(model, rows)) <= 1e-6
    for refuses in (fold, lambda model: export(model, tmp_path / "exported")):
        with pytest.raises(ValueError) as error:
            refuses(model)
        assert str(error.value).startswith(
            "Layer 'shown_tower' should have the weights that its configuration gives "
            "it, in that order; fold and export before what adds others, such as "
            "`quantize('float8')`. Received: ['kernel', 'bias', 'inputs_scale'"
        )


def test_gptq_is_refused_by_keras():
    config = keras.quantizers.GPTQConfig(dataset=["a"], tokenizer=str)
    with pytest.raises(ValueError, match="a valid quantization structure must be"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            recipe("shared_bottom").quantize(config=config)


@pytest.mark.parametrize("entry", REGISTRY, ids=lambda entry: entry.id)
def test_a_layer_is_not_quantized_by_itself(entry):
    model = entry.model()
    layer = model.get_layer("tested")
    if isinstance(layer, Gated):
        layer = layer.gate
    with pytest.raises(NotImplementedError, match=f"Layer {entry.cls.__name__} does"):
        layer.quantize("int8")
    assert not hasattr(layer, "enable_lora")
