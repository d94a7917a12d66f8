"""One cell: its load is played against a server that is ready, and what came of it is stored.

Knows no engine and no statistic; a cell's record is what makes it exist.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from engines import ENGINES
from harness.contracts import (
    GuardFinding,
    LaunchSpec,
    LoadJob,
    LoadSummary,
    PlannedCell,
    PlannedStart,
    timing,
)
from harness.errors import BenchError, Interrupted
from harness.load.processes import run_load
from harness.load.pulse import Progress
from harness.load.records import discard, read_summary
from harness.run import judge
from harness.run.watch import Now, Watch
from harness.sampling.guard import Guard
from harness.servers import prefix_cache, server
from harness.store import store, tokens
from harness.store.result import Result
from harness.store.store import CellRecord


class Observer(Protocol):
    """Who shows a cell's progress. All calls come from the thread that runs it."""

    def cell_waits(self, start: PlannedStart, cell: PlannedCell, unfit: str) -> None: ...
    def cell_begins(self, start: PlannedStart, cell: PlannedCell) -> None: ...
    def cell_progress(self, cell: PlannedCell, progress: Progress, now: Now) -> None: ...
    def cell_ends(self, start: PlannedStart, record: CellRecord, result: Result) -> None: ...


@dataclass(frozen=True)
class Site:
    """Where a run takes place: its directory, bench's cache directory, device indices, and who looks
    whether the machine is fit."""

    run_dir: Path
    cache_dir: Path
    devices: tuple[int, ...]
    guard: Guard

    @property
    def state_dir(self) -> Path:
        """Records of what runs, shared by all runs."""
        return self.cache_dir / "running"


def check(running: server.Server | None) -> None:
    """Raise ServerError if a server of ours has exited."""
    if running:
        server.check_alive(running)


def run_cell(
    start: PlannedStart,
    cell: PlannedCell,
    spec: LaunchSpec,
    running: server.Server | None,
    watch: Watch,
    site: Site,
    observer: Observer,
) -> CellRecord:
    """Play one cell and store it; its record says how it went. Raises Interrupted: stored, unless it came
    before the load; and ServerError where the server ends before it."""
    # Before the guard looks at a machine that has nothing to do.
    deployment = start.deployment
    key = os.environ.get(deployment.terms.api_key_env)
    watch.mark(f"cell {cell.number:03d} reset", time.monotonic_ns())
    emptied = prefix_cache.reset(ENGINES[deployment.engine], deployment, spec, key)
    unfit = site.guard.before_cell(
        watch,
        cell.load,
        site.run_dir,
        lambda why: observer.cell_waits(start, cell, why),
        lambda: check(running),
    )
    # An earlier attempt is put aside now: what interrupts the wait leaves it as it is.
    directory = store.begin_cell(site.run_dir, cell.number)
    job = _job(start, cell, spec, directory)
    mode = None if site.guard.mode == "off" else site.guard.mode
    record = replace(_cell_record(start, cell), guard=unfit, guard_mode=mode, cache_reset=emptied)
    if refusal := site.guard.refusal(unfit):
        return _keep(site, job, replace(record, status="failed", error=refusal), None, observer, start)
    return _play(start, cell, job, record, running, watch, site, observer)


def _play(
    start: PlannedStart,
    cell: PlannedCell,
    job: LoadJob,
    record: CellRecord,
    running: server.Server | None,
    watch: Watch,
    site: Site,
    observer: Observer,
) -> CellRecord:
    """Have the load played, and store whatever came of it. Raises Interrupted, with the cell stored."""
    directory, name = store.cell_dir(site.run_dir, cell.number), f"cell {cell.number:03d}"
    observer.cell_begins(start, cell)
    watch.mark(f"{name} warm-up")

    def progressed(progress: Progress) -> None:
        observer.cell_progress(cell, progress, watch.now())

    try:
        summary = run_load(job, directory, site.state_dir, progressed, lambda: check(running))
        check(running)
    except (BenchError, OSError) as error:
        return _keep(site, job, replace(record, status="failed", error=str(error)), None, observer, start)
    except Interrupted:
        _keep(site, job, replace(record, status="interrupted", error="interrupted"), None, observer, start)
        raise
    try:
        # Reads what the load made the memory grow to.
        watch.mark(f"{name} end")
        watch.mark(f"{name} window", summary.window_start_ns)
        watch.mark(f"{name} drain", summary.window_end_ns)
        traffic = f"{start.deployment.label} at {cell.load.label}"
        record = replace(record, guard=(*record.guard, *site.guard.during(watch, summary, traffic)))
        return _keep(site, job, record, summary, observer, start)
    except Interrupted:
        # The load had ended well: what it measured is kept, though the interrupt came while it was written.
        if not (directory / "cell.json").is_file():
            _keep(site, job, record, summary, observer, start)
        raise


def _job(start: PlannedStart, cell: PlannedCell, spec: LaunchSpec, directory: Path) -> LoadJob:
    deployment = start.deployment
    return LoadJob(
        cell=f"{cell.number:03d}",
        base_url=spec.base_url,
        model=spec.served_model,
        api_key_env=deployment.terms.api_key_env,
        engine=deployment.engine,
        engine_options=store.as_mapping(deployment.options),
        fairness=deployment.terms.fairness,
        scenario=cell.scenario.name,
        scenario_options=store.as_mapping(cell.scenario.options),
        load=cell.load,
        seed=cell.seed,
        rows_path=str(directory / "rows.jsonl"),
        summary_path=str(directory / "summary.json"),
        begun_path=str(directory / "begun.jsonl"),
    )


def _cell_record(start: PlannedStart, cell: PlannedCell) -> CellRecord:
    return CellRecord(
        number=cell.number,
        start=start.name,
        deployment=start.deployment.label,
        repeat=cell.repeat,
        scenario=cell.scenario,
        load=cell.load,
        seed=cell.seed,
        status="completed",
    )


def _keep(
    site: Site,
    job: LoadJob,
    record: CellRecord,
    summary: LoadSummary | None,
    observer: Observer,
    start: PlannedStart,
) -> CellRecord:
    """Store a cell: its requests as a table, then its record, which makes it exist."""
    directory = store.cell_dir(site.run_dir, record.number)
    summary = summary or read_summary(job)
    count_tokens = tokens.counter(job.load.tokenizer) if job.load.tokenizer else None
    origin = timing.origin_of(job.load)
    tally = store.write_requests(directory, Path(job.rows_path), summary, count_tokens, origin=origin)
    judged = judge.judged(replace(record, summary=summary), tally)
    store.write_record(directory / "cell.json", judged)
    discard(job)
    (directory / "job.json").unlink(missing_ok=True)
    observer.cell_ends(start, judged, tally.result)
    return judged


def fail_rest(
    start: PlannedStart,
    site: Site,
    done: Sequence[CellRecord],
    error: str,
    observer: Observer,
    guard: tuple[GuardFinding, ...] = (),
) -> list[CellRecord]:
    """Record the cells of a start that could not be measured, with the start's reason, and what the guard
    found where that was it."""
    mode = site.guard.mode if guard else None
    numbers = {record.number for record in done}
    failed = []
    for cell in start.cells:
        if cell.number not in numbers:
            record = _cell_record(start, cell)
            record = replace(record, status="failed", error=error, guard=guard, guard_mode=mode)
            directory = store.begin_cell(site.run_dir, cell.number)
            store.write_record(directory / "cell.json", record)
            observer.cell_ends(start, record, Result())
            failed.append(record)
    return failed
