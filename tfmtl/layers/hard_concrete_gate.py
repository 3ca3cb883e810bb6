"""The hard-concrete gate as a Keras layer."""

import inspect
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import entries, mapping, number, positive_int
from tfmtl.ops import hard_concrete, hard_concrete_sample, open_probability

Tensor = Any

_EPSILON = 1e-6  # uniform draws stay inside (epsilon, 1 - epsilon)
_LOG_ALPHA_LIMIT = 4.605  # log 100: a closed gate still samples open 5 % of steps


class L0Penalty(keras.regularizers.Regularizer):
    """The sum of each gate's `l0` times its P(z != 0), as the weight's regulariser.

    A negative `l0` pulls a gate open and counts its P(z = 0), so that the penalty is
    never below 0. Being a property of the weight, it counts once however often the
    gate is called, and a frozen gate adds nothing. `gate` is public: every gate of a
    model is found through its weights, however deeply it is nested.

    Args:
        gate: The `HardConcreteGate` whose weight is penalised.
    """

    def __init__(self, gate: "HardConcreteGate") -> None:
        self.gate = gate

    def __call__(self, theta: Tensor) -> Tensor:
        log_alpha = self.gate.rate_multiplier * ops.cast(theta, "float32")
        l0 = ops.convert_to_tensor(self.gate.l0)
        offset = ops.maximum(-l0, 0.0)  # without gradient
        penalty = ops.sum(l0 * self.gate.penalised(log_alpha) + offset)
        return ops.cast(penalty, keras.config.floatx())  # as losses are


class _Clamp(keras.constraints.Constraint):
    """Keeps theta within +- limit, after every optimiser step."""

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def __call__(self, theta: Tensor) -> Tensor:
        return ops.clip(theta, -self.limit, self.limit)


@keras.saving.register_keras_serializable(package="tfmtl")
class HardConcreteGate(keras.layers.Layer):
    """One learnable on/off gate per connection, with an L0 penalty.

    ```
    training    s = sigmoid((log u - log(1 - u) + log_alpha) / beta), u ~ U(0, 1)
                z = min(1, max(0, s (zeta - gamma) + gamma))
    otherwise   z = min(1, max(0, sigmoid(log_alpha) (zeta - gamma) + gamma))
    loss        sum l0 sigmoid(log_alpha - beta log(-gamma / zeta))
    ```

    The layer is called without input and returns z of shape `shape`: gates
    belong to connections, not to examples, and one draw serves a mini-batch.

    The weight is `theta`, with `log_alpha = rate_multiplier * theta`. Adam moves
    a weight by about its learning rate a step, so a gate that must travel 4.6
    from open to closed would need thousands of steps at 1e-3; the multiplier
    gives gates their own rate under a single stock optimiser. `log_alpha` is
    clamped to +-4.605 after each step, so that a closed gate can come back. Use
    no weight decay on it (AdamW: `exclude_from_weight_decay`).

    The penalty's weights are the layer's variable `l0`, one for each gate, 0 at the
    start; `tfmtl.sparsity` raises them after a dense phase. A negative one opens.

    Args:
        shape: Shape of the gates, for example `(outputs, inputs)`.
        l0: Initial weight of each gate's penalty, >= 0.
        beta: Temperature, > 0.
        gamma: Lower end of the stretched interval, < 0.
        zeta: Upper end of the stretched interval, > 1.
        rate_multiplier: How much faster `log_alpha` moves than other weights.
        log_alpha_initializer: Initial `log_alpha`. Defaults to nearly open,
            `RandomNormal(2.197, 0.01)`, which samples open in 99 % of steps.
        seed: Seed of the noise and of the default initializer.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument is outside its range.

    Example:
        >>> import tfmtl
        >>> gate = tfmtl.layers.HardConcreteGate((2, 3))
        >>> tuple(gate().shape)
        (2, 3)

    Source: Louizos et al., ICLR 2018; initial value and dense phase after Gale
    et al., "The State of Sparsity in Deep Neural Networks", 2019.
    """

    def __init__(
        self,
        shape: Sequence[int],
        l0: float = 0.0,
        beta: float = 2 / 3,
        gamma: float = -0.1,
        zeta: float = 1.1,
        rate_multiplier: float = 30.0,
        log_alpha_initializer: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not entries(shape):
            raise ValueError(f"`shape` should be sizes. Received: shape={shape!r}")
        self.shape = tuple(positive_int("shape", n) for n in shape)
        rate = number(rate_multiplier)
        _check_range("l0", l0, number(l0) >= 0, "at least 0")
        _check_range("beta", beta, number(beta) > 0, "greater than 0")
        _check_range("gamma", gamma, number(gamma) < 0, "less than 0")
        _check_range("zeta", zeta, number(zeta) > 1, "greater than 1")
        _check_range("rate_multiplier", rate_multiplier, rate > 0, "greater than 0")
        self.initial_l0 = float(l0)
        self.beta = float(beta)
        self.gamma = float(gamma)
        self.zeta = float(zeta)
        self.rate_multiplier = float(rate_multiplier)
        self.log_alpha_initializer = keras.initializers.get(
            log_alpha_initializer or keras.initializers.RandomNormal(2.197, 0.01, seed)
        )
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Any = None) -> None:
        """Creates `theta` and the penalty's weights `l0`."""
        self.theta = self.add_weight(
            name="theta",
            shape=self.shape,
            initializer=self._initial_theta,
            regularizer=L0Penalty(self),
            constraint=_Clamp(_LOG_ALPHA_LIMIT / self.rate_multiplier),
            dtype="float32",
            autocast=False,
        )
        self.l0 = self.add_weight(
            name="l0",
            shape=self.shape,
            initializer=keras.initializers.Constant(self.initial_l0),
            trainable=False,
            dtype="float32",
            autocast=False,
        )
        self.built = True

    def call(self, training: bool | None = None) -> Tensor:
        """Returns z, in [0, 1], of shape `shape`; with noise in training only."""
        if training:
            uniform = keras.random.uniform(
                self.shape, _EPSILON, 1 - _EPSILON, "float32", self.seed_generator
            )
            z = hard_concrete_sample(
                self.log_alpha, uniform, self.beta, self.gamma, self.zeta
            )
        else:
            z = hard_concrete(self.log_alpha, self.gamma, self.zeta)
        return ops.cast(z, self.compute_dtype)

    @property
    def log_alpha(self) -> Tensor:
        """Location of each gate, of shape `shape`, float32."""
        return self.rate_multiplier * ops.convert_to_tensor(self.theta)

    def set_log_alpha(self, log_alpha: Any) -> None:
        """Sets the gates' location; values beyond +-4.605 are clamped.

        Args:
            log_alpha: New values, of shape `shape` or one for all.
        """
        limited = ops.clip(
            ops.cast(log_alpha, "float32"), -_LOG_ALPHA_LIMIT, _LOG_ALPHA_LIMIT
        )
        self.theta.assign(ops.broadcast_to(limited / self.rate_multiplier, self.shape))

    def set_l0(self, l0: Any) -> None:
        """Sets the weights of the penalty.

        Args:
            l0: New weights, of shape `shape` or one for all.
        """
        self.l0.assign(ops.broadcast_to(ops.cast(l0, "float32"), self.shape))

    def take(self, other: Any, index: Any) -> None:
        """Takes the location, penalty and trainability of some of another's gates.

        Args:
            other: A gate.
            index: Which of its gates, as an index of NumPy, in this one's shape.
        """
        self.theta.assign(ops.convert_to_numpy(other.theta)[index])
        self.l0.assign(ops.convert_to_numpy(other.l0)[index])
        self.trainable = other.trainable

    def open_probability(self, log_alpha: Tensor | None = None) -> Tensor:
        """P(z != 0) of a training draw, of shape `shape`.

        Args:
            log_alpha: Location to use in place of the layer's own.
        """
        if log_alpha is None:
            log_alpha = self.log_alpha
        return open_probability(log_alpha, self.beta, self.gamma, self.zeta)

    def penalised(self, log_alpha: Tensor | None = None) -> Tensor:
        """What the penalty counts of each gate, of shape `shape`: its P(z != 0).

        Args:
            log_alpha: Location to use in place of the layer's own.
        """
        return self.open_probability(log_alpha)

    def expected_open(self) -> Tensor:
        """The number of gates to expect open in training, as far as penalised."""
        return ops.sum(self.penalised())

    def of_inputs(self) -> list[np.ndarray]:
        """The gates of each input, as indices of the flattened z.

        Together they switch the input off: a column of a matrix of gates.
        """
        numbers = np.arange(int(np.prod(self.shape))).reshape(-1, self.shape[-1])
        return list(numbers.T)

    def compute_output_shape(self, input_shape: Any = None) -> tuple[int, ...]:
        """The gates' shape, whatever the input."""
        return self.shape

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "shape": self.shape,
            "l0": self.initial_l0,
            "beta": self.beta,
            "gamma": self.gamma,
            "zeta": self.zeta,
            "rate_multiplier": self.rate_multiplier,
            "log_alpha_initializer": keras.initializers.serialize(
                self.log_alpha_initializer
            ),
            "seed": self.seed,
        }

    def _initial_theta(self, shape: Any, dtype: Any = None) -> Tensor:
        return self.log_alpha_initializer(shape, dtype=dtype) / self.rate_multiplier


def gate_arguments(given: Any, taken: Sequence[str]) -> dict[str, Any]:
    """Returns a copy of a gate's arguments, as a layer with a gate is given them.

    Args:
        given: Arguments by name; `None` for none.
        taken: What the layer says itself.

    Raises:
        ValueError: If it is no dict, or has what the layer says or no gate takes.
    """
    found = mapping("hard_concrete", given, taken)
    known = {*inspect.signature(HardConcreteGate).parameters, "trainable"} - {"kwargs"}
    if set(found) - known:
        raise ValueError(
            "`hard_concrete` should be a dict of arguments of a HardConcreteGate, of "
            f"{sorted(known - set(taken))}. Received: hard_concrete={given!r}"
        )
    return found


def gate_config(given: dict[str, Any] | None, layer: Any) -> dict[str, Any] | None:
    """A gate's arguments for its layer's configuration, frozen or not as it is now.

    Args:
        given: The arguments the layer was made with.
        layer: The layer, which holds the gate as `gate` once it is built.
    """
    gate = getattr(layer, "gate", None)
    if given is None or gate is None:
        return given
    if gate.trainable == given.get("trainable", layer.trainable):
        return given
    return {**given, "trainable": gate.trainable}


def _check_range(name: str, value: float, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"`{name}` should be {expected}. Received: {name}={value!r}")
