"""How much worse or other a new version may be than the one it replaces."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from tfmtl.serving.pair import Pair
from tfmtl.serving.quality import Quality
from tfmtl.serving.score_drift import Drift


@dataclass(frozen=True)
class Thresholds:
    """What an output of a new version may differ by; `None` switches a limit off.

    A limit on something that is not defined, such as the AUC without labels, is met.

    Args:
        max_auc_loss: How far the AUC may fall below the old one. The change has a
            standard error, `Quality.auc_error`: where that is larger, take more rows or
            another limit.
        max_calibration_loss: How much further calibration may be from 1 than the old
            one's, either side.
        max_loss_increase: By which share of the old one the log loss, or the RMSE of
            numbers, may be larger.
        max_psi: The population stability index of the scores, see
            `tfmtl.serving.score_drift.stability_index`.
        min_rank_correlation: Spearman's correlation of the scores with the old ones.
        max_score_change: How far the score of any row may be from the old one.
            Defaults to `None`: of a new training some always are.
        calibration: The lowest and the highest calibration, whatever the old one's.
            Defaults to `None`.

    Raises:
        ValueError: If a limit is negative or no number.

    Example:
        >>> from tfmtl.serving import Thresholds
        >>> Thresholds(max_auc_loss=0.001, max_psi=None).max_calibration_loss
        0.05
    """

    max_auc_loss: float | None = 0.002
    max_calibration_loss: float | None = 0.05
    max_loss_increase: float | None = 0.02
    max_psi: float | None = 0.25
    min_rank_correlation: float | None = 0.8
    max_score_change: float | None = None
    calibration: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "calibration" and value is not None:
                if len(value) != 2 or not 0 <= value[0] <= value[1]:
                    raise ValueError(
                        "`calibration` should be the lowest and the highest one. "
                        f"Received: calibration={value!r}"
                    )
            elif value is not None and not 0 <= value < math.inf:
                raise ValueError(
                    f"`{field.name}` should be a number from 0, or None. "
                    f"Received: {field.name}={value!r}"
                )

    def failures(self, quality: Quality | None, drift: Drift) -> Iterator[str]:
        """What is beyond a limit, a sentence each.

        Args:
            quality: How well the labels are predicted; `None` without labels.
            drift: What changed in the scores.
        """
        if quality is not None:
            yield from self._auc(quality.auc, quality.auc_error)
            yield from self._calibration(quality.calibration)
            loss = "RMSE" if quality.positives is None else "log loss"
            yield from self._loss(loss, quality.loss)
        if self.max_psi is not None and drift.psi > self.max_psi:
            yield f"PSI of the scores {drift.psi:.3f}; allowed is {self.max_psi:.3f}"
        least = self.min_rank_correlation
        if least is not None and drift.rank_correlation < least:
            yield (
                f"rank correlation with the old scores {drift.rank_correlation:.4f}; "
                f"asked is {least:.4f}"
            )
        most = self.max_score_change
        if most is not None and drift.max_difference > most:
            found = drift.max_difference
            yield f"a score changed by {found:.3g}; allowed is {most:.3g}"

    def _auc(self, auc: Pair, error: float | None) -> Iterator[str]:
        most = self.max_auc_loss
        if most is not None and auc.change is not None and -auc.change > most:
            noise = "" if error is None else f" (standard error {error:.4f})"
            yield (
                f"AUC {auc.new:.4f}, {-auc.change:.4f} below the old "
                f"{auc.old:.4f}{noise}; allowed is {most:.4f}"
            )

    def _calibration(self, found: Pair) -> Iterator[str]:
        if found.old is None or found.new is None:
            return
        most = self.max_calibration_loss
        further = abs(found.new - 1) - abs(found.old - 1)
        if most is not None and further > most:
            yield (
                f"calibration {found.new:.3f}, {further:.3f} further from 1 than the "
                f"old {found.old:.3f}; allowed is {most:.3f}"
            )
        if self.calibration is not None:
            low, high = self.calibration
            if not low <= found.new <= high:
                yield (
                    f"calibration {found.new:.3f}; allowed is {low:.3f} to {high:.3f}"
                )

    def _loss(self, name: str, loss: Pair) -> Iterator[str]:
        most = self.max_loss_increase
        if most is None or loss.old is None or loss.new is None:
            return
        if loss.new > loss.old * (1 + most):
            share = loss.new / loss.old - 1 if loss.old else math.inf
            yield (
                f"{name} {loss.new:.4f}, {share:.1%} above the old {loss.old:.4f}; "
                f"allowed is {most:.1%}"
            )
