"""A run's numbers as tidy frames and as JSON: what the page shows, in stored units. Columns: columns.TABLES.

Computes no statistic of its own.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from reports.checks.examine import findings_of, marks_between, marks_of, marks_of_answer, marks_of_capacity
from reports.data.run import Run
from reports.measures.metrics import metric_of, value_names
from reports.measures.over_starts import aggregate, cells_frame, has_interval, starts_frame
from reports.measures.values import values_of
from reports.outputs.columns import framed
from reports.stats.family import Verdict
from reports.verdicts.comparisons import comparisons_of
from reports.verdicts.searches import Capacity, capacities_of, slo_metrics
from reports.verdicts.standings import Row, Standing, picks_of, slo_rows
from reports.words.answer import answers_of, basis, headline
from reports.words.described import command, device, question
from reports.words.verdict_words import word_of

_Rows = Iterator[dict[str, Any]]


def tables_of(run: Run) -> dict[str, pd.DataFrame]:
    """Return every table of reports.TABLES by its name, also where it has no rows.

    Seconds, bytes, shares and tokens as stored; a missing number is NaN or <NA>, with `why` beside it.
    Requests are not among them: run.requests has a row for each.
    """
    standings = [(row, each) for row in slo_rows(run) for each in row.standings]
    rows: Mapping[str, Iterable[dict[str, Any]] | pd.DataFrame] = {
        "values": _values(run),
        "verdicts": _verdicts(run),
        "standings": _standings(run, standings),
        "objectives": _objectives(standings),
        "picks": picks_of(run),
        "capacities": (_capacity(run, each) for each in capacities_of(run)),
        "brackets": _brackets(run),
        "cells": cells_frame(run),
        "starts": starts_frame(run),
        "findings": _findings(run),
        "skips": (_of(each, "what reason") for each in run.record.plan.skips),
    }
    return {name: framed(name, each) for name, each in rows.items()}


def _of(thing: Any, names: str) -> dict[str, Any]:
    """Return attributes under their own names."""
    return {name: getattr(thing, name) for name in names.split()}


def _ends(interval: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {"low": low, "high": high}


def _ids(found: Iterable[Any]) -> str | None:
    """Return the ids of checks, each once; None for none."""
    return " ".join(dict.fromkeys(each.check for each in found)) or None


def _values(run: Run) -> _Rows:
    have = {name for values in values_of(run).values() for name in values}
    price = run.record.price.currency if run.record.price else None
    for group in run.groups:
        for name in value_names():
            if have and name not in have:
                continue
            found, metric = aggregate(run, group, name), metric_of(name)
            is_there = found.mean is not None
            yield {
                **_of(group, "deployment engine model quantization scenario load family level"),
                "metric": name,
                "unit": price if metric.unit == "price.currency" else metric.unit,
                "better": metric.better,
                "value": found.mean,
                **_ends(found.interval if has_interval(found) else None),
                "least": found.low,
                "most": found.high,
                "starts": found.k,
                **_of(found, "n requests"),
                "why": None if is_there else found.why or "no cell was measured",
                "pooled": found.pooled.value if found.pooled else None,
                "marks": _ids(marks_of(run, group, name)) if is_there else None,
            }


# --- verdicts --------------------------------------------------------------------------------------


def _verdicts(run: Run) -> _Rows:
    groups = {group.key: group for group in run.groups}
    for row in comparisons_of(run).rows:
        a, b = (groups[label, row.scenario, row.load] for label in (row.a, row.b))
        marks = marks_between(run, a, b, row.metric) if row.verdict.kind != "none" else ()
        yield {
            **_of(row, "scenario load metric a b"),
            **_said(run, row.metric, row.verdict),
            "family": comparisons_of(run).family,
            "marks": _ids(marks),
        }


def _said(run: Run, metric: str, verdict: Verdict) -> dict[str, Any]:
    """Return a verdict's columns; where nothing is said there is no ratio either."""
    told = _of(verdict, "ratio low high confidence") if verdict.kind != "none" else {}
    word = word_of(metric, verdict, run.record.compare.margin_share)
    return {
        **_of(verdict, "kind why"),
        "verdict": word,
        "is_ratio": verdict.is_log,
        "blocks": verdict.k,
        **told,
    }


# --- the SLO, and a search -------------------------------------------------------------------------


def _standings(run: Run, standings: list[tuple[Row, Standing]]) -> _Rows:
    for row, each in standings:
        cells = {cell.number for cell in each.group.counted} if each.group else set()
        yield {
            **_of(row, "scenario load model"),
            "deployment": each.label,
            "state": each.state,
            "why": (each.judged.too_high or each.judged.problem) if each.judged else None,
            "marks": _ids(marks_of_answer(run, cells, slo_metrics(run))),
        }


def _objectives(standings: list[tuple[Row, Standing]]) -> _Rows:
    for row, each in standings:
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


def _capacity(run: Run, each: Capacity) -> dict[str, Any]:
    return {
        **_of(each, "deployment scenario is_least why"),
        "model": each.group.model,
        "unit": "users" if each.group.family == "closed loop" else "conversations/s",
        "value": each.level,
        "starts": len(each.answers),
        "marks": _ids(marks_of_capacity(run, each)),
    }


def _brackets(run: Run) -> _Rows:
    for each in capacities_of(run):
        for answer in each.answers:
            yield {
                **_of(each, "deployment scenario"),
                **_of(answer, "start kept broken proven_kept proven_broken is_whole"),
                "trials": sum(len(tried.cells) for tried in answer.tried),
            }


def _findings(run: Run) -> _Rows:
    for each in findings_of(run):
        yield {
            **_of(each, "check title text remedy marks"),
            "cells": " ".join(map(str, each.cells)) or None,
            "metrics": " ".join(each.metrics) or None,
        }


# --- as JSON ---------------------------------------------------------------------------------------

# History: 1: format, run, answer, tables. 2: a search's capacities have no interval, and no verdicts.
FORMAT = 2


def to_builtins(run: Run) -> dict[str, Any]:
    """Return `format`, `run`, `answer` and `tables`, each table as a list of rows by their columns' names.

    What is missing or infinite is None.
    """
    record = run.record
    about = {
        "id": record.run_id,
        "created": record.created_at,
        "ended": record.ended_at,
        "status": record.status,
        "question": question(run),
        "device": device(run),
        "models": list(dict.fromkeys(each.model for each in run.deployments.values())),
        "scenarios": list(dict.fromkeys(cell.planned.scenario.label for cell in run.planned_cells)),
        "deployments": list(run.deployments),
        "baselines": dict(comparisons_of(run).baselines),
        "margin": record.compare.margin_share,
        "slo": [{"metric": each.name, "limit_s": each.limit_s, "share": each.share} for each in record.slo],
        "is_search": record.search is not None,
        "command": command(run),
        "schema_version": record.schema_version,
        "environment": record.environment,
    }
    answer = {
        "headline": headline(run),
        "sentences": [each.plain for each in answers_of(run)],
        "basis": basis(run) or None,
        "marks": [each.check for each in findings_of(run) if each.marks],
    }
    tables = {name: _rows(frame) for name, frame in tables_of(run).items()}
    return {"format": FORMAT, "run": about, "answer": answer, "tables": tables}


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    found = frame.replace([math.inf, -math.inf], math.nan).astype(object)
    rows = found.where(found.notna(), None).to_numpy().tolist()
    return [dict(zip(map(str, found.columns), row, strict=True)) for row in rows]


def json_text(run: Run) -> str:
    """Return the same as text, one line per entry."""
    return json.dumps(to_builtins(run), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
