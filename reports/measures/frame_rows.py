"""Rows of a run's frames: what a cell and a start are, and came to."""

from typing import Any

import pandas as pd

from harness.store.store import StartRecord
from reports.data.cells import Cell
from reports.data.memory_samples import memory_over_time
from reports.data.run import Run
from reports.measures.values import values_of


def cell_row(run: Run, cell: Cell) -> dict[str, Any]:
    """Of `Run.cells`: by column; a completed cell's values too."""
    deployment = cell.start.deployment
    return {
        "number": cell.number,
        "start": cell.record.start if cell.record else cell.start.name,
        "deployment": cell.label,
        "engine": deployment.engine,
        "model": deployment.model,
        "quantization": deployment.quantization,
        "repeat": cell.planned.repeat,
        "scenario": cell.planned.scenario.label,
        "load": cell.load_label,
        "concurrency": cell.load.concurrency if cell.load.kind == "closed" else None,
        "rate_per_s": cell.load.rate_per_s,
        "status": cell.status,
        "validity": cell.validity if cell.status == "completed" else None,
        "reason": cell.reason,
        "window_s": cell.window_s,
        **{name: value.value for name, value in values_of(run).get(cell.number, {}).items()},
    }


def start_row(run: Run, record: StartRecord) -> dict[str, Any]:
    """Of `Run.starts`: by column."""
    memory = memory_over_time(run, record)
    return {
        "name": record.name,
        "index": record.index,
        "deployment": record.deployment.label,
        "repeat": record.repeat,
        "status": record.status,
        "error": record.error,
        "launch_s": record.launch_s,
        "memory_kind": record.memory_kind,
        "memory_peak_bytes": memory.size_bytes.max() if len(memory.t_ns) else None,
        "baseline_bytes": record.baseline_bytes,
        "after_bytes": record.after_bytes,
    }


def cells_frame(run: Run) -> pd.DataFrame:
    """Return a row per planned cell: what it is, its status and validity, and a column per value."""
    return pd.DataFrame([cell_row(run, cell) for cell in run.planned_cells])


def starts_frame(run: Run) -> pd.DataFrame:
    """Return a row per start that was begun: its status, launch time and memory."""
    return pd.DataFrame([start_row(run, record) for record in run.start_records])
