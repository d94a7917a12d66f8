"""Rows of a run's tables in Markdown: a deployment's values at a load, and a search's answers."""

from collections.abc import Mapping

from reports.checks.examine import mark_text, marks_between, marks_of, marks_of_capacity
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.over_starts import Aggregate, aggregate, has_interval, shorter_half, unit_of
from reports.measures.written import shown, span_text, supported
from reports.stats.family import Verdict
from reports.two_runs import gfm
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.load_cases import LoadCase, verdict_of
from reports.verdicts.picks import State
from reports.verdicts.searches import CAPACITY, Capacity, mean_words, span_words, word
from reports.words.verdict_words import heading_of, ratio_text, word_of

# Whether a deployment keeps the SLO, by scenario, load and label.
States = Mapping[tuple[str, str, str], State]
_STATES: Mapping[State, str] = {
    "kept": "keeps it",
    "unclear": "not clear",
    "broken": "does not",
    "unknown": "not measured",
}


def heads_of(run: Run, case: LoadCase, states: States) -> list[str]:
    """The heads of a load's table."""
    metrics = [heading_of(name, unit_of(run, name)) for name in run.record.compare.metrics]
    return ["deployment", *(["SLO"] if _has_states(case, states) else []), *map(gfm.plain, metrics)]


def row_of(run: Run, group: Group, case: LoadCase, states: States) -> list[str]:
    """A deployment's row of that table: values, with the verdicts against its baseline below them."""
    is_baseline = group is case.baseline and len(case.groups) > 1
    name = gfm.code(group.deployment) + ("<br>baseline" if is_baseline else "")
    state = states.get((group.scenario, group.load, group.deployment), "unknown")
    kept = [_STATES[state]] if _has_states(case, states) else []
    return [name, *kept, *(_value(run, case, group, metric) for metric in run.record.compare.metrics)]


def whys_of(run: Run, case: LoadCase) -> list[str]:
    """Why deployments have no verdict at a load where others may have one, each reason with its metric."""
    if comparisons_of(run).why_none:
        return []
    found: dict[str, list[str]] = {}
    for group in case.groups:
        for metric in run.record.compare.metrics:
            verdict = _verdict(run, case, group, metric)
            if verdict is not None and verdict.kind == "none":
                found.setdefault(verdict.why or "no value", []).append(heading_of(metric))
    return [f"{', '.join(dict.fromkeys(metrics))}: {why}" for why, metrics in found.items()]


def _has_states(case: LoadCase, states: States) -> bool:
    return any((g.scenario, g.load, g.deployment) in states for g in case.groups)


def _verdict(run: Run, case: LoadCase, group: Group, metric: str) -> Verdict | None:
    return None if comparisons_of(run).why_none else verdict_of(run, case, group, metric)


def _value(run: Run, case: LoadCase, group: Group, metric: str) -> str:
    """The value with its interval; below it the ratio with its own, and the verdict's word."""
    found = aggregate(run, group, metric)
    verdict = _verdict(run, case, group, metric)
    is_told = verdict is not None and verdict.kind != "none"
    marks = "" if is_told or found.mean is None else mark_text(marks_of(run, group, metric))
    value = " ".join(filter(None, (_amount(metric, found), marks)))
    if verdict is None or case.baseline is None or not is_told:
        return value
    said = gfm.plain(word_of(metric, verdict, run.record.compare.margin_share))
    strong = f"**{said}**" if verdict.kind in ("better", "worse") else said
    doubts = mark_text(marks_between(run, group, case.baseline, metric))
    return f"{value}<br>{ratio_text(metric, verdict)} {strong} {doubts}".rstrip()


def _amount(metric: str, found: Aggregate) -> str:
    if found.mean is None:
        pooled = found.pooled
        return f"{shown(metric, pooled.value)} ({found.pooled_over})" if pooled else gfm.NOTHING
    main = gfm.plain(supported(metric, found.mean, shorter_half(found)))
    ends = span_text(metric, found)
    if ends and not has_interval(found):
        ends = "" if ends == main else f"({ends})"
    return f"{main} {ends}".rstrip()


# --- a search --------------------------------------------------------------------------------------


def search_heads() -> list[str]:
    return ["deployment", "highest load that keeps the SLO", "ratio to the baseline", "verdict", "starts"]


def search_row(run: Run, each: Capacity) -> list[str]:
    """A deployment's highest load, and what may be said of it against its model's baseline."""
    load = " ".join(
        filter(None, (mean_words(each), span_words(each), mark_text(marks_of_capacity(run, each))))
    )
    starts = ", ".join(answer.words for answer in each.answers)
    verdict = each.verdict
    if verdict is None:
        ratio, said = gfm.NOTHING, "baseline"
    elif verdict.kind == "none":
        ratio, said = gfm.NOTHING, f"no verdict: {verdict.why}"
    else:
        ratio = ratio_text(CAPACITY, verdict)
        said = word(verdict, run.record.compare.margin_share)
    shown = gfm.plain(load or each.why or gfm.NOTHING)
    return [gfm.code(each.deployment), shown, ratio, gfm.plain(said), gfm.plain(starts)]
