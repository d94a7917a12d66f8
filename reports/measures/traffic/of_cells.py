"""Which values a cell has beside those of all traffic, by its scenario and its load."""

from collections.abc import Callable, Mapping

from reports.data import Cell, Run
from reports.measures.metrics import Value
from reports.measures.traffic.adapters import adapter_values
from reports.measures.traffic.crowds import batch_values, burst_values
from reports.measures.traffic.depths import depth_values
from reports.measures.traffic.left import left_values
from reports.measures.traffic.rates import rate_values
from reports.measures.traffic.tasks import task_values
from reports.measures.traffic.thinking import thinking_values
from reports.measures.traffic.validity import valid_values

_OF_SCENARIOS: Mapping[str, Callable[[Run, Cell], dict[str, Value]]] = {
    "agent_loop": task_values,
    "burst": burst_values,
    "code_completion": left_values,
    "fixed": rate_values,
    "long_context": depth_values,
    "lora_mix": adapter_values,
    "reasoning": thinking_values,
    "structured_output": valid_values,
}


def traffic_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the values of a completed cell that only such traffic has, by the names of TRAFFIC_METRICS."""
    of_scenario = _OF_SCENARIOS.get(cell.planned.scenario.name)
    return {
        **(of_scenario(run, cell) if of_scenario else {}),
        **(batch_values(run, cell) if cell.load.kind == "batch" else {}),
    }
