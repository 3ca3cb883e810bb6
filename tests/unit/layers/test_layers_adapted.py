"""A tower after `enable_lora` or `quantize` of its layers, by itself."""

import keras
import numpy as np
import pytest

from tfmtl.layers import Tower
from tfmtl.layers.adapted import adapt, adapted, is_plain

X = np.random.default_rng(0).normal(size=(5, 3)).astype("f4")


def tower(**kwargs):
    keras.utils.set_random_seed(0)
    made = Tower((4,), **kwargs)
    made.build((None, 3))
    return made


def with_lora(**kwargs):
    made = tower(**kwargs)
    made.head.enable_lora(2, lora_alpha=3)
    made.head.lora_kernel_b.assign(np.ones((2, 1)))
    return made


def quantized(mode, **kwargs):
    made = tower(**kwargs)
    made.hidden[0].quantize(mode)
    return made


def rebuilt(layer):
    copy = Tower.from_config(layer.get_config())
    copy.build((None, 3))
    copy.set_weights(layer.get_weights())
    return copy


def answer(layer):
    return keras.ops.convert_to_numpy(layer(X, training=False))


def test_a_plain_tower_says_nothing():
    assert "adapted" not in tower().get_config()
    assert all(is_plain(layer) for layer in (tower().head, tower().hidden[0]))


def test_lora_is_in_the_configuration():
    layer = with_lora()
    given = layer.get_config()["adapted"]
    assert given == {"head": {"lora_rank": 2, "lora_alpha": 3}}
    copy = rebuilt(layer)
    assert (copy.head.lora_rank, copy.head.lora_alpha) == (2, 3)
    np.testing.assert_array_equal(answer(copy), answer(layer))


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantization_is_in_the_configuration(mode):
    layer = quantized(mode)
    assert list(layer.get_config()["adapted"]) == ["hidden_1"]
    copy = rebuilt(layer)
    assert copy.hidden[0].quantization_mode == mode
    assert copy.head.quantization_mode is None
    np.testing.assert_allclose(answer(copy), answer(layer), atol=1e-6)


def test_lora_is_merged_where_a_tower_is_served():
    layer = with_lora(dropout=0.5, normalization="batch")
    served = layer.served()
    assert "adapted" not in served.get_config()
    assert len(served.weights) == 4
    np.testing.assert_allclose(answer(served), answer(layer), atol=1e-6)


def test_a_quantized_tower_stays_whole():
    layer = quantized("int8", dropout=0.5)
    assert layer.served() is layer
    assert layer.behind(np.eye(3), np.zeros(3)) is None
    assert layer.opening() is None


def test_a_layer_that_nothing_is_said_of_stays_plain():
    layer = keras.layers.Dense(2, name="head")
    adapt([layer], {"another": {"lora_rank": 2}})
    assert layer.lora_rank is None
    layer.build((None, 3))
    assert adapted([layer]) == {}
