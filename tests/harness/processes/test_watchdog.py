"""The watchdog as a program, and the functions that find what it can no longer end."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from waiting import is_running, number_in, wait_until

from serving_bench.harness.processes import watchdog

SLEEPER = "import signal; signal.pause()"


@contextmanager
def sleeper(mark: str | None = None, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | ({watchdog.MARK: mark} if mark else {})
    with subprocess.Popen([sys.executable, "-c", SLEEPER], env=environment, **options) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def program(*argv: object) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", watchdog.__file__, "--grace", "0.3", "--", *map(str, argv)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd="/"
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # its child has a parent-death signal


SETUP = json.dumps({"environment": {watchdog.MARK: "m"}}).encode() + b"\n"


def events(process: subprocess.Popen[bytes]) -> list[dict[str, object]]:
    """All events, once the watchdog has ended."""
    assert process.stdout
    process.wait(10)
    return [json.loads(line) for line in process.stdout]


def test_it_starts_nothing_when_bench_is_gone_before_the_first_line(tmp_path: Path) -> None:
    with program("touch", tmp_path / "started") as process:
        assert process.stdin
        process.stdin.write(SETUP[:-1])
        process.stdin.close()
        assert process.wait(10) == 1
    assert not (tmp_path / "started").exists()


def test_it_reports_start_exit_and_done_as_json_lines() -> None:
    with program(sys.executable, "-c", "raise SystemExit(4)") as process:
        assert process.stdin
        process.stdin.write(SETUP)
        started, exited, done = events(process)
    assert started["event"] == "started"
    assert started["pid"]
    assert started["start_time_s"]
    assert exited == {"event": "exited", "returncode": 4}
    assert done == {"event": "done"}


def test_it_reports_why_a_program_cannot_start(tmp_path: Path) -> None:
    with program(tmp_path) as process:
        assert process.stdin
        process.stdin.write(SETUP)
        [failed] = events(process)
    assert (failed["event"], failed["strerror"]) == ("failed", "Permission denied")


def test_term_to_the_watchdog_ends_the_child_and_hangup_and_interrupt_do_not(tmp_path: Path) -> None:
    source = "import os,signal,sys; open(sys.argv[1],'w').write(f'{os.getpid()}\\n'); signal.pause()"
    with program(sys.executable, "-c", source, tmp_path / "pid") as process:
        assert process.stdin
        process.stdin.write(SETUP)
        pid = number_in(tmp_path / "pid")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        exited = events(process)[1]
    # One of the first two would have ended the watchdog by itself, without a report.
    assert exited == {"event": "exited", "returncode": -signal.SIGTERM}
    assert not is_running(pid)


def test_start_time_tells_a_process_from_a_later_one() -> None:
    with sleeper() as process:
        first = watchdog.start_time_s(process.pid)
        assert first == watchdog.start_time_s(process.pid)
        assert first is not None
        assert 0 <= float(Path("/proc/uptime").read_text().split()[0]) - first < 30
    assert watchdog.start_time_s(process.pid) is None


def test_a_zombie_has_no_start_time() -> None:
    with subprocess.Popen(["true"]) as process:
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        assert watchdog.start_time_s(process.pid) is None


def test_left_of_finds_the_process_its_session_and_its_marked_descendants() -> None:
    with (
        sleeper("mark-a", start_new_session=True) as marked,
        sleeper("mark-b", start_new_session=True) as other,
    ):
        started_s = watchdog.start_time_s(other.pid)
        assert started_s
        wait_until(lambda: pids_left(2**30, 0.0, "mark-a") == {marked.pid})
        assert pids_left(other.pid, started_s, "mark-none") == {other.pid}
        assert pids_left(other.pid, started_s, "mark-a") == {marked.pid, other.pid}


def test_left_of_finds_members_of_the_session_of_a_process_that_has_gone(tmp_path: Path) -> None:
    orphan = (
        "import os,signal,sys\n"
        "if os.fork() == 0:\n"
        "    open(sys.argv[1],'w').write(f'{os.getpid()}\\n'); signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", orphan, str(tmp_path / "pid")], start_new_session=True
    ) as leader:
        started_s = watchdog.start_time_s(leader.pid) or 0.0
        pid = number_in(tmp_path / "pid")
    try:
        assert pids_left(leader.pid, started_s, "mark-none") == {pid}
        assert pids_left(leader.pid, started_s + 1e6, "mark-none") == set()
    finally:
        os.kill(pid, signal.SIGKILL)


def test_left_of_leaves_a_later_process_with_the_same_pid_alone() -> None:
    with sleeper(start_new_session=True) as process:
        started_s = watchdog.start_time_s(process.pid)
        assert started_s
        assert pids_left(process.pid, started_s - 1, "mark-none") == set()


def pids_left(pid: int, started_s: float, mark: str) -> set[int]:
    return {process.pid for process in watchdog.left_of(pid, started_s, mark)}


def test_end_kills_what_outlives_the_grace_period(tmp_path: Path) -> None:
    stubborn = "import os,signal,sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    stubborn += "open(sys.argv[1],'w').write(f'{os.getpid()}\\n')\nwhile True: signal.pause()"
    with sleeper() as meek, subprocess.Popen([sys.executable, "-c", stubborn, str(tmp_path / "pid")]):
        both = [meek.pid, number_in(tmp_path / "pid")]

        def find() -> list[psutil.Process]:
            return [psutil.Process(pid) for pid in both if watchdog.start_time_s(pid) is not None]

        for pause_s in watchdog.ending(find, 0.3):
            threading.Event().wait(pause_s)
        assert find() == []


def test_the_boot_id_is_the_kernels() -> None:
    assert watchdog.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_the_child_may_open_as_many_files_as_the_system_allows(tmp_path: Path) -> None:
    said = tmp_path / "limits"
    script = (
        f"import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE), file=open({str(said)!r}, 'w'))"
    )
    watch = [sys.executable, "-P", watchdog.__file__, "--", sys.executable, "-c", script]
    shell = ["sh", "-c", 'ulimit -Sn 100; ulimit -Hn 300; exec "$@"', "sh", *watch]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(SETUP)
        process.stdin.flush()
        assert process.wait(20) == 0
    assert said.read_text().split() == ["300", "300"]
