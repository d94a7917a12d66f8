"""A run as JSON: what it was, its answer, and all of its tables."""

import json
import math
from typing import Any

import pandas as pd

from reports.checks.examine import findings_of
from reports.data.run import Run
from reports.outputs.tables import tables_of
from reports.verdicts.comparisons import comparisons_of
from reports.words.answer import answers_of, basis, headline
from reports.words.described import command, device, question

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
