"""What makes a frozen dataclass an object that Keras can write and read."""

from dataclasses import fields
from typing import Any

import keras


class Serializable:
    """A dataclass whose attributes are its constructor's arguments."""

    def get_config(self) -> dict[str, Any]:
        """The attributes, serialisable."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return keras.saving.serialize_keras_object(values)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        """What `get_config` describes."""
        return cls(**keras.saving.deserialize_keras_object(config))
