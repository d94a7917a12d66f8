"""The decision of a search: which deployment takes the most load, which is the fastest, the cheapest and the
smallest, each at its own highest load; and which keep which load. Draws nothing.

Goes by reports/verdicts/searches.py's one family of verdicts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from reports.data.run import Run
from reports.measures import energy
from reports.measures.equal_work import stand_ins
from reports.measures.over_starts import Aggregate
from reports.stats.family import Told
from reports.verdicts.decision import COST, Column, Row, by_nothing, over_starts
from reports.verdicts.picks import Pick, Standing, State, pick
from reports.verdicts.search_starts import at_highest, load_words
from reports.verdicts.searches import CAPACITY, PEAK, SPEED, Capacity, capacities_of

Cases = dict[tuple[str, str], list[Capacity]]


def cases_of_search(run: Run) -> Cases:
    """The deployments of each scenario and model; nothing of a run that is no search."""
    found: Cases = {}
    if run.record.search is not None:
        for each in capacities_of(run):
            found.setdefault((each.scenario, each.model), []).append(each)
    return found


def search_rows(run: Run) -> list[Row]:
    """One for each scenario and model of which a deployment kept the SLO on all of its starts."""
    cases = cases_of_search(run)
    return [
        Row(scenario, model, found[0].family, "each at its own highest", standings, dict(picks))
        for (scenario, model), found in cases.items()
        if any(each.estimate for each in found)
        for standings in [tuple(Standing(each.deployment, _state(each, 0.0)) for each in found)]
        for picks in [_picks(run, found, standings)]
    ]


def load_rows(run: Run) -> list[Row]:
    """Who keeps which load: from the lowest to the highest that a deployment kept on all of its starts."""
    return [
        Row(
            scenario,
            model,
            found[0].family,
            load_words(found[0].family, level),
            tuple(Standing(each.deployment, _state(each, level)) for each in found),
            {},
        )
        for (scenario, model), found in cases_of_search(run).items()
        for level in _levels(found)
    ]


def _levels(found: Sequence[Capacity]) -> list[float]:
    kept = [[answer.kept for answer in each.answers] for each in found if each.estimate is not None]
    return sorted({min(level for level in levels if level is not None) for levels in kept})


def _state(each: Capacity, level: float) -> State:
    """By all of its starts. One whose search was cut short says nothing."""
    if not all(answer.is_whole for answer in each.answers):
        return "unknown"
    kept = [answer.kept is not None and answer.kept >= level for answer in each.answers]
    if all(kept):
        return "kept"
    return "unclear" if any(kept) else "broken"


def _picks(
    run: Run, found: Sequence[Capacity], standings: Sequence[Standing]
) -> Iterator[tuple[Column, Pick]]:
    own = [each for each in found if each.deployment not in stand_ins(run)]
    loads = {each.deployment: value for each in own if (value := _load(each))}
    if chosen := pick(CAPACITY, standings, loads, "higher", _by(found, CAPACITY)):
        yield "most load", chosen
    if chosen := pick(SPEED, standings, _values(run, own, SPEED), "higher", _by(found, SPEED)):
        yield "fastest", chosen
    by_cost = by_nothing if _have_other_devices(run, own) else _by(found, SPEED)
    if chosen := pick(COST, standings, _values(run, own, COST), "lower", by_cost):
        yield "cheapest", chosen
    if chosen := pick(PEAK, standings, _values(run, own, PEAK), "lower", _by(found, PEAK)):
        yield "smallest", chosen


def _by(found: Sequence[Capacity], metric: str) -> Told:
    told: Mapping[str, Capacity] = {each.deployment: each for each in found}
    return lambda a, b: told[a].told.get((metric, b))


def _have_other_devices(run: Run, found: Sequence[Capacity]) -> bool:
    """On as many devices each, cost is a price over the speed, whose verdict then holds."""
    cells = [
        cell
        for each in found
        if each.estimate is not None
        for answer in each.answers
        for tried in answer.tried
        if tried.level == answer.kept
        for cell in tried.cells
        if cell.counts
    ]
    return len({energy.devices_of(run, cell) for cell in cells}) > 1


def _load(each: Capacity) -> Aggregate | None:
    """As its answer says it: the interval is not by its starts' values alone."""
    estimate, kept = each.estimate, [answer.kept for answer in each.answers if answer.kept is not None]
    if estimate is None:
        return None
    k = len(kept)
    interval = each.span if each.has_interval else None
    return Aggregate(estimate.shown, min(kept), max(kept), k, k, tuple(kept), interval=interval)


def _values(run: Run, found: Sequence[Capacity], metric: str) -> dict[str, Aggregate]:
    """Starts' values at the highest load that each kept, of those that have one on every start."""
    values = {}
    for each in found:
        by_start = [at_highest(run, answer, metric) for answer in each.answers]
        known = [value for value in by_start if value is not None and value > 0]
        if each.estimate is not None and len(known) == len(by_start):
            mean = over_starts(known)
            # Blocks on one start: nobody knows how much another would differ.
            values[each.deployment] = replace(mean, interval=None) if each.is_attached else mean
    return values
