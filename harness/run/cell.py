"""Measure one cell: play its load against a ready server, then judge and store the result."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns
from typing import Any

import msgspec

from serving_bench.harness.contracts import (
    STEPS,
    Fact,
    Load,
    LoadJob,
    LoadSummary,
    PlannedCell,
    PlannedStart,
    because,
    quoted,
    timing,
)
from serving_bench.harness.errors import BenchError, Interrupted, UnfitError
from serving_bench.harness.load.processes import running_load
from serving_bench.harness.load.records import discard, read_summary
from serving_bench.harness.run.ideal import ideals_of
from serving_bench.harness.run.start import Serving
from serving_bench.harness.run.watch import Site
from serving_bench.harness.servers import prefix_cache
from serving_bench.harness.store import request_table, store
from serving_bench.harness.store.request_table import Tally
from serving_bench.harness.store.tokenizer import read_tokenizer
from serving_bench.scenarios import SCENARIOS

# Share of a window in which bench stood still. Nothing was sent meanwhile, so rates lack that share: as much
# as two may differ by and still count as the same (compare.margin).
STALLED_SHARE = 0.05
# A single pause of this length hardly changes a rate, but it is in every latency that it met.
STALLED_ONCE_S = 1.0


def run_cell(up: Serving, cell: PlannedCell, site: Site) -> store.CellRecord:
    """Play one cell, store it, and return its record. An interrupted cell is stored if its load had begun.

    Raises ServerError if the server has ended before the load, and Interrupted.
    """
    up.check()
    # The cache is emptied first, since the guard then wants to see an idle machine.
    up.watch.mark(store.phase_of(cell.number, "reset"), monotonic_ns())
    deployment = up.start.deployment
    emptied = prefix_cache.reset(up.engine, deployment, up.spec, is_proven=deployment.label in site.emptied)
    if emptied.how == "reset":
        site.emptied.add(deployment.label)
    if emptied.how in ("reset", "unchecked"):
        up.sent.clear()
    unfit = site.guard.before_cell(f"  cell {cell.number:03d}", up, cell.load, site.run_dir)
    if warning := site.guard.warning(unfit):
        site.observer.line(warning)
    steps = site.budget.steps(up.start, cell) if site.budget else (cell.load.steps or STEPS, 0)
    job = _job(up, cell, store.begin_cell(site.run_dir, cell.number), *steps)
    record = replace(
        _new_record(up.start, cell),
        guard=unfit,
        guard_mode=None if site.guard.mode == "off" else site.guard.mode,
        cache_reset=emptied,
    )
    if refusal := site.guard.refusal(unfit):
        return _keep(replace(record, status="failed", error=refusal), job, up, site)
    return _play(record, job, up, cell, site)


def _play(
    record: store.CellRecord, job: LoadJob, up: Serving, cell: PlannedCell, site: Site
) -> store.CellRecord:
    directory = Path(job.directory)
    up.watch.mark(store.phase_of(cell.number, "warm-up"))
    try:
        with running_load(job, site.state_dir) as pulses:
            for pulse in pulses:
                up.check()
                if pulse:
                    site.observer.cell_progress(cell, pulse, up.watch.now())
        summary = read_summary(job)
        assert summary
        up.check()
    except (BenchError, OSError) as error:
        return _keep(replace(record, status="failed", error=quoted(str(error))), job, up, site)
    except Interrupted:
        interrupted = replace(record, status="interrupted", error=because("interrupted"))
        _keep(interrupted, job, up, site, is_interrupted=True)
        raise
    try:
        # Also samples the memory that the load has left in use.
        up.watch.mark(store.phase_of(cell.number, "end"))
        up.watch.mark(store.phase_of(cell.number, "window"), summary.window_start_ns)
        up.watch.mark(store.phase_of(cell.number, "drain"), summary.window_end_ns)
        traffic = f"{up.start.deployment.label} at {cell.load.label}"
        record = replace(record, guard=(*record.guard, *site.guard.during(up, summary, traffic)))
        return _keep(record, job, up, site)
    except Interrupted:
        # The load had ended: what it measured is kept, although the interrupt came before it was written.
        if not (directory / "cell.json").is_file():
            _keep(record, job, up, site, is_interrupted=True)
        raise


def _job(
    up: Serving, cell: PlannedCell, directory: Path, steps: int = STEPS, steps_to_first: int = 0
) -> LoadJob:
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
        scenario_origin=SCENARIOS.origins.get(cell.scenario.name),
        scenario_options=msgspec.to_builtins(cell.scenario.options),
        load=replace(cell.load, steps=steps),
        seed=cell.seed,
        directory=str(directory),
        steps_to_first=steps_to_first,
        adapters=tuple(each.name for each in deployment.adapters),
    )


def _new_record(start: PlannedStart, cell: PlannedCell) -> store.CellRecord:
    return store.CellRecord(
        number=cell.number,
        start=start.name,
        deployment=start.deployment.label,
        repeat=cell.repeat,
        scenario=cell.scenario,
        load=cell.load,
        seed=cell.seed,
        status="completed",
        forms=SCENARIOS[cell.scenario.name].forms(cell.scenario.options),
        adapters=cell.scenario.options.lora,
    )


def _keep(
    record: store.CellRecord, job: LoadJob, up: Serving, site: Site, *, is_interrupted: bool = False
) -> store.CellRecord:
    directory, summary = Path(job.directory), read_summary(job)
    counter = read_tokenizer(job.load.tokenizer) if job.load.tokenizer else None
    # Not after an interrupt: nobody waits for it, no later cell needs to know the server's cache, and what
    # was replayed before the interrupt would count as sent before.
    ideals, ideal_by = ({}, {}) if is_interrupted else ideals_of(up, job, counter)
    origin, table = timing.origin_of(job.load), directory / "requests.parquet"
    tally = request_table.write_table(job.rows_path, table, summary, counter, ideals, origin=origin)
    was_disturbed = store.was_disturbed(directory, record.number)
    record = replace(record, summary=summary, ideal_by=ideal_by, was_disturbed=was_disturbed)
    record = judged(record, tally)
    up.gone += tally.gone
    store.write_record(directory / "cell.json", record)
    try:
        discard(job)
        (directory / "job.json").unlink(missing_ok=True)
        site.observer.cell_ends(up.start, record, tally.result)
    finally:
        _settle(directory, record, site)
    return record


def _settle(directory: Path, record: store.CellRecord, site: Site) -> None:
    if not store.settle(directory, record):
        site.observer.line(f"  cell {record.number:03d}: its earlier attempt was no worse and is kept")


def fail_rest(
    start: PlannedStart, done: Sequence[store.CellRecord], error: Exception, site: Site
) -> list[store.CellRecord]:
    """Record a failed start's unmeasured cells as failed, with its error and the guard's findings."""
    findings = error.findings if isinstance(error, UnfitError) else ()
    mode = site.guard.mode if findings else None
    facts: dict[str, Any] = {
        "status": "failed",
        "error": quoted(str(error)),
        "guard": findings,
        "guard_mode": mode,
    }
    measured = {record.number for record in done}
    left = [cell for cell in start.cells if cell.number not in measured]
    failed = [replace(_new_record(start, cell), **facts) for cell in left]
    for record in failed:
        directory = store.begin_cell(site.run_dir, record.number)
        store.write_record(directory / "cell.json", record)
        _settle(directory, record, site)
    return failed


def judged(record: store.CellRecord, tally: Tally) -> store.CellRecord:
    """Return the record with its status, validity and reasons, by its requests and the guard.

    It is failed if the load was stopped, or if no request succeeded, in its window or at all. It is suspect
    if it lost requests or conversations, if no request was sent or ended in its window, if bench stood still,
    or if the machine was unfit; with guard=strict it is invalid if that came into its window from outside.
    """
    if record.status != "completed" or record.summary is None:
        return record
    if error := _failure(record.load, record.summary, tally):
        return replace(record, status="failed", error=error)
    unfit = [finding.reason for finding in record.guard]
    reasons = [*_doubts(record.load, record.summary, tally), *unfit]
    if not reasons:
        return record
    is_invalid = any(finding.validity == "invalid" for finding in record.guard)
    return replace(record, validity="invalid" if is_invalid else "suspect", reasons=tuple(reasons))


def _failure(load: Load, summary: LoadSummary, tally: Tally) -> Fact | None:
    if summary.ended_by == "interrupted":
        return because("load_signalled")
    if summary.ended_by == "failures":
        # Each load process judges its own last requests; over the whole cell fewer may have failed.
        whose = "" if load.workers == 1 else f" of one of {load.workers} load workers"
        why = because("too_many_failed", whose=whose, percent=100 * (load.max_failed_share or 0.0))
        commonest = tally.messages and _commonest(tally.messages)
        return because("with_commonest", why=why, commonest=commonest) if commonest else why
    if tally.sent and tally.failed == tally.sent:
        return because("none_succeeded", commonest=_commonest(tally.window_messages))
    return None if tally.ok else _nothing_sent(summary, tally)


def _doubts(load: Load, summary: LoadSummary, tally: Tally) -> Iterator[Fact]:
    if tally.failed:
        yield because("requests_failed", failed=tally.failed, sent=tally.sent)
    if summary.left_out:
        yield because("conversations_never_began", conversations=summary.left_out)
    if summary.ended_by == "conversations" and summary.conversations_begun < (load.conversations or 0):
        yield because("no_more_conversations", asked=load.conversations, begun=summary.conversations_begun)
    if summary.cut_conversations:
        cut = {"conversations": summary.cut_conversations, "turns": summary.cut_turns}
        yield because("conversations_cut", **cut)
    window_s = (summary.window_end_ns - summary.window_start_ns) / 1e9
    loop_s, stamp_s = (_longest_s(summary, name) for name in ("loop_lag_s", "stamp_lag_s"))
    if summary.stalled_s > STALLED_SHARE * window_s:
        yield because("bench_stood_still", stalled_s=summary.stalled_s, window_s=window_s)
    elif loop_s > STALLED_ONCE_S:
        yield because("bench_stood_still_once", stalled_s=loop_s)
    elif stamp_s > STALLED_ONCE_S:
        yield because("bench_read_late", late_s=stamp_s)
    if not tally.sent:
        yield _nothing_sent(summary, tally)
    elif not tally.ended:
        yield because("no_request_ended", window_s=window_s, advised_s=_advised_s(window_s))


def _longest_s(summary: LoadSummary, name: str) -> float:
    # The summary has the lags of the worker whose p99 is the worst, and another may have stood still once.
    lags = (getattr(each, name) for each in (summary, *summary.workers))
    return max((lag[2] for lag in lags if lag), default=0.0)


def _nothing_sent(summary: LoadSummary, tally: Tally) -> Fact:
    window_s = (summary.window_end_ns - summary.window_start_ns) / 1e9
    why = because("none_was_due")
    if summary.requests:
        why = because("outlasted") if tally.ok else because("failed_before", how=_commonest(tally.messages))
    return because("nothing_sent", window_s=window_s, why=why, advised_s=_advised_s(window_s))


def _advised_s(window_s: float) -> int:
    """Return a load.duration for a window that was too short, even if it was extended beyond its own."""
    return max(60, round(2 * window_s))


def _commonest(messages: Mapping[str, int]) -> str:
    return max(messages, key=lambda message: messages[message])
