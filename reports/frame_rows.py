"""Rows of a run's frames: what a cell and a start are, and came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.store.store import StartRecord
from reports.cells import Cell
from reports.samples.memory_samples import memory_over_time

if TYPE_CHECKING:
    from reports.frames import Run


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
        **{name: value.value for name, value in run.values.get(cell.number, {}).items()},
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
