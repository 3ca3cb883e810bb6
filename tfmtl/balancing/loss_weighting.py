"""Loss weighting: from the tasks' losses over the steps to their weights in the sum.

```
weights   (T,)   →   loss  Σ_k w_k L_k
```

L_k is the loss of task k as weighted by the task. All rules agree on three points.

* Scale: tasks that are alike in all that the rule looks at have weight 1, so that the
  loss is their sum; a paper whose weights sum to 1 is multiplied by T.
* Absence: a task whose loss is 0, for want of labels in the batch, teaches the rule
  nothing; what the rule knows of it stays. Neither do losses that are not finite.
* Sign: losses are above 0. One below 0, as a log-likelihood may be, counts as absent,
  except for those rules that say they take it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
from keras import ops

from tfmtl.balancing.solvers import quotient
from tfmtl.serializable import Serializable

Tensor = Any
State = dict[str, Tensor]


class LossWeighting(Serializable):
    """Base of the rules. One train step drives all of them.

    ```
    weights = rule.weights(state, losses, seed)          before the optimizer's step
    state = rule.update(state, losses, gram, losses_after)                     after it
    state = rule.epoch_end(state)                                   after every epoch
    ```

    All three run in a `tf.function`, with XLA or not. The state is a dict of tensors of
    fixed shapes, to be held in non-trainable variables. What a rule trains is there
    too, with an optimizer of its own: to the model the weights are constants, no
    gradient passes through them.

    Attributes:
        needs_gram: Whether `update` reads the Gram matrix of the tasks' gradients.
        needs_losses_after: Whether `update` reads the same batch's losses after the
            optimizer's step.
        needs_epochs: Whether `epoch_end` does anything.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> rule = balancing.DWA()
        >>> state = rule.initial_state(2)
        >>> for losses in ([1.0, 1.0], [0.5, 0.9]):  # two epochs of one step
        ...     state = rule.update(state, keras.ops.array(losses))
        ...     state = rule.epoch_end(state)
        >>> print(rule.weights(state, keras.ops.array([0.5, 0.9])).numpy().round(3))
        [0.9 1.1]
    """

    needs_gram: ClassVar[bool] = False
    needs_losses_after: ClassVar[bool] = False
    needs_epochs: ClassVar[bool] = False

    def initial_state(self, num_tasks: int, dtype: str | None = None) -> State:
        """What the rule knows before the first step: of many rules nothing, `{}`."""
        return {}

    def weights(self, state: State, losses: Tensor, seed: Any = None) -> Tensor:
        """The weight of each loss in this step.

        Args:
            state: As `initial_state` and `update` return it.
            losses: L, `(T,)`, of this step.
            seed: `keras.random.SeedGenerator`, for a rule that draws.

        Returns:
            w, `(T,)`.
        """
        raise NotImplementedError

    def update(
        self,
        state: State,
        losses: Tensor,
        gram: Tensor | None = None,
        losses_after: Tensor | None = None,
    ) -> State:
        """The state after a step.

        Args:
            state: That of the step.
            losses: L, `(T,)`, of the step.
            gram: Products of the gradients of L_1 … L_T on the shared parameters,
                `(T, T)`; where `needs_gram`.
            losses_after: L of the same batch after the optimizer's step; where
                `needs_losses_after`.
        """
        return state

    def epoch_end(self, state: State) -> State:
        """The state after an epoch."""
        return state


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class StaticWeights(LossWeighting):
    """Weights that stay: the baseline.

    Args:
        values: w, one for each task. Defaults to `None`, 1 for all. Losses may be
            below 0.

    Raises:
        ValueError: If there is not one value for each task.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> rule = balancing.StaticWeights((1.0, 0.5))
        >>> losses = keras.ops.array([3.0, 2.0])
        >>> rule.weights(rule.initial_state(2), losses).numpy().tolist()
        [1.0, 0.5]
    """

    values: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.values is not None:
            object.__setattr__(self, "values", tuple(self.values))

    def initial_state(self, num_tasks: int, dtype: str | None = None) -> State:
        """Nothing; checks the number of values."""
        check_count("values", self.values, num_tasks)
        return {}

    def weights(self, state: State, losses: Tensor, seed: Any = None) -> Tensor:
        """See `LossWeighting`."""
        if self.values is None:
            return ops.ones_like(losses)
        return ops.convert_to_tensor(self.values, losses.dtype)


def check_count(name: str, values: Sequence[Any] | None, num_tasks: int) -> None:
    """Raises unless there is one value for each task, or none at all."""
    if values is not None and len(values) != num_tasks:
        raise ValueError(
            f"`{name}` should be one for each of {num_tasks} tasks. "
            f"Received: {name}={values!r}"
        )


def known(values: Tensor) -> Tensor:
    """Where a loss or a norm is there: finite and above 0."""
    return ops.logical_and(ops.isfinite(values), values > 0)


def mean_where(mask: Tensor, values: Tensor) -> Tensor:
    """Mean of the values where the mask is true; 0 where it is true nowhere."""
    count = ops.sum(ops.cast(mask, values.dtype))
    return ops.sum(ops.where(mask, values, 0.0)) / ops.maximum(count, 1.0)


def softmax(logits: Tensor, mask: Any = True) -> Tensor:
    """Softmax over the entries where the mask is true; 0 elsewhere."""
    highest = ops.max(ops.where(mask, logits, ops.min(logits)))
    powers = ops.where(mask, ops.exp(ops.where(mask, logits - highest, 0.0)), 0.0)
    return quotient(powers, ops.sum(powers))
