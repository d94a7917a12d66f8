"""A run as one JSON object: the answers, and every table. docs/python.md explains the keys."""

import json
import math
from typing import Any

import pandas as pd

from serving_bench.reports.data import Run, command
from serving_bench.reports.outputs.tables import tables_of
from serving_bench.reports.verdicts import comparisons_of
from serving_bench.reports.words.answer import basis, headline
from serving_bench.reports.words.described import device, question
from serving_bench.reports.words.told import told

# History: 1: format, run, answer, tables. 2: a search's capacities have no interval, and no verdicts.
# 3: decisions in place of picks; the value of capacities is what is known. 4: `answers`, `distrust`,
# `standings` and `cells` in place of `answer`; `bench run --json` prints the same object.
FORMAT = 4


def to_builtins(run: Run) -> dict[str, Any]:
    """Return the object of `bench report --json`; each table is a list of rows with values by column.

    Missing and infinite values are None.
    """
    record = run.record
    return {
        "format": FORMAT,
        "run": {
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
            "slo": [
                {"metric": each.name, "limit_s": each.limit_s, "share": each.share} for each in record.slo
            ],
            "is_search": record.search is not None,
            "command": command(run),
            "schema_version": record.schema_version,
            "environment": record.environment,
        },
        "headline": headline(run),
        "basis": basis(run) or None,
        **told(run),
        "tables": {name: _listed(frame) for name, frame in tables_of(run).items()},
    }


def _listed(frame: pd.DataFrame) -> list[dict[str, Any]]:
    found = frame.replace([math.inf, -math.inf], math.nan).astype(object)
    rows = found.where(found.notna(), None).to_numpy().tolist()
    return [dict(zip(map(str, found.columns), row, strict=True)) for row in rows]


def json_text(run: Run) -> str:
    return json.dumps(to_builtins(run), ensure_ascii=False, allow_nan=False, indent=1) + "\n"
