"""Which deployments keep the SLO at each load: of a run by its windows, of a search by its answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from reports.data.cells import Group
from reports.data.run import Run, once
from reports.measures.slo import Judged, judged_cells
from reports.stats.intervals import CONFIDENCE
from reports.verdicts.search_starts import load_words
from reports.verdicts.searches import Capacity, cases_of_search

State = Literal["kept", "unclear", "broken", "unknown"]


@dataclass(frozen=True)
class Standing:
    """Whether a deployment keeps the SLO at a load.

    `judged`: all its starts' windows together; None where they say nothing, and of a search.
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
def slo_rows(run: Run) -> list[Row]:
    """Return a row for each load of each scenario, from the lowest to the highest.

    Empty without an SLO, and for a search, whose loads are its own on each start (search_rows).
    """
    if not run.record.slo or run.record.search is not None:
        return []
    by_case: dict[tuple[str, str, str, float, str], list[Group]] = {}
    for group in run.groups:
        key = (group.scenario, group.model, group.family, group.level, group.load)
        by_case.setdefault(key, []).append(group)
    loads = Counter((scenario, model, family) for scenario, model, family, _, _ in by_case)
    return [
        Row(
            scenario,
            model,
            family,
            load,
            tuple(_standing(run, group, loads[scenario, model, family]) for group in groups),
        )
        for (scenario, model, family, _, load), groups in sorted(by_case.items(), key=lambda item: item[0])
    ]


def _standing(run: Run, group: Group, loads: int) -> Standing:
    # The loads of a question are a family: whichever is the highest kept is chosen by the data.
    found = judged_cells(run, group.cells, 1 - (1 - CONFIDENCE) / loads)
    return Standing(group.deployment, "unknown" if found is None else found.verdict, group, found)


def search_rows(run: Run) -> list[Row]:
    """Return who keeps which load of a search, from the lowest to the highest that one kept on all starts."""
    return [
        Row(
            scenario,
            model,
            found[0].family,
            load_words(found[0].family, level),
            tuple(Standing(each.deployment, _state(each, level)) for each in found),
        )
        for (scenario, model), found in cases_of_search(run).items()
        for level in _levels(found)
    ]


def _levels(found: Sequence[Capacity]) -> list[float]:
    kept = [[answer.kept for answer in each.answers] for each in found if each.estimate is not None]
    return sorted({min(level for level in levels if level is not None) for levels in kept})


def _state(each: Capacity, level: float) -> State:
    if not all(answer.is_whole for answer in each.answers):
        return "unknown"
    kept = [answer.kept is not None and answer.kept >= level for answer in each.answers]
    return "kept" if all(kept) else "unclear" if any(kept) else "broken"
