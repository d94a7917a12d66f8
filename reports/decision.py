"""Which deployments keep the SLO at each load, and of those the fastest, the cheapest and the smallest, each
with the others that are not told apart from it.

Goes by reports/goodput.py's verdicts on the objectives and the run's one family of comparisons; of a search
by reports/searches.py's answers. Draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reports import energy, intervals
from reports.anatomy import anatomies
from reports.caveats import stand_ins
from reports.cells import Aggregate, Group
from reports.goodput import judged_cells
from reports.picks import Candidate, Decide, Pick, Standing, State, by_intervals, pick
from reports.verdicts import Verdict

if TYPE_CHECKING:
    from reports.anatomy import Anatomy
    from reports.frames import Run

Column = Literal["fastest", "most load", "cheapest", "smallest"]
SPEED, COST, PEAK = "output_tokens_per_s", "cost_per_million_output_tokens", "memory_peak_bytes"
# What the smallest is chosen by where it is known of all; it is of a start, not of a load.
NEEDED = "memory_needed_bytes"


@dataclass(frozen=True)
class Row:
    """A load of a scenario (and model). `picks` has no column of which nothing is known."""

    scenario: str
    model: str
    load: str
    standings: tuple[Standing, ...]
    picks: Mapping[Column, Pick]

    def labels(self, *states: State) -> list[str]:
        return [each.label for each in self.standings if each.state in states]


def decision_rows(run: Run) -> list[Row]:
    """Scenario by scenario, from the lowest load to the highest; nothing without an SLO, and of a search,
    whose loads are its own for each start."""
    if not run.record.slo or run.record.search is not None:
        return []
    by_case: dict[tuple[str, str, str, float, str], list[Group]] = {}
    for group in run.groups:
        key = (group.scenario, group.model, group.family, group.level, group.load)
        by_case.setdefault(key, []).append(group)
    found = anatomies(run)
    return [_row(run, by_case[key], found) for key in sorted(by_case)]


def _row(run: Run, groups: Sequence[Group], found: Mapping[str, Sequence[Anatomy]]) -> Row:
    standings = tuple(_standing(run, group) for group in groups)
    first = groups[0]
    return Row(first.scenario, first.model, first.load, standings, dict(_picks(run, standings, found)))


def _standing(run: Run, group: Group) -> Standing:
    found = judged_cells(run, group.cells)
    return Standing(group.deployment, "unknown" if found is None else found.verdict, group, found)


def _picks(
    run: Run, standings: Sequence[Standing], found: Mapping[str, Sequence[Anatomy]]
) -> Iterator[tuple[Column, Pick]]:
    """Without a price no cheapest. Smallest by what it needs where that is known of all that could be it,
    else by its peak."""
    by_speed = _by(run, standings, SPEED)
    if fastest := pick(SPEED, standings, _values(run, standings, SPEED), "higher", by_speed):
        yield "fastest", fastest
    decide = _by_nothing if _have_other_devices(run, standings) else by_speed
    if cheapest := pick(COST, standings, _values(run, standings, COST), "lower", decide):
        yield "cheapest", cheapest
    needed = needed_by(found, [each.label for each in standings if each.state in ("kept", "unclear")])
    if needed:
        smallest = pick(NEEDED, standings, needed, "lower", by_intervals)
    else:
        values = _values(run, standings, PEAK)
        smallest = pick(PEAK, standings, values, "lower", _by(run, standings, PEAK))
    if smallest:
        yield "smallest", smallest


def _values(run: Run, standings: Sequence[Standing], metric: str) -> dict[str, Aggregate]:
    """Of those whose speed is their own."""
    fakes = stand_ins(run)
    return {
        each.label: run.aggregate(each.group, metric)
        for each in standings
        if each.group and each.label not in fakes
    }


def _by(run: Run, standings: Sequence[Standing], metric: str) -> Decide:
    """By the run's verdicts on a metric."""
    group = next(each.group for each in standings if each.group)

    def decide(
        best: Candidate, others: Sequence[Candidate]
    ) -> tuple[tuple[str, ...], Verdict | None, str | None]:
        verdicts = [
            run.comparisons.of(group.scenario, group.load, metric, best.label, other.label)
            for other in others
        ]
        why = run.comparisons.why_none
        if why is None and all(verdict is None or verdict.kind == "none" for verdict in verdicts):
            why = next((v.why for v in verdicts if v and v.why), "they were not compared")
        if why:
            return (), verdicts[0], why
        pairs = zip(others, verdicts, strict=True)
        ties = [other.label for other, verdict in pairs if verdict is None or verdict.kind != "better"]
        return tuple(ties), verdicts[0], None

    return decide


def _by_nothing(
    best: Candidate, others: Sequence[Candidate]
) -> tuple[tuple[str, ...], Verdict | None, str | None]:
    return (), None, "they use different numbers of devices, and a verdict is on their speed alone"


def _have_other_devices(run: Run, standings: Sequence[Standing]) -> bool:
    """On as many devices each, cost is a price over the speed, whose verdict then holds."""
    cells = [
        cell for s in standings if s.group and s.state in ("kept", "unclear") for cell in s.group.counted
    ]
    return len({energy.devices_of(run, cell) for cell in cells}) > 1


def needed_by(found: Mapping[str, Sequence[Anatomy]], labels: Sequence[str]) -> dict[str, Aggregate]:
    """Memory less the KV cache that was reserved and not used, over the starts of each of the deployments;
    nothing where it is not known of all of them."""
    needed = {label: _needed(found.get(label, ())) for label in labels}
    known = {label: value for label, value in needed.items() if value is not None}
    return known if len(known) == len(needed) else {}


def _needed(found: Sequence[Anatomy]) -> Aggregate | None:
    sizes = [each.needed_bytes for each in found if each.needed_bytes is not None]
    return over_starts(sizes) if sizes and len(sizes) == len(found) else None


def over_starts(values: Sequence[float]) -> Aggregate:
    """The geometric mean of starts' values, with its 95 % interval. Raises ValueError for 0 or less."""
    estimate = intervals.of_values(values, is_log=True)
    k = len(values)
    interval = estimate.interval() if k > 1 else None
    return Aggregate(estimate.shown, min(values), max(values), k, k, tuple(values), interval=interval)
