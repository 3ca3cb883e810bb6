"""Which slots of a model are a task's own."""

from collections.abc import Iterable, Mapping

import numpy as np

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import Graph, Ref
from tfmtl.folding.protocol import MixtureLayer


class Own(Facts):
    """Of a graph as it trains: the slots that exist for one task.

    ```
    own(s) = {k}   where of all slots that read s, one or more are own of task k, and
                   none is own of another task
           = {}    otherwise, and of a whole tensor where something shared reads it too
    ```

    So a tower, a gate's row, a routing's output and an expert that only this task
    weighs are its own, also where PLE's shared gate weighs that expert too.

    Args:
        graph: A recorded model.
        tasks: The outputs of each task, by its name.
        like: Name of the task.
        shared: Tensors that are nobody's own, nor is what they depend on.

    Attributes:
        own: Bits: which slots are the task's own.
        taken: `id`s of operations that hold slots which `take` made the task's own.
        owners: The name of the task that each slot is the own of, or `None`.
    """

    def __init__(
        self,
        graph: Graph,
        tasks: Mapping[str, list[Ref]],
        like: str,
        shared: Iterable[Ref] = (),
    ) -> None:
        super().__init__(graph, serving=False)
        sizes = {ref: len(bits) for ref, bits in self.reaches.items()}
        # of each bit: the tasks whose own slots read it, and whether shared ones do
        users = {ref: np.zeros((size, len(tasks)), bool) for ref, size in sizes.items()}
        mixed = {ref: np.zeros(size, bool) for ref, size in sizes.items()}
        barred = {ref: np.zeros(size, bool) for ref, size in sizes.items()}
        for ref in shared:
            barred[ref][:] = True
        outputs = {ref: k for k, refs in enumerate(tasks.values()) for ref in refs}

        def own(ref: Ref) -> np.ndarray:
            found = users[ref].copy()
            found[(found.sum(axis=1) > 1) | barred[ref]] = False
            if self.slots[ref] is None:
                found[mixed[ref]] = False
            if ref in outputs:
                found[:] = np.arange(len(tasks)) == outputs[ref]
            return found

        for call, rule in zip(reversed(graph.calls), reversed(self.rules), strict=True):
            for output, ref in enumerate(call.results):
                of_tasks = own(ref)
                of_none = self.live(ref) & ~of_tasks.any(axis=1)
                for position, read in enumerate(call.inputs):
                    reads = rule.reads(call, self.slots, output, position).T
                    users[read] |= reads @ of_tasks
                    mixed[read] |= reads @ of_none
                    barred[read] |= reads @ barred[ref]
        found = {ref: own(ref) for ref in sizes}
        names = np.array([*tasks, None], object)
        self.owners = {  # of a bit that is nobody's own, the last name
            ref: names[np.where(bits.any(axis=1), bits.argmax(axis=1), -1)].tolist()
            for ref, bits in found.items()
        }
        task = list(tasks).index(like)
        self.own = {ref: bits[:, task] for ref, bits in found.items()}
        self.taken: set[int] = set()

    def take(self, refs: Iterable[Ref], stream: Ref) -> None:
        """Makes tensors the task's own, and all between them and a stream."""
        edges = [
            (ref, read, rule.reads(call, self.slots, output, position))
            for call, rule in zip(self.graph.calls, self.rules, strict=True)
            for output, ref in enumerate(call.results)
            for position, read in enumerate(call.inputs)
        ]
        after = {ref: np.zeros_like(bits) for ref, bits in self.own.items()}
        before = {ref: np.zeros_like(bits) for ref, bits in self.own.items()}
        for ref in refs:
            after[ref][:] = True
        before[stream][:] = True
        for ref, read, reads in edges:
            after[ref] |= reads @ after[read]
        for ref, read, reads in reversed(edges):
            before[read] |= reads.T @ before[ref]
        for call in self.graph.calls:
            for ref in call.results:
                between = after[ref] & before[ref]
                if (between & ~self.own[ref]).any():
                    self.taken.add(id(call.operation))
                self.own[ref] = self.own[ref] | between

    def kept(self, ref: Ref) -> list[int]:
        """The slots that are the task's own."""
        return np.flatnonzero(self.own[ref]).tolist()

    def columns(self, ref: Ref) -> list[int]:
        """Experts that the task's own rows of a gate weigh.

        All of them where the task reads rows that are not its own.
        """
        rows, pairs = self.own[ref], self.pairs.get(ref)
        if pairs is None or (self._weighed(ref) & ~rows).any():
            return list(range(ref.shape[2] or 0))
        return np.flatnonzero(pairs[rows].any(axis=0)).tolist()

    def _weighed(self, ref: Ref) -> np.ndarray:
        """Bits: rows of a gate by which the task's own slots of mixtures weigh."""
        found = np.zeros_like(self.own[ref])
        for call in self.graph.calls:
            if isinstance(call.operation, MixtureLayer) and ref in call.inputs[1:]:
                found |= self.own[call.results[0]]
        return found
