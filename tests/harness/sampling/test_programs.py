"""harness/sampling/programs.py: real programs of others, which descend from nobody here."""

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from waiting import number_in, wait_until

from serving_bench.harness.sampling import programs
from serving_bench.harness.sampling.process_tree import Reading
from serving_bench.harness.sampling.programs import (
    Program,
    Scan,
    busiest,
    named,
    scan,
    shares_between,
    used_by,
)

S = 1_000_000_000
OURS = os.getpid()
SPIN = "while True: pass"
# Its children live for a moment each, so that no scan meets one for long.
SPAWN = "import subprocess, sys\nwhile True: subprocess.run([sys.executable, '-c', 'sum(range(10**6))'])"


@contextmanager
def stranger(folder: Path, source: str) -> Iterator[int]:
    """The pid of a program whose parent has ended: it is no descendant of the test."""
    told = folder / "pid"
    begin = "import subprocess, sys; print(subprocess.Popen([sys.executable, *sys.argv[1:]]).pid)"
    argv = [sys.executable, "-c", begin, "-c", f"import os; os.nice(5)\n{source}", "--token=sesame"]
    with told.open("w") as file:
        subprocess.run(argv, stdout=file, check=True)
    pid = number_in(told)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def busy_since(before: Scan, own: Collection[int] = ()) -> list[Program]:
    """All busy programs since a scan, by their shares of one core: others may keep this machine busy, too."""
    return busiest(shares_between(before, scan(), own, cores=1))


@pytest.mark.parametrize("source", [SPIN, SPAWN])
def test_a_busy_program_is_told_by_name_and_pid_with_what_its_children_used(tmp_path: Path, source: str):
    with stranger(tmp_path, source) as pid:
        before = scan()
        [found] = wait_until(lambda: [each for each in busy_since(before) if each.pid == pid])
    assert found.name.startswith("python")
    assert found.share >= programs.LEAST_SHARE
    assert "sesame" not in str(used_by(0.5, [found]))


def test_what_descends_from_us_or_from_the_server_is_not_others(tmp_path: Path) -> None:
    with stranger(tmp_path, SPIN) as pid, subprocess.Popen([sys.executable, "-c", SPIN]) as child:
        before = scan()
        try:
            wait_until(lambda: pid in {each.pid for each in busy_since(before)})
            others = {each.pid for each in busy_since(before, own=[pid])}
        finally:
            child.kill()
        assert child.pid in before.by_pid
    assert others.isdisjoint({pid, child.pid, OURS})


def reading(parent: int, cpu_s: float, of_children_s: float = 0.0, started: float = 1.0) -> Reading:
    return Reading(started, parent, False, 1, 1, (cpu_s, 0, 0), (of_children_s, 0, 0))


SHELL, TEST, SERVER = (OURS + k for k in (1, 2, 3))


@pytest.mark.parametrize(
    ("before", "after", "used_s"),
    [
        # 7 s of its child's 8 were before; in the 10 s since, the shell itself used one more.
        (
            {SHELL: reading(1, 5.0), TEST: reading(SHELL, 7.0)},
            {SHELL: reading(1, 6.0, of_children_s=8.0)},
            {SHELL: 2.0},
        ),
        # Its child and that one's child ended: 30 s and 9 s of them were before, 1 s since.
        (
            {SHELL: reading(1, 5.0), TEST: reading(SHELL, 30.0), SERVER: reading(TEST, 9.0)},
            {SHELL: reading(1, 5.0, of_children_s=40.0)},
            {SHELL: 1.0},
        ),
        # It waited for a stranger's child, whose 400 s are more than there were.
        ({SHELL: reading(1, 5.0)}, {SHELL: reading(1, 6.0, of_children_s=400.0)}, {SHELL: 1.0}),
        # Another program has the pid now.
        ({SHELL: reading(1, 50.0)}, {SHELL: reading(1, 3.0, started=2.0)}, {SHELL: 3.0}),
    ],
)
def test_only_what_was_used_between_the_scans_is_counted(
    before: dict[int, Reading], after: dict[int, Reading], used_s: dict[int, float]
) -> None:
    assert programs._used_s(Scan(0, before), Scan(10 * S, after), 2) == pytest.approx(used_s)


def test_programs_are_told_with_their_shares_or_that_none_is_seen() -> None:
    three = [Program("cc1", 4242, 0.451), Program("make", 99, 0.12), Program("sh", 7, 0.021)]
    used = "other programs used 60 % of the processor"
    assert str(used_by(0.6, three[:1])) == f"{used}, most by cc1 (process 4242, 45 %)"
    assert str(used_by(0.6, three)) == (
        f"{used}, most by cc1 (process 4242, 45 %), make (process 99, 12 %) and sh (process 7, 2 %)"
    )


@pytest.mark.parametrize(
    ("each_s", "said"),
    [
        # Of 10 s of every core: sixty that use 1 % of it each, and sixty that use 0.01 % each.
        (0.1, ", but no visible program used 2 % or more"),
        (0.001, ", none of it by a program that is visible from here"),
    ],
)
def test_many_small_programs_are_not_said_to_be_out_of_sight(each_s: float, said: str) -> None:
    pids, cores = range(OURS + 1, OURS + 61), os.cpu_count() or 1
    before = Scan(0, {pid: reading(1, 5.0) for pid in pids})
    after = Scan(10 * S, {pid: reading(1, 5.0 + each_s * cores) for pid in pids})
    assert str(named(0.6, before, after)) == f"other programs used 60 % of the processor{said}"


# 15 is PR_SET_NAME. Programs set such a title themselves, or by setproctitle.
TITLED = "import ctypes; ctypes.CDLL(None).prctl(15, {title!r}, 0, 0, 0)\n"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize(
    ("title", "name"),
    [
        (b"app -p s3same", "app"),
        (b"app: s3same", "app"),
        (b"app=s3same", "app"),
        (b"g++-12.x s3same", "g++-12.x"),
        (b" -p s3same", "a program"),
    ],
)
def test_what_a_program_writes_behind_its_name_is_not_told(tmp_path: Path, title: bytes, name: str) -> None:
    with stranger(tmp_path, TITLED.format(title=title) + SPIN) as pid:
        before = scan()

        def of_it() -> list[Program]:
            found = busy_since(before)
            return [each for each in found if each.pid == pid and not each.name.startswith("python")]

        [found] = wait_until(of_it)
    assert found.name == name
