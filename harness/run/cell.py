"""One cell: its load is played against a server that is ready, and what came of it is stored.

A cell's record is what makes it exist. Knows no engine and no statistic.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec

from harness.contracts import LoadJob, PlannedCell, PlannedStart, timing
from harness.errors import BenchError, Interrupted, UnfitError
from harness.load.processes import run_load
from harness.load.records import discard, read_summary
from harness.run import judge
from harness.run.site import Site
from harness.run.start import Serving
from harness.servers import prefix_cache
from harness.store import request_table, store
from harness.store.request_table import Result
from harness.store.store import CellRecord


def run_cell(up: Serving, cell: PlannedCell, site: Site) -> CellRecord:
    """Play one cell, store it, and return its record, which says how it went.

    Raises ServerError if the server has ended before the load, and Interrupted. An interrupted cell is
    stored if its load had begun.
    """
    up.check()
    # The cache is emptied before the guard looks at a machine that has nothing to do.
    up.watch.mark(f"cell {cell.number:03d} reset", time.monotonic_ns())
    emptied = prefix_cache.reset(up.engine, up.start.deployment, up.spec)
    tell = partial(site.observer.cell_waits, up.start, cell)
    unfit = site.guard.before_cell(up.watch.seen, cell.load, site.run_dir, tell, up.check)
    # An earlier attempt is put aside only now: what interrupts the wait leaves it as it is.
    job = _job(up, cell, store.begin_cell(site.run_dir, cell.number))
    record = replace(
        _new_record(up.start, cell),
        guard=unfit,
        guard_mode=None if site.guard.mode == "off" else site.guard.mode,
        cache_reset=emptied,
    )
    if refusal := site.guard.refusal(unfit):
        return _keep(replace(record, status="failed", error=refusal), job, up.start, site)
    return _play(record, job, up, cell, site)


def _play(record: CellRecord, job: LoadJob, up: Serving, cell: PlannedCell, site: Site) -> CellRecord:
    """Have the load played, and store whatever came of it. Raises Interrupted, with the cell stored."""
    directory, name = Path(job.rows_path).parent, f"cell {cell.number:03d}"
    site.observer.cell_begins(up.start, cell)
    up.watch.mark(f"{name} warm-up")
    try:
        summary = run_load(
            job,
            directory,
            site.state_dir,
            lambda progress: site.observer.cell_progress(cell, progress, up.watch.now()),
            up.check,
        )
        up.check()
    except (BenchError, OSError) as error:
        return _keep(replace(record, status="failed", error=str(error)), job, up.start, site)
    except Interrupted:
        _keep(replace(record, status="interrupted", error="interrupted"), job, up.start, site)
        raise
    try:
        # Reads what the load made the memory grow to.
        up.watch.mark(f"{name} end")
        up.watch.mark(f"{name} window", summary.window_start_ns)
        up.watch.mark(f"{name} drain", summary.window_end_ns)
        traffic = f"{up.start.deployment.label} at {cell.load.label}"
        record = replace(record, guard=(*record.guard, *site.guard.during(up.watch.seen, summary, traffic)))
        return _keep(record, job, up.start, site)
    except Interrupted:
        # The load had ended well: what it measured is kept, though the interrupt came while it was written.
        if not (directory / "cell.json").is_file():
            _keep(record, job, up.start, site)
        raise


def _job(up: Serving, cell: PlannedCell, directory: Path) -> LoadJob:
    deployment = up.start.deployment
    return LoadJob(
        cell=f"{cell.number:03d}",
        base_url=up.spec.base_url,
        model=up.spec.served_model,
        api_key_env=deployment.terms.api_key_env if deployment.terms.base_url else "",
        engine=deployment.engine,
        engine_options=msgspec.to_builtins(deployment.options),
        fairness=deployment.terms.fairness,
        scenario=cell.scenario.name,
        scenario_options=msgspec.to_builtins(cell.scenario.options),
        load=cell.load,
        seed=cell.seed,
        rows_path=str(directory / "rows.jsonl"),
        summary_path=str(directory / "summary.json"),
        begun_path=str(directory / "begun.jsonl"),
    )


def _new_record(start: PlannedStart, cell: PlannedCell) -> CellRecord:
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


def _keep(record: CellRecord, job: LoadJob, start: PlannedStart, site: Site) -> CellRecord:
    """Store a cell: its requests as a table first, then its record."""
    directory, summary = Path(job.rows_path).parent, read_summary(job)
    count_tokens = request_table.token_counter(job.load.tokenizer) if job.load.tokenizer else None
    origin, table = timing.origin_of(job.load), directory / "requests.parquet"
    tally = request_table.write_table(Path(job.rows_path), table, summary, count_tokens, origin=origin)
    judged = judge.judged(replace(record, summary=summary), tally)
    store.write_record(directory / "cell.json", judged)
    discard(job)
    (directory / "job.json").unlink(missing_ok=True)
    site.observer.cell_ends(start, judged, tally.result)
    return judged


def fail_rest(
    start: PlannedStart, done: Sequence[CellRecord], error: Exception, site: Site
) -> list[CellRecord]:
    """Record the cells of a failed start that were not measured, with its reason and the guard's findings."""
    found = error.findings if isinstance(error, UnfitError) else ()
    measured = {record.number for record in done}
    failed = [
        replace(
            _new_record(start, cell),
            status="failed",
            error=str(error),
            guard=found,
            guard_mode=site.guard.mode if found else None,
        )
        for cell in start.cells
        if cell.number not in measured
    ]
    for record in failed:
        store.write_record(store.begin_cell(site.run_dir, record.number) / "cell.json", record)
        site.observer.cell_ends(start, record, Result())
    return failed
