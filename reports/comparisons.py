"""Which deployments of a run are compared, on which metrics, and what may be said of each pair.

All comparisons of a run are one family (reports/verdicts.py). Draws nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from reports.caveats import stand_ins
from reports.cells import Cell, Group
from reports.intervals import Estimate, may_be_logged, of_pairs
from reports.metrics import is_percentile, metric_of
from reports.verdicts import STARTS_NEEDED, Kind, Question, Verdict, decide, log_margin

if TYPE_CHECKING:
    from reports.frames import Run

# What a decision between deployments that keep the SLO goes by: the best is chosen by the data, so all pairs
# of them are asked.
DECIDED_BY = ("output_tokens_per_s", "memory_peak_bytes")
# What is measured where the server keeps its weights: a card's figure is no comparison with a host's.
_OF_A_PLACE = ("memory_peak_bytes", "energy_j_per_output_token")
_MIRRORED: dict[Kind, Kind] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Compared:
    """One comparison: `a` over `b`, labels of deployments, on a metric under a load of a scenario."""

    scenario: str
    load: str
    metric: str
    a: str
    b: str
    verdict: Verdict

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        return self.scenario, self.load, self.metric, self.a, self.b


@dataclass(frozen=True)
class Comparisons:
    """All of a run. `baselines`: by model, the label that its deployments are compared to. `family`: how many
    were decided together. `why_none`: why the whole run gives no verdict; None where it may."""

    rows: tuple[Compared, ...]
    baselines: dict[str, str]
    family: int
    why_none: str | None

    @cached_property
    def _by_key(self) -> dict[tuple[str, str, str, str, str], Verdict]:
        return {row.key: row.verdict for row in self.rows}

    def of(self, scenario: str, load: str, metric: str, a: str, b: str) -> Verdict | None:
        """The verdict on `a` against `b`, whichever way round it was asked; None where it was not."""
        found = self._by_key.get((scenario, load, metric, a, b))
        if found is not None:
            return found
        other = self._by_key.get((scenario, load, metric, b, a))
        return None if other is None else mirrored(other)


def mirrored(verdict: Verdict) -> Verdict:
    """The same of the second against the first."""
    if verdict.ratio is None or verdict.low is None or verdict.high is None:
        return verdict
    ratio, low, high = (_inverse(each, verdict.is_log) for each in (verdict.ratio, verdict.high, verdict.low))
    return replace(verdict, kind=_MIRRORED.get(verdict.kind, verdict.kind), ratio=ratio, low=low, high=high)


def _inverse(value: float, is_log: bool) -> float:
    if not is_log:
        return -value
    return 1 / value if value else float("inf")


def comparisons_of(run: Run) -> Comparisons:
    """Every deployment against its model's baseline on run.compare's metrics, at each load; with an SLO also
    all pairs on what decides."""
    baselines = _baselines(run)
    asked = [
        (group, other, metric)
        for group, other in _pairs(run)
        for metric in _metrics(run, group, other, baselines.get(group.model))
    ]
    why = why_none(run)
    questions = [_question(run, a, b, metric, why) for a, b, metric in asked]
    verdicts = decide(questions)
    rows = tuple(
        Compared(a.scenario, a.load, metric, a.deployment, b.deployment, verdict)
        for (a, b, metric), verdict in zip(asked, verdicts, strict=True)
    )
    return Comparisons(rows, baselines, sum(v.kind != "none" for v in verdicts), why)


def why_none(run: Run) -> str | None:
    """Why no two deployments of a run get a verdict; None where they may."""
    if any(record.attached for record in run.start_records):
        return "the server was running already and was not restarted between repeats"
    if run.record.search is not None:
        return "a search tries other loads on each start; its answers are compared"
    repeats = len({cell.planned.repeat for cell in run.planned_cells})
    if repeats < STARTS_NEEDED:
        return f"a verdict needs {STARTS_NEEDED} starts of each deployment or more, here {repeats}"
    return None


def remedy(run: Run) -> str:
    """What would give verdicts, as a sentence; empty where nothing would."""
    if any(record.attached for record in run.start_records):
        return "Where bench can start the servers, leave out engine.base_url."
    if run.record.search is not None:
        return ""
    return "Give repeats=5: 3 are the fewest, and 5 can tell smaller differences."


def _baselines(run: Run) -> dict[str, str]:
    """By model, the asked label, else the first."""
    found: dict[str, str] = {}
    for label, deployment in run.deployments.items():
        if label == run.record.compare.baseline:
            found[deployment.model] = label
        found.setdefault(deployment.model, label)
    return found


def _pairs(run: Run) -> Iterator[tuple[Group, Group]]:
    """Every two groups of one model, scenario and load, the later of the plan first."""
    by_case: dict[tuple[str, str, str], list[Group]] = {}
    for group in run.groups:
        by_case.setdefault((group.scenario, group.load, group.model), []).append(group)
    for groups in by_case.values():
        for first, second in itertools.combinations(groups, 2):
            yield second, first


def _metrics(run: Run, a: Group, b: Group, baseline: str | None) -> Iterator[str]:
    is_asked = baseline in (a.deployment, b.deployment)
    decides = DECIDED_BY if run.record.slo else ()
    yield from dict.fromkeys([*(run.record.compare.metrics if is_asked else ()), *decides])


def _question(run: Run, a: Group, b: Group, metric: str, why: str | None) -> Question:
    is_log, better = not metric_of(metric).is_additive, metric_of(metric).better
    pairs = list(_blocks(run, a, b, metric))
    margin = run.record.compare.margin_share
    return Question(
        _estimate(pairs, is_log=is_log),
        "lower" if better == "lower" else "higher",
        log_margin(margin) if is_log else 0.0,
        why or _why_not(run, a, b, metric, pairs),
    )


def _estimate(pairs: Sequence[tuple[float, float]], *, is_log: bool) -> Estimate | None:
    if not pairs or (is_log and not may_be_logged([value for pair in pairs for value in pair])):
        return None
    return of_pairs([a for a, _ in pairs], [b for _, b in pairs], is_log=is_log)


def _blocks(run: Run, a: Group, b: Group, metric: str) -> Iterator[tuple[float, float]]:
    """Both values of each block in which both count."""
    others = {cell.planned.repeat: cell for cell in b.counted}
    for cell in a.counted:
        other = others.get(cell.planned.repeat)
        values = (_value(run, cell, metric), _value(run, other, metric) if other else None)
        if values[0] is not None and values[1] is not None:
            yield values[0], values[1]


def _value(run: Run, cell: Cell, metric: str) -> float | None:
    found = run.values[cell.number].get(metric)
    return found.value if found else None


def _why_not(run: Run, a: Group, b: Group, metric: str, pairs: Sequence[tuple[float, float]]) -> str | None:
    """Why this pair gets no verdict."""
    for group in (a, b):
        if why := run.withheld(group.key, metric):
            return f"{group.deployment}: {why}"
        if what := stand_ins(run).get(group.deployment):
            return f"{group.deployment}: {what}"
    kinds = {record.memory_kind for group in (a, b) for record in run.starts_of(group.deployment)}
    if metric in _OF_A_PLACE and len(kinds) > 1:
        return "one is measured on a device, the other on the host"
    if run.work.prompt_class(a.deployment) != run.work.prompt_class(b.deployment):
        return "their prompts are not the same"
    blocks = len({c.planned.repeat for c in a.counted} & {c.planned.repeat for c in b.counted})
    if is_percentile(metric) and len(pairs) < blocks:
        return f"only {len(pairs)} of {blocks} blocks have enough requests for it"
    if len(pairs) < STARTS_NEEDED:
        repeats = "1 repeat" if len(pairs) == 1 else f"{len(pairs) or 'no'} repeats"
        return f"both have a value in {repeats}; a verdict needs {STARTS_NEEDED}"
    if not metric_of(metric).is_additive and not may_be_logged([value for pair in pairs for value in pair]):
        return "a value is 0, which has no ratio"
    return None
