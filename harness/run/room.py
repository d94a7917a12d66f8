"""Estimate how much a run will write to its disk, before it is measured."""

from collections.abc import Sequence
from pathlib import Path

from serving_bench.harness.contracts import Plan, PlannedCell, PlannedStart, Race, Until
from serving_bench.harness.plan.plan import estimated_s, load_s
from serving_bench.harness.store import store
from serving_bench.harness.whole_files import check_room

# Its page; a start's log and samples; a cell's log, samples and records; a start's answers on quality.
_PAGE_BYTES, _START_BYTES, _CELL_BYTES, _QUALITY_BYTES = 4_000_000, 100_000, 100_000, 300_000
# For a user: 100 tokens a second, and the bytes of 50 events a second where load.keep_bytes keeps them.
_USER_BYTES_PER_S, _KEPT_BYTES_PER_S = 2_000, 12_000


def needed_bytes(
    starts: Sequence[PlannedStart],
    until: Until | None = None,
    race: Race | None = None,
    *,
    asks_quality: bool = False,
) -> int:
    """Return about how many bytes these starts and their page take.

    With `until`, more starts may follow for as long as its budget allows, in a race up to its most repeats.
    The window of a load without a duration is a guess.
    """
    each = _START_BYTES + (_QUALITY_BYTES if asks_quality else 0)
    whole = sum(each + sum(_cell_bytes(start, cell) for cell in start.cells) for start in starts)
    times = max(1.0, until.budget_s / max(1.0, estimated_s(starts))) if until and starts else 1.0
    if race and starts:
        repeats = max(0, race.most - 1 - max(start.repeat for start in starts))
        times += repeats * len(race.going) / len(starts)
    return int(_PAGE_BYTES + times * whole)


def check_space(
    directory: Path,
    starts: Sequence[PlannedStart],
    until: Until | None = None,
    race: Race | None = None,
    *,
    asks_quality: bool = False,
) -> None:
    """Raise UserError if a disk has no room for what these starts will write, as far as can be told."""
    if not starts:  # only the page is written, which replaces the one that may be there
        return
    needed = needed_bytes(starts, until, race, asks_quality=asks_quality)
    check_room(directory.absolute(), needed, "what is measured", "--output DIR")


def left_bytes(directory: Path, plan: Plan) -> int:
    """Return about how many bytes those starts of a run take that have uncompleted cells."""
    done = {cell.number for cell in store.read_cells(directory) if cell.status == "completed"}
    return needed_bytes([each for each in plan.starts if any(cell.number not in done for cell in each.cells)])


def _cell_bytes(start: PlannedStart, cell: PlannedCell) -> float:
    load = cell.load
    at_once = load.conversations if load.kind == "batch" else None
    users = load.concurrency or at_once or start.deployment.terms.concurrent_sequences or 1
    of_user = _USER_BYTES_PER_S + (_KEPT_BYTES_PER_S if load.keep_bytes else 0)
    return _CELL_BYTES + of_user * users * load_s(load, cell.scenario)
