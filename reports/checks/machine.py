"""The machine: who else used it, and what was left on it."""

import itertools
from collections.abc import Iterator, Sequence

from harness.contracts import FOREIGN_SHARE
from harness.store.store import StartRecord
from reports.checks.finding import SPEED, Finding, cell_name, measured_cells, numbers
from reports.data.cells import Cell
from reports.data.machine import foreign_share
from reports.data.run import Run
from reports.measures.written import flat, number, plural, several, shown


def cores_shared(run: Run) -> Iterator[Finding]:
    """Client and server on the same processor."""
    if any(record.memory_kind == "host" and not record.attached for record in run.start_records):
        yield Finding(
            "cores_shared",
            "Client and server share the cores",
            "The servers ran on the processor that also ran the load, so each slows the other, "
            "more so with more users.",
            "A client on another machine (engine.base_url); else read them as figures of this arrangement.",
            metrics=SPEED,
            marks=False,
        )


def machine_busy(run: Run) -> Iterator[Finding]:
    """Other work on the machine when the run began."""
    facts = {key.rpartition(".")[2]: value for key, value in flat(run.record.environment)}
    load, cores = facts.get("load_1min"), facts.get("cores_usable") or facts.get("cores_logical")
    if isinstance(load, int | float) and isinstance(cores, int) and load > 0.5 * cores:
        yield Finding(
            "machine_busy",
            "The machine was busy",
            f"Its load was {number(load)} on {plural(cores, 'core')} when the run began.",
            "Measure on a quiet machine; guard=strict refuses a busy one.",
            metrics=SPEED,
            marks=False,
        )


def foreign_load(run: Run) -> Iterator[Finding]:
    """Processor time in the windows that neither the server nor the load process used, where no guard
    looked (reports/checks/guard.py)."""
    shares = [
        (share, cell)
        for cell in measured_cells(run)
        if cell.record and cell.record.guard_mode is None and (share := foreign_share(run, cell)) is not None
    ]
    busy = sorted((pair for pair in shares if pair[0] > FOREIGN_SHARE), key=lambda pair: -pair[0])
    if busy:
        said = [f"{cell_name(cell)}, start {cell.planned.repeat + 1}: {100 * s:.0f} %" for s, cell in busy]
        yield Finding(
            "foreign_load",
            "Other programs used the processor",
            f"In {len(busy)} of {plural(len(shares), 'cell')} more than {100 * FOREIGN_SHARE:.0f} % of the "
            f"machine went to neither the server nor the client ({several(said, '; ')}).",
            "Stop other programs, and measure again; guard=strict refuses a busy machine.",
            cells=numbers(cell for _, cell in busy),
            metrics=SPEED,
        )


def _next_began(run: Run, stuck: Sequence[StartRecord]) -> str:
    """What that meant for the starts that came after them."""
    followed = [record.name for record in stuck if record.name != run.start_records[-1].name]
    if not followed:
        return "no other start came after it"
    after = "" if len(followed) == len(stuck) else f" after {several(followed)}"
    starts = "start" if len(followed) == 1 else "starts"
    return f"the next {starts}{after} began with less"


def memory_not_returned(run: Run) -> Iterator[Finding]:
    """Memory that was not back after a server had stopped, where no guard looked at what the next start found
    (reports/checks/guard.py)."""
    if any(cell.record and cell.record.guard_mode for cell in run.planned_cells):
        return
    stuck = [record for record in run.start_records if record.returned_to_baseline is False]
    if stuck:
        behind = numbers(cell for cell in run.planned_cells if _began_behind(run, cell, stuck))
        above = [
            f"{r.name}: {shown('memory_peak_bytes', r.after_bytes - r.baseline_bytes)} GiB above"
            for r in stuck
            if r.after_bytes is not None and r.baseline_bytes is not None
        ]
        yield Finding(
            "memory_not_returned",
            "Memory was not back at its baseline",
            f"after {plural(len(stuck), 'start')} ({several(above or [r.name for r in stuck])}); "
            f"{_next_began(run, stuck)}.",
            "Look for other programs, and measure again; guard=strict refuses to.",
            cells=behind,
            metrics=("memory_peak_bytes",),
            marks=bool(behind),
        )


def _began_behind(run: Run, cell: Cell, stuck: Sequence[StartRecord]) -> bool:
    """Whether the cell's start came right after one of those, and its memory is what a device has in use (a
    host's is its own processes')."""
    behind = {record.name for record in stuck}
    pairs = itertools.pairwise(record.name for record in run.start_records)
    after = {name for before, name in pairs if before in behind}
    record = run.start_of(cell)
    return record is not None and record.memory_kind == "device" and record.name in after
