"""Parts of a model by what they are for: to freeze, or to train at another pace."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import record
from tfmtl.folding.protocol import GateLayer
from tfmtl.layers import FieldGate, PositionBias, TargetAttention, Tower
from tfmtl.layers.gates import gates

_KINDS = ("features", "embeddings", "experts", "gates", "towers")


def groups(model: keras.Model) -> dict[str, list[Any]]:
    """The weights of a model by what they are for.

    | group | weights of |
    |---|---|
    | `"features"` | embeddings, gates on fields, attention of sequences |
    | `"embeddings"` | tables alone |
    | `"experts"` | what is between: experts, routings, interactions |
    | `"gates"` | softmax and DSelect-k gates, and every hard-concrete gate |
    | `"towers"` | towers and the effect of a position |
    | a task's name | every layer that reaches this task alone |

    Args:
        model: A built Functional model.

    Returns:
        Variables by group, those of tasks where the model knows its tasks. A layer that
        holds something of several tasks, such as one gate for all, is no task's.

    Raises:
        ValueError: If the model is not Functional or Sequential.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> model = tfmtl.models.mmoe([x], tasks, experts=4)
        >>> {name: len(found) for name, found in tfmtl.finetuning.groups(model).items()}
        {'features': 0, 'embeddings': 0, 'experts': 2, 'gates': 1, 'towers': 8, \
'click': 4, 'like': 4}
    """
    graph = record(model)
    facts = Facts(graph, prune=False, serving=False)
    found: dict[str, dict[int, Any]] = {name: {} for name in _KINDS}
    of_tasks = _outputs_of_tasks(model)
    found |= {name: {} for name in of_tasks}
    gated = {id(weight) for gate in gates(model) for weight in gate.weights}
    for call in graph.calls:
        weights = getattr(call.operation, "weights", [])
        kind = _kind(call.operation)
        for weight in weights:
            names = ["gates"] if id(weight) in gated else kind
            for name in (*names, *(kind[:1] if kind[0] == "features" else ())):
                found[name][id(weight)] = weight
        reached = np.any([facts.reaches[ref].any(axis=0) for ref in call.results], 0)
        tasks = [
            name for name, outputs in of_tasks.items() if (reached & outputs).any()
        ]
        for name in tasks if len(tasks) == 1 else ():
            found[name] |= {id(weight): weight for weight in weights}
    return {name: list(weights.values()) for name, weights in found.items()}


def freeze(
    model: keras.Model, *names: str, but: Sequence[str] | None = None
) -> keras.Model:
    """Leaves parts of a model as they are in training.

    A layer or gate all of whose weights are frozen is not trainable, so that its batch
    normalisation is as in inference; of another single weights are not, which a saved
    model does not keep. Compile the model after it.

    Args:
        model: A built Functional model. It is changed.
        *names: Groups, see `groups`, or names of layers.
        but: Groups, or names of layers, that train, everything else being frozen, in
            place of `names`. Defaults to `None`.

    Returns:
        The model.

    Raises:
        ValueError: If a name is that of no group and no layer.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> tasks = [tfmtl.tasks.Binary("click"), tfmtl.tasks.Binary("like")]
        >>> model = tfmtl.models.shared_bottom([x], tasks)
        >>> model = tfmtl.finetuning.freeze(model, but=["like"])
        >>> sorted({weight.path.split("/")[0] for weight in model.trainable_weights})
        ['like_tower']
    """
    if bool(names) == (but is not None):
        raise ValueError(
            "Either names of groups or `but` should be given. "
            f"Received: {list(names)}, but={but}"
        )
    chosen = _ids(*weights_of(model, names if but is None else but))
    if but is None:
        _set_trainable(model, chosen, False)
    else:
        _set_trainable(model, chosen, True)
        _set_trainable(model, _ids(model.weights) - chosen, False)
    return model


def unfreeze(model: keras.Model, *names: str) -> keras.Model:
    """Lets parts of a model train again.

    Args:
        model: A built Functional model. It is changed; compile it after that.
        *names: Groups, see `groups`, or names of layers. Defaults to all.

    Returns:
        The model.

    Raises:
        ValueError: If a name is that of no group and no layer.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> model = tfmtl.models.shared_bottom([x], [tfmtl.tasks.Binary("click")])
        >>> model = tfmtl.finetuning.freeze(model, "experts", "towers")
        >>> model = tfmtl.finetuning.unfreeze(model, "towers")
        >>> sorted({weight.path.split("/")[0] for weight in model.trainable_weights})
        ['click_tower']
    """
    chosen = weights_of(model, names) if names else [model.weights]
    _set_trainable(model, _ids(*chosen), True)
    return model


def learning_rates(
    model: keras.Model,
    rates: Mapping[str, float | keras.optimizers.Optimizer],
    default: float | keras.optimizers.Optimizer = 1e-3,
) -> keras.optimizers.Optimizer:
    """An optimizer with a learning rate for each part of a model.

    Args:
        model: A built Functional model.
        rates: Group, see `groups`, or name of a layer to its learning rate, of Adam, or
            an optimizer of its own. What is in two of them goes by the later one.
        default: That of all other weights. Defaults to 1e-3.

    Returns:
        A `keras.optimizers.MultiOptimizer`, for `compile`.

    Raises:
        ValueError: If a name is that of no group and no layer.

    Example:
        >>> import tfmtl
        >>> x = tfmtl.features.Numeric("x", width=2, mean=(0, 0), std=(1, 1))
        >>> model = tfmtl.models.shared_bottom([x], [tfmtl.tasks.Binary("click")])
        >>> rates = {"experts": 1e-4, "towers": 1e-3}
        >>> model.compile(tfmtl.finetuning.learning_rates(model, rates))
        >>> len(model.optimizer.optimizers)
        3
    """
    paths: dict[str, str] = {}
    for name, weights in zip(rates, weights_of(model, [*rates]), strict=True):
        paths |= {weight.path: name for weight in weights}
    given = {}
    for name, rate in rates.items():
        own = [re.escape(path) for path, group in paths.items() if group == name]
        if own:
            given["|".join(own)] = _optimizer(rate)
    chosen = keras.optimizers.OptimizerMap(_optimizer(default), given)
    return keras.optimizers.MultiOptimizer(chosen)


def _optimizer(given: Any) -> keras.optimizers.Optimizer:
    if isinstance(given, keras.optimizers.Optimizer):
        return given
    return keras.optimizers.Adam(given)


def _kind(layer: Any) -> list[str]:
    if hasattr(layer, "embeddings"):
        return ["features", "embeddings"]
    if isinstance(layer, FieldGate | TargetAttention):
        return ["features"]
    if isinstance(layer, GateLayer):
        return ["gates"]
    if isinstance(layer, Tower | PositionBias):
        return ["towers"]
    return ["experts"]


def _outputs_of_tasks(model: Any) -> dict[str, np.ndarray]:
    """By name of a task, which of the outputs, flat, are its."""
    if not getattr(model, "tasks", ()):
        return {}
    names = keras.tree.flatten({name: name for name in model.output})
    return {
        task.name: np.isin(names, [task.name, task.conditional_name])
        for task in model.tasks
    }


def weights_of(model: Any, names: Sequence[str]) -> list[list[Any]]:
    """The weights of each group or layer.

    Raises:
        ValueError: If a name is that of no group and no layer.
    """
    if isinstance(names, str):
        names = [names]
    found = groups(model)
    known = {layer.name: getattr(layer, "weights", []) for layer in _layers(model)}
    known |= found
    for name in names:
        if name not in known:
            raise ValueError(
                f"Groups should be among {[*found]}, or names of layers. "
                f"Received: {name!r}"
            )
    return [known[name] for name in names]


def _ids(*weights: Sequence[Any]) -> set[int]:
    return {id(weight) for several in weights for weight in several}


def _layers(model: keras.Model) -> list[Any]:
    """Layers and operations, those of models inside included."""
    return [call.operation for call in record(model).calls]


def _set_trainable(model: keras.Model, chosen: set[int], trainable: bool) -> None:
    inner = gates(model)  # layers in layers
    gated = _ids(*(gate.weights for gate in inner))
    for layer in [*_layers(model), *inner]:
        own = _ids(getattr(layer, "weights", ()))
        if own and own <= chosen:
            layer.trainable = not trainable  # Keras does not set again what is set
            layer.trainable = trainable
        elif own & chosen:
            for weight in layer.weights:
                if id(weight) in chosen - gated:
                    weight.trainable = trainable
