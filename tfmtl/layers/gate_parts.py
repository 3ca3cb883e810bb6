"""What gates of mixtures have in common when a part of one is made."""

from typing import Any

import numpy as np


def reads_of_selector(outputs: int, slots: int | None) -> np.ndarray:
    """Which slots of its selector each output of a gate may read.

    Args:
        outputs: Number of outputs.
        slots: Number of slots, `None` for a selector that all outputs read.

    Example:
        >>> from tfmtl.layers.gate_parts import reads_of_selector
        >>> reads_of_selector(2, 3).tolist()
        [[True, False, False], [False, True, False]]
    """
    if slots is None:
        return np.ones((outputs, 1), bool)
    return np.eye(outputs, slots, dtype=bool)


def smaller_gate(
    gate: Any, reads: np.ndarray, slots: int | None, width: int, **config: Any
) -> Any:
    """A built gate like another one, for other outputs and experts.

    Args:
        gate: A gate with `num_outputs`, `num_experts` and `reads`.
        reads: Booleans `(outputs, experts)` of the new gate.
        slots: Slots of the old gate's selector, `None` where all outputs read it.
        width: Width of the selector.
        **config: What else differs in the configuration.
    """
    outputs, experts = reads.shape
    own = {"num_outputs": outputs, "num_experts": experts, "reads": reads.tolist()}
    smaller = type(gate).from_config({**gate.get_config(), **own, **config})
    smaller.build((None, *(() if slots is None else (outputs,)), width))
    return smaller
