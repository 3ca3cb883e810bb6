"""Layers that inherit from Keras' own and do something else with slots."""

import keras
import numpy as np
import pytest

from tfmtl.folding import fold, structure
from tfmtl.layers import Experts, SubNetworkRouting

registered = keras.saving.register_keras_serializable(package="test")


@registered
class SlotSoftmax(keras.layers.Activation):
    def call(self, inputs):
        return keras.ops.softmax(inputs, axis=1)


@registered
class Centred(keras.layers.Dropout):
    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=1, keepdims=True)


@registered
class CentredDense(keras.layers.Dense):
    def call(self, inputs):
        return super().call(inputs - keras.ops.mean(inputs, axis=1, keepdims=True))


@registered
class ReversedNormalization(keras.layers.LayerNormalization):
    def call(self, inputs):
        return keras.ops.flip(super().call(inputs), axis=1)


@registered
class CrossedAdd(keras.layers.Add):
    def call(self, inputs):
        first, second = inputs
        return first + keras.ops.flip(second, axis=1)


@registered
class ReversedConcatenate(keras.layers.Concatenate):
    def call(self, inputs):
        return keras.ops.flip(super().call(inputs), axis=1)


@registered
class Doubled(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs, training, mask)


LAYERS = {
    "SlotSoftmax": lambda x: SlotSoftmax("linear")(x),
    "Centred": lambda x: Centred(0.5)(x),
    "CentredDense": lambda x: CentredDense(5)(x),
    "ReversedNormalization": lambda x: ReversedNormalization()(x),
    "CrossedAdd": lambda x: CrossedAdd()([x, keras.ops.relu(x)]),
    "ReversedConcatenate": lambda x: ReversedConcatenate(axis=1)([x[:, :1], x[:, 1:]]),
    "Doubled": lambda x: Doubled([keras.Input((3, 5)), keras.layers.Dense(5)])(x),
}


def network(between):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3,), name="x")
    first = SubNetworkRouting(3, 5, name="first")
    second = SubNetworkRouting(2, 4, name="second")
    x = second(between(first(Experts(4, 5, name="experts")(inputs))))
    model = keras.Model({"x": inputs}, {"a": x[:, 0], "b": x[:, 1]})
    opened = {"first": np.eye(3, 4), "second": [[1, 0, 0], [1, 0, 1]]}
    for name, gates in opened.items():
        log_alpha = np.where(np.array(gates) > 0, 4.0, -4.0)
        model.get_layer(name).gate.set_log_alpha(log_alpha)
    return model


@pytest.mark.parametrize("name", LAYERS)
def test_a_subclass_that_mixes_slots_reads_them_all(name):
    folded = fold(network(LAYERS[name]))  # proves the outputs equal
    assert name in [type(layer).__name__ for layer in folded.layers]
    assert folded.get_layer("experts").num_experts == 3


@pytest.mark.parametrize(
    "layer", [keras.layers.SpatialDropout1D(0.5), keras.layers.Activation("tanh")]
)
def test_the_layer_itself_passes_slots_through(layer):
    layer = type(layer).from_config(layer.get_config())
    folded = fold(network(layer))
    assert folded.get_layer("experts").num_experts == 2
    assert structure(folded).connections == 2 + 3


def test_a_sequential_model_with_a_call_of_its_own_is_no_graph():
    model = Doubled([keras.Input((3,)), Experts(2, 4), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="Functional or Sequential.*Doubled"):
        fold(model)
