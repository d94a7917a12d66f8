"""Which deployments keep the SLO at each load, and which of them is the best in each respect.

Of a run its windows say so, of a search its answers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from reports.data.cells import Group, grouped
from reports.data.run import Run, once
from reports.measures.equal_work import stand_ins
from reports.measures.metrics import metric_of
from reports.measures.over_starts import aggregate, has_interval
from reports.measures.slo import Judged, judged_cells
from reports.measures.values import devices_of
from reports.stats.family import Verdict
from reports.stats.intervals import CONFIDENCE
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.searches import Capacity, capacities_of

State = Literal["kept", "unclear", "broken", "unknown"]
_COST, _SPEED, _PEAK = "cost_per_million_output_tokens", "output_tokens_per_s", "memory_peak_bytes"
# What is compared, and by whose verdicts: on as many devices each, cost is a price over the speed.
_RESPECTS: Mapping[str, tuple[str, str]] = {
    "fastest": (_SPEED, _SPEED),
    "cheapest": (_COST, _SPEED),
    "smallest": (_PEAK, _PEAK),
}
_OTHER_DEVICES = "they use different numbers of devices, and a verdict is on their speed alone"


@dataclass(frozen=True)
class Standing:
    """Whether a deployment keeps the SLO at a load.

    `group`: its cells there, if it was measured there. `judged`: all its starts' windows together; None where
    they say nothing, and of a search.
    """

    label: str
    state: State
    group: Group | None = None
    judged: Judged | None = None


@dataclass(frozen=True)
class Row:
    """A load of a scenario and model, and who keeps the SLO there. `family`: see cells.load_family."""

    scenario: str
    model: str
    family: str
    load: str
    standings: tuple[Standing, ...]

    def labels(self, *states: State) -> list[str]:
        return [each.label for each in self.standings if each.state in states]


@once
def slo_rows(run: Run) -> tuple[Row, ...]:
    """Return a row for each load of each scenario and model, from the lowest on; none without an SLO.

    Of a search the loads are the highest that each deployment keeps; where none is known, the lowest tried.
    """
    if not run.record.slo:
        return ()
    return tuple(_of_loads(run) if run.record.search is None else _of_search(run))


def _of_loads(run: Run) -> Iterator[Row]:
    by_case = grouped(run.groups, lambda g: (g.scenario, g.model, g.family, g.level, g.load))
    loads = Counter(key[:3] for key in by_case)
    for key, groups in sorted(by_case.items(), key=lambda item: item[0]):
        # The loads of a question are a family: whichever is the highest kept is chosen by the data.
        confidence = 1 - (1 - CONFIDENCE) / loads[key[:3]]
        found = [(group, judged_cells(run, group.cells, confidence)) for group in groups]
        standings = [Standing(g.deployment, j.verdict if j else "unknown", g, j) for g, j in found]
        yield Row(*key[:3], key[4], tuple(standings))


def _of_search(run: Run) -> Iterator[Row]:
    groups = {group.key: group for group in run.groups}
    cases = grouped(capacities_of(run), lambda each: (each.scenario, each.group.model, each.group.family))
    for case, found in cases.items():
        known = {each.level: each.group.load for each in found if each.level is not None}
        for level, load in sorted((known or {found[0].group.level: found[0].group.load}).items()):
            standings = [
                Standing(e.deployment, _state(e, level), groups.get((e.deployment, e.scenario, load)))
                for e in found
            ]
            yield Row(*case, load, tuple(standings))


def _state(each: Capacity, level: float) -> State:
    if not all(answer.is_whole for answer in each.answers):
        return "unknown"
    kept = [answer.kept is not None and answer.kept >= level for answer in each.answers]
    return "kept" if all(kept) else "unclear" if any(kept) else "broken"


# --- the best of those that keep it ----------------------------------------------------------------


def picks_of(run: Run) -> Iterator[dict[str, Any]]:
    """Yield a row of the table `picks` for each load that is kept and each respect of which a value is known.

    `ties`: those that are not proven worse; `why`: why there is no verdict at all.
    """
    for row in slo_rows(run):
        yield from (pick for respect in _RESPECTS if (pick := _pick(run, row, respect)))


def _pick(run: Run, row: Row, respect: str) -> dict[str, Any] | None:
    metric, decided_by = _RESPECTS[respect]
    kept = [each.group for each in row.standings if each.state == "kept" and each.group]
    groups = [group for group in kept if group.deployment not in stand_ins(run)]
    values = {group.deployment: aggregate(run, group, metric) for group in groups}
    sign = -1 if metric_of(metric).better == "higher" else 1
    means = {label: sign * value.mean for label, value in values.items() if value.mean is not None}
    if not means:
        return None
    best, *others = sorted(means, key=lambda label: means[label])
    keys = [(row.scenario, row.load, decided_by, best, label) for label in others]
    told = [comparisons_of(run).of(*key) or Verdict("none", why="they were not compared") for key in keys]
    why = told[0].why if told and all(each.kind == "none" for each in told) else None
    if told and metric == _COST and len({len(devices_of(run, c)) for g in groups for c in g.counted}) > 1:
        why = _OTHER_DEVICES
    ties = [label for label, each in zip(others, told, strict=True) if each.kind != "better" and not why]
    low, high = (has_interval(values[best]) and values[best].interval) or (None, None)
    return {
        "scenario": row.scenario,
        "load": row.load,
        "model": row.model,
        "respect": respect,
        "metric": metric,
        "deployment": best,
        "value": values[best].mean,
        "low": low,
        "high": high,
        "is_proven": not (why or ties),
        "ties": "; ".join(ties) or None,
        "next": next(iter(others), None),
        "why": why,
    }
