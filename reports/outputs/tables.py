"""A run's numbers as tidy frames: what the page shows, in stored units. Their columns: TABLES.

Computes no statistic of its own.
"""

from collections.abc import Iterable, Iterator
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
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.picks import Pick, picks_of
from reports.verdicts.searches import Capacity, capacities_of, slo_metrics
from reports.verdicts.standings import slo_rows
from reports.words.verdict_words import word_of


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
        "picks": framed("picks", map(_pick, picks_of(run))),
        "capacities": framed("capacities", (_capacity(run, each) for each in capacities_of(run))),
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
    metric, price = metric_of(name), run.record.price.currency if run.record.price else None
    return {
        **_of(group, "deployment engine model quantization scenario load family level"),
        "metric": name,
        "unit": price if metric.unit == "price.currency" else metric.unit,
        "better": metric.better,
        "value": found.mean,
        **_ends(found.interval if has_interval(found) else None),
        "least": found.low,
        "most": found.high,
        "starts": found.k,
        "n": found.n,
        "requests": found.requests,
        "why": None if found.mean is not None else found.why or "no cell was measured",
        "pooled": found.pooled.value if found.pooled else None,
        "marks": _ids(marks_of(run, group, name)) if found.mean is not None else None,
    }


def _of(thing: Any, names: str) -> dict[str, Any]:
    """Return attributes under their own names."""
    return {name: getattr(thing, name) for name in names.split()}


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def _ids(found: Iterable[Any]) -> str | None:
    """Return the ids of checks, each once; None for none."""
    return " ".join(dict.fromkeys(each.check for each in found)) or None


# --- verdicts --------------------------------------------------------------------------------------


def _verdicts(run: Run) -> Iterator[dict[str, Any]]:
    groups = {group.key: group for group in run.groups}
    for row in comparisons_of(run).rows:
        a, b = (groups[label, row.scenario, row.load] for label in (row.a, row.b))
        yield {
            **_of(row, "scenario load metric a b"),
            "verdict": word_of(row.metric, row.verdict, run.record.compare.margin_share),
            "family": comparisons_of(run).family,
            "marks": _ids(marks_between(run, a, b, row.metric)) if row.verdict.kind != "none" else None,
            **_said(row.verdict),
        }


def _said(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict's columns; where nothing is said there is no ratio either."""
    told = _of(verdict, "ratio low high confidence") if verdict.kind != "none" else {}
    return {"is_ratio": verdict.is_log, "blocks": verdict.k, **_of(verdict, "kind why"), **told}


# --- the SLO ---------------------------------------------------------------------------------------


def _standings(run: Run) -> Iterator[dict[str, Any]]:
    for row in slo_rows(run):
        for each in row.standings:
            cells = {cell.number for cell in each.group.counted} if each.group else set()
            yield {
                **_of(row, "scenario load model"),
                "deployment": each.label,
                "state": each.state,
                "why": (each.judged.too_high or each.judged.problem) if each.judged else None,
                "marks": _ids(marks_of_answer(run, cells, slo_metrics(run))),
            }


def _objectives(run: Run) -> Iterator[dict[str, Any]]:
    for row in slo_rows(run):
        for each in row.standings:
            for found in each.judged.attained if each.judged else ():
                yield {
                    **_of(row, "scenario load"),
                    "deployment": each.label,
                    "objective": found.objective.name,
                    "limit_s": found.objective.limit_s,
                    "asked": found.objective.share,
                    **_of(found, "share met n"),
                    **_ends(found.interval),
                    "state": found.verdict,
                }


def _pick(pick: Pick) -> dict[str, Any]:
    value = pick.value
    return {
        **_of(pick, "scenario model load respect metric next is_proven why"),
        "deployment": pick.best,
        "value": value.mean,
        **_ends(value.interval if value.k >= STARTS_NEEDED else None),
        "ties": "; ".join(pick.ties) or None,
    }


# --- a search --------------------------------------------------------------------------------------


def _capacity(run: Run, each: Capacity) -> dict[str, Any]:
    return {
        **_of(each, "deployment scenario is_least why"),
        "model": each.group.model,
        "unit": "users" if each.group.family == "closed loop" else "conversations/s",
        "value": each.level,
        "starts": len(each.answers),
        "marks": _ids(marks_of_capacity(run, each)),
    }


def _brackets(run: Run) -> Iterator[dict[str, Any]]:
    for each in capacities_of(run):
        for answer in each.answers:
            yield {
                **_of(each, "deployment scenario"),
                **_of(answer, "start kept broken proven_kept proven_broken is_whole"),
                "trials": sum(len(tried.cells) for tried in answer.tried),
            }


# --- what to know of it ----------------------------------------------------------------------------


def _findings(run: Run) -> Iterator[dict[str, Any]]:
    for each in findings_of(run):
        yield {
            **_of(each, "check title text remedy marks"),
            "cells": " ".join(map(str, each.cells)) or None,
            "metrics": " ".join(each.metrics) or None,
        }
