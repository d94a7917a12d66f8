"""A run as one JSON object: the answers, and every table. docs/python.md explains the keys."""

import json
import math
from dataclasses import asdict
from typing import Any

import pandas as pd

from serving_bench.reports.data import Run, command
from serving_bench.reports.measures import metric_of
from serving_bench.reports.outputs.tables import tables_of
from serving_bench.reports.verdicts import comparisons_of, departures_of
from serving_bench.reports.words.described import device
from serving_bench.reports.words.report import Answer, Row, Table, Value, report_of
from serving_bench.reports.words.verdict_words import clipped

# History: 1: format, run, answer, tables. 2: a search's capacities have no interval, and no verdicts.
# 3: decisions in place of picks; the value of capacities is what is known. 4: `answers`, `distrust`,
# `standings` and `cells` in place of `answer`; `bench run --json` prints the same object.
# 5: the ratio to the leader and `bound` have the interval of their own test; `together` is gone.
FORMAT = 5
_REASON_AT_MOST = 200


def to_builtins(run: Run) -> dict[str, Any]:
    """Return the object of `bench report --json`; each table is a list of rows with values by column.

    Missing and infinite values are None.
    """
    record, report = run.record, report_of(run)
    return {
        "format": FORMAT,
        "run": {
            "id": record.run_id,
            "created": record.created_at,
            "ended": record.ended_at,
            "status": record.status,
            "question": report.question,
            "device": device(run),
            "models": list(dict.fromkeys(each.model for each in run.deployments.values())),
            "scenarios": list(dict.fromkeys(cell.planned.scenario.label for cell in run.planned_cells)),
            "deployments": list(run.deployments),
            "baselines": dict(comparisons_of(run).baselines),
            "margin": record.compare.margin_share,
            "slo": [
                {"metric": each.name, "limit_s": each.limit_s, "share": each.share} for each in record.slo
            ],
            "is_search": record.search is not None,
            "command": command(run),
            "schema_version": record.schema_version,
            "environment": record.environment,
        },
        "headline": report.headline,
        "basis": report.basis or None,
        "answers": [_answer(run, each) for each in report.answers],
        "distrust": [
            {name: getattr(each, name) for name in ("check", "title", "text", "remedy", "command", "marks")}
            for each in report.findings
        ],
        "standings": [asdict(each) for each in record.standings],
        "cells": _cells(run),
        "tables": {name: _listed(frame) for name, frame in tables_of(run).items()},
    }


def _cells(run: Run) -> dict[str, Any]:
    failed = [
        {
            "number": cell.number,
            "deployment": cell.label,
            "load": cell.load_label,
            "why": cell.reason and str(cell.reason),
        }
        for cell in run.planned_cells
        if not cell.counts
    ]
    return {
        "planned": len(run.planned_cells),
        "counted": len(run.planned_cells) - len(failed),
        "failed": failed,
    }


def _answer(run: Run, answer: Answer) -> dict[str, Any]:
    answer_words, decision = answer.said, answer.decision
    words = {"sentence": answer_words.sentence, "unless": answer_words.unless}
    words |= {"note": answer_words.note, "advice": answer_words.advice, "command": answer_words.command}
    if decision is None:
        return {**words, "kind": "none", "deployment": None, "rows": []}
    best = decision.best if decision.leader else None
    ratio, bound = answer.lead
    return {
        **words,
        "kind": decision.kind,
        "deployment": decision.served,
        "scenario": decision.case.scenario,
        "model": decision.case.model,
        "load": decision.case.load,
        "metric": decision.metric,
        "repeats": decision.repeats,
        "next": best.next if best else None,
        "ratio": ratio,
        "bound": bound,
        "confidence": 1 - best.wrong if best else None,
        "each": 1 - decision.alpha if decision.best else None,
        "left": {
            label: {"after": each.after, "behind": each.behind, "why": str(each.why)}
            for label, each in departures_of(run, decision.case).items()
        },
        "rows": [_row(answer.table, row) for row in answer.rows],
    }


def _row(table: Table, row: Row) -> dict[str, Any]:
    ratio = row.to_leader
    return {
        "deployment": row.deployment,
        "why_not": clipped(row.why_not or "", _REASON_AT_MOST) or None,
        "to_leader": ratio and {"ratio": ratio[0], "low": ratio[1], "high": ratio[2], "text": row.ratio},
        "values": {name: _value(row.values[name]) for name in dict.fromkeys([*table.first, *table.names])},
        "quality": _quality(row),
    }


def _value(value: Value) -> dict[str, Any]:
    return {
        "value": value.value,
        "unit": metric_of(value.name).unit,
        "interval": value.interval,
        "starts": value.over.k,
        "is_pooled": value.is_pooled,
        "is_decided": value.is_decided,
        "marks": [each.check for each in value.marks],
        "text": value.text,
        "head": value.head,
    }


def _quality(row: Row) -> dict[str, Any] | None:
    if row.quality is None:
        return None
    fidelity = asdict(row.quality.told) if row.quality.told else {}
    return {
        "against": row.quality.against,
        "is_reference": row.quality.is_reference,
        "why": row.quality.why_not_known and str(row.quality.why_not_known),
        **{name: fidelity.get(name) for name in ("way", "k", "left_out", "kl_nats", "interval", "agreement")},
        "scores": {
            each.task: {name: getattr(each, name) for name in ("score", "interval", "scored", "items")}
            for each in row.scores
        },
        "cells": row.narrow_cells,
    }


def _listed(frame: pd.DataFrame) -> list[dict[str, Any]]:
    finite = frame.replace([math.inf, -math.inf], math.nan).astype(object)
    rows = finite.where(finite.notna(), None).to_numpy().tolist()
    return [dict(zip(map(str, finite.columns), row, strict=True)) for row in rows]


def json_text(run: Run) -> str:
    return json.dumps(to_builtins(run), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
