"""What a check found, and how it names cells."""

from __future__ import annotations

from dataclasses import dataclass

from reports.cells import Cell
from reports.frames import Run


@dataclass(frozen=True)
class Finding:
    """`text` says what was seen; `remedy` what would help."""

    check: str
    title: str
    text: str
    remedy: str


def measured_cells(run: Run) -> list[Cell]:
    """The cells whose values count."""
    return [cell for cell in run.planned_cells if cell.counts]


def cell_name(cell: Cell) -> str:
    """A cell as a finding names it."""
    return f"{cell.label} at {cell.load_label}"
