"""What a run's objectives come to: goodput, and how many requests met them, by cell and by group.

Reads a run; reports/measures/attainment.py has the rules.
"""

from collections.abc import Sequence

from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.attainment import Judged, Window, judged, met_all, says_something, window_of
from reports.measures.metrics import Value


def slo_values(run: Run, cell: Cell) -> dict[str, Value]:
    """goodput_per_s and slo_share of a cell; nothing in a run without objectives."""
    if not run.record.slo:
        return {}
    sent = run.window_requests(cell.number)
    met = int(met_all(sent, run.record.slo).sum())
    n = len(sent)
    return {
        "goodput_per_s": Value(met / cell.window_s if cell.window_s else None, n),
        "slo_share": Value(met / n if n else None, n),
    }


def window(run: Run, cell: Cell) -> Window | None:
    """A cell's window; None where it was not measured, or says nothing."""
    if cell.record is None or not says_something(cell.record):
        return None
    return window_of(cell.record, run.cell_requests(cell.number))


def judged_cells(run: Run, cells: Sequence[Cell]) -> Judged | None:
    """What the windows of these cells, of one load, together come to; None where none says anything."""
    windows = [each for cell in cells if (each := window(run, cell))]
    found = judged(windows, run.record.slo)
    return found if windows and not found.problem else None
