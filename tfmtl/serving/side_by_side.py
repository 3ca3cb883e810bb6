"""The old and the new version of a model side by side, on the same rows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tfmtl.serving.compared import Compared, compare_columns
from tfmtl.serving.saved_model import PathLike, read_meta_graph
from tfmtl.serving.scoring import batches_of, score
from tfmtl.serving.session import Rows
from tfmtl.serving.side_by_side_text import tables
from tfmtl.serving.signature_changes import signature_changes
from tfmtl.serving.thresholds import Thresholds

Limits = Thresholds | Mapping[str, Thresholds]


@dataclass(frozen=True)
class SideBySide:
    """What comparing two versions gave. `print` shows it as tables.

    Args:
        old: The old version's folder.
        new: The new version's folder.
        rows: The number of rows.
        outputs: By output that both versions have: the comparison. One of several
            columns has one for each, `topic[0]`, `topic[1]`, …
        added: Outputs that only the new version has.
        removed: Outputs that only the old version has.
        changes: What clients of the old version would stumble over, see
            `tfmtl.serving.signature_changes`.
    """

    old: Path
    new: Path
    rows: int
    outputs: Mapping[str, Compared]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changes: tuple[str, ...]

    def failures(
        self,
        thresholds: Limits | None = None,
        *,
        changed_signature: bool = False,
    ) -> tuple[str, ...]:
        """Why the new version should not replace the old one.

        Args:
            thresholds: The limits of all outputs, or of some by name; others have the
                default ones. Defaults to `None`, those of `Thresholds()`.
            changed_signature: Whether `changes` are meant. Defaults to `False`.

        Returns:
            A sentence each; empty if it may.

        Raises:
            ValueError: If thresholds are of an output that is not compared.

        Example:
            `report.failures({"click": Thresholds(max_auc_loss=0.001)})`
        """
        limits = _by_output(self, Thresholds() if thresholds is None else thresholds)
        return (
            *(() if changed_signature else self.changes),
            *(
                f"`{name}`: {failure}"
                for name, compared in self.outputs.items()
                for failure in compared.failures(limits[compared.output])
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON has it; what is not defined is `None`."""
        return asdict(self) | {"old": str(self.old), "new": str(self.new)}

    def __str__(self) -> str:
        lines = [f"{self.old} → {self.new}, {self.rows:,} rows", ""]
        lines += [tables(self.outputs)]
        lines += [f"output `{name}` is new" for name in self.added]
        return "\n".join([*lines, *self.changes])


def compare_versions(
    old: PathLike,
    new: PathLike,
    rows: Any,
    labels: Rows | None = None,
    *,
    timeout: float = 600.0,
) -> SideBySide:
    """Asks two SavedModels for the scores of the same rows, and compares them.

    Both run in TensorFlow's C++ session, in processes of their own: what is compared
    is what is served. Rows are streamed, 65,536 at a time; scores and labels are kept,
    12 bytes for each row and column of an output.

    Labels are those of the outputs' tasks, NaN where missing: also where a task's
    `where` or `missing` says so, which a SavedModel does not know. An output of
    several columns takes a label for each, or one: the class if it has a `classify_…`
    signature, a column's label being [y = k], and a level otherwise, [y > k].

    Args:
        old: The folder of the version that is served.
        new: The folder of the one that is to replace it.
        rows: All columns that one of the two reads, by name; or batches, as of
            `tfmtl.data.from_parquet`: `(columns, labels)`, or columns alone. Further
            columns do not matter.
        labels: By output, where `rows` are columns. Defaults to `None`, none.
        timeout: The seconds after which a process is ended.

    Returns:
        The report.

    Raises:
        ValueError: If rows or labels do not fit, or no output is in both versions.
        CppSessionError: If a version does not load or run.

    Example:

    ```
    report = compare_versions("models/ranker/3", "models/ranker/4", rows, labels)
    print(report)
    report.outputs["click"].quality.auc.change  # -0.0057
    report.failures()  # ('`click`: AUC 0.7431, 0.0057 below the old 0.7488; …',)
    ```
    """
    changes = signature_changes(old, new)
    before, after = (read_meta_graph(path).signature_def for path in (old, new))
    first, second = (found["serving_default"].outputs for found in (before, after))
    shared = sorted(set(first) & set(second))
    if not shared:
        raise ValueError(
            f"{old} and {new} should have an output in common. Received: "
            f"{sorted(first)} and {sorted(second)}"
        )
    scored = score(old, new, shared, batches_of(rows, labels), timeout)
    unknown = sorted(set(scored.labels) - set(first) - set(second))
    if unknown:
        raise ValueError(
            f"Labels should be of the outputs {sorted({*first, *second})}. "
            f"Received: {unknown}"
        )
    outputs: dict[str, Compared] = {}
    for name in shared:
        one, other = scored.old[name], scored.new[name]
        if one.shape == other.shape:
            classes = f"classify_{name}" in before
            found = compare_columns(name, one, other, scored.labels.get(name), classes)
            outputs |= found
        else:
            widths = f"had {one.shape[1]} scores in a row, has {other.shape[1]}"
            changes = (*changes, f"output `{name}` {widths}")
    return SideBySide(
        Path(old),
        Path(new),
        len(scored.old[shared[0]]),
        outputs,
        tuple(sorted(set(second) - set(first))),
        tuple(sorted(set(first) - set(second))),
        changes,
    )


def _by_output(report: SideBySide, limits: Limits) -> Mapping[str, Thresholds]:
    names = {compared.output for compared in report.outputs.values()}
    if isinstance(limits, Thresholds):
        return dict.fromkeys(names, limits)
    unknown = sorted(set(limits) - names)
    if unknown:
        raise ValueError(
            f"`thresholds` should be of the outputs {sorted(names)}. "
            f"Received: {unknown}"
        )
    return {name: limits.get(name, Thresholds()) for name in names}
