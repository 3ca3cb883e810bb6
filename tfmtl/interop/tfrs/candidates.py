"""What an index of TFRS holds: the candidates' embeddings and identifiers."""

from typing import Any

import tensorflow as tf

from tfmtl.interop.tfrs.legacy import tfrs

BruteForce = tfrs.layers.factorized_top_k.BruteForce
Streaming = tfrs.layers.factorized_top_k.Streaming


def candidates_of(index: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """Reads the candidates of an index.

    Args:
        index: A `BruteForce` or `Streaming` layer with candidates.

    Returns:
        Embeddings, `(n, d)`, and identifiers, `(n,)`: int64 or strings.

    Raises:
        ValueError: If it is another index, or has no candidates yet.

    Example:
        >>> import tensorflow as tf, tensorflow_recommenders as tfrs
        >>> from tfmtl.interop.tfrs.candidates import candidates_of
        >>> index = tfrs.layers.factorized_top_k.BruteForce()
        >>> index = index.index(tf.ones((2, 3)), tf.constant(["a", "b"]))
        >>> candidates_of(index)[1].numpy().tolist()
        [b'a', b'b']
    """
    if not isinstance(index, BruteForce | Streaming):
        raise ValueError(
            "`index` should be a BruteForce or Streaming layer of TFRS, which look at "
            f"every candidate and run on any server. Received: index={index!r}"
        )
    candidates = index._candidates  # TFRS has no public way to read them
    if candidates is None:
        raise ValueError(
            "`index` should have candidates, as of `index_from_dataset`. "
            f"Received: index={index!r}"
        )
    if isinstance(index, BruteForce):
        return tf.convert_to_tensor(candidates), _ids(index._identifiers)
    batches = list(candidates)
    if isinstance(candidates.element_spec, tuple):
        identifiers, embeddings = (tf.concat(t, 0) for t in zip(*batches, strict=True))
        return embeddings, _ids(identifiers)
    embeddings = tf.concat(batches, 0)
    return embeddings, tf.range(len(embeddings), dtype=tf.int64)


def _ids(identifiers: Any) -> tf.Tensor:
    identifiers = tf.convert_to_tensor(identifiers)
    is_text = identifiers.dtype == tf.string
    return identifiers if is_text else tf.cast(identifiers, tf.int64)
