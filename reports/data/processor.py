"""Whose processor time a window's was: the server's, the client's, or that of other programs.

Draws nothing and judges nothing.
"""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from harness.contracts import LOOK_S
from harness.store.store import StartRecord
from reports.data.cells import Cell, Group
from reports.data.once import itself, once_for
from reports.data.run import Run
from reports.data.slices import of_start

# At ten a second: over 0.2 s the processor's clock, which counts in 10 ms, is within 0.05 of a core.
IDLE_SAMPLES = 3


def foreign_share(run: Run, cell: Cell) -> float | None:
    """Share of the machine's processor that neither the server's processes nor the load process used in the
    window; None where one of the three, or the number of cores, is not known."""
    cores, used = _cores(run.record.environment), server_cores(run, cell)
    if not cores or used is None or cell.client_cores_here is None:
        return None
    machine = run.window_samples(run.host, cell)["machine_cpu_pct"].dropna().astype(float)
    if not len(machine):
        return None
    return float(machine.mean()) / 100 - (used + cell.client_cores_here) / cores


@once_for(attrgetter("number"))
def server_cores(run: Run, cell: Cell) -> float | None:
    """Cores that the server's processes kept busy in the window, on average; None where not sampled."""
    samples = run.window_samples(run.host, cell)
    if not len(samples):
        return None
    t_ns, cpu_s = (samples[name].to_numpy(dtype=float, na_value=np.nan) for name in ("t_ns", "cpu_s"))
    t_ns, cpu_s = t_ns[~np.isnan(cpu_s)], cpu_s[~np.isnan(cpu_s)]
    return float((cpu_s[-1] - cpu_s[0]) / ((t_ns[-1] - t_ns[0]) / 1e9)) if len(cpu_s) > 1 else None


def idle_cores(run: Run, record: StartRecord) -> float | None:
    """Cores that the server's processes kept busy while nothing was asked, in the guard's look before each
    cell or after it: the least of such times; None where none was sampled. Some servers spin while they
    wait."""
    ended = [cell for cell in run.planned_cells if cell.summary and run.start_of(cell) is record]
    begins = [cell.summary.started_ns for cell in ended if cell.summary]
    found = []
    for cell in ended:
        assert cell.summary is not None
        after_ns = cell.summary.ended_ns
        before_ns = min((ns for ns in [*begins, record.stopped_ns or after_ns] if ns > after_ns), default=0)
        if (cores := _cores_between(run, record.name, after_ns, before_ns)) is not None:
            found.append(cores)
    for end_ns in _looked_until_ns(ended, record):
        if (cores := _cores_between(run, record.name, end_ns - round(LOOK_S * 1e9), end_ns)) is not None:
            found.append(cores)
    return min(found, default=None)


def _looked_until_ns(cells: Sequence[Cell], record: StartRecord) -> list[int]:
    """When the guard ended its look before each of a start's cells; none where there was no guard."""
    guarded = {f"cell {cell.number:03d} warm-up" for cell in cells if cell.record and cell.record.guard_mode}
    return [phase.t_ns for phase in record.phases if phase.name in guarded]


def _cores_between(run: Run, start: str, begin_ns: int, end_ns: int) -> float | None:
    if run.host is None:
        return None
    t_ns, cpu_s = _course(run, start)
    first, last = np.searchsorted(t_ns, [begin_ns, end_ns])
    if last - first < IDLE_SAMPLES:
        return None
    return float((cpu_s[last - 1] - cpu_s[first]) / ((t_ns[last - 1] - t_ns[first]) / 1e9))


@once_for(itself)
def _course(run: Run, start: str) -> tuple[np.ndarray, np.ndarray]:
    """Instants of a start's samples in order, and the server's processor time at each, where it is known."""
    assert run.host is not None
    own = of_start(run.host, start)
    t_ns, cpu_s = own["t_ns"].to_numpy(dtype=np.int64), own["cpu_s"].to_numpy(dtype=float, na_value=np.nan)
    order = np.argsort(t_ns, kind="stable")
    order = order[~np.isnan(cpu_s[order])]
    return t_ns[order], cpu_s[order]


def group_cores(run: Run, group: Group) -> list[float]:
    """The same of each start of a group that counts, where it was sampled."""
    return [cores for cell in group.counted if (cores := server_cores(run, cell)) is not None]


def usable_cores(run: Run) -> int | None:
    """Cores that bench, and so the server, may use of the machine's; None where not recorded."""
    return _count(run.record.environment, "cores_usable") or _cores(run.record.environment)


def _cores(environment: Mapping[str, Any]) -> int | None:
    """The machine's logical cores, which `machine_cpu_pct` is of; None where not recorded."""
    return _count(environment, "cores_logical")


def _count(environment: Mapping[str, Any], name: str) -> int | None:
    topics = [topic for topic in environment.values() if isinstance(topic, Mapping)]
    return next((int(topic[name]) for topic in topics if topic.get(name)), None)
