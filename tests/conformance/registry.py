"""Each public layer once: a constructor call without defaults, and an input."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from tfmtl import layers


@keras.saving.register_keras_serializable(package="tfmtl_tests")
class Gated(keras.layers.Layer):
    """Gives a gate, which is called without input, an input to multiply."""

    def __init__(self, gate, **kwargs):
        super().__init__(**kwargs)
        self.gate = gate

    def build(self, input_shape):
        if not self.gate.built:
            self.gate.build()
        self.built = True

    def call(self, inputs, training=None):
        return inputs * self.gate(training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        gate = keras.saving.serialize_keras_object(self.gate)
        return {**super().get_config(), "gate": gate}

    @classmethod
    def from_config(cls, config):
        gate = keras.saving.deserialize_keras_object(config.pop("gate"))
        return cls(gate, **config)


@dataclass(frozen=True)
class Entry:
    """A layer under test.

    Attributes:
        cls: The layer's class.
        arguments: A value other than the default for every constructor argument.
        input_shape: Shape of an example.
        input_dtype: Type of the input.
        output_dtype: Type of the output where it is not the compute type.
    """

    cls: type
    arguments: Mapping[str, Any]
    input_shape: tuple[int, ...]
    input_dtype: str = "float32"
    output_dtype: str | None = None

    @property
    def id(self):
        kind = self.arguments.get("kind", "")
        kind += "apart" if self.arguments.get("apart") else ""
        kind += "" if self.arguments.get("per_example", True) else "static"
        of_ranks = (layers.DSelectKGate, layers.Experts, layers.SoftmaxGate)
        rank = len(self.input_shape) + 1 if self.cls in of_ranks else ""
        return f"{self.cls.__name__}{kind.title()}{rank}"

    def bare(self, **kwargs):
        """The layer itself."""
        return self.cls(**self.arguments, **kwargs)

    def layer(self, **kwargs):
        """The layer, or what calls it where it takes no input."""
        if self.cls is layers.HardConcreteGate:
            return Gated(self.bare(**kwargs), **kwargs)
        return self.bare(**kwargs)

    def called(self, x, **kwargs):
        """One tensor: what the layer makes of an input."""
        return self.call(self.layer(**kwargs), x)

    def call(self, layer, x):
        """One tensor: what a layer that was made before makes of an input."""
        if self.cls is layers.Mixture:
            x = [x, keras.ops.transpose(x, (0, 2, 1))]
        if self.cls is layers.JointProbability:
            x = [keras.ops.sigmoid(x), keras.ops.sigmoid(-x)]
        if self.cls is layers.ScoreFusion:
            x = {"a": keras.ops.sigmoid(x), "b": keras.ops.sigmoid(-x)}
        if self.cls in (layers.SequencePooling, layers.TargetAttention):
            ids = keras.ops.cast(x[:, :, 0] > -0.5, "int32")
            target = [x[:, :1]] if self.cls is layers.TargetAttention else []
            x = [x, ids, *target]
        return joined(layer(x))

    def model(self, **kwargs):
        """A Functional model of the layer alone, with weights set."""
        x = keras.Input(self.input_shape, dtype=self.input_dtype, name="x")
        y = self.called(x, **{"name": "tested", **kwargs})
        model = keras.Model({"x": x}, {"y": y}, name="model")
        set_weights(model)
        return model

    def rows(self, batch, seed=0):
        """Random inputs."""
        generator = np.random.default_rng(seed)
        shape = (batch, *self.input_shape)
        if "int" in self.input_dtype:
            return generator.integers(-1, 6, shape).astype(self.input_dtype)
        return generator.normal(size=shape).astype(self.input_dtype)


def joined(outputs):
    """One tensor, also of a layer that gives its slots one by one."""
    return keras.ops.stack(outputs, axis=1) if isinstance(outputs, list) else outputs


def set_weights(model, seed=0):
    """Random weights; gates closed, open and between."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.name == "theta":
            log_alpha = generator.uniform(-2, 2, weight.shape)
            log_alpha.flat[:2] = -4.0, 4.0
            weight.assign(log_alpha / weight.regularizer.gate.rate_multiplier)
        elif weight.name != "l0":
            values = generator.normal(scale=0.5, size=weight.shape)
            weight.assign(abs(values) if "variance" in weight.name else values)
    return model


GATE = {
    "l0": 0.25,
    "beta": 0.5,
    "gamma": -0.3,
    "zeta": 1.4,
    "rate_multiplier": 7.0,
    "log_alpha_initializer": keras.initializers.RandomUniform(-1.0, 1.0, seed=3),
    "seed": 11,
}

REGISTRY = [
    Entry(layers.BroadcastConstant, {"shape": (2, 3)}, (4,)),
    Entry(
        layers.Bucketize,
        {"boundaries": [[-0.5, 0.5], [], [0.0]], "missing": [None, -1.0, None]},
        (3,),
        output_dtype="int64",
    ),
    *(
        Entry(
            layers.DSelectKGate,
            {
                "num_outputs": 4,
                "num_experts": 5,
                "k": 3,
                "per_example": per_example,
                "gamma": 1.5,
                "entropy": 0.25,
                "reads": [
                    [True, False, True, False, True],
                    [False, False, False, True, False],
                    [False, True, False, False, True],
                    [True, True, True, True, True],
                ],
            },
            shape,
        )
        for per_example, shape in [(True, (6,)), (True, (5, 6)), (False, (6,))]
    ),
    *(
        Entry(
            layers.Experts,
            {
                "num_experts": 3,
                "units": units,
                "activation": "tanh",
                "kernel_initializer": keras.initializers.HeNormal(seed=2),
                "kernel_regularizer": keras.regularizers.L2(0.125),
                "dropout": 0.25,
                "normalization": normalization,
                "slots": slots,
            },
            shape,
        )
        for units, normalization, slots, shape in [
            ((4,), None, None, (5,)),
            ((6, 4), "batch", [1, 0, 1], (2, 5)),
        ]
    ),
    Entry(
        layers.FieldEmbedding,
        {
            "sizes": [4, 3, 6],
            "units": 5,
            "embeddings_initializer": keras.initializers.RandomNormal(seed=2),
            "embeddings_regularizer": keras.regularizers.L1(0.125),
        },
        (3,),
        input_dtype="int64",
    ),
    Entry(layers.FieldGate, {"fields": [*"abcdefgh"], "hard_concrete": GATE}, (8, 2)),
    Entry(layers.GatherSlots, {"indices": [2, -1, 0]}, (4, 3)),
    Entry(layers.HardConcreteGate, {"shape": (2, 4), **GATE}, (2, 4)),
    Entry(
        layers.HashedCross,
        {"hash_bins": 50},
        (3,),
        input_dtype="int64",
        output_dtype="int64",
    ),
    Entry(layers.JointProbability, {}, (1,)),
    Entry(layers.Mixture, {}, (4, 3)),
    Entry(
        layers.PositionBias,
        {"num_positions": 4, "dropout": 0.5},
        (1,),
        input_dtype="int32",
        output_dtype="float32",
    ),
    *(
        Entry(
            layers.PrunedTransformation,
            {
                "groups": [([0, 2], [0, 1]), ([1], [2])],
                "units": 5,
                "activation": "tanh",
                "use_bias": True,
                "apart": apart,
                "reads": [[0, 2], [2], [1]],
            },
            (3, 4),
        )
        for apart in (False, True)
    ),
    Entry(layers.ScaleSlots, {"scales": [0.5, 0.0, 1.0]}, (3, 2)),
    *(
        Entry(
            layers.ScoreFusion,
            {"weights": {"b": 0.5, "a": -0.25}, "kind": kind, "offset": 0.5},
            (1,),
        )
        for kind in ("sum", "product")
    ),
    *(
        Entry(layers.SequencePooling, {"kind": kind}, (4, 3))
        for kind in ("sum", "mean", "max")
    ),
    *(
        Entry(
            layers.SoftmaxGate,
            {
                "num_outputs": 3,
                "num_experts": 4,
                "reads": [
                    [True, True, False, True],
                    [True, False, False, False],
                    [False, True, True, True],
                ],
                "use_bias": True,
                "dropout": 0.25,
                "hard_concrete": GATE,
                "kernel_initializer": keras.initializers.HeNormal(seed=2),
                "kernel_regularizer": keras.regularizers.L2(0.125),
            },
            shape,
        )
        for shape in [(5,), (4, 5)]
    ),
    Entry(
        layers.Standardize,
        {
            "mean": [1.0, -2.0],
            "std": [0.5, 2.0],
            "log": [True, False],
            "clip": [[None, 0.5], [-1.0, 1.0]],
            "missing": [-99.0, None],
            "fill": [0.5, -1.0],
        },
        (2,),
    ),
    Entry(
        layers.StaticMixture,
        {
            "num_outputs": 3,
            "reads": [
                [True, True, False, True],
                [False, False, False, False],
                [True, True, True, True],
            ],
            "activation": "tanh",
            "use_bias": True,
            "mixing_initializer": keras.initializers.RandomNormal(seed=2),
        },
        (4, 2),
    ),
    *(
        Entry(
            layers.SubNetworkRouting,
            {
                "num_outputs": 3,
                "units": units,
                "kind": kind,
                "activation": "tanh",
                "use_bias": True,
                "kernel_initializer": keras.initializers.HeNormal(seed=2),
                "kernel_regularizer": keras.regularizers.L2(0.125),
                "hard_concrete": GATE,
            },
            (4, 5),
        )
        for kind, units in [("transformation", 6), ("average", None)]
    ),
    Entry(
        layers.TargetAttention,
        {
            "units": (4, 3),
            "activation": "tanh",
            "kernel_initializer": keras.initializers.HeNormal(seed=2),
        },
        (4, 3),
    ),
    Entry(
        layers.Tower,
        {
            "units": (4, 3),
            "output_units": 2,
            "activation": "tanh",
            "head_activation": "sigmoid",
            "kernel_initializer": keras.initializers.HeNormal(seed=2),
            "kernel_regularizer": keras.regularizers.L2(0.125),
            "dropout": 0.25,
            "normalization": "layer",
        },
        (5,),
        output_dtype="float32",
    ),
]
