"""Fields: the columns of a layer, as one tensor or as a list of tensors."""

from typing import Any, ClassVar

import keras
import numpy as np
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


class ColumnNumbers(keras.layers.Layer):
    """An integer for each value of columns: all computed at once, given as they came.

    ```
    input (batch, columns), output (batch, columns) int64
    input a list of columns (batch, 1) each, output the same
    ```

    A subclass says in `numbers` what they are, and in `per_column` which of its
    arguments have one entry for each column, or may be `None`; the first has always.

    Args:
        **kwargs: `name`, `dtype`.
    """

    per_column: ClassVar[tuple[str, ...]]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def numbers(self, columns: Tensor) -> Tensor:
        """The numbers of columns side by side, of any type but int64.

        LiteRT splits no int64.
        """
        raise NotImplementedError

    def build(self, input_shape: Any) -> None:
        """Notes whether the columns come one by one."""
        self.fields = len(fields_of(input_shape) or ())
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        """Returns the numbers, of all columns or one by one."""
        numbers = self.numbers(side_by_side(inputs))
        if not isinstance(inputs, list | tuple):
            return ops.cast(numbers, "int64")
        columns = ops.split(numbers, len(getattr(self, self.per_column[0])), axis=1)
        return [ops.cast(column, "int64") for column in columns]

    def compute_output_spec(self, inputs: Tensor) -> Any:
        """The input's shape or shapes, int64."""
        return keras.tree.map_structure(
            lambda column: keras.KerasTensor(column.shape, "int64"), inputs
        )

    def slot_reads(self) -> np.ndarray:
        """Each column reads itself."""
        return np.eye(self.fields or 1, dtype=bool)

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer, np.ndarray]:
        """The same layer for the columns of `outputs` only."""
        config = self.get_config()
        if self.fields:
            for name in self.per_column:
                if config[name] is not None:
                    config[name] = [config[name][k] for k in outputs]
        return type(self).from_config(config), outputs

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        own = {name: getattr(self, name) for name in self.per_column}
        return {**super().get_config(), **own}
