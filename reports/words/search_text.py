"""The answer of a search in sentences: which deployment takes the most load within the SLO, or why none is
known to."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from reports.checks.examine import mark_text, marks_of_capacity
from reports.data.run import Run
from reports.measures.over_starts import Aggregate
from reports.measures.written import plural, several
from reports.stats.family import Verdict
from reports.stats.intervals import CONFIDENCE
from reports.verdicts.decision import Row, over_starts
from reports.verdicts.search_decision import cases_of_search, search_rows
from reports.verdicts.search_starts import Answer, at_highest, load_words
from reports.verdicts.searches import Capacity, mean_words, span_words
from reports.words.decision_words import NAMED_AT_MOST, ratio_to_next, same_words, slo_words, tied_words
from reports.words.said import HEADLINE_AT_MOST, Said, clipped, one_of, told_apart


def search_answers(run: Run) -> list[Said]:
    """One of each scenario and model."""
    cases = cases_of_search(run)
    rows = {(row.scenario, row.model): row for row in search_rows(run)}
    return told_apart(list(cases), [_searched(run, found, rows.get(case)) for case, found in cases.items()])


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
        first, margin = [best, *pick.ties], run.record.compare.margin_share
        lead = one_of(first) if len(first) <= NAMED_AT_MOST else "No single winner"
        text = f"{best} keeps the SLO ({slo}) up to {load}, {tied_words(pick, margin)}."
        is_same = set(pick.ties) == set(pick.same)
        tied = f"{same_words(margin)} as" if is_same else "not told apart from"
        return Said(lead, text, f"{short}, {tied} {several(pick.ties)}")
    text = f"{keeps}, more than any other: {ratio_to_next(pick)} that of {pick.next.label}."
    return Said(best, text, f"{short}, {ratio_to_next(pick)} that of {pick.next.label}")


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


def words(run: Run, each: Capacity) -> str:
    """`12 users [11.2, 13.9] ▲ 1, mean of 3 starts (12, 12, 11)`; of a start without an answer what it is."""
    by_start = ", ".join(answer.words for answer in each.answers)
    if each.estimate is None:
        return f"{by_start}: {each.why}" if len(each.answers) > 1 else f"{by_start}; {each.why}"
    said = " ".join(
        filter(None, (mean_words(each), span_words(each), mark_text(marks_of_capacity(run, each))))
    )
    unit = "block" if each.is_attached else "start"
    if each.estimate.k < 2:
        bracket = each.answers[0].bracket
        broken = f" ({load_words(each.family, bracket[1])} broke them)" if bracket else ""
        return f"{said}, of one {unit}{broken}"
    return f"{said}, mean of {each.estimate.k} {unit}s ({by_start})"


def as_plain(run: Run, each: Capacity) -> dict[str, Any]:
    """For JSON: the answer, its interval over starts (`is_interval`; else their range), and each start's
    bracket."""
    span = each.span
    return {
        "deployment": each.deployment,
        "scenario": each.scenario,
        "load": each.family,
        "answer": each.estimate.shown if each.estimate else None,
        "low": span[0] if span else None,
        "high": span[1] if span and span[1] < math.inf else None,
        "is_interval": each.has_interval,
        "why": each.why,
        "is_least": each.is_least,
        "marks": [{"check": found.check, "title": found.title} for found in marks_of_capacity(run, each)],
        "starts": [_start_as_plain(answer) for answer in each.answers],
        "baseline": each.baseline,
        "verdict": asdict(_without_interval(each.verdict)) if each.verdict else None,
    }


def _without_interval(verdict: Verdict) -> Verdict:
    """Where nothing is said there is no ratio either: of two starts, or of blocks on one, it says nothing."""
    return verdict if verdict.kind != "none" else replace(verdict, ratio=None, low=None, high=None)


def _start_as_plain(answer: Answer) -> dict[str, Any]:
    return {
        "start": answer.start,
        "kept": answer.kept,
        "broken": answer.broken,
        "proven_kept": answer.proven_kept,
        "proven_broken": answer.proven_broken,
        "is_whole": answer.is_whole,
        "is_at_limit": answer.is_at_limit,
        "trials": sum(len(tried.cells) for tried in answer.tried),
    }


def value_at_highest(run: Run, each: Capacity, name: str) -> Aggregate:
    """Return a value over the starts at the highest load that each kept; none unless all have one."""
    if each.estimate is None:
        return Aggregate(None, None, None, 0, 0, (), why=each.why)
    values = [at_highest(run, answer, name) for answer in each.answers]
    known = [value for value in values if value is not None and value > 0]
    if len(known) < len(values):
        return Aggregate(None, None, None, 0, 0, tuple(values), why="a start has no value")
    return over_starts(known)
