"""Which values a cell has beside those of all traffic, by its scenario and its load."""

from collections.abc import Callable, Mapping

from reports.data import Cell, Run
from reports.measures.metrics import Value
from reports.measures.traffic.rates import rate_values
from reports.measures.traffic.validity import valid_values

_OF_SCENARIOS: Mapping[str, Callable[[Run, Cell], dict[str, Value]]] = {
    "fixed": rate_values,
    "long_context": rate_values,
    "structured_output": valid_values,
}


def traffic_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the values of a completed cell that only such traffic has, by the names of TRAFFIC_METRICS."""
    show = _OF_SCENARIOS.get(cell.planned.scenario.name)
    return show(run, cell) if show else {}
