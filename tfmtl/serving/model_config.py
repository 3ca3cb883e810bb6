"""TF Serving's model config: going back to an older version, labels on versions.

The server reads the file again and again if it runs with
`--model_config_file_poll_wait_seconds`. It refuses a whole file in which a label points
at a version that it has not loaded yet. So where a label has to move onto such a
version, a first call only has it loaded. A second one, once the server reports the
version AVAILABLE, moves the label. Each file that is written can be applied as it is.

The file is replaced by a rename. A server in a container sees that only if the file's
folder is mounted, not the file alone.
"""

import importlib
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfmtl.serving.publish import folder_of, locked, replace_file, versions
from tfmtl.serving.saved_model import PathLike
from tfmtl.serving.verify import verify


@dataclass(frozen=True)
class Served:
    """What a model config asks the server to serve of one model.

    Args:
        versions: The versions to load; a request without version or label gets the
            largest.
        labels: The version by label.
        waiting: Whether the call has to be repeated, once the server has loaded all
            `versions`, to move the labels.
    """

    versions: tuple[int, ...]
    labels: Mapping[str, int]
    waiting: bool


def rollback(
    config: PathLike,
    model: str,
    to: int | None = None,
    *,
    base: PathLike | None = None,
    check: bool = True,
) -> Served:
    """Pins an older version of a model and lets go of the newer ones.

    Labels of the newer versions move to it. The model stays pinned: the server takes
    up later versions only when its `model_version_policy` is removed from the file.

    Args:
        config: The file with the `model_config_list`. Comments below its first lines
            are lost.
        model: The model's name.
        to: The version. Defaults to the one before the largest that is served.
        base: The folder of the versions, where the server's `base_path` is not the
            path here. Defaults to `base_path`.
        check: Whether the version has to verify. Defaults to `True`.

    Returns:
        What the file asks for now.

    Raises:
        ValueError: If there is no such model or version, or if it does not verify.
        ImportError: If tensorflow-serving-api is not installed.

    Example:
        `rollback("models.config", "ranker").versions  # (2,)`
    """

    def change(entry: Any, folder: Path) -> Served:
        loaded = _loaded(entry, versions(folder))
        current = max(loaded, default=None)
        target = _target(folder, current, to)
        _check(folder, target, check)
        kept = {version for version in loaded if version < target} | {target}
        labels = {
            label: version if version in kept else target
            for label, version in entry.version_labels.items()
        }
        return _next(entry, loaded, kept, labels)

    return _edit(config, model, base, change)


def label(
    config: PathLike,
    model: str,
    label: str,
    version: int,
    *,
    base: PathLike | None = None,
    check: bool = True,
) -> Served:
    """Points a label at a version of a model, which stays loaded from now on.

    The versions that are served now are pinned too, see `rollback`.

    Args:
        config: The file with the `model_config_list`. Comments below its first lines
            are lost.
        model: The model's name.
        label: The label.
        version: The version.
        base: The folder of the versions, where the server's `base_path` is not the
            path here. Defaults to `base_path`.
        check: Whether the version has to verify. Defaults to `True`.

    Returns:
        What the file asks for now.

    Raises:
        ValueError: If there is no such model or version, or if it does not verify.
        ImportError: If tensorflow-serving-api is not installed.

    Example:
        `label("models.config", "ranker", "canary", 3).waiting`
    """
    if not label:
        raise ValueError(f"`label` should not be empty. Received: label={label!r}")

    def change(entry: Any, folder: Path) -> Served:
        _check(folder, version, check)
        loaded = _loaded(entry, versions(folder))
        labels = {**entry.version_labels, label: version}
        return _next(entry, loaded, {*loaded, version}, labels)

    return _edit(config, model, base, change)


def _edit(
    config: PathLike,
    model: str,
    base: PathLike | None,
    change: Callable[[Any, Path], Served],
) -> Served:
    config = Path(config)
    with locked(config.parent):
        text = config.read_text("utf-8")
        proto = _parse(config, text)
        entry = _entry(config, proto, model)
        folder = Path(base or entry.base_path)
        if not folder.is_dir():
            raise ValueError(
                "`base` should be the folder of the versions, as it is called here. "
                f"Received: {folder}"
            )
        served = change(entry, folder)
        lost = {k: v for k, v in served.labels.items() if v not in served.versions}
        if lost:
            raise ValueError(
                f"Labels should point at versions in {folder}, or the server refuses "
                f"the file. Received: {lost}"
            )
        entry.model_version_policy.Clear()
        entry.model_version_policy.specific.versions.extend(served.versions)
        entry.version_labels.clear()
        entry.version_labels.update(served.labels)
        lines = itertools.takewhile(
            lambda line: line.startswith("#"), text.splitlines(keepends=True)
        )
        content = "".join(lines) + text_format.MessageToString(proto)
        replace_file(config, content.encode())
    return served


def _parse(config: Path, text: str) -> Any:
    try:
        protos = importlib.import_module(
            "tensorflow_serving.config.model_server_config_pb2"
        )
    except ImportError as error:
        raise ImportError(
            "Model configs need tensorflow-serving-api: `pip install tfmtl[serving]`."
        ) from error
    try:
        return text_format.Parse(text, protos.ModelServerConfig())
    except text_format.ParseError as error:
        raise ValueError(
            f"`config` should be a model config of TF Serving. Received: {config}, "
            f"where {error}"
        ) from error


def _entry(config: Path, proto: Any, model: str) -> Any:
    entries = {entry.name: entry for entry in proto.model_config_list.config}
    if model not in entries:
        raise ValueError(
            f"`model` should be one of {sorted(entries)}, which {config} has. "
            f"Received: model={model!r}"
        )
    return entries[model]


def _loaded(entry: Any, existing: tuple[int, ...]) -> tuple[int, ...]:
    """The versions that the server serves by the policy of an entry."""
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "specific":
        return tuple(sorted(set(policy.specific.versions) & set(existing)))
    if kind == "all":
        return existing
    number = policy.latest.num_versions if kind == "latest" else 1
    return existing[-max(number, 1) :]


def _target(folder: Path, current: int | None, to: int | None) -> int:
    older = [version for version in versions(folder) if version < (current or 0)]
    if (to is None and not older) or (to is not None and to not in older):
        raise ValueError(
            f"`to` should be one of {older}, which are in {folder} and older than "
            f"version {current}, served now. Received: to={to}"
        )
    return older[-1] if to is None else to


def _check(folder: Path, version: int, check: bool) -> None:
    existing = versions(folder)
    if version not in existing:
        raise ValueError(
            f"`version` should be one of {list(existing)}, which are in {folder}. "
            f"Received: version={version}"
        )
    problems = verify(folder_of(folder, version)).problems if check else ()
    if problems:
        raise ValueError(
            f"`version` should verify. Received: version={version}, where "
            + "; ".join(problems)
        )


def _next(
    entry: Any,
    loaded: Collection[int],
    wanted: Collection[int],
    labels: Mapping[str, int],
) -> Served:
    """What to write now: the goal, or what has to be loaded before its labels."""
    before = dict(entry.version_labels)
    moved = {version for name, version in labels.items() if before.get(name) != version}
    if moved <= set(loaded):
        return Served(tuple(sorted(wanted)), dict(labels), False)
    return Served(tuple(sorted({*loaded, *wanted})), before, True)
