"""Gradient surgery: from the Gram matrix of the tasks' gradients to their weights.

Every method sees the gradients g_1 … g_T of the tasks' losses, as weighted by the
tasks, on the parameters that the tasks share; only their products are needed. The
parameter-sized work, the Gram matrix before and the weighted sum after, is done once,
elsewhere.

```
G_ij = g_i · g_j  (T, T)   →   w  (T,)   →   update  Σ_i w_i g_i
```

All methods agree on three points.

* Scale: the update of equal gradients is their sum, whatever the paper's own scale; a
  paper that takes a mean or a convex combination is multiplied by T.
* Units: gradients multiplied by one common factor have the same weights.
* Absence: a task whose gradient is 0, for want of labels in the batch, gets weight 0,
  and the others are treated as if there were no such task.

Not finite numbers in G make all weights NaN, so that a loss scale or a callback that
looks for them still finds them.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from tfmtl.balancing.solvers import quotient
from tfmtl.serializable import Serializable

Tensor = Any
State = dict[str, Tensor]


class GradientSurgery(Serializable):
    """Base of the methods: a pure function from G to weights.

    `weights` runs in a `tf.function`, with XLA or not, in float32 or float64, and its
    state is a dict of tensors of fixed shapes, to be held in non-trainable variables.
    A method is a frozen dataclass with `unit_weights`, and `initial_state` where it
    remembers something.

    Attributes:
        ignores_scale: Whether a task's gradient, multiplied, leaves the direction of
            the update as it is, so that weights of the losses mean nothing to it.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gradients = keras.ops.array([[1.0, 0.0], [-1.0, 1.0]])
        >>> gram = keras.ops.matmul(gradients, keras.ops.transpose(gradients))
        >>> method = balancing.PCGrad()
        >>> seed = keras.random.SeedGenerator(1)
        >>> state = method.initial_state(2)
        >>> weights, state = method.weights(gram, state, seed)
        >>> print(weights.numpy().round(3))
        [2.  1.5]
    """

    ignores_scale: ClassVar[bool] = False

    def initial_state(self, num_tasks: int, dtype: str | None = None) -> State:
        """What the method remembers before the first step: mostly nothing, `{}`."""
        return {}

    def weights(
        self, gram: Tensor, state: State | None = None, seed: Any = None
    ) -> tuple[Tensor, State]:
        """The weight of each task's gradient in the update.

        Args:
            gram: G, `(T, T)`, float32 or float64, T known.
            state: What the call before returned. Defaults to `None`, the initial one.
            seed: `keras.random.SeedGenerator`, or an integer, which in a `tf.function`
                is the same draw in every step. Only the methods that draw use it;
                TensorFlow draws other numbers with XLA than without.

        Returns:
            Weights `(T,)` and the state for the next call.
        """
        if state is None:
            state = self.initial_state(gram.shape[0], gram.dtype)
        finite = ops.all(ops.isfinite(gram))
        norms, cosines = unit_gram(ops.where(finite, gram, 0.0))
        weights, state = self.unit_weights(norms, cosines, state, seed)
        weights = quotient(weights, norms)
        return ops.where(finite, weights, float("nan")), state

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """The method on unit gradients u_i = g_i / ‖g_i‖: update Σ_i y_i u_i.

        Args:
            norms: ‖g_i‖, `(T,)`, the largest 1; 0 for a task that is absent.
            cosines: u_i · u_j, `(T, T)`; an absent task is at right angles to all.
            state: As of `weights`.
            seed: As of `weights`.

        Returns:
            y, `(T,)`, anything for absent tasks, and the next state.
        """
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class EqualWeights(GradientSurgery):
    """The sum of the gradients: the baseline, no surgery.

    ```
    w_i = 1
    ```

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> gram = keras.ops.array([[1.0, -1.0], [-1.0, 2.0]])
        >>> balancing.EqualWeights().weights(gram)[0].numpy().tolist()
        [1.0, 1.0]
    """

    def unit_weights(
        self, norms: Tensor, cosines: Tensor, state: State, seed: Any
    ) -> tuple[Tensor, State]:
        """See `GradientSurgery`."""
        return norms, state


def unit_gram(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Norms, relative to the largest, and cosines of a Gram matrix."""
    squares = quotient(ops.diagonal(gram), ops.max(ops.diagonal(gram)))
    norms = ops.sqrt(ops.maximum(squares, 0.0))
    inverse = quotient(1.0, ops.sqrt(ops.maximum(ops.diagonal(gram), 0.0)))
    cosines = ops.clip(gram * inverse[:, None] * inverse, -1.0, 1.0)
    one = ops.eye(gram.shape[0], dtype=gram.dtype)
    return norms, ops.where(one > 0, one, cosines)


def num_present(norms: Tensor) -> Tensor:
    """The number of tasks with a gradient."""
    return ops.sum(ops.cast(norms > 0, norms.dtype))
