"""Sampling real process trees with psutil."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from waiting import wait_until

from harness import host
from harness.host import HostSample, ProcessTree, sample_host

MIB = 2**20
WAIT = "\nsys.stdin.readline()\n"  # until the test says so or goes away


@contextmanager
def child(source: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-c", f"import os, subprocess, sys, time\n{source}", *map(str, arguments)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[bytes], word: bytes) -> bool:
    assert process.stdout
    return process.stdout.readline().strip() == word


def tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin
    process.stdin.write(b"\n")


def read(tree: ProcessTree, *, pss: bool = False) -> HostSample:
    [sample] = tree.read(pss=pss)
    return sample


def test_memory_of_the_tree_includes_descendants() -> None:
    grandchild = "import sys; block = b'x' * (50 * 2**20); print('up', flush=True); sys.stdin.readline()"
    source = f"subprocess.Popen([sys.executable, '-c', {grandchild!r}]).wait()"
    with child(source) as process:
        assert heard(process, b"up")
        sample = read(ProcessTree(process.pid))
        alone = host.psutil.Process(process.pid).memory_info().rss
        tell(process)
    assert sample.processes == 2
    assert sample.rss_bytes
    assert 50 * MIB < sample.rss_bytes - alone < 100 * MIB
    assert sample.threads == 2


def test_pss_is_read_at_marks_only() -> None:
    with child(f"block = b'x' * (20 * 2**20); print('up', flush=True){WAIT}") as process:
        assert heard(process, b"up")
        with sample_host(ProcessTree(process.pid), hz=50) as sampling:
            wait_until(lambda: len(sampling.rows()) >= 3)
            sampling.mark("window")
        tell(process)
    rows = sampling.rows()
    [marked] = [row for row in rows if row.pss_bytes is not None]
    assert marked.pss_bytes
    assert marked.rss_bytes
    assert 20 * MIB < marked.pss_bytes <= marked.rss_bytes
    assert [phase for phase, _ in sampling.phases()] == ["window"]
    assert sampling.error is None


def test_cpu_of_a_child_that_has_ended_stays_in_the_sum() -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    source = (
        f"burner = subprocess.Popen([sys.executable, '-c', {burn!r}])\n"
        f"burner.wait(); print('burnt', flush=True){WAIT}"
    )
    with child(source) as process:
        tree = ProcessTree(process.pid)
        with sample_host(tree, hz=50) as sampling:
            assert heard(process, b"burnt")
            last = read(tree)
        tell(process)
    cpu = [row.cpu_s for row in sampling.rows() if row.cpu_s is not None]
    assert cpu == sorted(cpu)
    assert last.cpu_s
    assert last.processes == 1
    assert 0.3 < last.cpu_s < 1.5  # of 0.4: the kernel gives whole ticks of 10 ms


def test_cpu_of_a_child_that_nobody_waits_for_stays_in_the_sum(tmp_path: Path) -> None:
    burn = (
        "import sys, time\nwhile time.process_time() < 0.4: pass\n"
        "print('burnt', flush=True); sys.stdin.readline()"
    )
    source = (
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"burner = subprocess.Popen([sys.executable, '-c', {burn!r}], stdin=subprocess.PIPE)"
        f"{WAIT}burner.stdin.close(){WAIT}begun_s = time.process_time()\n"
        f"while time.process_time() < begun_s + 0.4: pass\nprint('again', flush=True){WAIT}"
    )
    with child(source) as process:
        assert heard(process, b"burnt")
        tree = ProcessTree(process.pid)
        first = read(tree)
        tell(process)
        wait_until(lambda: read(tree).processes == 1)
        tell(process)
        assert heard(process, b"again")
        last = read(tree)
        tell(process)
    assert first.cpu_s
    assert first.processes == 2
    assert first.cpu_s > 0.3
    assert last.cpu_s
    assert last.cpu_s > first.cpu_s + 0.3


def test_a_descendant_whose_parent_has_ended_stays_a_member(tmp_path: Path) -> None:
    orphan = "import os, signal, sys; print(os.getpid(), flush=True); signal.alarm(20); signal.pause()"
    middle = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}]); sys.stdin.readline()"
    )
    source = f"middle = subprocess.Popen([sys.executable, '-c', {middle!r}]); middle.wait(); time.sleep(20)"
    with child(source) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        tree = ProcessTree(process.pid)
        assert read(tree).processes == 3
        tell(process)
        wait_until(lambda: read(tree).processes == 2)
        assert tree.pids() == {process.pid, pid}
        os.kill(pid, 9)


def test_a_process_that_ends_between_samples_is_gone_and_not_zero() -> None:
    with child(WAIT) as process:
        tree = ProcessTree(process.pid)
        assert read(tree).rss_bytes
        tell(process)
        process.wait(10)
    after = read(tree, pss=True)
    assert (after.processes, after.rss_bytes, after.cpu_s, after.threads, after.pss_bytes) == (0, *[None] * 4)
    assert after.machine_available_bytes > 0


def test_a_zombie_counts_as_gone() -> None:
    with child("") as process:
        tree = ProcessTree(process.pid)
        wait_until(lambda: read(tree).processes == 0)


def test_a_pid_that_never_was_is_gone() -> None:
    assert read(ProcessTree(2**22 + 1)).processes == 0


def test_without_a_pid_only_the_machine_is_sampled() -> None:
    tree = ProcessTree(None)
    first, second = read(tree), wait_until(lambda: (s := read(tree)).machine_cpu_pct is not None and s)
    assert (first.processes, first.rss_bytes, first.cpu_s, first.major_faults) == (None,) * 4
    assert first.machine_cpu_pct is None
    assert second.machine_cpu_pct is not None
    assert 0 <= second.machine_cpu_pct <= 100
    assert tree.pids() == set()


def test_samples_are_on_the_monotonic_clock() -> None:
    before_ns = time.monotonic_ns()
    sample = read(ProcessTree(os.getpid()))
    assert before_ns <= sample.t_ns <= time.monotonic_ns()


def test_major_faults_are_counted() -> None:
    sample = read(ProcessTree(os.getpid()))
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert sample.major_faults is not None
    assert 0 <= sample.major_faults <= int(fields[9]) + int(fields[10])


def test_the_machines_used_memory_is_compared_with_the_baseline() -> None:
    total = host.psutil.virtual_memory().total
    assert 0 < host.baseline_bytes(hz=100, duration_s=0.03) < total
    assert host.wait_for_baseline(total, 0, 0.0).returned
    above = host.wait_for_baseline(0, MIB, 0.0)
    assert not above.returned
    assert above.difference_bytes
    assert MIB < above.difference_bytes < total


def test_machine_facts_name_what_a_reader_compares() -> None:
    facts = host.machine_facts()
    assert facts["cores_logical"] == os.cpu_count()
    assert facts["kernel"] == f"{os.uname().sysname} {os.uname().release}"
    assert facts["memory_bytes"] == host.psutil.virtual_memory().total
    assert isinstance(facts["cpu_model"], str)
    assert facts["boot_id"]
