"""A run's numbers as tidy frames: what the page shows, in stored units. Their columns: TABLES.

Computes no statistic of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd

from reports.checks.examine import findings_of, marks_between, marks_of, marks_of_answer, marks_of_capacity
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import metric_of, value_names
from reports.measures.over_starts import Aggregate, aggregate, cells_frame, has_interval, starts_frame
from reports.measures.values import values_of
from reports.outputs.columns import framed
from reports.stats.family import STARTS_NEEDED, Verdict
from reports.verdicts import searches
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.decision import Row, decision_rows
from reports.verdicts.picks import Candidate, Pick
from reports.verdicts.search_decision import load_rows, search_rows
from reports.verdicts.searches import CAPACITY, Capacity, capacities_of, slo_metrics
from reports.words.verdict_words import word_of

# The load of what a search compares at each deployment's own highest.
AT_HIGHEST = "highest kept"


def tables_of(run: Run) -> dict[str, pd.DataFrame]:
    """Every table of reports.TABLES by its name, also where it has no rows.

    Seconds, bytes, shares and tokens as stored; a missing number is NaN or <NA>, with `why` beside it.
    Requests are not among them: run.requests has a row for each.
    """
    return {
        "values": framed("values", _values(run)),
        "verdicts": framed("verdicts", _verdicts(run)),
        "standings": framed("standings", _standings(run)),
        "objectives": framed("objectives", _objectives(run)),
        "picks": framed("picks", _picks(run)),
        "capacities": framed("capacities", (_capacity(run, each) for each in _capacities(run))),
        "brackets": framed("brackets", _brackets(run)),
        "cells": framed("cells", cells_frame(run)),
        "starts": framed("starts", starts_frame(run)),
        "findings": framed("findings", _findings(run)),
        "skips": framed("skips", ({"what": s.what, "reason": s.reason} for s in run.record.plan.skips)),
    }


# --- values ----------------------------------------------------------------------------------------


def _values(run: Run) -> Iterator[dict[str, Any]]:
    have = {name for values in values_of(run).values() for name in values}
    names = [name for name in value_names() if name in have or not have]
    for group in run.groups:
        yield from (_value(run, group, name, aggregate(run, group, name)) for name in names)


def _value(run: Run, group: Group, name: str, found: Aggregate) -> dict[str, Any]:
    metric, ends = metric_of(name), found.interval if has_interval(found) else None
    price = run.record.price.currency if run.record.price else None
    return {
        "deployment": group.deployment,
        "engine": group.engine,
        "model": group.model,
        "quantization": group.quantization,
        "scenario": group.scenario,
        "load": group.load,
        "family": group.family,
        "level": group.level,
        "metric": name,
        "unit": price if metric.unit == "price.currency" else metric.unit,
        "better": metric.better,
        "value": found.mean,
        "low": ends[0] if ends else None,
        "high": ends[1] if ends else None,
        "least": found.low,
        "most": found.high,
        "starts": found.k,
        "n": found.n,
        "requests": found.requests,
        "why": None if found.mean is not None else found.why or "no cell was measured",
        "pooled": found.pooled.value if found.pooled else None,
        "marks": _ids(marks_of(run, group, name)) if found.mean is not None else None,
    }


def _ids(found: Iterable[Any]) -> str | None:
    """Ids of the checks, each once; None for none."""
    return " ".join(dict.fromkeys(each.check for each in found)) or None


# --- verdicts --------------------------------------------------------------------------------------


def _verdicts(run: Run) -> Iterator[dict[str, Any]]:
    if run.record.search is not None:
        yield from _verdicts_of_search(run)
        return
    groups = {group.key: group for group in run.groups}
    for row in comparisons_of(run).rows:
        a, b = (groups[label, row.scenario, row.load] for label in (row.a, row.b))
        yield {
            "scenario": row.scenario,
            "load": row.load,
            "metric": row.metric,
            "a": row.a,
            "b": row.b,
            "verdict": word_of(row.metric, row.verdict, run.record.compare.margin_share),
            "family": comparisons_of(run).family,
            "marks": _ids(marks_between(run, a, b, row.metric)) if row.verdict.kind != "none" else None,
            **_said(row.verdict),
        }


def _verdicts_of_search(run: Run) -> Iterator[dict[str, Any]]:
    """Each pair once, the later of the plan against the earlier."""
    found, order = capacities_of(run), list(run.deployments)
    margin, family = run.record.compare.margin_share, searches.verdict_count(capacities_of(run))
    for each in found:
        for (metric, other), verdict in each.told.items():
            if order.index(other) < order.index(each.deployment):
                is_load = metric == CAPACITY
                yield {
                    "scenario": each.scenario,
                    "load": AT_HIGHEST,
                    "metric": metric,
                    "a": each.deployment,
                    "b": other,
                    "verdict": searches.word(verdict, margin)
                    if is_load
                    else word_of(metric, verdict, margin),
                    "family": family,
                    "marks": _ids(_marks_between(run, each, other, metric)),
                    **_said(verdict),
                }


def _marks_between(run: Run, each: Capacity, other: str, metric: str) -> list[Any]:
    second = next(c for c in capacities_of(run) if (c.scenario, c.deployment) == (each.scenario, other))
    if metric == CAPACITY:
        return [*marks_of_capacity(run, each), *marks_of_capacity(run, second)]
    return list(marks_of_answer(run, each.cells_at_highest | second.cells_at_highest, [metric]))


def _said(verdict: Verdict) -> dict[str, Any]:
    """Where nothing is said there is no ratio either."""
    is_said = verdict.kind != "none"
    return {
        "kind": verdict.kind,
        "is_ratio": verdict.is_log,
        "ratio": verdict.ratio if is_said else None,
        "low": verdict.low if is_said else None,
        "high": verdict.high if is_said else None,
        "confidence": verdict.confidence if is_said else None,
        "blocks": verdict.k,
        "why": verdict.why,
    }


# --- the SLO ---------------------------------------------------------------------------------------


def _rows(run: Run) -> list[Row]:
    return load_rows(run) if run.record.search is not None else decision_rows(run)


def _standings(run: Run) -> Iterator[dict[str, Any]]:
    for row in _rows(run):
        for each in row.standings:
            cells = {cell.number for cell in each.group.counted} if each.group else set()
            yield {
                "scenario": row.scenario,
                "load": row.load,
                "model": row.model,
                "deployment": each.label,
                "state": each.state,
                "why": (each.judged.too_high or each.judged.problem) if each.judged else None,
                "marks": _ids(marks_of_answer(run, cells, slo_metrics(run))),
            }


def _objectives(run: Run) -> Iterator[dict[str, Any]]:
    for row in _rows(run):
        for each in row.standings:
            for found in each.judged.attained if each.judged else ():
                low, high = found.interval
                yield {
                    "scenario": row.scenario,
                    "load": row.load,
                    "deployment": each.label,
                    "objective": found.objective.name,
                    "limit_s": found.objective.limit_s,
                    "asked": found.objective.share,
                    "share": found.share,
                    "low": low,
                    "high": high,
                    "met": found.met,
                    "n": found.n,
                    "state": found.verdict,
                }


def _picks(run: Run) -> Iterator[dict[str, Any]]:
    for row in search_rows(run) if run.record.search is not None else decision_rows(run):
        for respect, pick in row.picks.items():
            yield {
                "scenario": row.scenario,
                "load": AT_HIGHEST if run.record.search is not None else row.load,
                "model": row.model,
                "respect": respect,
                **_pick(pick),
            }


def _pick(pick: Pick) -> dict[str, Any]:
    ends = _ends(pick.best)
    return {
        "metric": pick.metric,
        "deployment": pick.best.label,
        "value": pick.best.value.mean,
        "low": ends[0],
        "high": ends[1],
        "is_proven": pick.is_proven,
        "ties": "; ".join(pick.ties) or None,
        "next": pick.next.label if pick.next else None,
        "why": pick.why,
    }


def _ends(candidate: Candidate) -> tuple[float | None, float | None]:
    value = candidate.value
    return value.interval if value.interval and value.k >= STARTS_NEEDED else (None, None)


# --- a search --------------------------------------------------------------------------------------


def _capacities(run: Run) -> Sequence[Capacity]:
    return capacities_of(run) if run.record.search is not None else ()


def _capacity(run: Run, each: Capacity) -> dict[str, Any]:
    ends = each.span if each.has_interval else None
    return {
        "deployment": each.deployment,
        "scenario": each.scenario,
        "model": each.model,
        "unit": "users" if each.family == "closed loop" else "conversations/s",
        "value": each.estimate.shown if each.estimate else None,
        "low": ends[0] if ends else None,
        "high": ends[1] if ends else None,
        "is_least": each.is_least,
        "starts": len(each.answers),
        "why": each.why,
        "marks": _ids(marks_of_capacity(run, each)),
    }


def _brackets(run: Run) -> Iterator[dict[str, Any]]:
    for each in _capacities(run):
        for answer in each.answers:
            yield {
                "deployment": each.deployment,
                "scenario": each.scenario,
                "start": answer.start,
                "kept": answer.kept,
                "broken": answer.broken,
                "proven_kept": answer.proven_kept,
                "proven_broken": answer.proven_broken,
                "is_whole": answer.is_whole,
                "trials": sum(len(tried.cells) for tried in answer.tried),
            }


# --- what to know of it ----------------------------------------------------------------------------


def _findings(run: Run) -> Iterator[dict[str, Any]]:
    for each in findings_of(run):
        yield {
            "check": each.check,
            "title": each.title,
            "text": each.text,
            "remedy": each.remedy,
            "cells": " ".join(map(str, each.cells)) or None,
            "metrics": " ".join(each.metrics) or None,
            "marks": each.marks,
        }
