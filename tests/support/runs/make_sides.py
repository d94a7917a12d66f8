"""Writes runs with known values that tests compare."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from make_run import (
    GIB,
    MS,
    S,
    deployment,
    host_samples,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)

from serving_bench.harness.contracts import Deployment, Load
from serving_bench.harness.store import store
from serving_bench.harness.store.store import StartRecord

A, B = "llama_cpp fp16", "vllm fp16"
# Enough requests in the window for a median.
REQUESTS = 16


def rows_of(ttft_ms: float, count: int = REQUESTS, **changes: Any) -> list[Any]:
    """Return the requests of one start in its window, all with this time to first token."""
    sent = [102 * S + k * 8 * S // (count + 1) for k in range(count)]
    first_ns = int(ttft_ms * MS)
    return [
        row(k, t_ns, chunk_ns=tuple(t_ns + first_ns + n * 10 * MS for n in range(5)), **changes)
        for k, t_ns in enumerate(sent)
    ]


def sides_run(
    path: Path,
    rows: Mapping[str, Sequence[Any]],
    *,
    loads: Sequence[Load] = (Load(concurrency=1),),
    made: Mapping[str, Deployment] | None = None,
    start: Mapping[str, Any] | None = None,
    seed: int | None = None,
    scenario: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write a run of the deployments in `rows`: label -> the rows of each start, the same at every load.

    A number in place of rows stands for `rows_of` that number. `made`: deployments that cannot be made from
    their label. `start`, `load` and `changes` change the records of starts, the summaries of loads and the
    record of the run.
    """
    deployments = [(made or {}).get(label) or deployment(*label.split(" ")) for label in rows]
    repeats = len(next(iter(rows.values())))
    plan = plan_of(deployments, loads, repeats)
    starts = []
    for planned in plan.starts:
        cells = tuple(
            replace(
                cell,
                seed=cell.repeat if seed is None else seed + cell.repeat,
                scenario=replace(cell.scenario, options={**cell.scenario.options, **(scenario or {})}),
            )
            for cell in planned.cells
        )
        starts.append(replace(planned, cells=cells))
    plan = replace(plan, starts=tuple(starts))
    store.write_record(path / "run.json", run_record(plan, **changes))
    for planned in plan.starts:
        record: StartRecord = start_record(planned, 90 * S, **(start or {}))
        write_start(path, record, host_samples(90 * S, GIB, 12))
        given = rows[planned.deployment.label][planned.repeat]
        for cell in planned.cells:
            own = given if isinstance(given, list) else rows_of(given)
            write_cell(path, cell, planned, own, summary(100 * S, **(load or {})))
    return path
