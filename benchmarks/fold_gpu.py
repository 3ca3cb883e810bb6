"""What the layouts of a folded SNR cost on a GPU, as a share of the dense time.

Experts on a dense input of 128, two routed levels of as many sub-networks, and towers:
the operations of the folded layers, written in PyTorch or JAX, which need no TensorFlow
for the GPU. PyTorch runs them one by one, as a model server does (`eager`), and again
without the time it takes to launch them (`graph`, a CUDA graph); JAX compiles them with
XLA (`jit`). Products are in TF32, as TensorFlow's are, unless `--float32`.

The networks of a cell run in turns in one process, and a cell is the median ratio to
the dense network of the same turn: the median over random topologies and their range.
The layouts are `one` product of what is left; `2` or `4` products; one product per set
of inputs (`sets`); one batched product, its inputs filled up with zeros (`padded`); and
those that `fold(model, batch_size=…, device=…)` chooses for the batch, on a CPU and on
a GPU.

    python benchmarks/fold_gpu.py torch
    python benchmarks/fold_gpu.py jax
"""

import argparse
import csv
import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from tfmtl.ops.grouping import DEVICES, Group, group_outputs

INPUTS = 128
LARGEST_GATHER = 2**31  # values that a padded layout puts side by side

Tensor = Any
Run = Callable[[], object]


class Torch:
    """Operations, and ways to run them."""

    def __init__(self, float32: bool) -> None:
        torch: Any = importlib.import_module("torch")
        torch.backends.cuda.matmul.allow_tf32 = not float32
        torch.set_grad_enabled(False)
        on_gpu = torch.cuda.is_available()
        self.device = torch.cuda.get_device_name() if on_gpu else "CPU"
        self.array = partial(torch.tensor, device="cuda" if on_gpu else "cpu")
        self.side_by_side = partial(torch.cat, dim=-1)
        self.relu = torch.relu
        self._torch, self._on_gpu = torch, on_gpu

    def take(self, x: Tensor, slots: Tensor) -> Tensor:
        """Slots of a tensor with slots."""
        return self._torch.index_select(x, 1, slots)

    def batched(self, x: Tensor, kernel: Tensor) -> Tensor:
        """`(b, i, d)` and `(i, d, h)` to `(b, i, h)`."""
        return self._torch.bmm(x.transpose(0, 1), kernel).transpose(0, 1)

    def ways(self, networks: list[Any], x: Tensor) -> dict[str, list[Run]]:
        """The networks on `x`, warm, by the way to run them."""
        runs: list[Run] = [partial(network, x) for network in networks]
        found = {"eager": runs}
        self.wait([run() for run in runs])
        if self._on_gpu:
            found["graph"] = [self._captured(run) for run in runs]
        return found

    def wait(self, result: object) -> None:
        """Until all is computed."""
        if self._on_gpu:
            self._torch.cuda.synchronize()

    def _captured(self, run: Run) -> Run:
        stream = self._torch.cuda.Stream()
        with self._torch.cuda.stream(stream):
            run()
        self._torch.cuda.synchronize()
        graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(graph):
            run()
        return graph.replay


class Jax:
    """Operations, and a way to run them."""

    def __init__(self, float32: bool) -> None:
        jax: Any = importlib.import_module("jax")
        precision = "highest" if float32 else "default"
        jax.config.update("jax_default_matmul_precision", precision)
        self.device = jax.devices()[0].device_kind
        self.array = jax.numpy.asarray
        self.side_by_side = partial(jax.numpy.concatenate, axis=-1)
        self.relu = jax.nn.relu
        self._jax = jax

    def take(self, x: Tensor, slots: Tensor) -> Tensor:
        """Slots of a tensor with slots."""
        return self._jax.numpy.take(x, slots, axis=1)

    def batched(self, x: Tensor, kernel: Tensor) -> Tensor:
        """`(b, i, d)` and `(i, d, h)` to `(b, i, h)`."""
        return self._jax.numpy.einsum("bid,idh->bih", x, kernel)

    def ways(self, networks: list[Any], x: Tensor) -> dict[str, list[Run]]:
        """The networks on `x`, warm, by the way to run them."""
        runs: list[Run] = [partial(self._jax.jit(network), x) for network in networks]
        with ThreadPoolExecutor(8) as pool:  # compiles them
            self.wait(list(pool.map(lambda run: run(), runs)))
        return {"jit": runs}

    def wait(self, result: object) -> None:
        """Until all is computed."""
        self._jax.block_until_ready(result)


class Grouped:
    """A routing as `PrunedTransformation` computes it.

    Takes a tensor `(b, j, d)` or a list of slots; gives a list of slots where it has
    several groups.
    """

    def __init__(
        self, library: Any, groups: list[Group], kernel: np.ndarray, bias: np.ndarray
    ) -> None:
        j, d, _, self._width = kernel.shape
        self.order = [i for _, computes in groups for i in computes]
        self.products = len(groups)
        self._library = library
        self._products = []
        for reads, computes in groups:
            block = kernel[reads][:, :, computes].reshape(len(reads) * d, -1)
            slots = None if reads == [*range(j)] else library.array(np.array(reads))
            shift = bias[computes].reshape(-1) if len(groups) > 1 else bias[computes]
            self._products.append(
                (reads, slots, *map(library.array, (block, shift)), len(computes))
            )

    def __call__(self, x: Tensor) -> Tensor:
        outputs = []
        for reads, slots, kernel, bias, count in self._products:
            product = self._side_by_side(x, reads, slots) @ kernel
            if len(self._products) == 1:
                product = product.reshape(-1, count, self._width)
                return self._library.relu(product + bias)
            product = product + bias
            for k in range(count):
                part = product[:, k * self._width : (k + 1) * self._width]
                outputs.append(self._library.relu(part))
        return outputs

    def _side_by_side(self, x: Tensor, reads: list[int], slots: Tensor) -> Tensor:
        if isinstance(x, list):
            parts = [x[k] for k in reads]
            return parts[0] if len(parts) == 1 else self._library.side_by_side(parts)
        taken = x if slots is None else self._library.take(x, slots)
        return taken.reshape(len(x), -1)


class Padded:
    """A routing as one batched product: each output reads as many slots as any."""

    def __init__(
        self, library: Any, groups: list[Group], kernel: np.ndarray, bias: np.ndarray
    ) -> None:
        _, d, i, h = kernel.shape
        most = max(len(reads) for reads, _ in groups)
        slots, kernels = np.zeros((i, most), int), np.zeros((i, most, d, h), "f4")
        for reads, computes in groups:
            for k in computes:
                slots[k, : len(reads)] = reads
                kernels[k, : len(reads)] = kernel[reads, :, k]
        self.order = [*range(i)]
        self.products = 1
        self._library, self._count = library, i
        self._slots = library.array(slots.reshape(-1))
        self._kernel = library.array(kernels.reshape(i, most * d, h))
        self._bias = library.array(bias)

    def __call__(self, x: Tensor) -> Tensor:
        taken = self._library.take(x, self._slots).reshape(len(x), self._count, -1)
        product = self._library.batched(taken, self._kernel)
        return self._library.relu(product + self._bias)


class Network:
    """Experts, routings in a layout, towers.

    Args:
        library: `Torch` or `Jax`.
        opened: Connections of each level, `(i, j)`; every slot is read and reads.
        width: Of a sub-network.
        level: `Grouped` or `Padded`.
        layout: Groups of a level.
    """

    def __init__(
        self,
        library: Any,
        opened: list[np.ndarray],
        width: int,
        level: Any,
        layout: Callable[[np.ndarray], list[Group]],
    ) -> None:
        generator = np.random.default_rng(0)

        def normal(*shape: int) -> np.ndarray:
            return generator.standard_normal(shape, "f4") / np.float32(shape[0])

        self._library, self._width = library, width
        count = opened[0].shape[1]
        self._experts = library.array(normal(INPUTS, count * width))
        self.levels, order = [], list(range(count))
        for connections in opened:
            i, j = connections.shape
            kernel = normal(j, width, i, width) * connections.T[:, None, :, None]
            kernel, connections = kernel[order], connections[:, order]
            groups = layout(connections)
            made = level(library, groups, kernel, normal(i, width))
            self.levels.append(made)
            order = made.order
        towers = [normal(width, 1) for _ in order]
        self._towers = [library.array(towers[k]) for k in order]
        self._order = order

    def __call__(self, x: Tensor) -> list[Tensor]:
        """One output per last sub-network."""
        x = self._library.relu(x @ self._experts)
        x = x.reshape(len(x), -1, self._width)
        for level in self.levels:
            x = level(x)
        slots = x if isinstance(x, list) else [x[:, k] for k in range(x.shape[1])]
        found = [s @ tower for s, tower in zip(slots, self._towers, strict=True)]
        return [found[self._order.index(k)] for k in range(len(found))]


def topology(count: int, closed: float, seed: int) -> list[np.ndarray]:
    """What is left of two levels with a share of connections closed at random."""
    generator = np.random.default_rng(seed)
    shut = round(closed * count**2)
    first, second = (
        (generator.permutation(count**2) >= shut).reshape(count, count)
        for _ in range(2)
    )
    middle = first.any(axis=1) & second.any(axis=0)
    first, second = first[middle], second[:, middle]
    return [first[:, first.any(axis=0)], second[second.any(axis=1)]]


def at_most(number: int, opened: np.ndarray) -> list[Group]:
    """Groups of equal inputs, joined where that adds fewest weights."""
    groups: dict[frozenset[int], list[int]] = {}
    for output, row in enumerate(opened):
        groups.setdefault(frozenset(np.flatnonzero(row).tolist()), []).append(output)

    def added(pair: tuple[frozenset[int], frozenset[int]]) -> int:
        a, b = pair
        both = len(groups[a]) + len(groups[b])
        apart = len(a) * len(groups[a]) + len(b) * len(groups[b])
        return len(a | b) * both - apart

    while len(groups) > number:
        a, b = min(combinations(groups, 2), key=added)
        joined = groups.pop(a) + groups.pop(b)
        groups[a | b] = sorted(joined + groups.get(a | b, []))
    return [(sorted(reads), computes) for reads, computes in groups.items()]


LAYOUTS: dict[str, tuple[Any, Callable[[np.ndarray], list[Group]]]] = {
    "one": (Grouped, partial(at_most, 1)),
    "2": (Grouped, partial(at_most, 2)),
    "4": (Grouped, partial(at_most, 4)),
    "sets": (Grouped, partial(at_most, 1000)),
    "padded": (Padded, partial(at_most, 1000)),
}


def turns(library: Any, runs: list[Run], seconds: float) -> np.ndarray:
    """Times `(turns, runs)` of runs in turns, for some seconds."""

    def timed(run: Run, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            result = run()
        library.wait(result)
        return (time.perf_counter() - start) / calls

    calls = int(np.clip(1e-3 / timed(runs[0], 3), 1, 30))
    found: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(found) < 6 or time.perf_counter() < end:
        found.append([timed(run, calls) for run in runs])
    return np.array(found[1:])


def measured(
    library: Any,
    count: int,
    width: int,
    closed: float,
    seed: int,
    batches: list[int],
    seconds: float,
) -> list[dict[str, Any]]:
    """A row per batch, way to run it and layout."""
    opened = topology(count, closed, seed)
    made = partial(Network, library, opened, width)
    whole = Network(
        library, [np.ones((count, count), bool)] * 2, width, *LAYOUTS["one"]
    )
    fixed = {name: made(*layout) for name, layout in LAYOUTS.items()}
    found = []
    for batch in batches:
        rows = np.random.default_rng(seed).standard_normal((batch, INPUTS), "f4")
        networks = {"dense": whole, **fixed}
        gathered = max(int(o.sum(1).max()) * len(o) for o in opened) * width * batch
        if gathered > LARGEST_GATHER:
            del networks["padded"]
        for device in DEVICES:
            layout = partial(
                group_outputs, width=width, units=width, batch=batch, device=device
            )
            networks[f"for a {device}"] = made(Grouped, layout)
        ways = library.ways([*networks.values()], library.array(rows))
        for way, runs in ways.items():
            times = turns(library, runs, seconds)
            found += [
                {
                    "way": way,
                    "count": count,
                    "width": width,
                    "closed": closed,
                    "seed": seed,
                    "batch": batch,
                    "layout": name,
                    "groups": [level.products for level in network.levels],
                    "us": 1e6 * float(np.median(of_run)),
                    "ratio": float(np.median(of_run / times[:, 0])),
                }
                for (name, network), of_run in zip(
                    networks.items(), times.T, strict=True
                )
            ]
    return found


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=["torch", "jax"])
    parser.add_argument("--float32", action="store_true", help="products not in TF32")
    parser.add_argument("--shapes", nargs="+", default=["8x64"], help="count x width")
    parser.add_argument("--topologies", type=int, default=5)
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 64, 256, 4096, 65536]
    )
    parser.add_argument("--closed", type=float, nargs="+", default=[0.5, 0.75, 0.9])
    parser.add_argument("--seconds", type=float, default=0.3, help="per cell")
    parser.add_argument("--csv", type=Path, help="file for all figures")
    options = parser.parse_args()
    library: Any = {"torch": Torch, "jax": Jax}[options.library](options.float32)
    print(f"{library.device}, {options.library}")
    everything: list[dict[str, Any]] = []
    for shape in options.shapes:
        count, width = map(int, shape.split("x"))
        for closed in options.closed:
            cells = [
                row
                for seed in range(options.topologies)
                for row in measured(
                    library,
                    count,
                    width,
                    closed,
                    seed,
                    options.batches,
                    options.seconds,
                )
            ]
            everything += cells
            table(shape, closed, options.batches, cells)
    if options.csv is not None:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, everything[0])
            writer.writeheader()
            writer.writerows(everything)


def table(
    shape: str, closed: float, batches: list[int], rows: list[dict[str, Any]]
) -> None:
    """Prints the cells of a shape and a share of closed connections."""
    heads = " | ".join(f"B={batch}" for batch in batches)
    print(f"\n| {shape}, {closed:.0%} closed | {heads} |")
    print("|---|" + "---|" * len(batches))
    for way, layout in dict.fromkeys((row["way"], row["layout"]) for row in rows):
        if layout == "dense":
            continue
        cells = []
        for batch in batches:
            found = [
                row["ratio"]
                for row in rows
                if (row["way"], row["layout"], row["batch"]) == (way, layout, batch)
            ]
            cells.append(
                f"{np.median(found):.2f} ({min(found):.2f} … {max(found):.2f})"
                if found
                else ""
            )
        print(f"| {way}, {layout} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
