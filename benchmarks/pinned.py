"""Runs processes on a core of their own, and measures their time, processor and memory. Linux only."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving_bench.harness.sampling.process_tree import ProcessTree

Priority = Literal["plain", "high", "real-time"]
_PERIOD_S = 0.05
_PERIODS_PER_PSS = 20
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """A running process at an instant: processor time so far, resident memory.

    `pss_bytes` counts shared pages once. It is read about once a second and None in other samples.
    """

    t_ns: int
    cpu_s: float
    rss_bytes: int
    pss_bytes: int | None = None


@dataclass(frozen=True)
class Cost:
    """What a process and all that it started have cost. `cpu_s` is user + system time."""

    spawned_ns: int
    exit_code: int
    cpu_s: float
    samples: tuple[Sample, ...]

    @property
    def max_rss_bytes(self) -> int:
        """Return the most of all samples. The kernel's maximum includes the memory before the exec."""
        return max((each.rss_bytes for each in self.samples), default=0)

    @property
    def max_pss_bytes(self) -> int:
        return max((each.pss_bytes or 0 for each in self.samples), default=0)

    def cpu_before_s(self, at_ns: int) -> float:
        """Return the processor time used until an instant, from the last sample before it."""
        return max((each.cpu_s for each in self.samples if each.t_ns <= at_ns), default=0.0)


def spawn(
    argv: Sequence[str],
    core: int,
    log: Path,
    environment: Mapping[str, str] | None = None,
    stdout: int | None = None,
    *,
    priority: Priority = "plain",
) -> subprocess.Popen[bytes]:
    """Start a program on one core, with its output in the log.

    Root may give it priority over what else runs there: `high` by its nice value, `real-time` always.
    """

    def prepare() -> None:
        os.setsid()
        os.sched_setaffinity(0, {core})
        if priority == "plain" or not may_go_first():
            return
        if priority == "real-time":
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        else:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
            with suppress(OSError):  # sessions are weighed against each other before processes are
                Path("/proc/self/autogroup").write_text("-20")

    with log.open("ab") as file:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=file if stdout is None else stdout,
            stderr=file,
            env={**os.environ, **(environment or {})},
            preexec_fn=prepare,
        )


def may_go_first() -> bool:
    """Return whether we may raise priorities."""
    return os.geteuid() == 0


def sample(pid: int) -> Sample | None:
    """Return what a process has used until now, or None once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    return Sample(time.monotonic_ns(), cpu_s, int(fields[21]) * _PAGE_BYTES)


def run(
    argv: Sequence[str], core: int, log: Path, limit_s: float, environment: Mapping[str, str] | None = None
) -> Cost:
    """Run a program on one core to its end, and leave nothing running that it started.

    After limit_s it is killed, which its exit code shows.
    """
    spawned_ns = time.monotonic_ns()
    process = spawn(argv, core, log, environment, priority="high")
    with _sampled(process.pid) as samples:
        timer = threading.Timer(limit_s, _kill_group, [process.pid])
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
            _kill_group(process.pid)
    process.returncode = os.waitstatus_to_exitcode(status)
    # The kernel's account is exact, but lacks descendants that nobody waited for.
    sampled_s = max((each.cpu_s for each in samples), default=0.0)
    return Cost(
        spawned_ns, process.returncode, max(usage.ru_utime + usage.ru_stime, sampled_s), tuple(samples)
    )


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


@contextmanager
def _sampled(pid: int) -> Iterator[list[Sample]]:
    samples: list[Sample] = []
    ended = threading.Event()

    def watch() -> None:
        tree = ProcessTree(pid)
        while not ended.wait(_PERIOD_S):
            seen = tree.read()
            if not seen.processes:
                return
            pss = tree.pss_bytes() if len(samples) % _PERIODS_PER_PSS == 0 else None
            pss_bytes = pss if isinstance(pss, int) else None
            samples.append(Sample(time.monotonic_ns(), seen.cpu_s or 0.0, seen.rss_bytes or 0, pss_bytes))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


@contextmanager
def serving(argv: Sequence[str], core: int, log: Path, priority: Priority = "real-time") -> Iterator[None]:
    """Run a server on one core during the block. SIGTERM ends it, and KILL after 10 s."""
    process = spawn(argv, core, log, priority=priority)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
