"""The check of a new version against the one that is served, before it is published."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tfmtl.serving.publish import folder_of, versions
from tfmtl.serving.saved_model import PathLike
from tfmtl.serving.session import Rows
from tfmtl.serving.side_by_side import Limits, SideBySide, compare_versions
from tfmtl.serving.thresholds import Thresholds

REPORT = "assets.extra/side_by_side.json"


@dataclass(frozen=True)
class Check:
    """What `tfmtl.serving.export` compares a new version with, on which rows.

    Args:
        rows: Columns by name, or batches, see `tfmtl.serving.compare_versions`. All
            that the new version and the old one read.
        labels: By output, where `rows` are columns. Defaults to `None`, none: then
            only the scores are compared.
        thresholds: The limits, of all outputs or of some by name. Defaults to those of
            `Thresholds()`.
        version: The version that is served. Defaults to `None`, the largest.
        changed_signature: Whether inputs and outputs may change under the clients.
            Defaults to `False`.

    Example:
        `export(model, "models/ranker", against=Check(rows, {"click": clicks}))`
    """

    rows: Any
    labels: Rows | None = None
    thresholds: Limits = field(default_factory=Thresholds)
    version: int | None = None
    changed_signature: bool = False

    def live(self, base: PathLike) -> Path | None:
        """The version to compare with, `None` where there is none yet.

        Args:
            base: The model's folder.

        Raises:
            ValueError: If `version` is none of the versions.
        """
        existing = versions(base)
        if self.version is not None and self.version not in existing:
            raise ValueError(
                f"`version` of the check should be one of {list(existing)}, which "
                f"exist in {base}. Received: version={self.version!r}"
            )
        if not existing:
            return None
        return folder_of(base, existing[-1] if self.version is None else self.version)

    def __call__(
        self, live: Path | None, folder: Path
    ) -> tuple[SideBySide | None, tuple[str, ...]]:
        """Compares, and writes the report into the new version.

        Args:
            live: The version that is served; `None` where there is none, of which the
                report is a note.
            folder: The new version, complete but for its manifest.

        Returns:
            The report, and why the new version should not be published.
        """
        if live is None:
            _write(folder, {"note": "no earlier version to compare with"})
            return None, ()
        report = compare_versions(live, folder, self.rows, self.labels)
        failures = report.failures(
            self.thresholds, changed_signature=self.changed_signature
        )
        given = self.thresholds
        limits = (
            {name: asdict(found) for name, found in given.items()}
            if isinstance(given, Mapping)
            else asdict(given)
        )
        _write(folder, report.to_dict() | {"new": None, "thresholds": limits})
        return report, failures


def _write(folder: Path, report: Mapping[str, Any]) -> None:
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    file = folder / REPORT
    file.parent.mkdir(exist_ok=True)
    file.write_text(text + "\n", "utf-8")
