"""A Keras 3 model as a Keras 2 layer."""

import json
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfmtl.interop.tfrs.legacy import tf_keras
from tfmtl.serving.stateless import walk

Tensor = Any


@tf_keras.utils.register_keras_serializable(package="tfmtl")
class Bridge(tf_keras.layers.Layer):
    """A Keras 3 model or layer as a layer of Keras 2, for a `tfrs.Model`.

    ```
    outputs = model(inputs, training)
    losses  = what its layers added in this call + its weights' regularisers
    ```

    The weights are the model's own, shared and not copied, so the model is trained,
    folded and exported by itself afterwards. Those that are frozen, in the model or by
    the bridge's `trainable`, stay as they are; constraints apply. The other state
    (statistics of normalisation, seeds, penalties' weights) is saved and restored with
    the weights, by checkpoints, weight files and SavedModels of the outer model.

    Of a dict the model reads the columns that it has as inputs; others, such as labels
    in a dataset of TFRS, are left out.

    Args:
        model: A built Keras 3 model or layer, such as one of `tfmtl.models` or a
            `keras.Sequential` that begins with `keras.Input`.
        **kwargs: `name`, `trainable`.

    Raises:
        ValueError: If the model is not of Keras 3, or not built.

    Example:
        >>> import keras, tensorflow as tf, tfmtl
        >>> import tensorflow_recommenders as tfrs
        >>> from tfmtl.interop.tfrs import Bridge
        >>> features = [tfmtl.features.Numeric("x", mean=(0.0,), std=(1.0,))]
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> class Ranker(tfrs.Model):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.scores = Bridge(tfmtl.models.mmoe(features, tasks))
        ...         self.click = tfrs.tasks.Ranking()
        ...         self.like = tfrs.tasks.Ranking()
        ...
        ...     def call(self, features, training=None):
        ...         return self.scores(features, training=training)
        ...
        ...     def compute_loss(self, features, training=False):
        ...         scores = self(features, training=training)
        ...         click = self.click(features["click"], scores["click"])
        ...         return click + self.like(features["like"], scores["like"])
        >>> ranker = Ranker()
        >>> ranker.compile(tf.keras.optimizers.Adam())
        >>> rows = {name: tf.ones((4, 1)) for name in ("x", "click", "like")}
        >>> history = ranker.fit(tf.data.Dataset.from_tensors(rows), verbose=0)
        >>> sorted(history.history)
        ['loss', 'regularization_loss', 'total_loss']
    """

    def __init__(self, model: keras.Layer, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        if not isinstance(model, keras.Layer):
            raise ValueError(
                "`model` should be a model or layer of Keras 3. "
                f"Received: model={model!r}"
            )
        if not model.built:
            raise ValueError(
                "`model` should be built, as by `keras.Input` or a first call. "
                f"Received: model={model!r}"
            )
        # Keras 2 would track an attribute, and could not save it.
        self.__dict__["model"] = model
        self._state = [variable.value for variable in model.variables]
        self._lookups = list(walk(model, _is_lookup))
        for variable, value in zip(model.variables, self._state, strict=True):
            value._constraint = variable.constraint  # which optimizers of Keras 2 read
        self.add_loss(self._regularization)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns what the model does; its layers' losses are the bridge's."""
        wanted = getattr(self.model, "input", None)
        if isinstance(wanted, Mapping) and isinstance(inputs, Mapping):
            inputs = {name: inputs[name] for name in wanted if name in inputs}
        outputs = self.model(inputs, training=training)
        losses = self.model.losses  # of the calls, and then of the weights
        self.add_loss(losses[: len(losses) - len(self._regularized)])
        return outputs

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """Weights that an optimizer moves."""
        trainable = self.model.trainable_variables if self.trainable else []
        return [variable.value for variable in trainable]

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """Frozen weights, and state that no optimizer moves."""
        trainable = {id(variable) for variable in self.trainable_weights}
        return [value for value in self._state if id(value) not in trainable]

    def save_own_variables(self, store: Any) -> None:
        """Saves all state, in the model's order."""
        for k, variable in enumerate(self._state):
            store[str(k)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Loads all state."""
        if len(store.keys()) != len(self._state):
            raise ValueError(
                f"The file should have {len(self._state)} variables of the layer "
                f"{self.name!r}. Received: {len(store.keys())}"
            )
        for k, variable in enumerate(self._state):
            variable.assign(store[str(k)])

    def get_config(self) -> dict[str, Any]:
        """The model's architecture as JSON, which Keras 2 does not look into."""
        model = json.dumps(keras.saving.serialize_keras_object(self.model))
        return {**super().get_config(), "model": model}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Bridge":
        """The bridge of `get_config`, around a new model."""
        model = keras.saving.deserialize_keras_object(json.loads(config["model"]))
        config = {k: v for k, v in config.items() if k in ("name", "trainable")}
        return cls(model, **config)

    @property
    def _regularized(self) -> list[keras.Variable]:
        variables = self.model.trainable_variables
        return [v for v in variables if v.regularizer is not None]

    def _regularization(self) -> Tensor:
        penalties = [v.regularizer(v) for v in self._regularized]
        return tf.add_n(penalties) if penalties else None


def _is_lookup(value: Any) -> bool:
    return isinstance(value, tf.saved_model.experimental.TrackableResource)
