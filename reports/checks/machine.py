"""Reasons to distrust the machine: what the guard saw, and who else used it."""

from collections.abc import Iterator

from harness.contracts import FOREIGN_SHARE
from reports.checks.finding import SPEED, Seen, check, measured_cells, start_name
from reports.data.run import Run
from reports.data.samples import foreign_share


@check(
    "what the guard looks for",
    "The machine was disturbed",
    "{}.",
    "Stop other programs, cool the device, free memory; guard=strict refuses a machine that is not fit.",
    (*SPEED, "memory_peak_bytes"),
)
def machine_unfit(run: Run) -> Iterator[Seen]:
    """Find the starts that the guard saw disturbed, by its own measure."""
    for cell in run.planned_cells:
        if guard := cell.record.guard if cell.record else ():
            said = ", ".join(f"{each.text} ({each.when})" for each in guard)
            yield f"{start_name(cell)}: {said}", [cell]


@check(
    "other programs on the processor",
    "Other programs used the processor",
    f"More than {100 * FOREIGN_SHARE:.0f} % of the machine went to neither the server nor the client: {{}}.",
    "Stop other programs, and measure again; guard=strict refuses a busy machine.",
)
def foreign_load(run: Run) -> Iterator[Seen]:
    """Find windows in which other programs used the processor, where no guard looked; the worst first."""
    unguarded = [each for each in measured_cells(run) if each.record and each.record.guard_mode is None]
    shares = [(share, cell) for cell in unguarded if (share := foreign_share(run, cell)) is not None]
    for share, cell in sorted(shares, key=lambda pair: -pair[0]):
        if share > FOREIGN_SHARE:
            yield f"{start_name(cell)}: {100 * share:.0f} %", [cell]


@check(
    "client and server on the same cores",
    "Client and server share the cores",
    "The servers ran on the processor that also ran the load, so each slows the other, more so with more "
    "users.",
    "A client on another machine (engine.base_url); else read them as figures of this arrangement.",
)
def cores_shared(run: Run) -> Iterator[Seen]:
    """Find that client and servers ran on the same processor."""
    if any(record.memory_kind == "host" and not record.attached for record in run.start_records):
        yield "", ()
