"""Whose processor time a window's was: the server's, the client's, or that of other programs.

Draws nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.contracts import LOOK_S
from harness.store import StartRecord
from reports.cells import Cell, Group
from reports.frames import Run

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


def server_cores(run: Run, cell: Cell) -> float | None:
    """Cores that the server's processes kept busy in the window, on average; None where not sampled."""
    samples = run.window_samples(run.host, cell)
    if not len(samples):
        return None
    server = samples[["t_ns", "cpu_s"]].dropna().astype(float)
    if len(server) < 2:
        return None
    used = server.iloc[-1] - server.iloc[0]
    return float(used["cpu_s"] / (used["t_ns"] / 1e9))


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
    own = run.host[run.host["start"] == start]
    inside = own[(own["t_ns"] >= begin_ns) & (own["t_ns"] < end_ns)][["t_ns", "cpu_s"]].dropna()
    if len(inside) < IDLE_SAMPLES:
        return None
    ordered = inside.astype(float).sort_values("t_ns").to_numpy()
    passed_ns, used_s = ordered[-1] - ordered[0]
    return float(used_s / (passed_ns / 1e9))


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
