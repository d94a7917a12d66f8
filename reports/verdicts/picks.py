"""The best of the deployments that keep the SLO in each respect, and who is not told apart from it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures import energy
from reports.measures.equal_work import stand_ins
from reports.measures.metrics import metric_of
from reports.measures.over_starts import Aggregate, aggregate
from reports.stats.family import Told, Verdict
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.searches import (
    CAPACITY,
    PEAK,
    SPEED,
    Capacity,
    capacity_value,
    cases_of_search,
    value_at_highest,
)
from reports.verdicts.standings import slo_rows

Respect = Literal["fastest", "cheapest", "smallest", "most load"]
COST = "cost_per_million_output_tokens"
_METRICS: Mapping[Respect, str] = {"fastest": SPEED, "cheapest": COST, "smallest": PEAK}
_OTHER_DEVICES = "they use different numbers of devices, and a verdict is on their speed alone"


@dataclass(frozen=True)
class Pick:
    """The deployment with the best value of `metric` at a load; of a search each at its own highest load.

    `next`: the second by value, `verdict`: on the best against it. `ties`: those that are not proven worse;
    `same`: of these the ones within the margin. `why`: why there is no verdict at all.
    """

    scenario: str
    model: str
    load: str | None
    respect: Respect
    metric: str
    best: str
    value: Aggregate
    next: str | None = None
    verdict: Verdict | None = None
    ties: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    why: str | None = None

    @property
    def is_proven(self) -> bool:
        return self.why is None and not self.ties


def picks_of(run: Run) -> list[Pick]:
    """Return the picks of each load, or of a search; none in a respect of which no value is known."""
    made = _of_search(run) if run.record.search is not None else _of_loads(run)
    return [each for each in made if each]


def _of_loads(run: Run) -> Iterator[Pick | None]:
    fakes = stand_ins(run)
    for row in slo_rows(run):
        kept = [each.group for each in row.standings if each.state == "kept" and each.group]
        groups = [group for group in kept if group.deployment not in fakes]
        is_told_cost = _have_like_devices(run, (cell for group in groups for cell in group.counted))
        for respect, metric in _METRICS.items():
            values = {group.deployment: aggregate(run, group, metric) for group in groups}
            is_told = metric != COST or is_told_cost
            by_verdicts = partial(comparisons_of(run).of, row.scenario, row.load, _decided_by(metric))
            told: Told = by_verdicts if is_told else _not_told
            yield _pick((row.scenario, row.model, row.load), respect, metric, values, told)


def _of_search(run: Run) -> Iterator[Pick | None]:
    fakes = stand_ins(run)
    for (scenario, model), found in cases_of_search(run).items():
        kept = {e.deployment: e for e in found if e.estimate and e.deployment not in fakes}
        numbers = {number for each in kept.values() for number in each.cells_at_highest}
        is_told_cost = _have_like_devices(run, (c for c in run.planned_cells if c.number in numbers))
        loads = {label: capacity_value(each) for label, each in kept.items()}
        yield _pick((scenario, model, None), "most load", CAPACITY, loads, _told(kept, CAPACITY))
        for respect, metric in _METRICS.items():
            values = {label: value_at_highest(run, each, metric) for label, each in kept.items()}
            told = _not_told if metric == COST and not is_told_cost else _told(kept, _decided_by(metric))
            yield _pick((scenario, model, None), respect, metric, values, told)


def _decided_by(metric: str) -> str:
    """Return the metric whose verdicts decide: on as many devices each, cost is a price over the speed."""
    return SPEED if metric == COST else metric


def _have_like_devices(run: Run, cells: Iterable[Cell]) -> bool:
    return len({energy.devices_of(run, cell) for cell in cells}) < 2


def _told(found: Mapping[str, Capacity], metric: str) -> Told:
    return lambda a, b: found[a].told.get((metric, b))


def _not_told(_: str, __: str) -> Verdict:
    return Verdict("none", why=_OTHER_DEVICES)


def _pick(
    case: tuple[str, str, str | None],
    respect: Respect,
    metric: str,
    values: Mapping[str, Aggregate],
    told: Told,
) -> Pick | None:
    means = {label: value.mean for label, value in values.items() if value.mean is not None}
    if not means:
        return None
    is_higher = metric == CAPACITY or metric_of(metric).better == "higher"
    best, *others = sorted(means, key=lambda label: means[label], reverse=is_higher)
    verdicts = {label: told(best, label) or Verdict("none", why="they were not compared") for label in others}
    why = next((each.why for each in verdicts.values()), None)
    if any(each.kind != "none" for each in verdicts.values()):
        why = None
    return Pick(
        *case,
        respect,
        metric,
        best,
        values[best],
        next=others[0] if others else None,
        verdict=verdicts[others[0]] if others else None,
        ties=() if why else tuple(label for label, each in verdicts.items() if each.kind != "better"),
        same=tuple(label for label, each in verdicts.items() if each.kind == "same"),
        why=why,
    )
