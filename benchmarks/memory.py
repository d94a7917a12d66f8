"""Measures the load process's resident memory while it plays many requests as fast as it can."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pinned
from clients import load_job, worker_argv
from server import serving

from serving_bench.harness.contracts import Load, LoadSummary
from serving_bench.harness.errors import BenchError, UserError
from serving_bench.harness.selftest.selftest import Reference

STREAMS = 64
TOKENS = 200
# A row of 200 instants as JSON, and 202 records of the server.
_BYTES_PER_REQUEST = 20_000


@dataclass(frozen=True)
class Memory:
    """The memory of one load process. `points`: (requests so far, resident bytes), about one a second."""

    requests: int
    took_s: float
    points: tuple[tuple[int, int], ...]

    @property
    def most_bytes(self) -> int:
        return max(rss_bytes for _, rss_bytes in self.points)

    def at(self, share: float) -> int:
        """Return the resident bytes when that share of the requests had ended."""
        return next(rss_bytes for done, rss_bytes in self.points if done >= share * self.points[-1][0])


def measure_memory(reference: Reference, requests: int, core: int) -> Memory:
    """Play `requests` chats of 200 tokens. Blocks until all have ended; rows go to disk as each ends."""
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        scratch = Path(folder)
        need_gb, free_gb = _BYTES_PER_REQUEST * requests / 1e9, shutil.disk_usage(scratch).free / 1e9
        if free_gb < need_gb:
            raise UserError(
                f"--memory {requests}: needs {need_gb:.0f} GB in {scratch.parent}, not {free_gb:.0f}"
            )
        with serving(reference, scratch, itl_s=0.0, ttft_s=0.0, slots=STREAMS + 1, priority="plain") as url:
            load = Load(STREAMS, warmup_s=0.0, duration_s=None, conversations=requests)
            job = load_job(url, load, TOKENS, scratch)
            took_s, points = _watched(worker_argv(job, scratch), core, scratch / "client.log")
            summary = msgspec.json.decode(job.summary_path.read_bytes(), type=LoadSummary)
        return Memory(summary.requests, took_s, tuple(points))


def _watched(argv: list[str], core: int, log: Path) -> tuple[float, list[tuple[int, int]]]:
    """Read the memory at each progress report of the process. Return the seconds it took, and the points."""
    process = pinned.spawn(argv, core, log, stdout=subprocess.PIPE)
    points, t_s = [], 0.0
    try:
        assert process.stdout
        for line in process.stdout:
            said, seen = json.loads(line), pinned.sample(process.pid)
            t_s = said["t_s"]
            if said["failed"]:
                raise BenchError(f"{said['failed']} requests failed")
            if seen and said["requests"]:
                points.append((said["requests"], seen.rss_bytes))
        process.wait()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
    if process.returncode or not points:
        raise BenchError(f"the load process ended with code {process.returncode}: {log.read_text()[-1000:]}")
    return t_s, points
