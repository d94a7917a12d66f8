"""What a search found: the highest load at which each deployment kept the objectives, with its uncertainty.

All comparisons of a search are one family: the loads, and what picks go by at them.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from harness.contracts import SUCCESS
from reports.data.run import Run, once
from reports.measures.equal_work import stand_ins, work_of
from reports.measures.over_starts import Aggregate, withheld
from reports.stats.family import STARTS_NEEDED, Question, Verdict, decide, log_margin
from reports.stats.intervals import (
    Estimate,
    may_be_logged,
    of_bracket_pairs,
    of_brackets,
    of_pairs,
    of_values,
)
from reports.verdicts.comparisons import comparisons_of, mirrored
from reports.verdicts.search_starts import Answer, answers_of, at_highest

# The highest load that keeps the SLO, in users or conversations per second.
CAPACITY = "capacity"
# What picks go by besides, at the highest load that each kept.
SPEED, PEAK = "output_tokens_per_s", "memory_peak_bytes"
_BETTER: Mapping[str, Literal["higher", "lower"]] = {CAPACITY: "higher", SPEED: "higher", PEAK: "lower"}


@dataclass(frozen=True)
class Capacity:
    """A deployment's answer.

    `estimate`: over starts, each between its highest kept and lowest broken load; None where a start has no
    answer of its own, and `why` says why. `is_least`: a start kept the highest load that was allowed, so it
    is that or more. `is_attached`: its starts are blocks on a server that ran already. `baseline`: that of
    its model, None for the baseline itself. `told`: the verdicts on it, by metric and the other's label.
    """

    deployment: str
    scenario: str
    model: str
    answers: tuple[Answer, ...]
    estimate: Estimate | None
    why: str | None
    is_least: bool
    is_attached: bool
    baseline: str | None = None
    told: Mapping[tuple[str, str], Verdict] = field(default_factory=dict)

    @property
    def family(self) -> str:
        return self.answers[0].family

    @property
    def cells_at_highest(self) -> set[int]:
        return cells_at_highest(self.answers)

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on its highest load against the baseline's; None for the baseline itself."""
        return None if self.baseline is None else self.told.get((CAPACITY, self.baseline))

    @property
    def has_interval(self) -> bool:
        return (
            self.estimate is not None
            and self.estimate.k >= STARTS_NEEDED
            and not (self.is_least or self.is_attached)
        )

    @property
    def span(self) -> tuple[float, float] | None:
        """The mean's 95 % interval; of two starts, and of blocks, their lowest kept to highest broken load.

        None for a single start, and where the answer is a least.
        """
        if self.estimate is None or self.is_least or self.estimate.k < 2:
            return None
        if self.has_interval:
            return self.estimate.interval()
        brackets = [each for answer in self.answers if (each := answer.bracket)]
        return min(low for low, _ in brackets), max(high for _, high in brackets)


@once
def capacities_of(run: Run) -> list[Capacity]:
    """Return the answer of each deployment and scenario, in the plan's order."""
    by_key = itertools.groupby(answers_of(run), key=lambda answer: (answer.deployment, answer.scenario))
    found = [_capacity(run, list(each)) for _, each in by_key]
    told = _told(run, found)
    baselines = comparisons_of(run).baselines
    return [
        replace(
            each,
            baseline=None if (other := baselines.get(each.model)) == each.deployment else other,
            told={
                (m, b): v for (s, m, a, b), v in told.items() if (s, a) == (each.scenario, each.deployment)
            },
        )
        for each in found
    ]


def _capacity(run: Run, answers: Sequence[Answer]) -> Capacity:
    first = answers[0]
    known = [answer.kept for answer in answers if answer.is_whole and answer.kept is not None]
    why = _why_none(answers) if len(known) < len(answers) else None
    brackets = [answer.bracket for answer in answers]
    whole = [each for each in brackets if each]
    if why:
        estimate = None
    else:
        estimate = of_brackets(whole) if len(whole) == len(brackets) else of_values(known, is_log=True)
    return Capacity(
        deployment=first.deployment,
        scenario=first.scenario,
        model=run.deployments[first.deployment].model,
        answers=tuple(answers),
        estimate=estimate,
        why=why,
        is_least=any(answer.is_at_limit for answer in answers),
        is_attached=any(record.attached for record in run.starts_of(first.deployment)),
    )


def _why_none(answers: Sequence[Answer]) -> str:
    cut = sum(not answer.is_whole for answer in answers)
    if cut:
        return f"the search did not come to its end on {cut} of {len(answers)} starts"
    none = sum(answer.kept is None for answer in answers)
    return f"no load that was tried kept the objectives on {none} of {len(answers)} starts"


def cells_at_highest(answers: Sequence[Answer]) -> set[int]:
    """Return the numbers of the cells that count at the highest load that each start kept."""
    kept = [tried for answer in answers for tried in answer.tried if tried.level == answer.kept]
    return {cell.number for tried in kept for cell in tried.cells if cell.counts}


def cases_of_search(run: Run) -> dict[tuple[str, str], list[Capacity]]:
    """Return the answers of each scenario and model; nothing for a run that is no search."""
    found: dict[tuple[str, str], list[Capacity]] = {}
    if run.record.search is not None:
        for each in capacities_of(run):
            found.setdefault((each.scenario, each.model), []).append(each)
    return found


def capacity_value(each: Capacity) -> Aggregate:
    """Return the answer as a value over starts, with the interval that it has."""
    kept = [answer.kept for answer in each.answers if answer.kept is not None]
    if each.estimate is None:
        return Aggregate(None, None, None, 0, 0, (), why=each.why)
    interval = each.span if each.has_interval else None
    k = len(kept)
    return Aggregate(each.estimate.shown, min(kept), max(kept), k, k, tuple(kept), interval=interval)


def value_at_highest(run: Run, each: Capacity, name: str) -> Aggregate:
    """Return a value over the starts at the highest load that each kept; none unless all have one."""
    if each.estimate is None:
        return Aggregate(None, None, None, 0, 0, (), why=each.why)
    values = [at_highest(run, answer, name) for answer in each.answers]
    known = [value for value in values if value is not None and value > 0]
    if len(known) < len(values):
        return Aggregate(None, None, None, 0, 0, tuple(values), why="a start has no value")
    estimate, k = of_values(known, is_log=True), len(known)
    # Blocks on one start: nobody knows how much another would differ.
    interval = estimate.interval() if k > 1 and not each.is_attached else None
    return Aggregate(estimate.shown, min(known), max(known), k, k, tuple(known), interval=interval)


def slo_metrics(run: Run) -> list[str]:
    """Return the metrics of the objectives, whose marks the shares bear."""
    return ["success_share" if each.metric == SUCCESS else each.metric for each in run.record.slo]


# --- verdicts --------------------------------------------------------------------------------------


def _told(run: Run, found: Sequence[Capacity]) -> dict[tuple[str, str, str, str], Verdict]:
    """Return the verdicts by scenario, metric, and a label against another: each pair both ways round."""
    pairs = [
        (b, a) for a, b in itertools.combinations(found, 2) if (a.scenario, a.model) == (b.scenario, b.model)
    ]
    asked = [(metric, a, b) for metric in _BETTER for a, b in pairs]
    verdicts = decide([_question(run, metric, a, b) for metric, a, b in asked])
    told = {}
    for (metric, a, b), verdict in zip(asked, verdicts, strict=True):
        told[a.scenario, metric, a.deployment, b.deployment] = verdict
        told[a.scenario, metric, b.deployment, a.deployment] = mirrored(verdict)
    return told


def verdict_count(capacities: Sequence[Capacity]) -> int:
    """Return how many comparisons were decided together."""
    return sum(verdict.kind != "none" for each in capacities for verdict in each.told.values()) // 2


def _question(run: Run, metric: str, a: Capacity, b: Capacity) -> Question:
    blocks = [(x, y) for x in a.answers for y in b.answers if x.repeat == y.repeat]
    estimate = _load_ratio(blocks) if metric == CAPACITY else _value_ratio(run, metric, blocks)
    why = _why_not(run, metric, a, b)
    if why is None and (estimate is None or estimate.k < len(blocks)):
        why = "a start has no value"
    return Question(estimate, _BETTER[metric], log_margin(run.record.compare.margin_share), why)


def _load_ratio(blocks: Sequence[tuple[Answer, Answer]]) -> Estimate | None:
    known = [(x.bracket, y.bracket) for x, y in blocks]
    both = [(x, y) for x, y in known if x and y]
    return of_bracket_pairs([x for x, _ in both], [y for _, y in both]) if both else None


def _value_ratio(run: Run, metric: str, blocks: Sequence[tuple[Answer, Answer]]) -> Estimate | None:
    known = [(at_highest(run, x, metric), at_highest(run, y, metric)) for x, y in blocks]
    both = [(x, y) for x, y in known if x is not None and y is not None]
    if not both or not may_be_logged([value for pair in both for value in pair]):
        return None
    return of_pairs([x for x, _ in both], [y for _, y in both], is_log=True)


def _why_not(run: Run, metric: str, a: Capacity, b: Capacity) -> str | None:
    for each in (a, b):
        if each.why:
            return f"{each.deployment}: {each.why}"
        if what := stand_ins(run).get(each.deployment):
            return f"{each.deployment}: {what}"
        if metric == CAPACITY and (why := _withheld(run, each)):
            return f"{each.deployment}: {why}"
    if a.is_attached or b.is_attached:
        return "the server was running already and was not restarted between repeats"
    if work_of(run).prompt_class(a.deployment) != work_of(run).prompt_class(b.deployment):
        return "their prompts are not the same"
    kinds = {record.memory_kind for each in (a, b) for record in run.starts_of(each.deployment)}
    if metric == PEAK and len(kinds) > 1:
        return "one is measured on a device, the other on the host"
    if metric == CAPACITY and (a.is_least or b.is_least):
        return "search.highest was kept; a higher one would tell them apart"
    if len(a.answers) < STARTS_NEEDED:
        return f"a verdict needs {STARTS_NEEDED} starts of each deployment or more, here {len(a.answers)}"
    return None


def _withheld(run: Run, each: Capacity) -> str | None:
    """Return why goodput is no comparison: answers of another length than was asked for."""
    kept = [tried for answer in each.answers for tried in answer.tried if tried.level == answer.kept]
    whys = (withheld(run, cell.key, "goodput_per_s") for tried in kept for cell in tried.cells)
    return next(filter(None, whys), None)
