"""The answer of a search in sentences: who takes the most load within the SLO, or why none does."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from reports.checks.examine import mark_text, marks_of_capacity
from reports.data.run import Run
from reports.measures.written import plural, several
from reports.stats.family import Verdict
from reports.stats.intervals import CONFIDENCE
from reports.verdicts.picks import Pick, picks_of
from reports.verdicts.search_starts import Answer, level_words, load_words
from reports.verdicts.searches import CAPACITY, Capacity, cases_of_search
from reports.words.said import HEADLINE_AT_MOST, Said, clipped, one_of, told_apart
from reports.words.verdict_words import margin_text, ratio_text, slo_words

# Of those that are not told apart.
NAMED_AT_MOST = 3


def search_answers(run: Run) -> list[Said]:
    """Return the answer of each scenario and model."""
    cases = cases_of_search(run)
    picks = {(each.scenario, each.model): each for each in picks_of(run) if each.metric == CAPACITY}
    return told_apart(list(cases), [_searched(run, found, picks.get(case)) for case, found in cases.items()])


def _searched(run: Run, found: Sequence[Capacity], pick: Pick | None) -> Said:
    slo = slo_words(run.record.slo)
    if pick is None:
        return _nothing_found(slo, found)
    best = pick.best
    loads = {each.deployment: _load(each) for each in found}
    keeps, short = f"It keeps the SLO ({slo}) up to {loads[best]}", f"{best}: {loads[best]} within the SLO"
    if len(found) == 1:
        return Said(best, f"{keeps}.{_interval_words(found[0])}", short)
    if pick.next is None or pick.verdict is None:
        others = several([_without(each, is_named=True) for each in found if each.deployment != best], "; ")
        alone = f"of {plural(len(found), 'deployment')} the only one that is known to"
        return Said(best, f"{keeps}, {alone}; {others}.", f"{short}, the only one that is known to keep it")
    if pick.why:
        one, other = (f"{label} up to {loads[label]}" for label in (best, pick.next))
        text = f"The SLO ({slo}) is kept by {one} and by {other}; which is more is not said: {pick.why}."
        return Said("No winner", text, clipped(f"No winner: {one} and {other}; {pick.why}", HEADLINE_AT_MOST))
    ratio = ratio_text(CAPACITY, pick.verdict)
    if pick.ties:
        first, same = [best, *pick.ties], f"the same within {margin_text(run.record.compare.margin_share)} as"
        lead = one_of(first) if len(first) <= NAMED_AT_MOST else "No single winner"
        named = {label: f"{label} ({ratio})" if label == pick.next else label for label in pick.ties}
        parts = [
            f"{words} {several(listed)}"
            for words, listed in (
                (same, [text for label, text in named.items() if label in pick.same]),
                ("not told apart from", [text for label, text in named.items() if label not in pick.same]),
            )
            if listed
        ]
        text = f"{best} keeps the SLO ({slo}) up to {loads[best]}, {' and '.join(parts)}."
        tied = same if set(pick.ties) == set(pick.same) else "not told apart from"
        return Said(lead, text, f"{short}, {tied} {several(pick.ties)}")
    text = f"{keeps}, more than any other: {ratio} that of {pick.next}."
    return Said(best, text, f"{short}, {ratio} that of {pick.next}")


def _nothing_found(slo: str, found: Sequence[Capacity]) -> Said:
    is_alone = len(found) == 1
    whys = [_without(each, is_named=not is_alone) for each in found]
    subject = f"{found[0].deployment} is not known" if is_alone else "No deployment is known"
    text = f"{subject} to keep the SLO ({slo}) on all of its starts: {several(whys, '; ')}."
    return Said("No answer", text, clipped(f"No answer: {subject} to keep the SLO ({slo})", HEADLINE_AT_MOST))


def _load(each: Capacity) -> str:
    return " ".join(filter(None, (mean_words(each), span_words(each))))


def _interval_words(each: Capacity) -> str:
    return f" In brackets the {100 * CONFIDENCE:.0f} % interval over starts." if each.has_interval else ""


def _without(each: Capacity, *, is_named: bool) -> str:
    """Return why a deployment has no answer, with what its starts came to."""
    if each.why is None:
        why = "its kernels are not its own"
    else:
        starts = f" ({', '.join(answer.words for answer in each.answers)})" if len(each.answers) > 1 else ""
        lowest = min(tried.level for answer in each.answers for tried in answer.tried)
        why = f"{each.why}{starts}, from {load_words(each.family, lowest)} on"
    return f"{each.deployment}: {why}" if is_named else why


def mean_words(each: Capacity) -> str:
    """Return `12 users`, `64 users or more`, with the digits that its interval supports."""
    if each.estimate is None:
        return ""
    shown, ends = each.estimate.shown, each.span
    half = min(shown - ends[0], ends[1] - shown) if each.has_interval and ends else 0.0
    return load_words(each.family, shown, half) + (" or more" if each.is_least else "")


def span_words(each: Capacity) -> str:
    """Return `[11.2, 13.9]`, a mean's interval; `12–14` of two starts and of blocks; empty for one."""
    ends = each.span
    if each.estimate is None or ends is None:
        return ""
    half = min(each.estimate.shown - ends[0], ends[1] - each.estimate.shown)
    low, high = (level_words(end, half if each.has_interval else 0.0) for end in ends)
    return f"[{low}, {high}]" if each.has_interval else f"{low}–{high}"


def words(run: Run, each: Capacity) -> str:
    """Return `12 users [11.2, 13.9] ▲ 1, mean of 3 starts (12, 12, 11)`, or why there is no answer."""
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
    """Return for JSON the answer, its interval over starts (else their range), and each start's bracket."""
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
    """Leave out the ratio where nothing is said, as of two starts."""
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
