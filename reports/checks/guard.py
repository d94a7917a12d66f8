"""What the guard of the run saw: a finding for each cause, with the cells that it touched."""

from collections.abc import Iterator

from harness.contracts import Unfit
from reports.checks.finding import SPEED, Finding, cell_name, numbers
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.written import plural, several

# Cause -> what the finding is called, and what helps.
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

_OF_MEMORY = ("memory_not_back",)
# They endanger the run, and change no number of a cell that went well.
_OF_NO_NUMBER = ("disk_low", "few_files")


def machine_unfit(run: Run) -> Iterator[Finding]:
    """One finding per cause."""
    by_kind: dict[Unfit, list[tuple[Cell, str]]] = {}
    for cell in run.planned_cells:
        found = cell.record.guard if cell.record else ()
        for kind in dict.fromkeys(each.kind for each in found):
            seen = [f"{each.when}: {each.text}" for each in found if each.kind == kind]
            said = f"{cell_name(cell)}, start {cell.planned.repeat + 1}, {', '.join(seen)}"
            by_kind.setdefault(kind, []).append((cell, said))
    for kind, seen_in in by_kind.items():
        title, remedy = CAUSES.get(kind, (kind.replace("_", " "), ""))
        text = f"In {plural(len(seen_in), 'cell')} ({several([said for _, said in seen_in], '; ')})."
        yield Finding(
            f"guard_{kind}",
            title,
            text,
            remedy,
            cells=numbers(cell for cell, _ in seen_in),
            metrics=("memory_peak_bytes",) if kind in _OF_MEMORY else SPEED,
            marks=kind not in _OF_NO_NUMBER,
        )
