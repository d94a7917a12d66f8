"""The order of measuring: values that depend on when a start or a load had its turn."""

import math
from collections.abc import Iterator

from reports.checks.finding import Finding, measured_cells, numbers
from reports.data.run import Run
from reports.stats.family import log_margin
from reports.verdicts.order_effects import Effect, Kind, effects

# Over all effects and metrics of a run together (Bonferroni).
ALPHA = 0.01
_CHECKS: dict[Kind, tuple[str, str, str]] = {
    "place of a start in its block": (
        "order_of_starts",
        "Values depend on a start's place in its block",
        "from the first to the last of a block",
    ),
    "place of a load in its start": (
        "order_of_loads",
        "Values depend on a load's place in its start",
        "from a start's first load to its last",
    ),
    "time since the run began": (
        "drift_over_run",
        "Values drifted over the run",
        "from the run's first start to its last",
    ),
}
_SHORT = {"output_tokens_per_s": "output tokens/s", "ttft_s.p50": "TTFT p50", "tpot_s.p50": "TPOT p50"}


def order_effects(run: Run) -> Iterator[Finding]:
    """Effects of the order beyond the margin within which deployments are the same. A mean over starts in a
    balanced order stays right, and its interval is wider; two deployments in an order that is not balanced
    do not compare."""
    found = effects(run)
    seen = [each for each in found if each.p <= ALPHA / len(found) and _matters(run, each)]
    for kind, (check, title, way) in _CHECKS.items():
        own = [each for each in seen if each.kind == kind]
        if own:
            yield Finding(
                check,
                title,
                f"Beside what deployments and loads make of them, {way}: {'; '.join(map(_said, own))}.",
                "repeats=4, or another even number: an order is balanced over pairs of blocks; a longer "
                "load.warmup, and a machine that has warmed up.",
                cells=numbers(measured_cells(run)),
                metrics=tuple(dict.fromkeys(each.metric.partition(".")[0] for each in own)),
                marks=False,
                compares=True,
            )


def _matters(run: Run, effect: Effect) -> bool:
    return abs(effect.change.mean) > log_margin(run.record.compare.margin_share)


def _said(effect: Effect) -> str:
    low, high = (100 * (each - 1) for each in effect.change.interval())
    share = 100 * math.expm1(effect.change.mean)
    return f"{_SHORT[effect.metric]} {share:+.0f} % [{low:+.0f}, {high:+.0f}] (n = {effect.change.k} values)"
