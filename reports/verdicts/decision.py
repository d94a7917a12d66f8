"""Which deployments keep the SLO at each load, and of those the fastest, the cheapest and the smallest, each
with the others that are not told apart from it.

Goes by reports/measures/goodput.py's verdicts on the objectives and the run's one family of comparisons; of a
search by reports/verdicts/searches.py's answers. Draws nothing.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.data.cells import Group
from reports.data.run import Run, once
from reports.measures import energy
from reports.measures.anatomy import Anatomy, anatomies
from reports.measures.equal_work import stand_ins
from reports.measures.over_starts import Aggregate, aggregate
from reports.measures.slo import judged_cells
from reports.stats import intervals
from reports.stats.family import STARTS_NEEDED, Question, Told, Verdict, decide, log_margin
from reports.verdicts.comparisons import comparisons_of, mirrored
from reports.verdicts.picks import Pick, Standing, State, pick

Column = Literal["fastest", "most load", "cheapest", "smallest"]
SPEED, COST, PEAK = "output_tokens_per_s", "cost_per_million_output_tokens", "memory_peak_bytes"
# What the smallest is chosen by where it is known of all; it is of a start, not of a load.
NEEDED = "memory_needed_bytes"


@dataclass(frozen=True)
class Row:
    """A load of a scenario (and model); of a search each at its own highest load. `family`: see
    cells.load_family. `picks` has no column of which nothing is known."""

    scenario: str
    model: str
    family: str
    load: str
    standings: tuple[Standing, ...]
    picks: Mapping[Column, Pick]

    def labels(self, *states: State) -> list[str]:
        return [each.label for each in self.standings if each.state in states]


@once
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
    picks = dict(_picks(run, standings, found))
    return Row(first.scenario, first.model, first.family, first.load, standings, picks)


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
    by_cost = by_nothing if _have_other_devices(run, standings) else by_speed
    if cheapest := pick(COST, standings, _values(run, standings, COST), "lower", by_cost):
        yield "cheapest", cheapest
    mine = [each.label for each in standings if each.state in ("kept", "unclear")]
    if needed := needed_by_start(found, mine):
        means = {label: over_starts(list(sizes.values())) for label, sizes in needed.items()}
        hosts = {each.is_host for label in mine for each in found[label]}
        why = "one is measured on a device, the other on the host" if len(hosts) > 1 else None
        smallest = pick(NEEDED, standings, means, "lower", by_pairs(run, needed, why))
    else:
        values = _values(run, standings, PEAK)
        smallest = pick(PEAK, standings, values, "lower", _by(run, standings, PEAK))
    if smallest:
        yield "smallest", smallest


def _values(run: Run, standings: Sequence[Standing], metric: str) -> dict[str, Aggregate]:
    """Of those whose speed is their own."""
    fakes = stand_ins(run)
    return {
        each.label: aggregate(run, each.group, metric)
        for each in standings
        if each.group and each.label not in fakes
    }


def _by(run: Run, standings: Sequence[Standing], metric: str) -> Told:
    """By the run's verdicts on a metric."""
    group = next(each.group for each in standings if each.group)
    return lambda a, b: comparisons_of(run).of(group.scenario, group.load, metric, a, b)


def by_nothing(a: str, b: str) -> Verdict:
    return Verdict("none", why="they use different numbers of devices, and a verdict is on their speed alone")


def by_pairs(run: Run, values: Mapping[str, Mapping[int, float]], why: str | None) -> Told:
    """By the ratios of all pairs of these deployments, each by repeat, less being better: a family of their
    own. `why`: why none of them gets a verdict."""
    pairs = list(itertools.combinations(values, 2))
    asked = [_less(run, values[a], values[b], why) for a, b in pairs]
    found = dict(zip(pairs, decide(asked), strict=True))

    def told(a: str, b: str) -> Verdict | None:
        if (a, b) in found:
            return found[a, b]
        return mirrored(found[b, a]) if (b, a) in found else None

    return told


def _less(run: Run, a: Mapping[int, float], b: Mapping[int, float], why: str | None) -> Question:
    both = sorted(a.keys() & b.keys())
    why = why or comparisons_of(run).why_none
    if why is None and len(both) < STARTS_NEEDED:
        why = f"a verdict needs {STARTS_NEEDED} starts of each deployment or more, here {len(both)}"
    estimate = intervals.of_pairs([a[k] for k in both], [b[k] for k in both], is_log=True) if both else None
    return Question(estimate, "lower", log_margin(run.record.compare.margin_share), why)


def _have_other_devices(run: Run, standings: Sequence[Standing]) -> bool:
    """On as many devices each, cost is a price over the speed, whose verdict then holds."""
    cells = [
        cell for s in standings if s.group and s.state in ("kept", "unclear") for cell in s.group.counted
    ]
    return len({energy.devices_of(run, cell) for cell in cells}) > 1


def needed_by_start(
    found: Mapping[str, Sequence[Anatomy]], labels: Sequence[str]
) -> dict[str, dict[int, float]]:
    """Memory less the KV cache that was reserved and not used, by deployment and repeat; nothing where it is
    not known of all of them."""
    sizes = {label: [(a.record.repeat, a.needed_bytes) for a in found.get(label, ())] for label in labels}
    known = {
        label: {repeat: size for repeat, size in each if size is not None and size > 0}
        for label, each in sizes.items()
    }
    is_whole = all(each and len(known[label]) == len(dict(each)) for label, each in sizes.items())
    return known if is_whole else {}


def over_starts(values: Sequence[float]) -> Aggregate:
    """The geometric mean of starts' values, with its 95 % interval. Raises ValueError for 0 or less."""
    estimate = intervals.of_values(values, is_log=True)
    k = len(values)
    interval = estimate.interval() if k > 1 else None
    return Aggregate(estimate.shown, min(values), max(values), k, k, tuple(values), interval=interval)
