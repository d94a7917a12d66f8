"""What a check found, and how it names cells."""

from __future__ import annotations

from dataclasses import dataclass

from reports.cells import Cell
from reports.frames import Run


@dataclass(frozen=True)
class Finding:
    """`text` says what was seen; `remedy` what would help.

    `cells`: numbers of the cells that it is about; empty: of the whole run. `metrics`: names of the metrics
    that it bears on (`ttft_s`); empty: on all. With `marks` a headline number of such a cell and metric bears
    this finding's mark wherever it is shown.
    """

    check: str
    title: str
    text: str
    remedy: str
    cells: tuple[int, ...] = ()
    metrics: tuple[str, ...] = ()
    marks: bool = True


def measured_cells(run: Run) -> list[Cell]:
    """The cells whose values count."""
    return [cell for cell in run.planned_cells if cell.counts]


def cell_name(cell: Cell) -> str:
    """A cell as a finding names it."""
    return f"{cell.label} at {cell.load_label}"
