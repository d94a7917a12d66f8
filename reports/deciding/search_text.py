"""The answer of a search in sentences: which deployment takes the most load within the SLO, or why none is
known to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.deciding.decision import Row
from reports.deciding.decision_words import NAMED_AT_MOST, ratio_to_next, same_words, slo_words, tied_words
from reports.deciding.search_decision import cases_of_search, search_rows
from reports.deciding.search_starts import load_words
from reports.deciding.searches import Capacity, mean_words, span_words
from reports.said import HEADLINE_AT_MOST, Said, clipped, one_of, told_apart
from reports.statistics.intervals import CONFIDENCE
from reports.written import plural, several

if TYPE_CHECKING:
    from reports.frames import Run


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
