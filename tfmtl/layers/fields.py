"""Fields: the columns of a layer, as one tensor or as a list of tensors."""

from typing import Any

from keras import ops

Tensor = Any


def fields_of(input_shape: Any) -> list[tuple[Any, ...]] | None:
    """The fields' shapes where a layer is called on a list, else `None`."""
    if input_shape and isinstance(input_shape[0], list | tuple):
        return [tuple(shape) for shape in input_shape]
    return None


def side_by_side(inputs: Tensor) -> Tensor:
    """The columns of a tensor, or of a list of tensors, `(batch, columns)`."""
    if not isinstance(inputs, list | tuple):
        return inputs
    return inputs[0] if len(inputs) == 1 else ops.concatenate(inputs, axis=1)
