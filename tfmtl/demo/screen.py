"""What a run gave, as text for one screen."""

from tfmtl.demo.run import Outcome, Quality


def screen(outcome: Outcome) -> str:
    """Formats an outcome.

    Args:
        outcome: What `run` gave.
    """
    before, after = outcome.report[:2]
    closed = 1 - outcome.open_connections / before.connections
    rows = [
        *(
            _quality(task, quality, outcome.after[task])
            for task, quality in outcome.before.items()
        ),
        _row("connections computed", before.connections, after.connections, ",d"),
        _row("sub-networks", before.sub_networks, after.sub_networks, ",d"),
        _row("parameters", before.parameters, after.parameters, ",d"),
        _row("FLOPs per example", before.flops, after.flops, ",d"),
        _row(
            "SavedModel, bytes",
            outcome.export_before.bytes,
            outcome.export_after.bytes,
            ",d",
        ),
        *(
            _row(f"p50 ms, batch {size}", pair.first.p50, pair.second.p50, ".3f")
            + f"   ratio {pair.ratio:.2f} ({pair.ratio_p10:.2f} … {pair.ratio_p90:.2f})"
            for size, pair in outcome.latency.items()
        ),
    ]
    return "\n".join(
        [
            "",
            f"tfmtl demo: SNR on {outcome.source}",
            f"trained in {outcome.seconds:.0f} s; {outcome.open_connections} of "
            f"{before.connections} routing connections open, {closed:.0%} closed",
            "",
            f"{'':<26}{'unfolded':>14}{'folded':>14}",
            *rows,
            "",
            "largest difference over the whole test set",
            f"  folded against unfolded model      {outcome.fold_difference:.1e}",
            f"  C++ session against folded model   {outcome.serving_difference:.1e}",
            "",
            f"SavedModel  {outcome.export_after.path}",
            f"topology    {outcome.picture}",
        ]
    )


def _quality(task: str, before: Quality, after: Quality) -> str:
    """AUC of both, and of the folded model what else is known."""
    row = _row(f"test AUC, {task}", before.auc, after.auc, ".4f")
    within = "" if after.group_auc is None else f"  GAUC {after.group_auc:.3f}"
    return f"{row}{within}  cal. {after.calibration:.2f}"


def _row(name: str, before: float, after: float, form: str) -> str:
    return f"{name:<26}{before:>14{form}}{after:>14{form}}"
