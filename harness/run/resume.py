"""What is left of a run or a search that was begun: the starts to make, if it would be the same today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from harness.contracts import Plan, PlannedCell, PlannedStart
from harness.errors import StoreError
from harness.sampling import environment
from harness.settings import config, overrides
from harness.settings.config import Settings
from harness.settings.decoding import Choices
from harness.store import store
from harness.store.store import RunRecord

# The cells of a start that are left: of the start as planned today, as recorded, and whether it was begun.
CellsLeft = Callable[[PlannedStart, PlannedStart, bool], tuple[PlannedCell, ...]]


def missing_starts(directory: Path, record: RunRecord, whole: Plan) -> list[PlannedStart]:
    """Return the starts to make for the cells of a run that do not count yet. See starts_left."""
    done = {cell.number for cell in store.read_cells(directory) if cell.counts}

    def not_done(start: PlannedStart, recorded: PlannedStart, is_begun: bool) -> tuple[PlannedCell, ...]:
        return tuple(cell for cell in start.cells if cell.number not in done)

    return [start for start in starts_left(directory, record, record.plan, whole, not_done) if start.cells]


def starts_left(
    directory: Path, record: RunRecord, recorded: Plan, whole: Plan, cells_left: CellsLeft
) -> list[PlannedStart]:
    """Return every start of the plan with the cells that are left of it.

    One that was begun already gets a number after all that are there. The starts are today's, since what is
    read back from a file has mappings where options were. Raises StoreError if `whole`, today's plan, is not
    `recorded`, or if the run was begun on another machine.
    """
    if _measured(recorded) != _measured(whole):
        raise StoreError(f"{directory}: was planned by another bench, which would measure something else now")
    _check_machine(directory, record)
    begun, last = {start.index for start in store.read_starts(directory)}, last_index(directory, record)
    left = []
    for start, was in zip(whole.starts, record.plan.starts, strict=True):
        is_begun = was.index in begun
        cells = cells_left(start, was, is_begun)
        last += bool(cells) and is_begun
        left.append(replace(start, cells=cells, index=last if cells and is_begun else was.index))
    return left


def last_index(directory: Path, record: RunRecord) -> int:
    """Return the highest number of a start that is there, or planned."""
    begun = [start.index for start in store.read_starts(directory)]
    return max([*begun, *(start.index for start in record.plan.starts)], default=0)


def _measured(planned: Plan) -> list[object]:
    """Return what a plan is going to measure, its defaults included, as it is when read back from a file."""
    measured = [
        (
            start.deployment.label,
            start.deployment.model,
            start.deployment.terms,
            start.deployment.options,
            [(cell.seed, cell.load, cell.scenario) for cell in start.cells],
        )
        for start in planned.starts
    ]
    return list(msgspec.json.decode(msgspec.json.encode(measured)))


# Facts without which the cells of one run could not stand side by side.
_MACHINE = ("cpu_model", "cores_usable", "memory_bytes", "architecture")


def _check_machine(directory: Path, record: RunRecord) -> None:
    now = environment.facts()
    was, is_now = record.environment.get("machine", {}), now["machine"]
    changed = [f"{key} {was.get(key)} -> {is_now[key]}" for key in _MACHINE if was.get(key) != is_now[key]]
    if record.environment.get("devices") != msgspec.to_builtins(now["devices"]):
        changed.append("devices")
    if changed:
        raise StoreError(f"{directory}: was begun on another machine ({'; '.join(changed)}); begin a new run")


def choices_of(record: RunRecord) -> Choices:
    """Return what was given when a run or a search was begun."""
    return overrides.parse([f"{key}={','.join(values)}" for key, values in record.settings.items()])


def settings_of(record: RunRecord) -> Settings:
    """Return the settings that a run was begun with."""
    return config.settings(choices_of(record))
