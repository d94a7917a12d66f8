"""What starts and cells took in earlier runs on this machine, by deployment: durations.json in the cache
directory, so that a plan's estimate is of this machine.

Nothing depends on the file: damaged, or of another bench, it counts as empty, and one that cannot be written
is left. Reads no results directory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec

from harness.contracts import Deployment
from harness.whole_files import write_whole

if TYPE_CHECKING:  # it imports pyarrow, for which `bench plan` need not wait
    from harness.store.store import CellRecord, StartRecord

FILE = "durations.json"
# Medians are over the last few, since a machine, its disk's cache and an engine change.
_STARTS_KEPT = 5
_CELLS_KEPT = 20


@dataclass(frozen=True)
class Durations:
    """Seconds that a deployment took, newest last. `launch_s`: from a server's spawn to its first good
    generation; `around_s`: else beside the cells, from the end of the server before to its own; `cell_s`:
    beyond a load's ramps, warm-up and window (the guard's wait, what was still under way, writing)."""

    launch_s: tuple[float, ...] = ()
    around_s: tuple[float, ...] = ()
    cell_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Expected:
    """What a start and each of its cells will take by that, beside the loads themselves."""

    start_s: float
    cell_s: float


def expected(cache: Path, deployment: Deployment, devices: Sequence[int]) -> Expected | None:
    """By the medians of earlier runs; None where there are none. `devices`: those that it will use."""
    found = _read(cache / FILE).get(_key(deployment, devices), Durations())
    if not (found.launch_s and found.around_s and found.cell_s):
        return None
    return Expected(median(found.launch_s) + median(found.around_s), median(found.cell_s))


def learn(cache: Path, starts: Sequence[StartRecord], cells: Sequence[CellRecord]) -> None:
    """Keep what these starts took: those of one run, one after the other without a break, with the cells that
    were measured on them. A server that ran already is not learnt from."""
    known = _read(cache / FILE)
    loads_s = {(cell.start, cell.number): _load_s(cell) for cell in cells}
    before: StartRecord | None = None
    for start in starts:
        if not start.attached:
            key = _key(start.deployment, start.devices)
            known[key] = _with(known.get(key, Durations()), start, before, loads_s)
        before = start
    with contextlib.suppress(OSError):
        _write(cache / FILE, known)


def _load_s(cell: CellRecord) -> float | None:
    """What a cell's load took of its own: ramps, warm-up and window; None where it did not come to its end.

    Whether its values count is another question: a slow server's cells may fail, and take the longest.
    """
    if cell.summary is None or cell.summary.ended_by not in ("duration", "conversations"):
        return None
    return (cell.summary.window_end_ns - cell.summary.started_ns) / 1e9 + cell.load.ramp_down_s


def _with(
    known: Durations,
    start: StartRecord,
    before: StartRecord | None,
    loads_s: Mapping[tuple[str, int], float | None],
) -> Durations:
    """What is known, and this start's durations as far as it came."""
    launch_s = [start.launch_s] if start.launch_s is not None else []
    around_s = _around_s(start, before)
    # The first start of a run waits for no other: it tells nothing of that, and is better than nothing.
    is_telling = around_s is not None and (before is not None or not known.around_s)
    more = [around_s] if around_s is not None and is_telling else []
    return Durations(
        (*known.launch_s, *launch_s)[-_STARTS_KEPT:],
        (*known.around_s, *more)[-_STARTS_KEPT:],
        (*known.cell_s, *_cells_s(start, loads_s))[-_CELLS_KEPT:],
    )


def _around_s(start: StartRecord, before: StartRecord | None) -> float | None:
    """From the end of the server before to the spawn, from ready to the first cell, and from the order to
    stop to the end; None where it did not come so far."""
    phases = {phase.name: phase.t_ns for phase in start.phases}
    first_ns = next(_begins(start), None)
    if first_ns is None or start.ready_ns is None or start.stopped_ns is None or "stopping" not in phases:
        return None
    around_ns = first_ns[1] - start.ready_ns + start.stopped_ns - phases["stopping"]
    if before is not None and before.stopped_ns is not None and start.spawned_ns is not None:
        around_ns += start.spawned_ns - before.stopped_ns
    return max(0.0, around_ns / 1e9)


def _cells_s(start: StartRecord, loads_s: Mapping[tuple[str, int], float | None]) -> Iterator[float]:
    """Of each cell whose load came to its end: the seconds to the next cell's beginning, beyond that load."""
    begins = list(_begins(start))
    ends = [t_ns for _, t_ns in begins[1:]]
    ends += [phase.t_ns for phase in start.phases if phase.name == "stopping"]
    for (number, begin_ns), end_ns in zip(begins, ends, strict=False):
        load_s = loads_s.get((start.name, number))
        if load_s is not None:
            yield max(0.0, (end_ns - begin_ns) / 1e9 - load_s)


def _begins(start: StartRecord) -> Iterator[tuple[int, int]]:
    """Number and first instant of each of its cells that was begun."""
    for phase in start.phases:
        words = phase.name.split()
        if words[0] == "cell" and words[2] == "warm-up":
            yield int(words[1]), phase.t_ns


def _key(deployment: Deployment, devices: Sequence[int]) -> str:
    where = f"device {','.join(map(str, devices))}" if devices else "cpu"
    return f"{deployment.model} | {deployment.label} | {where}"


def _read(path: Path) -> dict[str, Durations]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Durations])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}


def _write(path: Path, known: Mapping[str, Durations]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, msgspec.json.format(msgspec.json.encode(known), indent=1) + b"\n")
