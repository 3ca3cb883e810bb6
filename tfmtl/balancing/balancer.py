"""The train step that weighs tasks by their gradients and losses."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfmtl.balancing.at_representation import AtRepresentation
from tfmtl.balancing.loss_weighting import LossWeighting
from tfmtl.balancing.partition import partition
from tfmtl.balancing.surgery import GradientSurgery, State
from tfmtl.balancing.task_gradients import (
    TaskGradients,
    combined,
    gram_of,
    gram_of_examples,
    of_all_replicas,
)

Tensor = Any
Losses = Callable[[dict[str, Tensor]], list[Tensor]]
Method = GradientSurgery | AtRepresentation | LossWeighting


class Balancer:
    """Trains a model by one method of surgery, one rule of loss weighting, or both.

    ```
    L_k      loss of task k, weighted by the task
    w_k      weight by the rule, 1 without one
    s_k      weight by the surgery of the gradients of w_k L_k, 1 without one
    shared   Σ_k s_k w_k ∇L_k        own   w_k ∇L_k        both   + ∇ penalties
    ```

    Args:
        model: A Functional model with a dict of outputs.
        tasks: Names of its tasks.
        balancing: A method, or a rule and a method.
        shared: Names of the shared layers whose gradients are looked at; other shared
            ones get the plain sum. Defaults to `None`, all.

    Raises:
        ValueError: If the methods do not fit together, or the tasks share nothing.
    """

    def __init__(
        self,
        model: keras.Model,
        tasks: Sequence[str],
        balancing: Method | Sequence[Method],
        shared: Sequence[str] | None = None,
    ) -> None:
        self.rule, surgery = _rule_and_surgery(balancing)
        self._at_representation = isinstance(surgery, AtRepresentation)
        self.surgery = (
            surgery.surgery if isinstance(surgery, AtRepresentation) else surgery
        )
        if self.rule and self.surgery and self.surgery.ignores_scale:
            raise ValueError(
                "`balancing` should have no rule of loss weighting beside "
                f"{type(self.surgery).__name__}, for which a task's scale means "
                f"nothing. Received: balancing={balancing!r}"
            )
        self.parts = partition(model, tasks)
        if not self.parts.shared:
            raise ValueError(
                "`balancing` should be used where tasks share trainable parameters. "
                f"Received: none shared by the tasks {list(tasks)}"
            )
        if self._at_representation and shared is not None:
            raise ValueError(
                "`shared` should be left out with AtRepresentation, which looks at no "
                f"parameters. Received: shared={shared!r}"
            )
        self._looked_at = _looked_at(self.parts.shared, shared)
        self._gradients = TaskGradients(model, self.parts)
        self._seed = keras.random.SeedGenerator()
        count = len(tasks)
        self._rule_state = _variables(self.rule, count)
        self._surgery_state = _variables(self.surgery, count)
        self.gram = _variable(tf.zeros((count, count), tf.float64))

    @property
    def needs_epochs(self) -> bool:
        """Whether `epoch_end` does anything."""
        return self.rule is not None and self.rule.needs_epochs

    @property
    def variables(self) -> dict[str, keras.Variable]:
        """What the methods remember and the state of their draws, by name."""
        named = {"seed": self._seed.state}
        for method, state in self._states():
            kind = type(method).__name__
            named |= {f"{kind}_{name}": variable for name, variable in state.items()}
        return named

    def step(
        self, model: keras.Model, x: Any, losses_of: Losses
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Trains on a batch.

        For a rule that needs the losses after the step the batch is run again with the
        draws of the first run, as of dropout, so that only the step lies between the
        two; statistics, as of batch normalisation, count it once.

        Args:
            model: The model, compiled.
            x: Columns.
            losses_of: From outputs to L_1 … L_T, each a scalar.

        Returns:
            The outputs before the step, and the loss with all penalties; under
            `tf.distribute` that of the replica's own examples.
        """
        optimizer = model.optimizer
        variables = model.trainable_variables
        values = [variable.value for variable in variables]
        start = [
            (variable, tf.convert_to_tensor(variable.value))
            for variable in model.non_trainable_variables
        ]
        with tf.GradientTape(persistent=True) as tape:
            outputs, frontier = self._gradients.forward(x)
            each = losses_of(outputs)  # a gradient of one is not of all
            losses = tf.stack(each)
            penalty = self._gradients.penalty
            weights = self._weights_of(losses)
            scaled = [optimizer.scale_loss(loss) for loss in each]
            scaled_penalty = optimizer.scale_loss(penalty)
            whole = tf.tensordot(weights, tf.stack(scaled), 1) + scaled_penalty
        if self.surgery is None and not (self.rule and self.rule.needs_gram):
            found = tape.gradient(whole, values)
        else:
            found = self._balanced(tape, scaled, weights, frontier)
            added = tape.gradient(scaled_penalty, values)
            pairs = zip(variables, added, strict=True)
            found = [_sum(found.get(id(variable)), g) for variable, g in pairs]
        if not optimizer.built:
            optimizer.build(variables)  # those without a gradient too
        optimizer.apply_gradients(
            [pair for pair in zip(found, variables, strict=True) if pair[0] is not None]
        )
        after = None
        if self.rule is not None and self.rule.needs_losses_after:
            with keras.StatelessScope(start):
                after = losses_of(self._gradients.forward(x)[0])
        self._update(losses, after)
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        return outputs, replicas * (tf.tensordot(weights, losses, 1) + penalty)

    def epoch_end(self) -> None:
        """Lets the rule know that an epoch is over."""
        if self.rule is not None:
            state = {name: v.value for name, v in self._rule_state.items()}
            _assign(self._rule_state, self.rule.epoch_end(state))

    def _weights_of(self, losses: Tensor) -> Tensor:
        if self.rule is None:
            return tf.ones_like(losses)
        state = {name: v.value for name, v in self._rule_state.items()}
        losses = of_all_replicas(tf.stop_gradient(losses))
        return tf.stop_gradient(self.rule.weights(state, losses, self._seed))

    def _balanced(
        self,
        tape: Any,
        losses: list[Tensor],
        weights: Tensor,
        frontier: list[Tensor],
    ) -> dict[int, Any]:
        """The gradient of each variable that a task reaches, by its id."""
        cotangents, own = self._gradients.of_towers(tape, losses, frontier)
        gradients = {
            id(variable): combined(weights[t : t + 1], (gradient,))
            for t, variables in enumerate(self.parts.own.values())
            for variable, gradient in zip(variables, own[t], strict=True)
            if gradient is not None
        }
        if self._at_representation:
            weights = self._operated(gram_of_examples(cotangents), weights)
            whole = [tf.tensordot(tf.cast(weights, c.dtype), c, 1) for c in cotangents]
            return gradients | self._gradients.of_shared(tape, frontier, whole)
        shared = self._gradients.by_task(tape, frontier, cotangents)
        looked_at = [found for key, found in shared.items() if key in self._looked_at]
        operated = self._operated(gram_of(looked_at), weights)
        for key, found in shared.items():
            chosen = operated if key in self._looked_at else weights
            gradients[key] = combined(chosen, found)
        return gradients

    def _operated(self, gram: Tensor, weights: Tensor) -> Tensor:
        """Weights of the tasks' gradients, s_k w_k, from the products of ∇L."""
        self.gram.assign(gram)
        if self.surgery is None:
            return weights
        state = {name: v.value for name, v in self._surgery_state.items()}
        by_rule = tf.cast(weights, gram.dtype)
        weighted = gram * by_rule[:, None] * by_rule
        surgery, state = self.surgery.weights(weighted, state, self._seed)
        _assign(self._surgery_state, state)
        return tf.cast(surgery, weights.dtype) * weights

    def _update(self, losses: Tensor, after: list[Tensor] | None) -> None:
        if self.rule is None:
            return
        gram = tf.cast(self.gram.value, losses.dtype) if self.rule.needs_gram else None
        state = {name: v.value for name, v in self._rule_state.items()}
        losses = of_all_replicas(losses)
        later = None if after is None else of_all_replicas(tf.stack(after))
        _assign(self._rule_state, self.rule.update(state, losses, gram, later))

    def _states(self) -> list[tuple[Any, dict[str, keras.Variable]]]:
        return [(self.rule, self._rule_state), (self.surgery, self._surgery_state)]


def _rule_and_surgery(
    balancing: Any,
) -> tuple[LossWeighting | None, GradientSurgery | AtRepresentation | None]:
    given = balancing if isinstance(balancing, list | tuple) else [balancing]
    rules = [method for method in given if isinstance(method, LossWeighting)]
    kinds = (GradientSurgery, AtRepresentation)
    surgeries = [method for method in given if isinstance(method, kinds)]
    if len(rules) + len(surgeries) < len(given) or max(len(rules), len(surgeries)) > 1:
        raise ValueError(
            "`balancing` should be a GradientSurgery, a LossWeighting, or one of each. "
            f"Received: balancing={balancing!r}"
        )
    if not given:
        raise ValueError("`balancing` should be a method. Received: balancing=[]")
    return next(iter(rules), None), next(iter(surgeries), None)


def _looked_at(variables: list[Any], names: Sequence[str] | None) -> set[int]:
    if names is None:
        return {id(variable) for variable in variables}
    found = {v.path.split("/")[0] for v in variables}
    if isinstance(names, str) or not set(names) or set(names) - found:
        raise ValueError(
            f"`shared` should be names of layers that tasks share, {sorted(found)}. "
            f"Received: shared={names!r}"
        )
    return {id(v) for v in variables if v.path.split("/")[0] in set(names)}


class EndOfEpoch(keras.callbacks.Callback):
    """Tells a balancer that an epoch is over.

    Args:
        balancer: The balancer.
    """

    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self._balancer = balancer

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Lets the rule of loss weighting know."""
        self._balancer.epoch_end()


def _variables(method: Any, count: int) -> dict[str, keras.Variable]:
    state: State = {} if method is None else method.initial_state(count, "float32")
    return {name: _variable(value) for name, value in state.items()}


def _variable(value: Tensor) -> keras.Variable:
    return keras.Variable(value, trainable=False)


def _assign(variables: dict[str, keras.Variable], state: State) -> None:
    for name, variable in variables.items():
        variable.assign(state[name])


def _sum(gradient: Any, penalty: Any) -> Any:
    if gradient is None or penalty is None:
        return penalty if gradient is None else gradient
    return tf.convert_to_tensor(gradient) + tf.convert_to_tensor(penalty)
