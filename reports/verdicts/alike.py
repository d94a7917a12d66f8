"""What runs of deployments that are the same say of the verdicts on this machine, each winner being wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving_bench.harness.contracts import STARTS_NEEDED, Figure, StartNoise
from serving_bench.reports.data import Run, foreign_share
from serving_bench.reports.stats.intervals import may_be_logged
from serving_bench.reports.stats.starts import levels_of_starts, share_of, start_noise
from serving_bench.reports.verdicts.decisions import SPEED, Kind, decisions_of
from serving_bench.reports.verdicts.load_cases import values_by_repeat

_METRICS = (SPEED, "ttft_s.p50", "tpot_s.p50", "e2e_s.p50")


@dataclass(frozen=True)
class AlikeRun:
    """What a run came to. `wrong`: how often it names a wrong one at most. `logs`: labels x repeats, of each
    metric. `foreign_share`: of the processor, of other programs, in the mean of its cells."""

    kind: Kind
    wrong: float
    logs: Mapping[str, np.ndarray]
    foreign_share: float | None


def alike_run(run: Run) -> AlikeRun | None:
    """Return what a run of one answer came to; None if it came to no test."""
    decision = next(iter(decisions_of(run)), None)
    if decision is None or decision.best is None:
        return None
    logs = {}
    for metric in _METRICS:
        values = [*values_by_repeat(run, decision.groups, metric).values()]
        shared = [k for k in decision.used if all(k in own for own in values)]
        table = np.array([[own[k] for k in shared] for own in values])
        if len(values) > 1 and len(shared) >= STARTS_NEEDED and may_be_logged(table.ravel().tolist()):
            logs[metric] = np.log(table)
    shares = [share for cell in run.planned_cells if (share := foreign_share(run, cell)) is not None]
    mean = float(np.mean(shares)) if shares else None
    return AlikeRun(decision.kind, decision.best.wrong, logs, mean)


@dataclass(frozen=True)
class Alike:
    """What the runs say together: see AlikeTest."""

    runs: int
    named: Figure
    same: Figure
    claimed: float
    by_metric: Mapping[str, StartNoise]
    levels: float
    foreign_share: float | None


def alike_of(runs: Sequence[AlikeRun]) -> Alike:
    """Return what one run or more say together. How starts differ needs two."""
    logs = {metric: [run.logs[metric] for run in runs if metric in run.logs] for metric in _METRICS}
    most = max((table.shape[1] for table in logs[SPEED]), default=0)
    starts = [
        {number * most + repeat: value for repeat, value in enumerate(np.exp(own).tolist())}
        for number, table in enumerate(logs[SPEED])
        for own in table
    ]
    shares = [run.foreign_share for run in runs if run.foreign_share is not None]
    return Alike(
        len(runs),
        share_of(sum(run.kind in ("named", "slight") for run in runs), len(runs)),
        share_of(sum(run.kind == "same" for run in runs), len(runs)),
        max(run.wrong for run in runs),
        {metric: start_noise(own) for metric, own in logs.items() if len(own) > 1},
        levels_of_starts(starts),
        float(np.mean(shares)) if shares else None,
    )
