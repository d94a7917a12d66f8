"""The decision in sentences: the top of the page, and what a table's cell says."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from harness.contracts import Objective
from reports.costs import memory_words, quality_words
from reports.decision import COST, NEEDED, PEAK, SPEED, Row
from reports.intervals import CONFIDENCE
from reports.marks import marks_across_quantizations, marks_of
from reports.page.markup import plural, several, supported
from reports.picks import Candidate, Pick
from reports.said import HEADLINE_AT_MOST, Said, clipped, one_of
from reports.search_decision import cases_of_search, search_rows
from reports.search_starts import level_words, load_words
from reports.searches import CAPACITY, Capacity, mean_words, span_words, verdict_count
from reports.verdict_words import family_text, ratio_text
from reports.verdicts import STARTS_NEEDED

if TYPE_CHECKING:
    from reports.checks.finding import Finding
    from reports.frames import Run

# Of those that are not told apart.
_NAMED_AT_MOST = 3
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


def answers(run: Run) -> list[Said]:
    """For the top of the page, one of each scenario, model and family of loads; none without an SLO.

    At the highest load that a deployment keeps the SLO at: how many do, and which is the fastest. Of a
    search: which takes the most load, or why nothing is known to keep it.
    """
    if run.record.search is not None:
        return _of_search(run)
    rows = run.decisions
    cases = list(dict.fromkeys((row.scenario, row.model, row.family) for row in rows))
    said = [
        _decided(run, [row for row in rows if (row.scenario, row.model, row.family) == case])
        for case in cases
    ]
    return _told_apart(cases, said)


def answer(run: Run) -> str | None:
    """The same as plain text; None without an SLO."""
    return " ".join(each.plain for each in answers(run)) or None


def answer_marks(run: Run) -> list[Finding]:
    """What makes that answer doubtful: of all that keep or miss the SLO; of a search at the loads kept."""
    if run.record.search is not None:
        found = [mark for each in run.capacities for mark in each.marks]
    else:
        groups = itertools.product(run.groups, ("slo_share", SPEED))
        found = [mark for group, metric in groups for mark in marks_of(run, group, metric)]
    return list(dict.fromkeys([*found, *marks_across_quantizations(run)]))


def _told_apart(cases: Sequence[tuple[str, ...]], said: Sequence[Said]) -> list[Said]:
    """Each with what tells it from the others, where there are several."""
    if len(cases) < 2:
        return list(said)
    differ = [len(set(parts)) > 1 for parts in zip(*cases, strict=True)]
    names = [", ".join(part for part, tells in zip(case, differ, strict=True) if tells) for case in cases]
    return [replace(each, text=f"{name}: {each.text}") for name, each in zip(names, said, strict=True)]


def _decided(run: Run, rows: Sequence[Row]) -> Said:
    slo = slo_words(run.record.slo)
    kept = [row for row in rows if row.labels("kept")]
    if not kept:
        return _none_keeps(slo, rows)
    row = kept[-1]
    labels, count = row.labels("kept"), len(row.standings)
    unclear = len(row.labels("unclear"))
    within = f"SLO ({slo}{f'; of {unclear} it is not clear' if unclear else ''})"
    beyond = _beyond(rows, row)
    pick = row.picks.get("fastest")
    if count == 1:
        short = f"{labels[0]}: keeps the SLO at {row.load}"
        return Said(labels[0], f"At {row.load} it keeps the {within}.{beyond}", short)
    how_many = f"{len(labels)} of {plural(count, 'deployment')}"
    keep = f"{how_many} {'keeps' if len(labels) == 1 else 'keep'} the {within}"
    if pick is None:
        short = f"No winner: {how_many} within the SLO at {row.load}, none with a speed of its own"
        return Said("No winner", f"At {row.load} {keep}, none with a speed of its own.{beyond}", short)
    said = _picked(run, row, pick, keep, within)
    would = f" {several(pick.unclear)} would be faster, if it keeps it." if pick.unclear else ""
    return replace(said, text=f"{said.text}{_smallest(row)}{would}{beyond}")


def _none_keeps(slo: str, rows: Sequence[Row]) -> Said:
    unclear = [row for row in rows if row.labels("unclear")]
    maybe = (
        f"; of {several(unclear[-1].labels('unclear'))} it is not clear at {unclear[-1].load}"
        if unclear
        else ""
    )
    text = f"No deployment is known to keep the SLO ({slo}) at any load{maybe}."
    return Said(
        "No winner", text, clipped(f"No winner: none is known to keep the SLO ({slo})", HEADLINE_AT_MOST)
    )


def _picked(run: Run, row: Row, pick: Pick, keep: str, within: str) -> Said:
    """The fastest of several that keep the SLO, or of those the only one. `keep`: how many do."""
    best, at, labels = pick.best.label, f"At {row.load}", row.labels("kept")
    if pick.next is None:
        count = plural(len(row.standings), "deployment")
        only = f"At {row.load} it is the only one of {count} that keeps the {within}."
        other = f"{at} {keep}; it is the only one with a speed of its own."
        text = (only if len(labels) == 1 else other) + _against_baseline(run, row, pick)
        return Said(best, text, f"{best}: the only one within the SLO at {row.load}")
    if pick.why:
        text = f"{at} {keep}: {several(labels)}; which is the fastest is not said: {pick.why}."
        short = f"No winner: {len(labels)} of {len(row.standings)} within the SLO at {row.load}; {pick.why}"
        return Said("No winner", text, clipped(short, HEADLINE_AT_MOST))
    if pick.ties:
        first = [best, *pick.ties]
        lead = one_of(first) if len(first) <= _NAMED_AT_MOST else "No single winner"
        text = f"{at} {keep}; {best} has the most tokens/s, not told apart from {tied_words(pick)}."
        return Said(lead, text, f"{several(first)}: fastest within the SLO at {row.load}, not told apart")
    of = f"the {len(labels)} of {plural(len(row.standings), 'deployment')} that keep the {within}"
    is_next = pick.next.label == run.comparisons.baselines[row.model]
    costs = _against(run, row, best) if is_next else ""
    text = f"{at} it is the fastest of {of}: {_over_next(pick)}{costs}.{_against_baseline(run, row, pick)}"
    return Said(best, text, f"{best}: fastest within the SLO at {row.load}, {_over_next(pick)}")


def _over_next(pick: Pick) -> str:
    """`1.31x [1.24, 1.38] the tokens/s of vllm awq`."""
    return f"{_ratio(pick)} the tokens/s of {pick.next.label}" if pick.next else ""


def _smallest(row: Row) -> str:
    """Which of those that keep the SLO is the smallest, where that is proven."""
    pick = row.picks.get("smallest")
    if pick is None or not pick.is_proven or pick.next is None:
        return ""
    what = "needs the least memory" if pick.metric == NEEDED else "has the smallest peak memory"
    return f" {pick.best.label} {what} of these, {_ratio(pick)} that of {pick.next.label}."


def _against(run: Run, row: Row, best: str) -> str:
    """What the best costs in memory and quality against the baseline."""
    lineup = next(
        each
        for each in run.lineups
        if (each.scenario, each.model, each.family) == (row.scenario, row.model, row.family)
    )
    groups = {each.label: each.group for each in row.standings}
    a, b = groups.get(best), groups.get(lineup.baseline or "")
    if a is None or b is None or a is b:
        return ""
    return memory_words(run, lineup, a.deployment, b.deployment) + quality_words(run, a, b)


def _against_baseline(run: Run, row: Row, pick: Pick) -> str:
    """The best's speed and memory against the baseline, as a sentence, where that is not the next."""
    baseline, best = run.comparisons.baselines[row.model], pick.best.label
    if best == baseline or (pick.next and pick.next.label == baseline):
        return ""
    verdict = run.comparisons.of(row.scenario, row.load, SPEED, best, baseline)
    if verdict is None or verdict.kind == "none":
        return ""
    said = f"{ratio_text(SPEED, verdict)} the tokens/s{_against(run, row, best)}"
    return f" Against the baseline, {baseline}: {said}."


def basis(run: Run) -> str:
    """By which rule the run's verdicts are given."""
    if run.record.search is not None:
        count = verdict_count(run.capacities)
        return f"{family_text(count)}." if count else ""
    return f"{family_text(run.comparisons.family)}." if run.comparisons.family else ""


def _beyond(rows: Sequence[Row], row: Row) -> str:
    higher = rows[rows.index(row) + 1 :]
    if not higher:
        return ""
    if unclear := higher[0].labels("unclear", "unknown"):
        return f" At {higher[0].load} it is not clear of {several(unclear)}."
    return f" At {higher[0].load} none keeps the SLO."


# --- of a search -----------------------------------------------------------------------------------


def _of_search(run: Run) -> list[Said]:
    cases = cases_of_search(run)
    rows = {(row.scenario, row.model): row for row in search_rows(run)}
    return _told_apart(list(cases), [_searched(run, found, rows.get(case)) for case, found in cases.items()])


def _searched(run: Run, found: Sequence[Capacity], row: Row | None) -> Said:
    slo = slo_words(run.record.slo)
    pick = row.picks.get("most load") if row else None
    if pick is None:
        return _nothing_found(slo, found)
    by_label = {each.deployment: each for each in found}
    best = pick.best.label
    load = _load(by_label[best])
    keeps, short = f"It keeps the SLO ({slo}) up to {load}", f"{best}: {load} within the SLO"
    if len(found) == 1:
        return Said(best, f"{keeps}.{_interval_words(by_label[best])}", short)
    if pick.next is None:
        others = [each for each in found if each.deployment != best]
        alone = f"of {plural(len(found), 'deployment')} the only one that is known to"
        return Said(
            best, f"{keeps}, {alone}; {_lack(others)}.", f"{short}, the only one that is known to keep it"
        )
    if pick.why:
        each = [f"{label} up to {_load(by_label[label])}" for label in (best, pick.next.label)]
        text = f"The SLO ({slo}) is kept by {' and by '.join(each)}; which is more is not said: {pick.why}."
        return Said(
            "No winner", text, clipped(f"No winner: {' and '.join(each)}; {pick.why}", HEADLINE_AT_MOST)
        )
    if pick.ties:
        first = [best, *pick.ties]
        lead = one_of(first) if len(first) <= _NAMED_AT_MOST else "No single winner"
        text = f"{best} keeps the SLO ({slo}) up to {load}, not told apart from {tied_words(pick)}."
        return Said(lead, text, f"{short}, not told apart from {several(pick.ties)}")
    text = f"{keeps}, more than any other: {_ratio(pick)} that of {pick.next.label}."
    return Said(best, text, f"{short}, {_ratio(pick)} that of {pick.next.label}")


def _nothing_found(slo: str, found: Sequence[Capacity]) -> Said:
    is_alone = len(found) == 1
    whys = [_without(each, is_named=not is_alone) for each in found]
    subject = f"{found[0].deployment} is not known" if is_alone else "No deployment is known"
    text = f"{subject} to keep the SLO ({slo}) on all of its starts: {several(whys, '; ')}."
    return Said("No answer", text, clipped(f"No answer: {subject} to keep the SLO ({slo})", HEADLINE_AT_MOST))


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
