"""Random loss weighting."""

from dataclasses import dataclass
from typing import Any

import keras

from tfmtl.balancing.loss_weighting import LossWeighting, State, softmax

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
@dataclass(frozen=True)
class RandomWeighting(LossWeighting):
    """Weights drawn anew in every step.

    ```
    w = T softmax(v),  v ~ N(0, 1)
    ```

    The paper's weights sum to 1. Draws: `weights` needs a `seed`. Losses may be below
    0.

    Example:
        >>> import keras, tfmtl.balancing as balancing
        >>> rule, seed = balancing.RandomWeighting(), keras.random.SeedGenerator(1)
        >>> losses = keras.ops.array([0.3, 0.2, 0.1])
        >>> round(float(sum(rule.weights({}, losses, seed))), 5)
        3.0

    Source: Lin et al., "Reasonable Effectiveness of Random Weighting: A Litmus Test for
    Multi-Task Learning", TMLR 2022, section 3.
    """

    def weights(self, state: State, losses: Tensor, seed: Any = None) -> Tensor:
        """See `LossWeighting`."""
        draws = keras.random.normal(losses.shape, dtype=losses.dtype, seed=seed)
        return losses.shape[0] * softmax(draws)
