"""Reasons to distrust starts: too few, unlike each other, or changing over the run."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from reports.checks.finding import Seen, cells_of, check, measured_cells, of_groups
from reports.data import Group, Run, gathered
from reports.measures import aggregate, by_start, plural, shown
from reports.stats.intervals import STARTS_NEEDED, Estimate
from reports.stats.steadiness import start_drifts

STARTS_DIFFER = 0.2
# What is looked at, and its title.
_NAMES = {"output_tokens_per_s": "output tokens/s", "ttft_s.p50": "TTFT p50"}


@check(
    "Few starts",
    f"Fewer than {STARTS_NEEDED} do not tell luck and drift from the engine, and no verdict is given: {{}}.",
    "repeats=5 or more, on servers that bench starts, can tell a difference of 10 %.",
    (),
    of_requests=True,
)
def single_repeat(run: Run) -> Iterator[Seen]:
    # In a search each start tries other loads, so there they are counted over all loads.
    at = "" if run.record.search is not None else " at {}"
    named = ((cell.label + at.format(cell.load_label), cell) for cell in measured_cells(run))
    for name, cells in gathered(named).items():
        starts = len({cell.planned.repeat for cell in cells})
        if starts < STARTS_NEEDED:
            yield f"{name}: {plural(starts, 'start')}", cells


@check(
    "Starts disagree",
    "{}.",
    "More repeats, and a quiet machine; until=ci:5% repeats until the interval is narrow.",
    can_look=lambda run: run.repeats > 1,
    of_requests=True,
)
@of_groups
def repeats_disagree(run: Run, group: Group) -> str | None:
    said = []
    for name in _NAMES:
        value = aggregate(run, group, name)
        low, high, mean = value.low, value.high, value.mean
        if low is not None and high is not None and mean and high - low > STARTS_DIFFER * mean:
            ends = f"{shown(name, low)} to {shown(name, high)}{' ms' if name.endswith('.p50') else ''}"
            said.append(f"{_NAMES[name]} {ends} ({100 * (high - low) / mean:.0f} % of the mean)")
    return ", ".join(said)


@check(
    "A deployment drifted over the run",
    "From start to start, beside what the others have in common: {}.",
    "A machine that has warmed up and is quiet, and more repeats.",
    can_look=lambda run: run.repeats > 1,
)
def drift_over_run(run: Run) -> Iterator[Seen]:
    # A search chooses its loads, blocks on one server are no starts, repeats of several machines no course.
    is_attached = any(record.attached for record in run.start_records)
    if run.record.search is not None or run.record.nodes or is_attached:
        return
    for metric in _NAMES:
        logs = {label: own for label in run.deployments if (own := _logs(run, label, metric))}
        for labels, drift in start_drifts(logs, run.record.compare.margin_share, tests=len(_NAMES)).items():
            said = f"{' beside '.join(labels)}: {_NAMES[metric]} {drift_words(drift)}"
            yield said + (", which of the two is not known" if labels[1:] else ""), cells_of(run, labels)


def _logs(run: Run, label: str, metric: str) -> dict[int, float]:
    """Return by repeat the mean logarithm of a value over the deployment's loads, each beside its own mean;
    of repeats that have all loads."""
    groups = [group for group in run.groups if group.deployment == label]
    columns = [{k: each.value for k, each in by_start(run, group, metric).items()} for group in groups]
    values = pd.DataFrame(dict(enumerate(columns)), dtype=float)
    logs = values.where(values > 0).map(np.log).dropna(axis="columns", how="all")
    return dict((logs - logs.mean()).dropna().mean(axis="columns"))


def drift_words(drift: Estimate) -> str:
    """Return a mean change of a logarithm in words: `+12.3 % (n = 5 starts, p = 0.0004)`."""
    return f"{100 * math.expm1(drift.mean):+.1f} % (n = {drift.k} starts, p = {drift.p:.1g})"
