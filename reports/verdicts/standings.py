"""Which deployments keep the SLO at each load.

Of a run its windows say so, of a search its answers.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reports.data.cells import Group, grouped
from reports.data.run import Run, once
from reports.measures.slo import Judged, judged_cells
from reports.stats.intervals import CONFIDENCE
from reports.verdicts.searches import Capacity, capacities_of

State = Literal["kept", "unclear", "broken", "unknown"]


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
class SloRow:
    """A load of a scenario and model, and who keeps the SLO there. `family`: see cells.load_family."""

    scenario: str
    model: str
    family: str
    load: str
    standings: tuple[Standing, ...]

    def labels(self, *states: State) -> list[str]:
        return [each.label for each in self.standings if each.state in states]


@once
def slo_rows(run: Run) -> tuple[SloRow, ...]:
    """Return a row for each load of each scenario and model, from the lowest on; none without an SLO.

    Of a search the loads are the highest that each deployment is known to keep, else the lowest tried.
    """
    if not run.record.slo:
        return ()
    return tuple(_of_loads(run) if run.record.search is None else _of_search(run))


def _of_loads(run: Run) -> Iterator[SloRow]:
    by_case = grouped(run.groups, lambda g: (g.scenario, g.model, g.family, g.level, g.load))
    loads = Counter(key[:3] for key in by_case)
    for key, groups in sorted(by_case.items(), key=lambda item: item[0]):
        # The loads of a question are a family: whichever is the highest kept is chosen by the data.
        confidence = 1 - (1 - CONFIDENCE) / loads[key[:3]]
        found = [(group, judged_cells(run, group.cells, confidence)) for group in groups]
        standings = [Standing(g.deployment, j.verdict if j else "unknown", g, j) for g, j in found]
        yield SloRow(*key[:3], key[4], tuple(standings))


def _of_search(run: Run) -> Iterator[SloRow]:
    groups = {group.key: group for group in run.groups}
    cases = grouped(capacities_of(run), lambda each: (each.scenario, each.group.model, each.group.family))
    for case, found in cases.items():
        known = {each.level: each.group.load for each in found if each.level is not None}
        for level, load in sorted((known or {found[0].group.level: found[0].group.load}).items()):
            standings = [
                Standing(e.deployment, _state(e, level), groups.get((e.deployment, e.scenario, load)))
                for e in found
            ]
            yield SloRow(*case, load, tuple(standings))


def _state(each: Capacity, level: float) -> State:
    if not all(answer.is_whole for answer in each.answers):
        return "unknown"
    if each.level is not None and each.level >= level:
        return "kept"
    return "broken" if each.broken is not None and each.broken <= level else "unclear"
