"""What of a new version's signatures would break clients of the old one."""

from collections.abc import Iterator, Mapping

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from tfmtl.serving.saved_model import DEFAULT, PathLike, read_meta_graph, spelled

Infos = Mapping[str, meta_graph_pb2.TensorInfo]


def signature_changes(old: PathLike, new: PathLike) -> tuple[str, ...]:
    """Lists what clients of the old version would stumble over.

    A server asks for exactly the inputs of a signature, so that a further one breaks
    clients too; a further output, or an axis that has become free, does not.

    Args:
        old: The folder of the version that clients know.
        new: The folder of the one that is to replace it.

    Returns:
        A sentence each; empty if clients may stay as they are.

    Raises:
        ValueError: If a folder has no SavedModel, or no `serving_default`.

    Example:
        `signature_changes("models/ranker/3", "models/ranker/4")  # ('output …',)`
    """
    before, after = (dict(read_meta_graph(path).signature_def) for path in (old, new))
    for path, found in ((old, before), (new, after)):
        if DEFAULT not in found:
            raise ValueError(
                f"{path} should have the signature {DEFAULT!r}. Received: "
                f"{sorted(found)}"
            )
    gone = set(before[DEFAULT].outputs) - set(after[DEFAULT].outputs)
    return (
        *_inputs(before[DEFAULT].inputs, after[DEFAULT].inputs),
        *_outputs(before[DEFAULT].outputs, after[DEFAULT].outputs),
        *(
            f"signature `{name}` is gone"
            for name in sorted(set(before) - set(after) - gone)
        ),
    )


def _inputs(old: Infos, new: Infos) -> Iterator[str]:
    for name in sorted(set(old) | set(new)):
        if name not in new:
            yield f"input `{name}` is gone: requests that have it are refused"
        elif name not in old:
            yield f"input `{name}` is new: requests without it are refused"
        elif old[name].dtype != new[name].dtype or not _accepts(new[name], old[name]):
            yield f"input `{name}` was {spelled(old[name])}, is {spelled(new[name])}"


def _outputs(old: Infos, new: Infos) -> Iterator[str]:
    for name in sorted(old):
        if name not in new:
            yield f"output `{name}` is gone"
        elif spelled(old[name]) != spelled(new[name]):
            yield f"output `{name}` was {spelled(old[name])}, is {spelled(new[name])}"


def _accepts(new: meta_graph_pb2.TensorInfo, old: meta_graph_pb2.TensorInfo) -> bool:
    wide, narrow = (tf.TensorShape(info.tensor_shape) for info in (new, old))
    if wide.rank is None or narrow.rank is None:
        return wide.rank is None
    return wide.rank == narrow.rank and all(
        size in (None, known) for size, known in zip(wide, narrow, strict=True)
    )
