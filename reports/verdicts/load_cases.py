"""The deployments that are compared at a load, the load that the page opens with, and who may win there.

Who may win, and which values decide, is fixed before any test and never depends on a value.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from serving_bench.harness.contracts import Departure, Fact, because
from serving_bench.reports.data import Group, Run, first_that_holds, grouped, once
from serving_bench.reports.measures import aggregate, by_start, stand_ins, why_other_work, withheld, work_of
from serving_bench.reports.measures.quality import beyond_limit
from serving_bench.reports.stats.intervals import STARTS_NEEDED, odd_ones
from serving_bench.reports.verdicts.pairs import answer_of, why_not_measured
from serving_bench.reports.verdicts.searches import Capacity, SloRow, capacities_of, slo_rows


@dataclass(frozen=True)
class LoadCase:
    """A load of a scenario, with the groups of one model there in the plan's order.

    In a search the case that is told first has each deployment at the highest load that it keeps. `is_open`:
    the page shows the case unfolded, since it is told first.
    """

    scenario: str
    load: str
    model: str
    groups: tuple[Group, ...]
    is_open: bool = False

    @property
    def key(self) -> tuple[str, str, str]:
        return self.scenario, self.load, self.model


@once
def told_first(run: Run) -> tuple[LoadCase, ...]:
    """Return the load that the page opens with, for each scenario and model; with an SLO also for each family
    of loads.

    With an SLO it is the highest load that any deployment that may win is known to keep, otherwise the
    lowest. Without one it is the load of the first family at which most deployments were measured, and the
    highest of several.
    """
    if run.record.slo:
        rows = grouped(slo_rows(run), lambda row: (row.scenario, row.model, row.family))
        return tuple(_decisive(run, of_row) for of_row in rows.values())
    groups = grouped(run.groups, lambda group: (group.scenario, group.model))
    return tuple(_highest_common(run, of_row) for of_row in groups.values())


def _decisive(run: Run, rows: Sequence[SloRow]) -> LoadCase:
    unfit = stand_ins(run).keys() | work_of(run).odd.keys() | beyond_limit(run).keys()
    row = ([row for row in rows if set(row.labels("kept")) - unfit] or rows[:1])[-1]
    if run.record.search is None:
        return _case(run, row.scenario, row.load, row.model)
    candidates = (each.group for each in capacities_of(run) if each.scenario == row.scenario)
    return LoadCase(row.scenario, row.load, row.model, tuple(g for g in candidates if g.model == row.model))


def _highest_common(run: Run, groups: Sequence[Group]) -> LoadCase:
    family = min(group.family for group in groups)
    ordered = sorted((group for group in groups if group.family == family), key=lambda group: -group.level)
    # Of loads with equally many deployments the highest, which is counted first.
    whole = [group for group in ordered if len(group.counted) >= min(STARTS_NEEDED, len(group.cells))]
    measured = whole or [group for group in ordered if group.counted]
    (load, _), *_ = Counter(group.load for group in measured).most_common(1) or [(ordered[0].load, 0)]
    return _case(run, ordered[0].scenario, load, ordered[0].model)


def _case(run: Run, scenario: str, load: str, model: str) -> LoadCase:
    key = (scenario, load, model)
    return LoadCase(*key, tuple(g for g in run.groups if (g.scenario, g.load, g.model) == key))


@once
def load_cases_of(run: Run) -> tuple[LoadCase, ...]:
    """Return all cases by scenario and model. The load told first comes first, then the others by family from
    the highest down."""
    deciding = {case.key for case in told_first(run)}
    models = list(dict.fromkeys(deployment.model for deployment in run.deployments.values()))
    scenarios = list(dict.fromkeys(group.scenario for group in run.groups))
    keys = dict.fromkeys((group.scenario, group.load, group.model) for group in run.groups)
    cases = [replace(_case(run, *key), is_open=key in deciding) for key in keys]
    cases.sort(key=lambda case: (case.groups[0].family, -case.groups[0].level))
    return tuple(
        sorted(cases, key=lambda c: (scenarios.index(c.scenario), models.index(c.model), not c.is_open))
    )


def title_of_case(run: Run, case: LoadCase) -> str:
    """Return `At 4 users`, with the scenario and model if the run has several."""
    return f"A{place_of_case(run, case)[1:]}"


def place_of_case(run: Run, case: LoadCase) -> str:
    """Return `at 4 users`, with the scenario and model if the run has several."""
    parts = [f"at {case.load}"]
    parts += [case.scenario] if run.has_scenarios else []
    parts += [case.model] if len({group.model for group in run.groups}) > 1 and case.model != "-" else []
    return ", ".join(parts)


# --- who may win ------------------------------------------------------------------------------------


# Values by deployment and repeat.
Values = dict[str, dict[int, float]]
_NOT_KEPT = {
    "broken": because("misses_slo"),
    "unclear": because("slo_unclear"),
    "unknown": because("slo_unknown"),
}


def _why_uncounted(run: Run, group: Group) -> Fact:
    """Return why no cell of a group counts: it failed, or only was not measured."""
    records = [run.start_of(cell) for cell in group.cells]
    has_failed = any(cell.became in ("failed", "invalid") for cell in group.cells)
    is_failure = has_failed or any(record and record.error for record in records)
    why = why_not_measured(group)
    return because("failed", why=why) if is_failure else why


def why_unfit(run: Run, group: Group, metric: str) -> Fact | None:
    """Return why a deployment cannot win, however fast it is; None if it can."""
    what = stand_ins(run).get(group.deployment)
    reasons = {
        _why_uncounted(run, group): not group.counted,
        because("stand_ins", what=what): what,
    }
    # A search's answer is a load that is kept, which is a goodput.
    unequal = withheld(run, group.key, metric if run.record.search is None else "goodput_per_s")
    return first_that_holds(reasons) or beyond_limit(run).get(group.deployment) or unequal


def departures_of(run: Run, case: LoadCase) -> dict[str, Departure]:
    """Return the deployments that have left the race for a case's answer, by label."""
    race = run.record.plan.race
    return race.left_by(answer_of(run, case.groups[0])) if race else {}


def short_of_slo(row: SloRow | None, capacities: Sequence[Capacity]) -> dict[str, Fact]:
    """Return the deployments that are not known to keep the SLO, by label, with the reason."""
    whys = {each.deployment: each.why or because("keeps_less", load=each.words) for each in capacities}
    short = [each for each in row.standings if each.state != "kept"] if row else []
    return {each.label: whys.get(each.label) or _NOT_KEPT[each.state] for each in short}


def leave_out_other_work(run: Run, case: LoadCase, left_out: dict[str, Fact]) -> Fact | None:
    """Add to `left_out` the deployments whose work differs from the majority's. Return the reason if there is
    no majority."""
    groups = [group for group in case.groups if group.deployment not in left_out]
    differences = {
        frozenset((a.deployment, b.deployment)): why
        for a, b in itertools.combinations(groups, 2)
        if (why := why_other_work(run, a, b))
    }
    odd, is_split = odd_ones([group.deployment for group in groups], differences)
    if is_split:
        return next(iter(odd.values()))
    left_out |= odd
    return None


def known_values(run: Run, case: LoadCase, metric: str, left_out: dict[str, Fact]) -> Values:
    """Return the values of the contenders. Add those with none or too few to `left_out`."""
    groups = [group for group in case.groups if group.deployment not in left_out]
    values = values_by_repeat(run, groups, metric)
    for group in groups:
        if group.deployment not in values:
            left_out[group.deployment] = aggregate(run, group, metric).why or because("no_value")
    # Leave out those with too few values if the others then have enough. In a race each pair has its own.
    most = {label: by_repeat for label, by_repeat in values.items() if len(by_repeat) >= STARTS_NEEDED}
    are_few = run.record.plan.race is None and len(shared_repeats(values)) < STARTS_NEEDED
    if are_few and len(shared_repeats(most)) >= STARTS_NEEDED and len(most) > 1:
        few = [label for label in values if label not in most]
        left_out |= {label: because("few_starts_have_value", k=len(values[label])) for label in few}
        return most
    return values


def values_by_repeat(run: Run, groups: Sequence[Group], metric: str) -> Values:
    """Return the values of each group's starts, for the groups that have a mean."""
    # A group has none if a start has too few requests for a percentile: the slow starts are those.
    return {
        group.deployment: {k: v.value for k, v in by_start(run, group, metric).items() if v.value is not None}
        for group in groups
        if aggregate(run, group, metric).mean is not None
    }


def shared_repeats(values: Values) -> list[int]:
    """Return the repeats in which all deployments have a value, in order."""
    return sorted(set.intersection(*map(set, values.values()))) if values else []
