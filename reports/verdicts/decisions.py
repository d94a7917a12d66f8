"""Decide which deployment to serve, once per run for each scenario and model, from the values of its starts.

The primary metric decides among contenders that are fixed before the test. A contender was measured, did
equal work with its own kernels, answers within the quality limit, and with an SLO is known to keep it.
Leaders of other metrics are named by the same rule. A search is decided in the same way, at the highest load
that any deployment is known to keep.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from serving_bench.harness.contracts import Departure, Fact, because
from serving_bench.reports.data import Cell, Group, Run, first_that_holds, once
from serving_bench.reports.measures import (
    Aggregate,
    aggregate,
    compared_metrics,
    disturbed_repeats,
    metric_of,
    value_cells,
)
from serving_bench.reports.measures.quality import Quality, beyond_limit, quality_of
from serving_bench.reports.stats.intervals import (
    ALPHA,
    STARTS_NEEDED,
    Best,
    best_of,
    holm,
    may_be_logged,
    of_blocks,
    repeats_to_tell,
)
from serving_bench.reports.stats.starts import levels_of_starts
from serving_bench.reports.verdicts.comparisons import (
    alpha_of,
    level_that_left,
    why_busy,
    why_early,
    wrong_of,
)
from serving_bench.reports.verdicts.load_cases import (
    LoadCase,
    Values,
    departures_of,
    known_values,
    leave_out_other_work,
    shared_repeats,
    short_of_slo,
    told_first,
    values_by_repeat,
    why_unfit,
)
from serving_bench.reports.verdicts.pairs import OF_A_PLACE, answer_of, dependence_of, repeats_tested
from serving_bench.reports.verdicts.searches import Capacity, SloRow, capacities_of, slo_rows

SPEED, MEMORY = "output_tokens_per_s", "memory_peak_bytes"
# Metrics whose leaders are named beside the primary one's, by Holm's procedure over those that have values.
SECONDARY = ("ttft_s.p50", "tpot_s.p50", SPEED, MEMORY, "energy_j_per_output_token")
Kind = Literal["named", "slight", "same", "open", "values", "only", "none"]


@dataclass(frozen=True)
class Decision:
    """The decision on one scenario and model at one load.

    `kind`: "named", a winner; "slight", a winner whose lead may be within the margin; "same", all within the
    margin; "open", too close to call; "values", no test was possible; "only", one contender is left; "none",
    no contender.
    """

    case: LoadCase
    metric: str
    kind: Kind
    groups: tuple[Group, ...]  # contenders, best first
    left_out: Mapping[str, Fact]  # the other deployments, each with the reason
    why: Fact | None = None  # why there is no test
    best: Best | None = None  # the test
    leaders: Mapping[str, str] = field(default_factory=dict)  # by metric, where one is decided
    used: Sequence[int] = ()  # the repeats that decide: calm, with a value of each contender
    # The repeats that values are over: `used`, or with the disturbed ones if those are too few.
    shown: Sequence[int] = ()
    disturbed: int = 0  # how many repeats decide nothing since the machine was disturbed
    advised: int | None = None  # how many repeats would decide; None if unknown or far too many
    slo_row: SloRow | None = None
    # Of a search: what each deployment whose loads may be compared keeps, the most first.
    capacities: tuple[Capacity, ...] = ()
    beyond: Sequence[str] = ()  # those of `left_out` whose answers are not good enough
    # Those of `groups` that were beaten at an earlier look of a race.
    left: Mapping[str, Departure] = field(default_factory=dict)
    # Of those that are the same, the one with the least memory or the best answers, and by which of the two.
    preferred: tuple[str, Literal["memory", "quality"]] | None = None

    @property
    def stay(self) -> tuple[Group, ...]:
        """The contenders that no other one has beaten at an earlier look of a race."""
        return tuple(group for group in self.groups if group.deployment not in self.left)

    @property
    def repeats(self) -> int:
        """How many repeats decide: of all contenders, or in a race of the pair that has the fewest."""
        pairs = (
            [each.k for label, each in self.best.over.items() if label not in self.left] if self.best else []
        )
        return min(pairs, default=len(self.used))

    @property
    def shown_disturbed(self) -> int:
        """How many disturbed repeats are in the shown values, since too few others remain."""
        return len(self.shown) - len(self.used)

    @property
    def is_for_busy(self) -> bool:
        """Whether there is no test because the machine was busy."""
        return self.why is not None and self.why.kind == "busy"

    def value(self, run: Run, group: Group, name: str) -> Aggregate:
        """Return a metric over the shown repeats, or over all repeats for a deployment that is left out.

        The mean of one that left a race has no interval, since the values chose when it left.
        """
        value = aggregate(run, group, name, self._of(group))
        has_left = group.deployment in self.left
        return replace(value, interval=None, low=None, high=None) if has_left else value

    def cells(self, run: Run, group: Group) -> list[Cell]:
        """Return the cells that `value` comes from. Only their findings mark it."""
        return value_cells(run, group, self._of(group))

    def _of(self, group: Group) -> Sequence[int]:
        return () if group.deployment in {*self.left_out, *self.left} else self.shown

    @property
    def ranked(self) -> list[Group]:
        """All deployments of the case: the contenders, best first, then those that are left out."""
        return [*self.groups, *(each for each in self.case.groups if each.deployment in self.left_out)]

    @property
    def leader(self) -> Group | None:
        """The winner, or the only contender left."""
        return self.groups[0] if self.kind in ("named", "slight", "only") else None

    @property
    def served(self) -> str | None:
        """The label of the deployment to serve: the winner, the preferred one of those that are the same, or
        the only one that does not break the SLO or the quality limit."""
        if self.preferred:
            return self.preferred[0]
        if self.leader is None or self.best:
            return self.leader.deployment if self.leader else None
        label, broken = self.leader.deployment, self.slo_row.labels("broken") if self.slo_row else []
        others = {group.deployment for group in self.case.groups} - {label}
        return label if others and others <= {*broken, *self.beyond} else None

    def ratio_to_leader(self, label: str) -> tuple[float, float, float] | None:
        """Return the ratio of a deployment's value to the leader's, with the low and high end of its test.

        None for the leader, without a test, and if the test is not on a log scale.
        """
        estimate = self.best.over.get(label) if self.best else None
        if estimate is None or not estimate.is_log:
            return None
        low, high = self.best.lead_over(label) if self.best else (0.0, math.inf)
        is_lower = metric_of(self.metric).better == "lower"
        return (estimate.shown, low, high) if is_lower else (1 / estimate.shown, 1 / high, 1 / low)

    @property
    def alpha(self) -> float:
        """The level of each test, and so of each interval of ratio_to_leader."""
        return self.best.alpha if self.best else ALPHA


@once
def decisions_of(run: Run) -> tuple[Decision, ...]:
    """Return a decision for each scenario and model; with an SLO also for each family of loads.

    Several decisions share the level of a run. Empty if the run has no value.
    """
    if not any(cell.counts for cell in run.planned_cells):
        return ()
    decision = (_decision(run, case) for case in told_first(run))
    # bench's own test server, which serves no model, comes last.
    return tuple(sorted(decision, key=lambda each: each.case.model == "-"))


def ranked_labels(run: Run) -> list[str]:
    """Return all deployments in the order of the decisions' rows, those without a decision last."""
    ranked = [group.deployment for decision in decisions_of(run) for group in decision.ranked]
    return list(dict.fromkeys([*ranked, *run.deployments]))


def primary_metric(run: Run, case: LoadCase) -> str:
    """Return the metric that decides: the first of compare.metric, otherwise one for the kind of load."""
    if "compare.metric" in run.record.settings:
        return compared_metrics(run)[0]
    if case.groups[0].family in ("closed loop", "batch") or run.record.search is not None:
        return SPEED
    return "goodput_per_s" if run.record.slo else "ttft_s.p50"


def _decision(run: Run, case: LoadCase) -> Decision:
    metric = primary_metric(run, case)
    question = (case.scenario, case.model, case.groups[0].family, case.load)
    row = next((r for r in slo_rows(run) if (r.scenario, r.model, r.family, r.load) == question), None)
    unfit = {group.deployment: why for group in case.groups if (why := why_unfit(run, group, metric))}
    capacities = [
        each for each in capacities_of(run) if each.group in case.groups and each.deployment not in unfit
    ]
    left = departures_of(run, case)
    whys = {label: each.why for label, each in left.items() if each.behind is None}
    left_out = whys | short_of_slo(row, capacities) | unfit
    split = leave_out_other_work(run, case, left_out)
    values = known_values(run, case, metric, left_out)
    named = [group for group in case.groups if group.deployment in values]
    left = {label: each for label, each in left.items() if label in values}
    stay = [group for group in named if group.deployment not in left]
    hit, looked = disturbed_repeats(run, *stay), repeats_tested(run, case.groups[0])
    shared = shared_repeats({group.deployment: values[group.deployment] for group in stay})
    used = [k for k in shared if k not in hit and (looked is None or k < looked)]
    shown_repeats = used if len(used) >= STARTS_NEEDED else shared
    means = {group.deployment: aggregate(run, group, metric, shown_repeats).mean or 0.0 for group in named}
    named.sort(key=lambda group: (group.deployment in left, -_sign(metric) * means[group.deployment]))
    capacities.sort(key=lambda e: (-(e.level or 0), -(e.measured or 0), e.deployment not in values))
    decision = Decision(
        case,
        metric,
        "only" if named else "none",
        tuple(named),
        left_out,
        used=used,
        shown=shown_repeats,
        disturbed=len(hit.intersection(*({cell.planned.repeat for cell in g.counted} for g in stay))),
        slo_row=row,
        capacities=tuple(capacities),
        beyond=[label for label, why in unfit.items() if why == beyond_limit(run).get(label)],
        left=left,
    )
    return _tested(run, decision, split)


def decisive_values(run: Run, decision: Decision) -> Values:
    """Return the contenders' values of the repeats that decide, of which in a race each pair has its own."""
    values = values_by_repeat(run, decision.groups, decision.metric)
    looked = repeats_tested(run, decision.case.groups[0])
    if looked is None:
        return {label: {k: by_repeat[k] for k in decision.used} for label, by_repeat in values.items()}
    hit = {group.deployment: disturbed_repeats(run, group) for group in decision.groups}
    return {
        label: {k: value for k, value in by_repeat.items() if k < looked and k not in hit[label]}
        for label, by_repeat in values.items()
    }


def _tested(run: Run, decision: Decision, split: Fact | None) -> Decision:
    """Return the decision with its test, or with why there is none. `split`: how the contenders' work differs
    if no work is that of most."""
    if len(decision.groups) > 1:
        if why := split or _why_no_test(run, decision):
            return replace(decision, kind="values", why=why)
        values = decisive_values(run, decision)
        best = _best(run, decision, values, decision.metric)
        first = sorted(decision.groups, key=lambda group: group.deployment != best.leader)
        decision = replace(decision, kind="open", groups=tuple(first), best=best)
        return _told(run, decision, best, is_same=_are_same(run, decision, values, best))
    is_last_left = decision.groups and len(decision.case.groups) > 1 and not decision.capacities
    why = _why_no_test(run, decision) if is_last_left else None
    if not decision.groups and any(each.measured for each in decision.capacities):
        why = because("no_load_kept")
    return replace(decision, kind="values", why=why) if why else decision


def _why_no_test(run: Run, decision: Decision) -> Fact | None:
    few = why_early(run) or because("verdict_needs_repeats", needed=STARTS_NEEDED, repeats=decision.repeats)
    return run.why_untested or first_that_holds(
        {
            because("still_going_on"): run.is_going_on,
            why_busy(run, *decision.groups) or few: _most_shared(run, decision) < STARTS_NEEDED,
        }
    )


def _most_shared(run: Run, decision: Decision) -> int:
    """Return how many repeats can decide: those of all contenders, or in a race of the pair with the most."""
    if run.record.plan.race is None or len(decision.stay) < 2:
        return decision.repeats
    values = decisive_values(run, decision)
    pairs = itertools.combinations((values[group.deployment] for group in decision.stay), 2)
    return max(len(a.keys() & b.keys()) for a, b in pairs)


# --- tests -----------------------------------------------------------------------------------------


def _sign(metric: str) -> int:
    return -1 if metric_of(metric).better == "lower" else 1


def _best(run: Run, decision: Decision, values: Values, metric: str) -> Best:
    every = [value for by_repeat in values.values() for value in by_repeat.values()]
    is_log = not metric_of(metric).is_additive and may_be_logged(every)
    return best_of(
        values,
        is_higher_better=_sign(metric) > 0,
        is_log=is_log,
        alpha=_alpha(run, decision),
        margin=math.log1p(run.record.compare.margin_share) * is_log,
        left={
            label: level_that_left(run, each.answer, each.after)
            for label, each in decision.left.items()
            if metric == decision.metric
        },
        wrong=wrong_of(run),
        starts=dependence_of(run, metric),
        levels=levels_of_starts([*values.values()]) or (run.alike.levels if run.alike else 0.0),
    )


def _alpha(run: Run, decision: Decision, later: int = 0) -> float:
    return alpha_of(run, later, answer_of(run, decision.case.groups[0]))


def _leaders(run: Run, decision: Decision) -> dict[str, str]:
    """Return the leaders of the other metrics, by Holm's procedure over those that have values of all."""
    leaders, groups = {}, decision.groups
    places = {start.memory_kind for group in groups for start in run.starts_of(group.deployment)}
    unlike = OF_A_PLACE if len(places) > 1 else ()
    for metric in (each for each in SECONDARY if each not in (decision.metric, *unlike)):
        values = values_by_repeat(run, groups, metric)
        used = [repeat for repeat in shared_repeats(values) if repeat in decision.used]
        if len(values) == len(groups) and len(used) >= STARTS_NEEDED:
            paired = {label: {k: by_repeat[k] for k in used} for label, by_repeat in values.items()}
            leaders[metric] = _best(run, decision, paired, metric)
    level = holm([best.p for best in leaders.values()], _alpha(run, decision))
    return {metric: best.leader for metric, best in leaders.items() if best.p <= level}


def _told(run: Run, decision: Decision, best: Best, *, is_same: bool) -> Decision:
    """Return the decision with the result of its test, and the leaders of other metrics."""
    margin = run.record.compare.margin_share
    decision = replace(decision, leaders=_leaders(run, decision))
    if best.is_named:
        is_slight = best.over[best.nearest].is_log and best.lead_over(best.nearest)[0] <= 1 + margin
        leaders = {decision.metric: best.leader, **decision.leaders}
        return replace(decision, kind="slight" if is_slight else "named", leaders=leaders)
    if is_same:
        return replace(decision, kind="same", preferred=_preferred(run, decision))
    if advised := repeats_to_tell(best, _alpha(run, decision, later=1)):
        # Add the repeats that do not count.
        advised += run.repeats - decision.repeats
    return replace(decision, advised=advised)


def _are_same(run: Run, decision: Decision, values: Values, best: Best) -> bool:
    """Return whether all that may still win are within the margin of each other.

    The data choose the leader, so the level is divided by the number of pairs. In a race each pair has its
    own one-sided tests, all of which have to hold, at the level of the look.
    """
    over = {label: each for label, each in best.over.items() if label not in best.left}
    if all(each.error == each.mean == 0 for each in over.values()):
        return True
    confidence, pairs = 1 - best.alpha / math.comb(len(over) + 1, 2), [*over.values()]
    if run.record.plan.race:
        confidence = 1 - 2 * best.alpha
        rivals = itertools.combinations(over, 2)
        starts = dependence_of(run, decision.metric)
        pairs += [of_blocks(values[a], values[b], is_log=over[a].is_log, starts=starts) for a, b in rivals]
    within = 1 + run.record.compare.margin_share
    ends = [each.interval(confidence) for each in pairs if each.is_log and each.k >= STARTS_NEEDED]
    return len(ends) == len(pairs) and all(1 / within < low and high < within for low, high in ends)


def _preferred(run: Run, decision: Decision) -> tuple[str, Literal["memory", "quality"]] | None:
    """Return which of those that are the same needs less memory than each other one, by more than the margin
    and with an interval that says so; else whose answers are known to be nearer to the reference.

    Weights that were made from another format say nothing about how good that format's own would be.
    """
    labels = [group.deployment for group in decision.stay]
    places = {start.memory_kind for label in labels for start in run.starts_of(label)}
    by_repeat = values_by_repeat(run, decision.stay, MEMORY)
    confidence = 1 - _alpha(run, decision) / math.comb(len(labels), 2)
    most, starts = 1 / (1 + run.record.compare.margin_share), dependence_of(run, MEMORY)
    for label in by_repeat if len(places) == 1 and len(by_repeat) == len(labels) else ():
        others = [own for other, own in by_repeat.items() if other != label]
        ratios = [of_blocks(by_repeat[label], own, is_log=True, starts=starts) for own in others]
        if all(each.k >= STARTS_NEEDED and each.interval(confidence)[1] < most for each in ratios):
            return label, "memory"
    qualities = [quality_of(run).get(label) for label in labels]
    is_made = any(start.notes for label in run.deployments for start in run.starts_of(label))
    for label, own in zip(labels if not is_made else (), qualities, strict=False):
        rest = [each for each in qualities if each is not own]
        if own and all(_is_nearer(own, each) for each in rest):
            return label, "quality"
    return None


def _is_nearer(own: Quality, other: Quality | None) -> bool:
    """Return whether answers are known to be nearer to the same reference, by the same ways of asking.

    The reference itself is the nearest.
    """
    if other is None or other.interval is None:
        return False
    if own.is_reference or own.interval is None:
        return own.is_reference and other.interval[0] > 0
    is_alike = (own.against, [*own.by_way]) == (other.against, [*other.by_way])
    return is_alike and own.interval[1] < other.interval[0]


# --- the front of speed, quality and memory ---------------------------------------------------------


@dataclass(frozen=True)
class Stand:
    """A deployment's quality, speed and memory at the load that is told first. A reference has `kl_nats` 0
    and no `kl_interval`."""

    group: Group
    kl_nats: float
    kl_interval: tuple[float, float] | None
    speed: Aggregate
    memory_bytes: float


@once
def front_of(run: Run) -> list[Stand]:
    """Return a Stand for each deployment of which all three are known; empty for fewer than two."""
    fronts = []
    for decision in decisions_of(run)[:1] if quality_of(run) else ():
        for group in decision.case.groups:
            quality = quality_of(run)[group.deployment]
            kl, interval = (quality.told.kl_nats, quality.told.interval) if quality.told else (None, None)
            kl = 0.0 if quality.is_reference else kl
            speed, memory = (decision.value(run, group, name) for name in (SPEED, MEMORY))
            if speed.mean and memory.mean and kl is not None:
                fronts.append(Stand(group, kl, interval, speed, memory.mean))
    return fronts if len(fronts) > 1 else []
