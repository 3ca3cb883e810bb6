"""Comparisons of outputs as tables for people."""

from collections.abc import Iterator, Mapping, Sequence

from tfmtl.serving.compared import Compared
from tfmtl.serving.pair import Pair

QUALITY = ("labels", "rows", "AUC", "new", "change", "±", "cal.", "new", "loss", "new")
DRIFT = ("scores", "mean", "new", "|change|", "max", "PSI", "rank corr.")


def tables(outputs: Mapping[str, Compared]) -> str:
    """Formats comparisons: quality where there are labels, drift, what is missing.

    Args:
        outputs: Comparisons by output.

    Example:
        `print(tables(report.outputs))`
    """
    quality = [
        cells for name, found in outputs.items() for cells in _quality(name, found)
    ]
    drift = [cells for name, found in outputs.items() for cells in _drift(name, found)]
    blocks = [_table(QUALITY, quality)] if quality else []
    blocks += [_table(DRIFT, drift)] if drift else []
    return "\n".join(["\n\n".join(blocks), "", *_notes(outputs)]).rstrip() + "\n"


def _quality(name: str, found: Compared) -> Iterator[tuple[str, ...]]:
    quality = found.quality
    if quality is None:
        return
    change, error, loss = quality.auc.change, quality.auc_error, quality.loss
    yield (
        name,
        f"{quality.labelled:,}",
        *_pair(quality.auc, ".4f"),
        "–" if change is None else f"{change:+.4f}",
        "–" if error is None else f"{error:.4f}",
        *_pair(quality.calibration, ".3f"),
        *_pair(loss, ".4g"),
        "" if loss.old is None else "RMSE" if loss is quality.rmse else "log loss",
    )


def _drift(name: str, found: Compared) -> Iterator[tuple[str, ...]]:
    drift = found.drift
    if drift is not None:
        yield (
            name,
            *_pair(drift.mean, ".4g"),
            f"{drift.mean_difference:.2g}",
            f"{drift.max_difference:.2g}",
            f"{drift.psi:.4f}",
            f"{drift.rank_correlation:.4f}",
        )


def _notes(outputs: Mapping[str, Compared]) -> Iterator[str]:
    for name, found in outputs.items():
        quality = found.quality
        if quality is None:
            yield f"{name}: no labels"
        elif quality.positives is not None and quality.auc.old is None:
            yield f"{name}: labels of one class only, no AUC"
        if any(found.not_finite):
            old, new = found.not_finite
            yield f"{name}: {old:,} old and {new:,} new scores are not finite"


def _pair(pair: Pair, form: str) -> tuple[str, str]:
    old, new = (
        "–" if value is None else f"{value:{form}}" for value in (pair.old, pair.new)
    )
    return old, new


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells flush right, the first and what is behind the head's flush left."""
    columns = len(head)
    lines = [[*row[:columns]] for row in [head, *rows]]
    widths = [max(len(line[k]) for line in lines) for k in range(columns)]
    tails = ["", *(" ".join(row[columns:]) for row in rows)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(line[k].rjust(widths[k]) for k in range(1, columns)),
                tail,
            ]
        ).rstrip()
        for line, tail in zip(lines, tails, strict=True)
    )
