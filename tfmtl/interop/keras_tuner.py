"""Search spaces of the recipes for KerasTuner."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tfmtl import models
from tfmtl.features import Encoder
from tfmtl.features.specs import Feature
from tfmtl.sparsity import L0Ramp, Target
from tfmtl.tasks import Task

try:
    import keras_tuner
except ImportError as error:
    raise ImportError(
        'Search spaces need KerasTuner: `pip install "tfmtl[tuner]"`.'
    ) from error

__all__ = ["SearchSpace"]

Values = dict[str, Any]  # of hyperparameters, by name
Searched = Mapping[str, Any]

_DEFAULTS: Searched = {
    "experts": [4, 6, 8, 12],
    "specific": [1, 2, 3],
    "shared": [1, 2, 4],
    "width": [32, 64, 128, 256],
    "depth": [1, 2],
    "gate_dropout": [0.0, 0.1, 0.2],
    "keep": [1.0, 0.75, 0.5, 0.25],
    "learning_rate": [3e-4, 1e-3, 3e-3],
}
_NETWORK = ("width", "depth")
_MIXTURE = ("experts", *_NETWORK, "gate_dropout", "keep")
_EXTRACTION = ("specific", "shared", *_NETWORK, "gate_dropout", "keep")


def _widths(values: Values) -> tuple[int, ...]:
    """Of layers or levels, each half of the one before."""
    return tuple(max(values["width"] >> k, 1) for k in range(values["depth"]))


def _bottom(values: Values) -> Values:
    return {"bottom": _widths(values)}


def _levels(values: Values) -> Values:
    return {"levels": _widths(values)}


def _gate(values: Values) -> Values:
    gate: Values = {"dropout": values["gate_dropout"]}
    if _sparsity(values) is not None:
        gate["hard_concrete"] = {}
    return {"gate": gate}


def _mixture(values: Values) -> Values:
    levels = [_widths(values)]
    return {"experts": values["experts"], "levels": levels, **_gate(values)}


def _own_and_shared(values: Values) -> Values:
    numbers = {name: values[name] for name in ("specific", "shared")}
    return {**numbers, **_gate(values)}


# Hyperparameters of each architecture, and what its recipe is given for their values.
_SPACES: dict[str, tuple[tuple[str, ...], Callable[[Values], Values]]] = {
    "single_task": (_NETWORK, _bottom),
    "shared_bottom": (_NETWORK, _bottom),
    "cross_stitch": (_NETWORK, _levels),
    "omoe": (_MIXTURE, _mixture),
    "mmoe": (_MIXTURE, _mixture),
    "cgc": (_EXTRACTION, lambda v: {**_own_and_shared(v), "units": _widths(v)}),
    "ple": (_EXTRACTION, lambda v: {**_own_and_shared(v), **_levels(v)}),
    "adatt": (_EXTRACTION, lambda v: {**_own_and_shared(v), **_levels(v)}),
    "snr": (
        ("experts", *_NETWORK, "keep"),
        lambda v: {"levels": [(v["experts"], units) for units in _widths(v)]},
    ),
}


class SearchSpace(keras_tuner.HyperModel):
    """The models of one architecture, for any of KerasTuner's tuners.

    | hyperparameter | of | what it is | searched |
    |---|---|---|---|
    | `experts` | `omoe`, `mmoe`, `snr` | number, of each level | 4, 6, 8, 12 |
    | `specific` | `cgc`, `ple`, `adatt` | own experts of a task | 1, 2, 3 |
    | `shared` | the same | shared experts | 1, 2, 4 |
    | `width` | all | of the first layer or level | 32, 64, 128, 256 |
    | `depth` | all | layers or levels, each half as wide | 1, 2 |
    | `gate_dropout` | those with softmax gates | | 0, .1, .2 |
    | `keep` | those with gates | share of a `Target`; 1 for none | 1, .75, .5, .25 |
    | `l0` | the same | weight of an `L0Ramp` in place of `keep` | if asked for |
    | `learning_rate` | all | Adam's | 3e-4, 1e-3, 3e-3 |

    Levels are those of `cross_stitch`, `ple`, `adatt` and `snr`; the others have
    experts or networks of several layers.

    Models are compiled. A trial counts by its best epoch, as KerasTuner has it; where
    gates are to be closed by its last one, since the gates have not settled before.
    An objective of quality alone favours the trials that keep everything: give `keep`
    one value to look for the best network of that share.

    For a compilation of your own, subclass it: `model = super().build(hp)` in `build`,
    then `model.compile(…)`.

    Args:
        architecture: Name of a recipe of `tfmtl.models`.
        features: Adapted features, or an `Encoder` of them.
        tasks: Tasks.
        search: Hyperparameters to search in another way, by name: a value for all
            trials, a list of choices, or a function of KerasTuner's `hp` that returns
            a value. Defaults to `None`, the table.
        **arguments: Further arguments of the recipe, such as `tower`; the same in all
            trials.

    Raises:
        ImportError: On import of the module, if KerasTuner is not installed.
        ValueError: If the architecture has no such hyperparameter or argument.

    Example:
        >>> import keras_tuner, tfmtl
        >>> from tfmtl.interop.keras_tuner import SearchSpace
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> search = {"experts": [2, 3], "depth": 1, "gate_dropout": 0.0}
        >>> space = SearchSpace("mmoe", [x], tasks, search, tower={"units": (8,)})
        >>> hp = keras_tuner.HyperParameters()
        >>> model = space.build(hp)
        >>> hp.values["experts"], hp.values["keep"]
        (2, 1.0)
    """

    def __init__(
        self,
        architecture: str,
        features: Sequence[Feature] | Encoder,
        tasks: Sequence[Task],
        search: Searched | None = None,
        **arguments: Any,
    ) -> None:
        if architecture not in _SPACES:
            raise ValueError(
                f"`architecture` should be one of {[*_SPACES]}. "
                f"Received: architecture={architecture!r}"
            )
        super().__init__(name=architecture)
        search = dict(search or {})
        names, self._arguments_of = _SPACES[architecture]
        if "l0" in search and "keep" in names:
            names = (*(name for name in names if name != "keep"), "l0")
        names = (*names, "learning_rate")
        if set(search) - set(names):
            raise ValueError(
                f"`search` should have hyperparameters of {architecture!r}, of "
                f"{[*names]}. Received: {sorted(search)}"
            )
        self.searched = {name: search.get(name, _DEFAULTS.get(name)) for name in names}
        self._recipe = getattr(models, architecture)
        self._given = {"features": features, "tasks": tasks, **arguments}
        self._check(arguments)

    def build(self, hp: Any) -> keras.Model:
        """A compiled model, of the values that KerasTuner asks for."""
        values = {name: _value(hp, name, how) for name, how in self.searched.items()}
        model = self._recipe(**self._given, **self._arguments_of(values))
        adam = keras.optimizers.Adam(values["learning_rate"])
        model.compile(adam, sparsity=_sparsity(values))
        model.optimizer.build(model.trainable_variables)  # a trial may go on with it
        return model

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains the model of a trial; called by the tuner."""
        if not model.get_compile_config()["sparsity"]:
            return model.fit(*args, **kwargs)
        *callbacks, checkpoint = kwargs.pop("callbacks")
        callbacks.append(_AtTheEnd(checkpoint))
        history = model.fit(*args, callbacks=callbacks, **kwargs)
        history.history = {name: v[-1:] for name, v in history.history.items()}
        return history

    def _check(self, arguments: Values) -> None:
        middle = {name: 1 for name in self.searched}
        taken = {*self._arguments_of(middle), "features", "tasks"}
        free = [n for n in inspect.signature(self._recipe).parameters if n not in taken]
        if set(arguments) - set(free):
            raise ValueError(
                f"`arguments` should be of {self.name!r}, of {free}; the others are "
                f"searched. Received: {sorted(arguments)}"
            )


class _AtTheEnd(keras.callbacks.Callback):
    """KerasTuner's checkpoint, which is told of the last epoch alone.

    Its own rule, the best epoch, would keep a network from before its gates closed.
    """

    def __init__(self, checkpoint: keras.callbacks.Callback) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._last: tuple[int, dict[str, Any]] | None = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._last = epoch, dict(logs or {})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._last is not None:
            self._checkpoint.set_model(self.model)
            self._checkpoint.on_epoch_end(*self._last)


def _value(hp: Any, name: str, how: Any) -> Any:
    if callable(how):
        return how(hp)
    if isinstance(how, list | tuple):
        return hp.Choice(name, list(how))
    return hp.Fixed(name, how)


def _sparsity(values: Values) -> keras.callbacks.Callback | None:
    if "l0" in values:
        return L0Ramp(values["l0"])
    keep = values.get("keep", 1.0)
    return Target(keep) if keep < 1 else None
