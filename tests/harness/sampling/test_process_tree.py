"""Real process trees: who belongs to them, and what they use."""

import os
from pathlib import Path

import psutil
import pytest
from child_process import WAIT, child, heard, tell
from reads import Reads
from waiting import wait_until

from serving_bench.harness.contracts import Reason
from serving_bench.harness.sampling.process_tree import ProcessTree, TreeReading
from serving_bench.harness.sampling.sampling import Sampling

MIB = 2**20


def test_memory_of_the_tree_includes_descendants() -> None:
    grandchild = "import sys; block = b'x' * (50 * 2**20); print('up', flush=True); sys.stdin.readline()"
    source = f"subprocess.Popen([sys.executable, '-c', {grandchild!r}]).wait()"
    with child(source) as process:
        assert heard(process, b"up")
        sample = ProcessTree(process.pid).read()
        alone = psutil.Process(process.pid).memory_info().rss
        tell(process)
    assert sample.processes == 2
    assert sample.rss_bytes
    assert 50 * MIB < sample.rss_bytes - alone < 100 * MIB
    assert sample.threads == 2


def test_cpu_of_a_child_that_has_ended_stays_in_the_sum() -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    source = (
        f"burner = subprocess.Popen([sys.executable, '-c', {burn!r}])\n"
        f"burner.wait(); print('burnt', flush=True){WAIT}"
    )
    with child(source) as process:
        tree = ProcessTree(process.pid)
        with Sampling(Reads(lambda: [tree.read()]), hz=50) as sampling:
            assert heard(process, b"burnt")
            last = tree.read()
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
        first = tree.read()
        tell(process)
        wait_until(lambda: tree.read().processes == 1)
        tell(process)
        assert heard(process, b"again")
        last = tree.read()
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
        assert tree.read().processes == 3
        tell(process)
        wait_until(lambda: tree.read().processes == 2)
        assert tree.among({process.pid, pid, os.getpid()}) == {process.pid, pid}
        os.kill(pid, 9)


def test_a_process_that_ends_between_samples_is_gone_and_not_zero() -> None:
    with child(WAIT) as process:
        tree = ProcessTree(process.pid)
        wait_until(lambda: bool(tree.read().rss_bytes))  # 0 until its program is loaded
        tell(process)
        process.wait(10)
    assert tree.read() == TreeReading(processes=0)
    assert tree.pss_bytes() is None


def test_a_zombie_counts_as_gone() -> None:
    with child("") as process:
        tree = ProcessTree(process.pid)
        wait_until(lambda: tree.read().processes == 0)


def test_a_pid_that_never_was_is_gone() -> None:
    assert ProcessTree(2**22 + 1).read().processes == 0


def test_major_faults_are_counted() -> None:
    with child(WAIT) as process:
        sample = ProcessTree(process.pid).read()
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        tell(process)
    assert sample.major_faults is not None
    assert 0 <= sample.major_faults <= int(fields[9]) + int(fields[10])


def test_minor_faults_are_those_of_the_whole_tree() -> None:
    grandchild = (
        "import mmap, sys; print('up', flush=True); sys.stdin.readline()\n"
        "block = mmap.mmap(-1, 64 * 2**20)\n"
        "for at in range(0, len(block), 4096): block[at] = 1\n"
        "print('touched', flush=True); sys.stdin.readline()"
    )
    with child(f"subprocess.Popen([sys.executable, '-c', {grandchild!r}]).wait()") as process:
        assert heard(process, b"up")
        tree = ProcessTree(process.pid)
        before = tree.read().minor_faults
        tell(process)
        assert heard(process, b"touched")
        after = tree.read().minor_faults
        tell(process)
    assert before
    assert after
    # A fault for each page that was touched, or for each huge page of 2 MiB.
    assert 32 <= after - before < 20_000


def test_a_tree_without_a_pid_says_so() -> None:
    tree = ProcessTree(None)
    assert tree.read() == TreeReading()
    assert (tree.among({os.getpid()}), tree.pss_bytes()) == (None, None)


def test_a_pid_that_is_asked_for_is_looked_for_at_once() -> None:
    source = f"sys.stdin.readline(); subprocess.Popen([sys.executable, '-c', {LEAF!r}]).wait()"
    with child(source) as process:
        tree = ProcessTree(process.pid)
        assert tree.read().processes == 1
        tell(process)
        assert process.stdout
        leaf = int(process.stdout.readline())
        assert tree.among({leaf, os.getpid(), 1}) == {leaf}
        tell(process)


def test_a_member_that_has_ended_is_still_one_of_the_trees() -> None:
    """A driver may list a process for a moment longer than it lives."""
    with child(WAIT) as process:
        tree = ProcessTree(process.pid)
        assert tree.among({process.pid}) == {process.pid}
        tell(process)
        process.wait(10)
    assert tree.read().processes == 0
    assert tree.among({process.pid, os.getpid()}) == {process.pid}


def test_memory_that_may_not_be_read_has_a_reason() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    with child(WAIT) as process:
        tree = ProcessTree(process.pid)
        os.seteuid(65534)
        try:
            found = tree.pss_bytes()
        finally:
            os.seteuid(0)
        tell(process)
    assert found == Reason(f"that of process {process.pid} may be read by its user and by root only")


LEAF = "import os, sys; print(os.getpid(), flush=True); sys.stdin.readline()"


def test_new_descendants_are_found_without_being_asked_for() -> None:
    source = f"sys.stdin.readline(); subprocess.Popen([sys.executable, '-c', {LEAF!r}]).wait()"
    with child(source) as process:
        tree = ProcessTree(process.pid)
        assert tree.read().processes == 1
        tell(process)
        wait_until(lambda: tree.read().processes == 2)
        tell(process)
