"""Reasons to distrust the machine: what the guard saw, who else used it, and what was left on it."""

from harness.contracts import FOREIGN_SHARE, Unfit
from reports.checks.finding import SPEED, Finding, Seen, found, measured_cells, start_name
from reports.data.machine import foreign_share
from reports.data.run import Run
from reports.measures.written import plural

# What the guard looks for -> what it is called, and what helps.
CAUSES = {
    "foreign_process": ("Another program was on the device", "End it, or give another device."),
    "memory_not_back": ("Memory was not free again", "End what holds it, and measure again."),
    "throttled": (
        "The device was throttled",
        "Cool it, raise its power limit, or compare only deployments that were throttled alike.",
    ),
    "clocks_low": ("The device's clock was lower than usual", "Cool it, and measure again."),
    "device_lost": ("A device was lost", "Look into the driver's log; the values are not to be trusted."),
    "foreign_load": ("Other programs used the processor", "Stop other programs, and measure again."),
    "steal": ("The host of this virtual machine gave its cores away", "Measure on a machine of your own."),
    "swap": ("The machine swapped", "Free memory, or take a smaller model."),
    "disk_low": ("The disk was nearly full", "Free some, or give another --output."),
    "few_files": ("Few open files are allowed", "Raise the limit: ulimit -n 65536."),
}
_OF_MEMORY = ("memory_peak_bytes",)


def machine_unfit(run: Run) -> list[Finding]:
    """Find the starts that the guard saw disturbed, by its own measure; a finding for each cause."""
    by_kind: dict[Unfit, list[Seen]] = {}
    for cell in run.planned_cells:
        guard = cell.record.guard if cell.record else ()
        for kind in dict.fromkeys(each.kind for each in guard):
            said = ", ".join(f"{each.when}: {each.text}" for each in guard if each.kind == kind)
            by_kind.setdefault(kind, []).append((f"{start_name(cell)}, {said}", [cell]))
    return [
        each
        for kind, seen in by_kind.items()
        for title, remedy in [CAUSES.get(kind, (kind.replace("_", " "), ""))]
        for each in found(
            f"guard_{kind}",
            title,
            f"In {plural(len(seen), 'cell')} ({{}}).",
            remedy,
            seen,
            _OF_MEMORY if kind == "memory_not_back" else SPEED,
        )
    ]


def foreign_load(run: Run) -> list[Finding]:
    """Find windows in which other programs used the processor, where no guard looked."""
    shares = [
        (share, cell)
        for cell in measured_cells(run)
        if cell.record and cell.record.guard_mode is None and (share := foreign_share(run, cell)) is not None
    ]
    busy = sorted((pair for pair in shares if pair[0] > FOREIGN_SHARE), key=lambda pair: -pair[0])
    return found(
        "foreign_load",
        "Other programs used the processor",
        f"In {len(busy)} of {plural(len(shares), 'cell')} more than {100 * FOREIGN_SHARE:.0f} % of the "
        "machine went to neither the server nor the client ({}).",
        "Stop other programs, and measure again; guard=strict refuses a busy machine.",
        [(f"{start_name(cell)}: {100 * share:.0f} %", [cell]) for share, cell in busy],
    )


def cores_shared(run: Run) -> list[Finding]:
    """Find that client and servers ran on the same processor."""
    if not any(record.memory_kind == "host" and not record.attached for record in run.start_records):
        return []
    return [
        Finding(
            "cores_shared",
            "Client and server share the cores",
            "The servers ran on the processor that also ran the load, so each slows the other, "
            "more so with more users.",
            "A client on another machine (engine.base_url); else read them as figures of this arrangement.",
            metrics=SPEED,
        )
    ]
