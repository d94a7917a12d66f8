"""The best of the deployments that keep the SLO in each respect, and who is not told apart from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from reports.data.run import Run
from reports.measures import energy
from reports.measures.equal_work import stand_ins
from reports.measures.metrics import metric_of
from reports.measures.over_starts import Aggregate, aggregate
from reports.stats.family import Verdict
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.standings import Row, slo_rows

Respect = Literal["fastest", "cheapest", "smallest"]
_COST = "cost_per_million_output_tokens"
# What is compared, and by whose verdicts: on as many devices each, cost is a price over the speed.
_METRICS: Mapping[Respect, tuple[str, str]] = {
    "fastest": ("output_tokens_per_s", "output_tokens_per_s"),
    "cheapest": (_COST, "output_tokens_per_s"),
    "smallest": ("memory_peak_bytes", "memory_peak_bytes"),
}
_OTHER_DEVICES = "they use different numbers of devices, and a verdict is on their speed alone"


@dataclass(frozen=True)
class Pick:
    """The deployment with the best value of `metric` at a load.

    `next`: the second by value. `ties`: those that are not proven worse. `why`: why there is no verdict.
    """

    scenario: str
    model: str
    load: str
    respect: Respect
    metric: str
    best: str
    value: Aggregate
    next: str | None
    ties: tuple[str, ...]
    why: str | None

    @property
    def is_proven(self) -> bool:
        return self.why is None and not self.ties


def picks_of(run: Run) -> list[Pick]:
    """Return the picks of each load; none in a respect of which no value is known."""
    made = (_pick(run, row, respect) for row in slo_rows(run) for respect in _METRICS)
    return [each for each in made if each]


def _pick(run: Run, row: Row, respect: Respect) -> Pick | None:
    metric, decided_by = _METRICS[respect]
    kept = [each.group for each in row.standings if each.state == "kept" and each.group]
    groups = [group for group in kept if group.deployment not in stand_ins(run)]
    values = {group.deployment: aggregate(run, group, metric) for group in groups}
    sign = -1 if metric_of(metric).better == "higher" else 1
    means = {label: sign * value.mean for label, value in values.items() if value.mean is not None}
    if not means:
        return None
    best, *others = sorted(means, key=lambda label: means[label])
    told = {label: _verdict(run, row, decided_by, best, label) for label in others}
    devices = {energy.devices_of(run, cell) for group in groups for cell in group.counted}
    why = next((each.why for each in told.values()), None)
    if metric == _COST and len(devices) > 1 and others:
        why = _OTHER_DEVICES
    elif any(each.kind != "none" for each in told.values()):
        why = None
    ties = () if why else tuple(label for label, each in told.items() if each.kind != "better")
    case = (row.scenario, row.model, row.load)
    return Pick(*case, respect, metric, best, values[best], others[0] if others else None, ties, why)


def _verdict(run: Run, row: Row, metric: str, best: str, other: str) -> Verdict:
    found = comparisons_of(run).of(row.scenario, row.load, metric, best, other)
    return found or Verdict("none", why="they were not compared")
