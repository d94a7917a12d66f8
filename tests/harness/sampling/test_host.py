"""Samples of this machine and of a real process, and what the machine is."""

import os
import time
from pathlib import Path

import psutil
import pytest
from child_process import WAIT, child, heard, tell
from waiting import wait_until

from serving_bench.harness.sampling import host
from serving_bench.harness.sampling.host import HostReader, HostSample
from serving_bench.harness.sampling.process_tree import ProcessTree
from serving_bench.harness.sampling.sampling import Sampling

MIB = 2**20


def read(reader: HostReader, *, is_mark: bool = False) -> HostSample:
    [sample] = reader.read(is_mark=is_mark)
    return sample


def test_pss_is_read_at_marks_only() -> None:
    with child(f"block = b'x' * (20 * 2**20); print('up', flush=True){WAIT}") as process:
        assert heard(process, b"up")
        with Sampling(HostReader(ProcessTree(process.pid)), hz=50) as sampling:
            wait_until(lambda: len(sampling.rows()) >= 3)
            sampling.mark()
        tell(process)
    rows = sampling.rows()
    [marked] = [row for row in rows if row.pss_bytes is not None]
    assert marked.pss_bytes
    assert marked.rss_bytes
    assert 20 * MIB < marked.pss_bytes <= marked.rss_bytes
    assert (marked.machine_cpu_pct, marked.machine_steal_pct) == (None, None)
    assert sampling.error is None


def test_without_a_pid_only_the_machine_is_sampled() -> None:
    reader = HostReader(ProcessTree(None))
    first, second = read(reader), wait_until(lambda: (s := read(reader)).machine_cpu_pct is not None and s)
    assert (first.processes, first.rss_bytes, first.cpu_s, first.major_faults) == (None,) * 4
    assert first.machine_cpu_pct is None
    assert second.machine_cpu_pct is not None
    assert 0 <= second.machine_cpu_pct <= 100
    assert (first.minor_faults, first.machine_steal_pct) == (None, None)
    assert second.machine_steal_pct is not None
    assert 0 <= second.machine_steal_pct <= 100


def test_samples_are_on_the_monotonic_clock() -> None:
    before_ns = time.monotonic_ns()
    assert before_ns <= read(HostReader(ProcessTree(os.getpid()))).t_ns <= time.monotonic_ns()


def test_the_machines_used_memory_is_compared_with_the_baseline() -> None:
    total = host.psutil.virtual_memory().total
    idle = host.memory().measure(0.03)
    assert idle.used_bytes
    assert 0 < idle.used_bytes < total
    assert (idle.power_w is None) == (idle.note is not None)
    assert host.memory().wait(total, 0.0)[0]
    is_back, used_bytes = host.memory().wait(0, 0.0)
    assert not is_back
    assert used_bytes
    assert MIB < used_bytes < total


def test_a_process_that_ends_between_samples_is_gone_and_not_zero() -> None:
    with child(WAIT) as process:
        reader = HostReader(ProcessTree(process.pid))
        wait_until(lambda: bool(read(reader).rss_bytes))  # 0 until its program is loaded
        tell(process)
        process.wait(10)
    after = read(reader, is_mark=True)
    assert (after.processes, after.rss_bytes, after.cpu_s, after.threads, after.pss_bytes) == (0, *[None] * 4)
    assert after.machine_available_bytes > 0


def test_swap_is_the_machines_and_counts_both_ways() -> None:
    sample = read(HostReader(ProcessTree(None)))
    memory, counts = (
        {line.split()[0].rstrip(":"): int(line.split()[1]) for line in Path(file).read_text().splitlines()}
        for file in ("/proc/meminfo", "/proc/vmstat")
    )
    assert sample.machine_swap_used_bytes == (memory["SwapTotal"] - memory["SwapFree"]) * 1024
    assert sample.machine_swapped_bytes == (counts["pswpin"] + counts["pswpout"]) * 4096


def test_energy_that_may_not_be_read_is_none_with_its_reason() -> None:
    with Sampling(HostReader(ProcessTree(None)), hz=50) as sampling:
        wait_until(lambda: len(sampling.rows()) >= 2)
    values = {row.package_energy_j is None for row in sampling.rows()}
    assert values == {"package_energy" in sampling.notes}


def test_the_machines_share_is_of_the_time_that_passed_however_short(monkeypatch) -> None:
    times = psutil.cpu_times()
    zero = times._replace(**dict.fromkeys(times._fields, 0.0))
    # Two cores for 0.1 s: 0.02 s in programs, 0.01 s stolen, the rest idle.
    given = [zero._replace(idle=10.0), zero._replace(idle=10.17, user=0.02, steal=0.01)]
    monkeypatch.setattr(psutil, "cpu_times", lambda: given.pop(0))
    reader = HostReader(ProcessTree(None))
    assert reader.read()[0].machine_cpu_pct is None
    [second] = reader.read()
    assert (second.machine_cpu_pct, second.machine_steal_pct) == pytest.approx((15.0, 5.0))
