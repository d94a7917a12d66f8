"""Two groups set against each other: what can be estimated of them, and why a metric gets no verdict.

A run's page, `bench compare` and `bench gate` all ask here, so that they say the same of the same pair.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures import equal_work
from reports.measures.equal_work import stand_ins, turn_table, work_of
from reports.measures.metrics import is_percentile, metric_of, why_missing
from reports.measures.over_starts import Aggregate, aggregate, by_start, withheld
from reports.stats.family import STARTS_NEEDED, Question, log_margin
from reports.stats.intervals import Estimate, may_be_logged, of_pairs, of_two_samples

Names = tuple[str, str]
# What is measured where the server keeps its weights: a card's figure is no comparison with a host's.
_OF_A_PLACE = ("memory_peak_bytes", "energy_j_per_output_token")


@dataclass(frozen=True)
class Pair:
    """Two groups; the second is asked about, beside the first.

    `names`: what reasons call them. `whole`: why nothing of the two runs gets a verdict; None where it may.
    """

    names: Names
    runs: tuple[Run, Run]
    groups: tuple[Group, Group]
    whole: str | None = None

    @property
    def is_paired(self) -> bool:
        """Whether they are of one run, whose blocks started both."""
        return self.runs[0] is self.runs[1]

    @property
    def sides(self) -> tuple[tuple[str, Run, Group], tuple[str, Run, Group]]:
        """Name, run and group of each."""
        first, second = zip(self.names, self.runs, self.groups, strict=True)
        return first, second

    @cached_property
    def has_same_seeds(self) -> bool:
        """Whether they have repeats in common, and these the same conversations."""
        seeds = [{cell.planned.repeat: cell.planned.seed for cell in group.cells} for group in self.groups]
        shared = seeds[0].keys() & seeds[1].keys()
        return bool(shared) and all(seeds[0][repeat] == seeds[1][repeat] for repeat in shared)

    @cached_property
    def why_none(self) -> str | None:
        """Why no metric of them gets a verdict."""
        return self.whole or _stand_ins(self) or _other_prompts(self)

    @cached_property
    def other_answers(self) -> str | None:
        """That answers of two runs differ in length, with both means; for one run `withheld` says it."""
        return None if self.is_paired else _lengths(self, "output_tokens", "answers")


# --- values ----------------------------------------------------------------------------------------


def aggregates(pair: Pair, metric: str) -> list[Aggregate]:
    """Return the value of both."""
    return [aggregate(run, group, metric) for _, run, group in pair.sides]


def estimate_of(pair: Pair, metric: str, *, is_inverse: bool = False) -> Estimate | None:
    """Return the second over the first (`is_inverse`: the other way), a difference for an additive metric.

    None where a side has no value, fewer than two, or one without a logarithm; where the two are not of one
    kind (places, currencies); and for servers that were not restarted, whose blocks say nothing of starts.
    """
    is_log = not metric_of(metric).is_additive
    if any(found.mean is None for found in aggregates(pair, metric)) or _other_kind(pair, metric):
        return None
    if not all(run.is_restarted(group.deployment) for _, run, group in pair.sides):
        return None
    first, second = _values(pair, metric)
    if min(len(first), len(second)) < 2 or (is_log and not may_be_logged([*first, *second])):
        return None
    make = of_pairs if pair.is_paired else of_two_samples
    top, bottom = (first, second) if is_inverse else (second, first)
    found = make(top, bottom, is_log=is_log)
    return found if math.isfinite(found.error) else None


def _values(pair: Pair, metric: str) -> tuple[list[float], list[float]]:
    """Return values by start; of one run those of the blocks that have both."""
    first, second = (_known(run, group, metric) for _, run, group in pair.sides)
    if not pair.is_paired:
        return list(first.values()), list(second.values())
    shared = [repeat for repeat in first if repeat in second]
    return [first[repeat] for repeat in shared], [second[repeat] for repeat in shared]


def _known(run: Run, group: Group, metric: str) -> dict[int, float]:
    found = by_start(run, group, metric)
    return {repeat: each.value for repeat, each in found.items() if each.value is not None}


# --- questions -------------------------------------------------------------------------------------


def question_of(pair: Pair, metric: str, margin_share: float) -> Question:
    """Return the question whether the second is better, worse, or the same within the margin."""
    row = metric_of(metric)
    return Question(
        estimate_of(pair, metric),
        "lower" if row.better == "lower" else "higher",
        0.0 if row.is_additive else log_margin(margin_share),
        why_not(pair, metric),
    )


def why_not(pair: Pair, metric: str) -> str | None:
    """Return why a metric of the two gets no verdict; None where it may."""
    if pair.why_none:
        return pair.why_none
    if metric_of(metric).needs_equal_lengths and pair.other_answers:
        return pair.other_answers
    if why := _other_kind(pair, metric):
        return why
    for name, run, group in pair.sides:
        if why := _why_missing(run, group, metric):
            return f"{name}: {why}"
    first, second = _values(pair, metric)
    if min(len(first), len(second)) < STARTS_NEEDED:
        counts = f"{len(first)}" if pair.is_paired else f"{len(first)} and {len(second)}"
        return f"a verdict needs {STARTS_NEEDED} starts of each or more, here {counts}"
    if not metric_of(metric).is_additive and not may_be_logged([*first, *second]):
        return "a value is 0, which has no ratio"
    return None


def _why_missing(run: Run, group: Group, metric: str) -> str | None:
    found = aggregate(run, group, metric)
    if found.mean is not None:
        return None
    if not group.counted:
        reason = next((cell.reason for cell in group.cells if cell.reason), None)
        return f"no cell was measured{f' ({reason})' if reason else ''}"
    values = by_start(run, group, metric)
    lacking = [value for value in values.values() if value.value is None]
    if not lacking or not is_percentile(metric) or withheld(run, group.key, metric):
        return found.why or "no value"
    least = min(lacking, key=lambda value: value.n)
    starts = f"{len(values):,} start{'' if len(values) == 1 else 's'}"
    return f"{why_missing(metric, least.n, least.requests)} ({len(lacking)} of {starts})"


def _other_kind(pair: Pair, metric: str) -> str | None:
    if metric in _OF_A_PLACE:
        kinds = {r.memory_kind for _, run, group in pair.sides for r in run.starts_of(group.deployment)}
        if len(kinds) > 1:
            return "one is measured on a device, the other on the host"
    currencies = {run.record.price.currency for run in pair.runs if run.record.price}
    if metric_of(metric).unit == "price.currency" and len(currencies) > 1:
        return "their prices are in other currencies"
    return None


# --- whether they are alike ------------------------------------------------------------------------


def _stand_ins(pair: Pair) -> str | None:
    for name, run, group in pair.sides:
        if what := stand_ins(run).get(group.deployment):
            return f"{name}: {what}"
    return None


def _other_prompts(pair: Pair) -> str | None:
    not_same = "their prompts are not the same"
    if pair.is_paired:
        work = work_of(pair.runs[0])
        first, second = (work.prompt_class(group.deployment) for group in pair.groups)
        return not_same if first != second else None
    counts = [equal_work.counted_prompts(run.starts_of(group.deployment)) for _, run, group in pair.sides]
    turns = _turns(pair, "input_tokens")
    tables = [] if turns is None else [(pair.groups[0].load, turns)]
    if why := equal_work.why_unlike(pair.names, counts, tables):
        return f"{not_same}: {why}"
    return _lengths(pair, "input_tokens", "prompts")


def _lengths(pair: Pair, name: str, title: str) -> str | None:
    """Compare lengths of turns that both answered, else their means."""
    turns = _turns(pair, name)
    own = [found.mean for found in aggregates(pair, name)]
    means = own if turns is None else turns.mean().tolist()
    if not equal_work.differ(means):
        return None
    numbers = " and ".join(f"{value:,.1f}" for value in means if value is not None)
    return f"their {title} have other lengths: {numbers} tokens"


def _turns(pair: Pair, column: str) -> pd.DataFrame | None:
    """Return a count of both for each turn that both answered; None where these are too few."""
    if not pair.has_same_seeds:
        return None
    both = turn_table({name: (run, group) for name, run, group in pair.sides}, column).dropna()
    return both if len(both) >= equal_work.TURNS_NEEDED else None
