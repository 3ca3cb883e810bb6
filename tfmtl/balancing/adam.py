"""Adam on a vector of the state, for what a rule trains."""

from typing import Any

from keras import ops

Tensor = Any
State = dict[str, Tensor]

_MOMENTUM, _VELOCITY, _SMALLEST = 0.9, 0.999, 1e-8


def adam_state(values: Tensor) -> State:
    """The values, `(T,)`, and what Adam remembers of each."""
    nothing = ops.zeros_like(values)
    return {"values": values, "steps": nothing, "mean": nothing, "square": nothing}


def adam_step(
    state: State, gradient: Tensor, learning_rate: float, where: Tensor
) -> State:
    """The state after a step of the entries where a mask is true.

    Args:
        state: As of `adam_state`; further entries stay as they are.
        gradient: `(T,)`; anything where the mask is false.
        learning_rate: Length of a step of steady gradients.
        where: Mask, `(T,)`.

    Source: Kingma and Ba, "Adam", ICLR 2015, algorithm 1, with steps counted for each
    entry.
    """
    gradient = ops.where(where, gradient, 0.0)
    steps = state["steps"] + 1.0
    mean = _MOMENTUM * state["mean"] + (1.0 - _MOMENTUM) * gradient
    square = _VELOCITY * state["square"] + (1.0 - _VELOCITY) * gradient * gradient
    slope = mean / (1.0 - ops.power(_MOMENTUM, steps))
    scale = ops.sqrt(square / (1.0 - ops.power(_VELOCITY, steps))) + _SMALLEST
    values = state["values"] - learning_rate * slope / scale
    new = {"values": values, "steps": steps, "mean": mean, "square": square}
    return {**state, **{key: ops.where(where, new[key], state[key]) for key in new}}


def check_rate(learning_rate: float) -> None:
    """Raises unless a learning rate is above 0."""
    if not learning_rate > 0:
        raise ValueError(
            "`learning_rate` should be above 0. "
            f"Received: learning_rate={learning_rate!r}"
        )
