"""Whose processor time a window's was: the server's, the client's, or that of other programs.

Draws nothing and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.cells import Cell
from reports.frames import Run


def foreign_share(run: Run, cell: Cell) -> float | None:
    """Share of the machine's processor that neither the server's processes nor the load process used in the
    window; None where one of the three, or the number of cores, is not known."""
    cores = _cores(run.record.environment)
    samples = run.window_samples(run.host, cell)
    if not cores or cell.client_cores_here is None or not len(samples):
        return None
    machine = samples["machine_cpu_pct"].dropna().astype(float)
    server = samples[["t_ns", "cpu_s"]].dropna().astype(float)
    if not len(machine) or len(server) < 2:
        return None
    used = server.iloc[-1] - server.iloc[0]
    server_cores = float(used["cpu_s"] / (used["t_ns"] / 1e9))
    return float(machine.mean()) / 100 - (server_cores + cell.client_cores_here) / cores


def _cores(environment: Mapping[str, Any]) -> int | None:
    """The machine's logical cores, which `machine_cpu_pct` is of; None where not recorded."""
    topics = [topic for topic in environment.values() if isinstance(topic, Mapping)]
    return next((int(topic["cores_logical"]) for topic in topics if topic.get("cores_logical")), None)
