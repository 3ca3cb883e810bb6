"""Every recipe against a loop written from its equations."""

import keras
import numpy as np
import pytest
import recipe_twins

from tfmtl import models
from tfmtl.features import Numeric
from tfmtl.tasks import Binary, Regression

TASKS = [Binary("a"), Regression("ab"), Regression("shared_x")]


def generator_of(seed):
    return np.random.default_rng(seed)


def sizes(seed):
    """Batch, width of x and number of tasks."""
    generator = generator_of([seed, 0])
    return (int(n) for n in generator.integers([1, 1, 1], [5, 5, 4]))


def some_levels(seed, most=3):
    """Widths per level: numbers, and tuples for experts of several layers."""
    generator = generator_of([seed, 1])
    levels = generator.integers(1, 5, generator.integers(1, most + 1)).tolist()
    levels[0] = (levels[0], 3) if seed % 2 else levels[0]
    return levels


def some_counts(seed, tasks):
    """Own experts of each task, shared ones; each task has one to read."""
    generator = generator_of([seed, 2])
    own = generator.integers(0, 4, tasks)
    shared = int(generator.integers(0, 3))
    return np.maximum(own, shared == 0).tolist(), shared


def filled(model, seed):
    """Random weights; gates open, closed and between."""
    generator = generator_of([seed, 3])
    for weight in model.trainable_weights:
        values = generator.normal(scale=0.6, size=weight.shape)
        if weight.name == "theta":
            values = generator.choice([-4.0, -1.0, 0.5, 4.0], weight.shape) / 30
        weight.assign(values)
    return model


def compare(recipe, seed, batch, width, tasks, arguments, *counts, tolerance=1e-6):
    """A recipe's outputs with those of its twin.

    Args:
        recipe: Name of the recipe and of its twin.
        seed: Seed of weights and rows.
        batch: Number of rows.
        width: Width of x.
        tasks: Number of tasks.
        arguments: The recipe's arguments.
        *counts: The twin's further arguments.
        tolerance: Largest difference, also in relation to the twin's answer.
    """
    x = Numeric("x", width=width, mean=(0.0,) * width, std=(1.0,) * width)
    build = getattr(models, recipe)
    model = build([x], TASKS[:tasks], tower={"units": (3,)}, **arguments)
    filled(model, seed)
    rows = generator_of([seed, 4]).normal(size=(batch, width)).astype("f4")
    names = [task.name for task in TASKS[:tasks]]
    expected = getattr(recipe_twins, recipe)(model, rows, names, *counts)
    expected["a"] = 1 / (1 + np.exp(-expected["a"]))
    got = model({"x": rows}, training=False)
    assert list(got) == list(expected)
    for name in names:
        np.testing.assert_allclose(
            got[name], expected[name], rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("seed", range(3))
def test_single_task(seed):
    bottom = some_levels(seed)[0]
    compare("single_task", seed, *sizes(seed), {"bottom": bottom})


@pytest.mark.parametrize("seed", range(3))
def test_shared_bottom(seed):
    bottom = some_levels(seed)[0]
    compare("shared_bottom", seed, *sizes(seed), {"bottom": bottom})


@pytest.mark.parametrize("recipe", ["omoe", "mmoe"])
@pytest.mark.parametrize("seed", range(4))
def test_mixtures_of_experts(recipe, seed):
    levels, experts = some_levels(seed), int(generator_of(seed).integers(2, 5))
    arguments = {"experts": experts, "levels": levels}
    compare(recipe, seed, *sizes(seed), arguments, experts, len(levels))


@pytest.mark.parametrize("recipe", ["omoe", "mmoe"])
@pytest.mark.parametrize("tasks", [1, 3])
def test_one_expert_for_one_row(recipe, tasks):
    arguments = {"experts": 1, "levels": [2, 3]}
    compare(recipe, 0, 1, 2, tasks, arguments, 1, 2)


@pytest.mark.parametrize("kind", ["transformation", "average"])
@pytest.mark.parametrize("seed", range(4))
def test_snr(kind, seed):
    generator = generator_of(seed)
    experts = generator.integers(1, 5, generator.integers(1, 4)).tolist()
    widths = generator.integers(1, 5, len(experts)).tolist()
    if kind == "average":
        widths = widths[:1] * len(experts)
    levels = list(zip(experts, widths, strict=True))
    arguments = {"kind": kind, "levels": levels}
    compare("snr", seed, *sizes(seed), arguments, experts, kind)


@pytest.mark.parametrize("kind", ["transformation", "average"])
def test_one_sub_network_for_one_row(kind):
    arguments = {"kind": kind, "levels": [(1, 2), (1, 2)]}
    compare("snr", 0, 1, 3, 1, arguments, [1, 1], kind)


@pytest.mark.parametrize("recipe", ["ple", "adatt"])
@pytest.mark.parametrize("seed", range(6))
def test_own_and_shared_experts(recipe, seed):
    batch, width, tasks = sizes(seed)
    own, shared = some_counts(seed, tasks)
    by_name = {task.name: n for task, n in zip(TASKS, own, strict=False)}
    levels = some_levels(seed)
    arguments = {"specific": by_name, "shared": shared, "levels": levels}
    counts = own, shared, len(levels)
    compare(recipe, seed, batch, width, tasks, arguments, *counts)


@pytest.mark.parametrize("recipe", ["ple", "adatt"])
@pytest.mark.parametrize(
    "own, shared",
    [
        ([1], 0),
        ([1], 1),
        ([0], 1),
        ([2, 1, 3], 0),
        ([1, 1, 1], 0),
        ([1, 1, 1], 1),
        ([0, 2, 1], 2),
        ([0, 0], 2),
    ],
)
def test_edges_of_own_and_shared_experts(recipe, own, shared):
    by_name = {task.name: n for task, n in zip(TASKS, own, strict=False)}
    arguments = {"specific": by_name, "shared": shared, "levels": [3, 2]}
    compare(recipe, 7, 1, 3, len(own), arguments, own, shared, 2)


@pytest.mark.parametrize("seed", range(3))
def test_cgc(seed):
    batch, width, tasks = sizes(seed)
    own, shared = some_counts(seed, tasks)
    by_name = {task.name: n for task, n in zip(TASKS, own, strict=False)}
    arguments = {"specific": by_name, "shared": shared, "units": some_levels(seed)[0]}
    compare("cgc", seed, batch, width, tasks, arguments, own, shared)


@pytest.mark.parametrize("seed", range(4))
def test_cross_stitch(seed):
    levels = some_levels(seed)
    compare("cross_stitch", seed, *sizes(seed), {"levels": levels}, len(levels))


@pytest.mark.parametrize(
    "recipe, arguments, counts",
    [
        ("single_task", {"bottom": (4, 3)}, ()),
        ("shared_bottom", {"bottom": (4, 3)}, ()),
        ("omoe", {"experts": 3, "levels": [4, 2]}, (3, 2)),
        ("mmoe", {"experts": 3, "levels": [4, 2]}, (3, 2)),
        ("ple", {"specific": 2, "shared": 1, "levels": [4, 2]}, ([2, 2, 2], 1, 2)),
        ("cgc", {"specific": 1, "shared": 2, "units": 4}, ([1, 1, 1], 2)),
        ("adatt", {"specific": 2, "shared": 1, "levels": [4, 2]}, ([2, 2, 2], 1, 2)),
        ("cross_stitch", {"levels": [4, 2]}, (2,)),
    ],
)
def test_in_float64(recipe, arguments, counts):
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        compare(recipe, 1, 4, 3, 3, arguments, *counts, tolerance=1e-9)
    finally:
        keras.config.set_dtype_policy(policy)


@pytest.mark.parametrize(
    "recipe, arguments, read, layer",
    [
        ("mmoe", {"levels": [3, 3]}, "level_2_mixture", "level_2"),
        ("snr", {}, "level_2", "level_2_expert"),
    ],
)
def test_unlike_layers_of_an_upper_level(recipe, arguments, read, layer):
    """Expert k reads slot k of what the level below passes on."""
    experts = [keras.layers.Dense(3, "relu"), keras.layers.Dense(3)]
    if recipe == "mmoe":
        arguments = {**arguments, "experts": experts}
    else:
        arguments = {"levels": [(2, 4), (experts, 3)]}
    x = Numeric("x", width=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = filled(getattr(models, recipe)([x], TASKS, **arguments), 5)
    outputs = [model.get_layer(f"{layer}_{k}").output for k in (1, 2)]
    parts = keras.Model(model.input, [model.get_layer(read).output, *outputs])
    rows = generator_of(6).normal(size=(4, 3)).astype("f4")
    slots, *got = map(keras.ops.convert_to_numpy, parts({"x": rows}))
    for k, found in enumerate(got):
        kernel, bias = model.get_layer(f"{layer}_{k + 1}").get_weights()
        expected = slots[:, k] @ kernel + bias
        expected = expected if k else np.maximum(expected, 0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
