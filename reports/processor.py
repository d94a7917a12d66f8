"""Whose processor time a window's was: the server's, the client's, or that of other programs.

Draws nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.cells import Cell, Group
from reports.frames import Run


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


def group_cores(run: Run, group: Group) -> list[float]:
    """The same of each start of a group that counts, where it was sampled."""
    return [cores for cell in group.counted if (cores := server_cores(run, cell)) is not None]


def _cores(environment: Mapping[str, Any]) -> int | None:
    """The machine's logical cores, which `machine_cpu_pct` is of; None where not recorded."""
    topics = [topic for topic in environment.values() if isinstance(topic, Mapping)]
    return next((int(topic["cores_logical"]) for topic in topics if topic.get("cores_logical")), None)
