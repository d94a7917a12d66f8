"""The decision in sentences: the top of the page, and what a table's cell says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.contracts import Objective
from reports.decision import COST, NEEDED, PEAK, SPEED, Row, decision_rows
from reports.intervals import CONFIDENCE
from reports.marks import marks_across_quantizations, marks_of
from reports.page.markup import plural, several, supported
from reports.picks import Candidate, Pick
from reports.search_decision import cases_of_search, search_rows
from reports.search_starts import level_words, load_words
from reports.searches import CAPACITY, Capacity, mean_words, span_words, verdict_count
from reports.verdict_words import family_text, ratio_text
from reports.verdicts import STARTS_NEEDED

if TYPE_CHECKING:
    from reports.checks.finding import Finding
    from reports.frames import Run

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
    if ratio := _ratio(pick):
        return f"{ratio} {pick.next.label}"
    return f"next: {pick.next.label} {amount_words(pick.metric, pick.next)}"


def tied_words(pick: Pick) -> str:
    """Those that are not proven worse, the second by value with its ratio or value."""
    second = pick.next.label if pick.next else ""
    said = _ratio(pick) or (amount_words(pick.metric, pick.next) if pick.next else "")
    return several([f"{label} ({said})" if label == second and said else label for label in pick.ties])


def _ratio(pick: Pick) -> str:
    return ratio_text(_DECIDED_BY[pick.metric], pick.verdict) if pick.verdict else ""


# --- the answer ------------------------------------------------------------------------------------


def answer(run: Run) -> str | None:
    """The sentences for the top of the page, by scenario, model and family of loads; None without an SLO.

    At the highest load that a deployment keeps the SLO at: how many do, and which is the fastest. Of a
    search: which takes the most load, or why nothing is known to keep it.
    """
    if run.record.search is not None:
        return _of_search(run)
    rows = decision_rows(run)
    cases = list(dict.fromkeys((row.scenario, row.model, row.family) for row in rows))
    said = [
        _decided(run, [row for row in rows if (row.scenario, row.model, row.family) == case])
        for case in cases
    ]
    return _together(cases, said)


def answer_marks(run: Run) -> list[Finding]:
    """What makes that answer doubtful: of all that keep or miss the SLO; of a search at the loads kept."""
    if run.record.search is not None:
        found = [mark for each in run.capacities for mark in each.marks]
    else:
        groups = itertools.product(run.groups, ("slo_share", SPEED))
        found = [mark for group, metric in groups for mark in marks_of(run, group, metric)]
    return list(dict.fromkeys([*found, *marks_across_quantizations(run)]))


def _of_search(run: Run) -> str | None:
    cases = cases_of_search(run)
    rows = {(row.scenario, row.model): row for row in search_rows(run)}
    said = [_searched(run, found, rows.get(case)) for case, found in cases.items()]
    return _together(list(cases), said)


def _together(cases: Sequence[tuple[str, ...]], said: Sequence[str]) -> str | None:
    """Each with what tells it from the others, where there are several."""
    if len(cases) < 2:
        return " ".join(said) or None
    differ = [len(set(parts)) > 1 for parts in zip(*cases, strict=True)]
    names = [", ".join(part for part, tells in zip(case, differ, strict=True) if tells) for case in cases]
    return " ".join(f"{name}: {each}" for name, each in zip(names, said, strict=True))


def _decided(run: Run, rows: Sequence[Row]) -> str:
    slo = slo_words(run.record.slo)
    kept = [row for row in rows if row.labels("kept")]
    if not kept:
        return f"No deployment is known to keep the SLO ({slo}) at any load{_maybe(rows)}."
    row = kept[-1]
    labels, all_labels = row.labels("kept"), [each.label for each in row.standings]
    count = labels[0] if len(all_labels) == 1 else f"{len(labels)} of {plural(len(all_labels), 'deployment')}"
    unclear = len(row.labels("unclear"))
    doubt = f"; of {unclear} it is not clear" if unclear else ""
    said = f"At {row.load} {count} {'keeps' if len(labels) == 1 else 'keep'} the SLO ({slo}{doubt})"
    pick = row.picks.get("fastest")
    if pick and len(all_labels) > 1:
        said += f": {_fastest(run, pick, labels)}"
    return f"{said}.{_beyond(rows, row)}"


def _maybe(rows: Sequence[Row]) -> str:
    unclear = [row for row in rows if row.labels("unclear")]
    if not unclear:
        return ""
    return f"; of {several(unclear[-1].labels('unclear'))} it is not clear at {unclear[-1].load}"


def _fastest(run: Run, pick: Pick, labels: Sequence[str]) -> str:
    best = pick.best.label
    unclear = f"; {several(pick.unclear)} would be faster, if it keeps it" if pick.unclear else ""
    if pick.next is None:
        return f"{best}{unclear}"
    if pick.why:
        return f"{several(labels)}; which is the fastest is not said: {pick.why}"
    if pick.ties:
        said = f"{best} has the most tokens/s, not told apart from {tied_words(pick)}"
    else:
        said = f"{best} is the fastest, {next_words(pick)}"
    return f"{said}{unclear} ({basis(run)})"


def basis(run: Run) -> str:
    """By which rule the run's verdicts are given."""
    return family_text(run.comparisons.family)


def _beyond(rows: Sequence[Row], row: Row) -> str:
    higher = rows[rows.index(row) + 1 :]
    if not higher:
        return ""
    if unclear := higher[0].labels("unclear", "unknown"):
        return f" At {higher[0].load} it is not clear of {several(unclear)}."
    return f" At {higher[0].load} none does."


def _searched(run: Run, found: Sequence[Capacity], row: Row | None) -> str:
    slo = slo_words(run.record.slo)
    pick = row.picks.get("most load") if row else None
    if pick is None:
        subject = found[0].deployment if len(found) == 1 else "No deployment"
        verb = "is not known to keep" if len(found) == 1 else "is known to keep"
        whys = [_without(each, is_named=len(found) > 1) for each in found]
        return f"{subject} {verb} the SLO ({slo}) on all of its starts: {several(whys, '; ')}."
    by_label = {each.deployment: each for each in found}
    best = pick.best.label
    said = f"{best} keeps the SLO ({slo}) up to {_load(by_label[best])}"
    if len(found) == 1:
        return f"{said}.{_interval_words(by_label[best])}"
    if pick.next is None:
        others = [each for each in found if each.deployment != best]
        return (
            f"{said}, of {plural(len(found), 'deployment')} the only one that is known to; {_lack(others)}."
        )
    if pick.why:
        other = f"{pick.next.label} up to {_load(by_label[pick.next.label])}"
        return f"{said}, {other}; which is more is not said: {pick.why}."
    how = (
        f"not told apart from {tied_words(pick)}" if pick.ties else f"more than any other: {next_words(pick)}"
    )
    return f"{said}, {how} ({family_text(verdict_count(found))})."


def _load(each: Capacity) -> str:
    """`12 users [11.2, 13.9]`."""
    return " ".join(filter(None, (mean_words(each), span_words(each))))


def _interval_words(each: Capacity) -> str:
    return f" In brackets the {100 * CONFIDENCE:.0f} % interval over starts." if each.has_interval else ""


def _lack(others: Sequence[Capacity]) -> str:
    return several([_without(each, is_named=True) for each in others], "; ")


def _without(each: Capacity, *, is_named: bool) -> str:
    """Why a deployment has no answer, with what its starts came to."""
    if each.why is None:
        why = "its kernels are not its own"
    else:
        starts = f" ({', '.join(answer.words for answer in each.answers)})" if len(each.answers) > 1 else ""
        lowest = min(tried.level for answer in each.answers for tried in answer.tried)
        why = f"{each.why}{starts}, from {load_words(each.family, lowest)} on"
    return f"{each.deployment}: {why}" if is_named else why
