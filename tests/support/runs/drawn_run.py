"""Makes runs in memory whose values are drawn, not measured, for simulations: thousands a minute.

A run has the records and empty tables that reports read. The values of its cells are given.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from make_run import S, plan_of, run_record, start_record, summary

from serving_bench.harness.contracts import Deployment, Load, PlannedStart
from serving_bench.harness.store.store import CellRecord
from serving_bench.reports.data import tables
from serving_bench.reports.data.cells import Cell
from serving_bench.reports.data.run import Run
from serving_bench.reports.measures.equal_work import work_of
from serving_bench.reports.measures.metrics import Value
from serving_bench.reports.measures.values import values_of

# metric's name -> deployment's label -> the value of each repeat, None where there is none.
Drawn = Mapping[str, Mapping[str, Sequence[float | None]]]


def planned_run(
    deployments: Sequence[Deployment],
    repeats: int,
    cell_changes: Callable[[PlannedStart], Mapping[str, Any]] = lambda start: {},
    **changes: Any,
) -> Run:
    """Return a run that has ended, with a cell for each deployment and repeat at 4 users, without values."""
    plan = plan_of(deployments, [Load(concurrency=4)], repeats)
    starts, cells = [], []
    for start in plan.starts:
        [planned] = start.cells
        record = CellRecord(
            number=planned.number, start=start.name, deployment=start.deployment.label, repeat=start.repeat,
            scenario=planned.scenario, load=planned.load, seed=planned.seed, status="completed",
            summary=summary((1000 + 100 * start.index) * S),
        )  # fmt: skip
        record = replace(record, **cell_changes(start))
        starts.append(start_record(start, (990 + 100 * start.index) * S))
        cells.append(Cell(planned.number, planned, start, record, record.status, "4 users", record.error))
    run = Run(Path(), run_record(plan, **{"status": "completed", **changes}), tuple(starts), tuple(cells))
    run.__dict__["requests"] = tables.requests_frame(Path(), {})
    # What follows from the records is the same for all draws.
    run.__dict__["found_once"] = {}
    assert run.groups
    assert not run.is_going_on
    return run


def with_values(run: Run, drawn: Drawn, n: int = 400) -> Run:
    """Return the run with these values, each from `n` requests."""
    values: dict[int, dict[str, Value]] = {
        cell.number: {name: Value(own[cell.label][cell.planned.repeat], n) for name, own in drawn.items()}
        for cell in run.planned_cells
        if cell.counts
    }
    made = replace(run)
    known = {values_of.__wrapped__: values, work_of.__wrapped__: work_of(run)}
    made.__dict__.update(run.__dict__, found_once={(function,): found for function, found in known.items()})
    return made
