"""A hard-concrete gate on each field."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtl.layers.checks import known_slots
from tfmtl.layers.hard_concrete_gate import (
    HardConcreteGate,
    gate_arguments,
    gate_config,
)
from tfmtl.layers.slots import ScaleSlots

Tensor = Any


@keras.saving.register_keras_serializable(package="tfmtl")
class FieldGate(keras.layers.Layer):
    """Switches whole fields off where they do not pay.

    ```
    y_f = z_f x_f,   z = HardConcreteGate((fields,)), the same for all examples
    input (batch, fields, width), output the same shape
    ```

    A field whose z ends at 0 is gone after `tfmtl.folding.fold`, with its table and
    its look-up, where nothing else reads them.

    Args:
        fields: Name of each field.
        hard_concrete: Arguments of the `HardConcreteGate`, for example
            `{"l0": 1e-3}`. Defaults to none.
        **kwargs: `name`, `dtype`, `trainable`.

    Raises:
        ValueError: If an argument does not fit, or the number of fields.

    Example:
        >>> import keras, tfmtl
        >>> gate = tfmtl.layers.FieldGate(["job", "age"])
        >>> tuple(gate(keras.ops.ones((5, 2, 8))).shape)
        (5, 2, 8)
        >>> gate.gate.set_log_alpha([4.0, -4.0])
        >>> gate.open_fields()
        ['job']

    Source: the gate is that of Louizos et al., "Learning Sparse Neural Networks
    through L0 Regularization", ICLR 2018.
    """

    def __init__(
        self,
        fields: Sequence[str],
        hard_concrete: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.fields = [str(name) for name in fields]
        taken = ("shape", "name", "dtype")
        self.hard_concrete = gate_arguments(hard_concrete, taken)

    def build(self, input_shape: Any) -> None:
        """Creates the gate."""
        slots, self._width = known_slots("FieldGate", input_shape)
        if slots != len(self.fields):
            raise ValueError(
                f"FieldGate should be called on {len(self.fields)} fields. "
                f"Received: shape={tuple(input_shape)}"
            )
        self.gate = HardConcreteGate(
            (slots,),
            dtype=self.dtype_policy,
            name="gate",
            **{"trainable": self.trainable, **self.hard_concrete},
        )
        self.gate.build()
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Returns the fields times their gates."""
        return inputs * self.gate(training=training)[:, None]

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's shape."""
        return input_shape

    def open_fields(self) -> list[str]:
        """Names of the fields that are not closed when serving."""
        return [
            name for name, z in zip(self.fields, self._served(), strict=True) if z != 0
        ]

    def slot_reads(self) -> np.ndarray:
        """Each field reads itself unless it is closed."""
        return np.diag(self._served() != 0)

    def fold(
        self, outputs: np.ndarray, inputs: np.ndarray, constants: np.ndarray
    ) -> tuple[keras.layers.Layer | None, np.ndarray]:
        """The fields that are open, times what is not 1 of their gates."""
        z = self._served()[inputs]
        if np.all(z == 1):
            return None, inputs
        scale = ScaleSlots(z.tolist(), name=self.name, dtype=self.dtype_policy)
        return scale, inputs

    def trained_reads(self) -> np.ndarray:
        """Each field reads itself."""
        return np.eye(len(self.fields), dtype=bool)

    def part(self, outputs: np.ndarray, inputs: np.ndarray) -> keras.layers.Layer:
        """The same gates for some of the fields."""
        names = [self.fields[k] for k in outputs]
        smaller = type(self).from_config({**self.get_config(), "fields": names})
        smaller.build((None, len(names), self._width))
        smaller.gate.take(self.gate, outputs)
        return smaller

    def get_config(self) -> dict[str, Any]:
        """Constructor arguments, serialisable."""
        return {
            **super().get_config(),
            "fields": self.fields,
            "hard_concrete": gate_config(self.hard_concrete, self),
        }

    def _served(self) -> np.ndarray:
        z = self.gate(training=False)
        return ops.convert_to_numpy(ops.cast(z, "float32"))
