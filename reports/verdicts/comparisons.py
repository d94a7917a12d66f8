"""Which deployments of a run are compared, on which metrics, and what is said of each pair.

All comparisons of a run are one family (reports/stats/family.py); what may be said of a pair:
reports/verdicts/pairs.py. Draws nothing.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from reports.data.cells import Group
from reports.data.run import Run, once
from reports.stats.family import STARTS_NEEDED, Kind, Verdict, decide
from reports.verdicts.pairs import Pair, question_of

# What a decision between deployments that keep the SLO goes by: the best is chosen by the data, so all pairs
# of them are asked.
DECIDED_BY = ("output_tokens_per_s", "memory_peak_bytes")
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


@once
def comparisons_of(run: Run) -> Comparisons:
    """Every deployment against its model's baseline on run.compare's metrics, at each load; with an SLO also
    all pairs on what decides."""
    baselines, why = _baselines(run), why_none(run)
    asked = [
        (pair, metric)
        for pair in _pairs(run, baselines, why)
        for metric in _metrics(run, pair, baselines.values())
    ]
    margin = run.record.compare.margin_share
    verdicts = decide([question_of(pair, metric, margin) for pair, metric in asked])
    rows = tuple(
        _compared(pair, metric, verdict) for (pair, metric), verdict in zip(asked, verdicts, strict=True)
    )
    return Comparisons(rows, baselines, sum(v.kind != "none" for v in verdicts), why)


def _compared(pair: Pair, metric: str, verdict: Verdict) -> Compared:
    b, a = pair.groups
    return Compared(a.scenario, a.load, metric, a.deployment, b.deployment, verdict)


def why_none(run: Run) -> str | None:
    """Why no two deployments of a run get a verdict; None where they may."""
    if not all(map(run.is_restarted, run.deployments)):
        return "the server was running already and was not restarted between repeats"
    if run.record.search is not None:
        return "a search tries other loads on each start; its answers are compared"
    repeats = len({cell.planned.repeat for cell in run.planned_cells})
    if repeats < STARTS_NEEDED:
        return f"a verdict needs {STARTS_NEEDED} starts of each deployment or more, here {repeats}"
    return None


def remedy(run: Run) -> str:
    """What would give verdicts, as a sentence; empty where nothing would."""
    if not all(map(run.is_restarted, run.deployments)):
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


def _pairs(run: Run, baselines: Mapping[str, str], why: str | None) -> Iterator[Pair]:
    """Every two groups of one model, scenario and load; the second is asked about, beside the baseline where
    that is one of them, else beside the earlier of the plan."""
    by_case: dict[tuple[str, str, str], list[Group]] = {}
    for group in run.groups:
        by_case.setdefault((group.scenario, group.load, group.model), []).append(group)
    for (_, _, model), groups in by_case.items():
        # Stable: the others stay in the plan's order.
        ordered = sorted(groups, key=lambda group: group.deployment != baselines[model])
        for first, second in itertools.combinations(ordered, 2):
            yield Pair((first.deployment, second.deployment), (run, run), (first, second), why)


def _metrics(run: Run, pair: Pair, baselines: Collection[str]) -> Iterator[str]:
    is_asked = pair.groups[0].deployment in baselines
    decides = DECIDED_BY if run.record.slo else ()
    yield from dict.fromkeys([*(run.record.compare.metrics if is_asked else ()), *decides])
