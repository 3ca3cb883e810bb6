"""Learned vocabularies as files."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfmtl.features.encoder import Encoder
from tfmtl.features.specs import Feature
from tfmtl.features.specs.looked_up import LookedUp


def write_vocabularies(
    features: Sequence[Feature] | Encoder, folder: str | os.PathLike[str]
) -> Any:
    """Writes learned vocabularies to files and lets the features read those.

    A vocabulary from a file becomes an asset of the SavedModel, not a constant of its
    graph; worth it from some thousand values on.

    Args:
        features: Adapted features, or an `Encoder` of them.
        folder: Where the files are written, `<table or feature>.txt`, one value per
            line; made where it is not there.

    Returns:
        New specifications in the same order, or a new `Encoder`. Features that have no
        vocabulary of their own are as before.

    Raises:
        FileExistsError: If a file is there and holds another vocabulary.
        ValueError: If a value holds a line break.

    Example:
        >>> import tempfile, tfmtl
        >>> sex = tfmtl.features.Categorical("sex", vocabulary=("Male", "Female"))
        >>> [sex] = tfmtl.features.write_vocabularies([sex], tempfile.mkdtemp())
        >>> open(sex.vocabulary).read().split()
        ['Male', 'Female']
    """
    if isinstance(features, Encoder):
        written = write_vocabularies(features.features, folder)
        return replace(features, features=written)
    return [
        replace(feature, vocabulary=_write(feature, Path(folder)))
        if isinstance(feature, LookedUp) and isinstance(feature.vocabulary, tuple)
        else feature
        for feature in features
    ]


def _write(feature: LookedUp, folder: Path) -> str:
    lines = [str(value) for value in feature.vocabulary or ()]
    broken = [line for line in lines if line.splitlines() != [line]]
    if broken:
        raise ValueError(
            f"The vocabulary of {feature.name!r} should have no line breaks to be "
            f"written to a file. Received: {broken[:3]}"
        )
    path = folder / f"{feature.table or feature.name}.txt"
    text = "\n".join(lines) + "\n"
    if path.exists():
        if path.read_text("utf-8") != text:
            raise FileExistsError(
                f"`folder` should have no other vocabulary for {feature.name!r}. "
                f"Received: {os.fspath(path)!r}, which differs"
            )
        return os.fspath(path)
    folder.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, "utf-8")
    beside.replace(path)
    return os.fspath(path)
