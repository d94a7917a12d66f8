"""The decision in sentences, for the top of the page."""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from reports.checks.examine import marks_across_quantizations, marks_of, marks_of_capacity
from reports.checks.finding import Finding
from reports.data.run import Run
from reports.measures.written import plural, several
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decision import NEEDED, SPEED, Row, decision_rows
from reports.verdicts.picks import Pick
from reports.verdicts.searches import capacities_of
from reports.words.costs import memory_words, over_loads, quality_words
from reports.words.decision_words import NAMED_AT_MOST, ratio_to_next, same_words, slo_words, tied_words
from reports.words.lineups import lineups_of
from reports.words.said import HEADLINE_AT_MOST, Said, clipped, one_of, told_apart
from reports.words.search_text import search_answers
from reports.words.verdict_words import ratio_text


def answers(run: Run) -> list[Said]:
    """For the top of the page, one of each scenario, model and family of loads; none without an SLO.

    At the highest load that a deployment keeps the SLO at: how many do, and which is the fastest. Of a
    search: which takes the most load, or why nothing is known to keep it.
    """
    if run.record.search is not None:
        return search_answers(run)
    rows = decision_rows(run)
    cases = list(dict.fromkeys((row.scenario, row.model, row.family) for row in rows))
    said = [
        _decided(run, [row for row in rows if (row.scenario, row.model, row.family) == case])
        for case in cases
    ]
    return told_apart(cases, said)


def answer(run: Run) -> str | None:
    """The same as plain text; None without an SLO."""
    return " ".join(each.plain for each in answers(run)) or None


def answer_marks(run: Run) -> list[Finding]:
    """What makes that answer doubtful: of all that keep or miss the SLO; of a search at the loads kept."""
    if run.record.search is not None:
        found = [mark for each in capacities_of(run) for mark in marks_of_capacity(run, each)]
    else:
        groups = itertools.product(run.groups, ("slo_share", SPEED))
        found = [mark for group, metric in groups for mark in marks_of(run, group, metric)]
    return list(dict.fromkeys([*found, *marks_across_quantizations(run)]))


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
    return replace(said, text=f"{said.text}{_smallest(run, row)}{would}{beyond}")


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
        first, margin = [best, *pick.ties], run.record.compare.margin_share
        lead = one_of(first) if len(first) <= NAMED_AT_MOST else "No single winner"
        text = f"{at} {keep}; {best} has the most tokens/s, {tied_words(pick, margin)}."
        tied = same_words(margin) if set(pick.ties) == set(pick.same) else "not told apart"
        return Said(lead, text, f"{several(first)}: fastest within the SLO at {row.load}, {tied}")
    of = f"the {len(labels)} of {plural(len(row.standings), 'deployment')} that keep the {within}"
    is_next = pick.next.label == comparisons_of(run).baselines[row.model]
    costs = _against(run, row, best) if is_next else ""
    text = f"{at} it is the fastest of {of}: {_over_next(pick)}{costs}.{_against_baseline(run, row, pick)}"
    return Said(best, text, f"{best}: fastest within the SLO at {row.load}, {_over_next(pick)}")


def _over_next(pick: Pick) -> str:
    """`1.31x [1.24, 1.38] the tokens/s of vllm awq`."""
    return f"{ratio_to_next(pick)} the tokens/s of {pick.next.label}" if pick.next else ""


def _smallest(run: Run, row: Row) -> str:
    """Which of those that keep the SLO is the smallest, where that is proven."""
    pick = row.picks.get("smallest")
    if pick is None or not pick.is_proven or pick.next is None:
        return ""
    is_needed = pick.metric == NEEDED
    what = f"needs the least memory{over_loads(run)}" if is_needed else "has the smallest peak memory"
    return f" {pick.best.label} {what} of these, {ratio_to_next(pick)} that of {pick.next.label}."


def _against(run: Run, row: Row, best: str) -> str:
    """What the best costs in memory and quality against the baseline."""
    lineup = next(
        each
        for each in lineups_of(run)
        if (each.scenario, each.model, each.family) == (row.scenario, row.model, row.family)
    )
    groups = {each.label: each.group for each in row.standings}
    a, b = groups.get(best), groups.get(lineup.baseline or "")
    if a is None or b is None or a is b:
        return ""
    return memory_words(run, lineup, a.deployment, b.deployment) + quality_words(run, a, b)


def _against_baseline(run: Run, row: Row, pick: Pick) -> str:
    """The best's speed and memory against the baseline, as a sentence, where that is not the next."""
    baseline, best = comparisons_of(run).baselines[row.model], pick.best.label
    if best == baseline or (pick.next and pick.next.label == baseline):
        return ""
    verdict = comparisons_of(run).of(row.scenario, row.load, SPEED, best, baseline)
    if verdict is None or verdict.kind == "none":
        return ""
    said = f"{ratio_text(SPEED, verdict)} the tokens/s{_against(run, row, best)}"
    return f" Against the baseline, {baseline}: {said}."


def _beyond(rows: Sequence[Row], row: Row) -> str:
    higher = rows[rows.index(row) + 1 :]
    if not higher:
        return ""
    if unclear := higher[0].labels("unclear", "unknown"):
        return f" At {higher[0].load} it is not clear of {several(unclear)}."
    return f" At {higher[0].load} none keeps the SLO."
