"""Which deployments keep the SLO at each load, and which of them is the best in each respect.

Of a run its windows say so, of a search its answers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reports.data.cells import Group, grouped
from reports.data.run import Run, once
from reports.measures.equal_work import stand_ins
from reports.measures.over_starts import aggregate, has_interval
from reports.measures.slo import Judged, judged_cells
from reports.stats.family import Verdict
from reports.stats.intervals import CONFIDENCE
from reports.verdicts.comparisons import best_first, comparisons_of
from reports.verdicts.searches import Capacity, capacities_of

State = Literal["kept", "unclear", "broken", "unknown"]
_RESPECTS: Mapping[str, str] = {
    "fastest": "output_tokens_per_s",
    "cheapest": "cost_per_million_output_tokens",
    "smallest": "memory_peak_bytes",
}


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

    Of a search the loads are the highest that each deployment is known to keep, else the lowest tried.
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
    if each.level is not None and each.level >= level:
        return "kept"
    return "broken" if each.broken is not None and each.broken <= level else "unclear"


# --- the best of those that keep it ----------------------------------------------------------------


def picks_of(run: Run) -> Iterator[dict[str, Any]]:
    """Yield a row of the table `picks` for each load that is kept and each respect of which a value is known.

    `ties`: those that are not proven worse; `why`: why there is no verdict at all.
    """
    for row in slo_rows(run):
        kept = [each.group for each in row.standings if each.state == "kept" and each.group]
        own = [group for group in kept if group.deployment not in stand_ins(run)]
        for respect, metric in _RESPECTS.items():
            if ordered := best_first(run, own, metric):
                yield _pick(run, row, respect, metric, ordered)


def _pick(run: Run, row: Row, respect: str, metric: str, ordered: Sequence[Group]) -> dict[str, Any]:
    best, *others = (group.deployment for group in ordered)
    found = [comparisons_of(run).of(row.scenario, row.load, metric, best, label) for label in others]
    told = [each or Verdict("none", why="they were not compared") for each in found]
    why = told[0].why if told and all(each.kind == "none" for each in told) else None
    ties = [label for label, each in zip(others, told, strict=True) if each.kind != "better" and not why]
    value = aggregate(run, ordered[0], metric)
    low, high = (has_interval(value) and value.interval) or (None, None)
    return {
        "scenario": row.scenario,
        "load": row.load,
        "model": row.model,
        "respect": respect,
        "metric": metric,
        "deployment": best,
        "value": value.mean,
        "low": low,
        "high": high,
        "is_proven": not (why or ties),
        "ties": "; ".join(ties) or None,
        "next": next(iter(others), None),
        "why": why,
    }
