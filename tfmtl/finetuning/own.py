"""Which slots of a model are a task's own."""

from collections.abc import Iterable, Mapping

import numpy as np

from tfmtl.folding.facts import Facts
from tfmtl.folding.graph import Graph, Ref


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

    def kept(self, ref: Ref) -> list[int]:
        """The slots that are the task's own."""
        return np.flatnonzero(self.own[ref]).tolist()

    def columns(self, ref: Ref) -> list[int]:
        """Experts that the task's own rows of a gate weigh."""
        if ref not in self.pairs:
            return list(range(ref.shape[2] or 0))
        return np.flatnonzero(self.pairs[ref][self.own[ref]].any(axis=0)).tolist()
