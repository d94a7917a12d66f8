"""Compare two groups: the estimate of a metric, and why a metric gets no verdict.

A run's page, `bench compare` and `bench gate` all use this module, so that they say the same of a pair.
"""

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from serving_bench.harness.contracts import AnswerKey, Fact, because
from serving_bench.reports.data import Group, Run, first_that_holds
from serving_bench.reports.measures import (
    aggregate,
    by_start,
    equal_work,
    metric_of,
    stand_ins,
    turn_table,
    turn_values,
)
from serving_bench.reports.stats.intervals import (
    INDEPENDENT,
    STARTS_NEEDED,
    Dependence,
    Estimate,
    Question,
    may_be_logged,
    of_pairs,
    of_two_samples,
)

Names = tuple[str, str]
# Measured where the server keeps its weights, so a card's value cannot be compared with a host's.
OF_A_PLACE = ("memory_peak_bytes", "energy_j_per_output_token")
_OF_AN_SLO = ("slo_share", "goodput")


@dataclass(frozen=True)
class Pair:
    """Two groups, the second of which is compared with the first.

    `names`: their names in reasons. `whole`: why no metric of the two gets a verdict; None if one may.
    `turn`: compare only this turn of their conversations, from 0.
    """

    names: Names
    runs: tuple[Run, Run]
    groups: tuple[Group, Group]
    whole: Fact | None = None
    turn: int | None = None

    @property
    def is_paired(self) -> bool:
        """Whether both are of one run, so that a block has a start of each."""
        return self.runs[0] is self.runs[1]

    @property
    def labels(self) -> Names:
        return self.groups[0].deployment, self.groups[1].deployment

    @property
    def sides(self) -> list[tuple[str, Run, Group]]:
        return list(zip(self.names, self.runs, self.groups, strict=True))

    @cached_property
    def has_same_seeds(self) -> bool:
        """Whether they have repeats in common, with the same conversations."""
        a, b = ({cell.planned.repeat: cell.planned.seed for cell in group.cells} for group in self.groups)
        both = a.keys() & b.keys()
        return bool(both) and all(a[repeat] == b[repeat] for repeat in both)

    @cached_property
    def why_none(self) -> Fact | None:
        """Why no metric of the pair gets a verdict; None if one may."""
        fakes = (
            because("of_side", side=name, why=what)
            for name, run, group in self.sides
            if (what := stand_ins(run).get(group.deployment))
        )
        return self.whole or next(fakes, None) or _other_prompts(self)

    @cached_property
    def other_answers(self) -> Fact | None:
        """That the answers of two runs differ in length; within a run `withheld` says it."""
        return None if self.is_paired else _other_lengths(self, "output_tokens", "answers")


def pair_name(labels: Names) -> str:
    """Return the label if both have the same, otherwise `b against a`."""
    return labels[0] if labels[0] == labels[1] else f"{labels[1]} against {labels[0]}"


def repeats_tested(run: Run, group: Group | None = None) -> int | None:
    """Return how many of the first repeats of a race a test may use; None for a run that is no race.

    Those that were complete at the last look, at the group's answer or at any: it was not planned to look at
    less than a repeat.
    """
    race = run.record.plan.race
    if race is None:
        return None
    look = race.looked if group is None else race.look_of(answer_of(run, group))
    return look if race.level(look) > 0 else 0


def dependence_of(run: Run, metric: str) -> Dependence:
    """Return what is known of how the starts of a deployment depend on each other on this machine."""
    if run.alike is None or metric not in run.alike.by_metric:
        return INDEPENDENT
    found = run.alike.by_metric[metric]
    return Dependence(found.lag.known, found.of_run.known, found.between.known)


def answer_of(run: Run, group: Group) -> AnswerKey:
    """Return which answer a group belongs to; with an SLO each family of loads has one."""
    return group.scenario, group.model, group.family * bool(run.record.slo)


# --- one metric of a pair --------------------------------------------------------------------------


def estimate_of(pair: Pair, metric: str) -> Estimate | None:
    """Return the second over the first, or their difference for an additive metric.

    None if the values allow no ratio, if a side has fewer than two, or if a server was not restarted: blocks
    do not say how starts differ.
    """
    values = _values(pair, metric)
    is_restarted = all(run.is_restarted(group.deployment) for _, run, group in pair.sides)
    if _why_no_ratio(pair, metric) or not is_restarted or min(map(len, values)) < 2:
        return None
    estimate = of_pairs if pair.is_paired else of_two_samples
    # What is known where the second was measured holds for both: it is the same machine, or no verdict.
    starts = dependence_of(pair.runs[1], metric)
    return estimate(*reversed(values), is_log=not metric_of(metric).is_additive, starts=starts)


def question_of(pair: Pair, metric: str, margin_share: float) -> Question:
    """Return the question whether the second is better than the first, worse, or the same within the
    margin."""
    row = metric_of(metric)
    return Question(
        estimate_of(pair, metric),
        "lower" if row.better == "lower" else "higher",
        0.0 if row.is_additive else math.log1p(margin_share),
        why_not(pair, metric),
    )


def why_not(pair: Pair, metric: str) -> Fact | None:
    """Return why a metric of the pair gets no verdict; None if it may have one."""
    lengths = pair.other_answers if metric_of(metric).needs_equal_lengths else None
    counts = [len(each) for each in _values(pair, metric)]
    here = tuple(counts[:1] if pair.is_paired else counts)
    few = because("verdict_needs_starts", needed=STARTS_NEEDED, counts=here)
    why = pair.why_none or lengths or _why_no_ratio(pair, metric)
    return why or (few if min(counts) < STARTS_NEEDED else None)


def _values(pair: Pair, metric: str) -> list[list[float]]:
    a, b = (_by_repeat(run, group, metric, pair.turn) for _, run, group in pair.sides)
    if not pair.is_paired:
        return [list(a.values()), list(b.values())]
    looked = repeats_tested(pair.runs[0], pair.groups[0])
    return [[each[k] for k in a if k in b and (looked is None or k < looked)] for each in (a, b)]


def _by_repeat(run: Run, group: Group, metric: str, turn: int | None) -> dict[int, float]:
    by_start_values = (
        by_start(run, group, metric) if turn is None else turn_values(run, group, metric).get(turn, {})
    )
    return {repeat: value.value for repeat, value in by_start_values.items() if value.value is not None}


def _why_no_ratio(pair: Pair, metric: str) -> Fact | None:
    row, slos = metric_of(metric), [run.record.slo for run in pair.runs]
    places = {r.memory_kind for _, run, group in pair.sides for r in run.starts_of(group.deployment)}
    currencies = {run.record.price.currency for run in pair.runs if run.record.price}
    aggregates = [(name, group, aggregate(run, group, metric)) for name, run, group in pair.sides]
    unknown = [
        because("of_side", side=name, why=each.why or why_not_measured(group))
        for name, group, each in aggregates
        if each.mean is None
    ]
    values = [*itertools.chain(*_values(pair, metric))]
    return first_that_holds(
        {
            because("device_and_host"): metric in OF_A_PLACE and len(places) > 1,
            because("objectives_differ"): metric.startswith(_OF_AN_SLO) and slos[0] != slos[1],
            because("currencies_differ"): row.unit == "price.currency" and len(currencies) > 1,
            next(iter(unknown), None): unknown,
            because("value_is_0"): not row.is_additive and not may_be_logged(values),
        }
    )


def why_not_measured(group: Group) -> Fact:
    """Return why no cell of a group counts: the first reason that a cell gives."""
    return next((cell.reason for cell in group.cells if cell.reason), because("no_cell"))


# --- equal work ------------------------------------------------------------------------------------


def _other_prompts(pair: Pair) -> Fact | None:
    if pair.is_paired:
        why = equal_work.why_other_work(pair.runs[0], *pair.groups)
        return because("other_prompts_sent") if why and why.kind == "prompts_not_same" else why
    counts = [equal_work.counted_prompts(run.starts_of(group.deployment)) for _, run, group in pair.sides]
    turns = _turns(pair, "input_tokens")
    tables = [] if turns is None else [(pair.groups[0].load, turns)]
    if why := equal_work.why_unlike(pair.names, counts, tables):
        return because("prompts_not_same", why=why)
    return _other_lengths(pair, "input_tokens", "prompts") or _other_lengths(
        pair, "output_tokens", "answers", equal_work.ANSWERS_APART
    )


def _other_lengths(
    pair: Pair, name: str, title: str, share: float = equal_work.LENGTHS_DIFFER
) -> Fact | None:
    turns = _turns(pair, name)
    lengths = [aggregate(run, group, name).mean for _, run, group in pair.sides]
    means = lengths if turns is None else turns.mean().tolist()
    if not equal_work.differ(means, share):
        return None
    tokens = tuple(value for value in means if value is not None)
    return because("lengths_differ", what=title, tokens=tokens)


def _turns(pair: Pair, column: str) -> pd.DataFrame | None:
    """Return a token count of both for each request that both answered; None if these are too few."""
    if not pair.has_same_seeds:
        return None
    both = turn_table({name: (run, group) for name, run, group in pair.sides}, column).dropna()
    return both if len(both) >= equal_work.TURNS_NEEDED else None
