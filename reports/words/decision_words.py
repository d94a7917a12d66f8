"""Phrases of a decision: objectives, amounts, ratios to the next, the rule; for its sentences and its table's
cells."""

from collections.abc import Sequence

from harness.contracts import Objective
from reports.measures.written import several, supported
from reports.stats.family import STARTS_NEEDED
from reports.verdicts.decision import COST, NEEDED, PEAK, SPEED
from reports.verdicts.picks import Candidate, Pick
from reports.verdicts.search_starts import level_words
from reports.verdicts.searches import CAPACITY
from reports.words.verdict_words import margin_text, ratio_text

# Of those that are not told apart.
NAMED_AT_MOST = 3
_SHORT = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
# The metric whose verdicts decide a column.
_DECIDED_BY = {SPEED: SPEED, COST: SPEED, PEAK: PEAK, NEEDED: PEAK, CAPACITY: CAPACITY}


def slo_words(slo: Sequence[Objective]) -> str:
    """`p95 TTFT 300 ms, p95 TPOT 20 ms, 99 % success`."""
    return ", ".join(
        f"{100 * each.share:g} % success"
        if each.limit_s is None
        else f"{objective_words(each)} {1e3 * each.limit_s:g} ms"
        for each in slo
    )


def objective_words(objective: Objective) -> str:
    """Without what is asked: `p95 TTFT`, `success`."""
    if objective.limit_s is None:
        return objective.metric
    return f"p{100 * objective.share:g} {_SHORT.get(objective.metric, objective.metric)}"


def amount_words(metric: str, candidate: Candidate) -> str:
    """A mean over starts in the unit that a person reads, without it: `166.7 [162.0, 171.5]`."""
    value = candidate.value
    ends = value.interval if value.k >= STARTS_NEEDED else None
    if value.mean is None or ends is None:
        return _value(metric, value.mean, 0.0)
    half = min(value.mean - ends[0], ends[1] - value.mean)
    said, low, high = (_value(metric, each, half) for each in (value.mean, *ends))
    return f"{said} [{low}, {high}]"


def _value(metric: str, value: float | None, half: float) -> str:
    if value is not None and metric == CAPACITY:
        return level_words(value, half)
    return supported(PEAK if metric == NEEDED else metric, value, half)


def next_words(pick: Pick) -> str:
    """The best against the second by value: `1.31x [1.24, 1.38] vllm awq`, or the second's value."""
    if pick.next is None:
        return ""
    if ratio := ratio_to_next(pick):
        return f"{ratio} {pick.next.label}"
    return f"next: {pick.next.label} {amount_words(pick.metric, pick.next)}"


def tied_words(pick: Pick, margin_share: float) -> str:
    """`the same within 5 % as a (1.002x [0.994, 1.010]) and not told apart from b`: those that are not proven
    worse, the second by value with its ratio or value."""
    second = pick.next.label if pick.next else ""
    said = ratio_to_next(pick) or (amount_words(pick.metric, pick.next) if pick.next else "")
    named = {label: f"{label} ({said})" if label == second and said else label for label in pick.ties}
    same = [words for label, words in named.items() if label in pick.same]
    other = [words for label, words in named.items() if label not in pick.same]
    parts = [f"{same_words(margin_share)} as {several(same)}"] if same else []
    return " and ".join([*parts, f"not told apart from {several(other)}"] if other else parts)


def same_words(margin_share: float) -> str:
    """`the same within 5 %`."""
    return f"the same within {margin_text(margin_share)}"


def ratio_to_next(pick: Pick) -> str:
    """`1.31x [1.24, 1.38]`; empty without a verdict."""
    return ratio_text(_DECIDED_BY[pick.metric], pick.verdict) if pick.verdict else ""
