"""Real child processes under the real watchdog: how they end, and that nothing stays behind."""

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

import pytest
from waiting import is_running, number_in, wait_until

from serving_bench.harness.processes.supervise import Supervised, supervised

SAY_PID = """
import os, pathlib, signal, subprocess, sys, time
def say_pid(path):
    pathlib.Path(path).write_text(f"{os.getpid()}\\n")
"""
FOREVER = "\nsignal.pause()\n"


def start(
    tmp_path: Path, source: str, *arguments: object, **options: object
) -> AbstractContextManager[Supervised]:
    argv = [sys.executable, "-c", SAY_PID + source, *map(str, arguments)]
    return supervised(argv, log_path=tmp_path / "log", **options)  # type: ignore[arg-type]


def test_exit_code_is_reported(tmp_path: Path) -> None:
    with start(tmp_path, "sys.exit(7)") as process:
        assert process.wait(10) == 7
        assert process.poll() == 7
        ended = process.stop()
    assert ended == process.ended == 7


def test_death_by_a_signal_is_reported_as_that_signal(tmp_path: Path) -> None:
    with start(tmp_path, "os.kill(os.getpid(), signal.SIGSEGV)") as process:
        assert process.wait(10) == -signal.SIGSEGV
        ended = process.stop()
    assert ended == -signal.SIGSEGV


def test_poll_is_none_while_it_runs_and_stop_sends_term(tmp_path: Path) -> None:
    with start(tmp_path, f"say_pid(sys.argv[1]){FOREVER}", tmp_path / "pid") as process:
        assert number_in(tmp_path / "pid") == process.pid
        assert process.poll() is None
        ended = process.stop()
        assert process.stop() == ended
    assert ended == -signal.SIGTERM
    assert not is_running(process.pid)
    assert not is_running(process.watchdog_pid)


def test_an_orderly_exit_on_term_keeps_its_exit_code(tmp_path: Path) -> None:
    source = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(3)); say_pid(sys.argv[1]){FOREVER}"
    with start(tmp_path, source, tmp_path / "pid") as process:
        number_in(tmp_path / "pid")
        ended = process.stop()
    assert ended == 3


def test_a_child_that_ignores_term_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    source = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say_pid(sys.argv[1])\nwhile True: signal.pause()"
    with start(tmp_path, source, tmp_path / "pid", grace_s=0.3) as process:
        number_in(tmp_path / "pid")
        ended = process.stop()
    assert ended == -signal.SIGKILL
    assert not is_running(process.pid)


# A grandchild in a session of its own whose parent (a double fork) has gone: only a subreaper finds it.
WITH_DAEMON = """
def daemon(path):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say_pid(path)
            while True: signal.pause()
        os._exit(0)
    os.wait()
"""


def test_a_grandchild_that_left_the_session_and_ignores_term_is_ended(tmp_path: Path) -> None:
    source = f"{WITH_DAEMON}daemon(sys.argv[1]); say_pid(sys.argv[2]){FOREVER}"
    with start(tmp_path, source, tmp_path / "daemon", tmp_path / "pid", grace_s=0.3) as process:
        daemon = number_in(tmp_path / "daemon")
        number_in(tmp_path / "pid")
        assert os.getsid(daemon) != process.pid
        process.stop()
    assert not is_running(daemon)


def test_what_a_child_leaves_behind_when_it_exits_is_ended(tmp_path: Path) -> None:
    source = f"{WITH_DAEMON}daemon(sys.argv[1])\nwhile not os.path.exists(sys.argv[1]): pass\nsys.exit(0)"
    with start(tmp_path, source, tmp_path / "daemon", grace_s=0.3) as process:
        daemon = number_in(tmp_path / "daemon")
        assert process.wait(10) == 0
        wait_until(lambda: not is_running(daemon))
        assert process.stop() == 0


def test_output_goes_to_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("earlier\n")
    with start(tmp_path, "print('out', flush=True); print('err', file=sys.stderr)") as process:
        process.wait(10)
    assert (tmp_path / "log").read_text() == "earlier\nout\nerr\n"


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine\n")
    (tmp_path / "log").symlink_to(tmp_path / "diary")
    with pytest.raises(OSError, match="symbolic links"), start(tmp_path, "print('out')") as process:
        process.wait(10)
    assert (tmp_path / "diary").read_text() == "mine\n"


def test_passed_stdout_comes_line_by_line_and_stderr_goes_to_the_log(tmp_path: Path) -> None:
    source = "print('one'); print('two', end='', flush=True); print('err', file=sys.stderr)"
    with start(tmp_path, source, pass_stdout=True) as process:
        assert list(process.lines()) == ["one", "two"]
    assert (tmp_path / "log").read_text() == "err\n"


def test_lines_give_none_when_nothing_comes_in_time(tmp_path: Path) -> None:
    with start(tmp_path, "print('one', flush=True)" + FOREVER, pass_stdout=True) as process:
        lines = process.lines(timeout_s=0.2)
        assert next(line for line in lines if line is not None) == "one"
        assert next(lines) is None


def test_environment_is_added_to_ours_and_stays_out_of_every_argument_list(tmp_path, monkeypatch):
    monkeypatch.setenv("OURS", "kept")
    source = f"print(os.environ['OURS'], os.environ['KEY'], flush=True){FOREVER}"
    environment = {"KEY": "sesame-7261"}
    with start(tmp_path, source, environment=environment, pass_stdout=True) as process:
        assert next(process.lines()) == "kept sesame-7261"
        for pid in (process.pid, process.watchdog_pid):
            assert b"sesame-7261" not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_an_environment_that_breaks_python_does_not_break_the_watchdog(tmp_path: Path) -> None:
    (tmp_path / "psutil.py").write_text("raise SystemExit('shadowed')")
    with start(tmp_path, "sys.exit(0)", environment={"PYTHONPATH": str(tmp_path)}) as process:
        assert process.wait(10) == 0


def test_a_program_that_does_not_exist_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), supervised([str(tmp_path / "absent")], log_path=tmp_path / "log"):
        pass


def test_the_child_has_signals_at_their_defaults(tmp_path: Path) -> None:
    source = "print([signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)])"
    with start(tmp_path, source, pass_stdout=True) as process:
        [line] = list(process.lines())
    assert str(line).count("SIG_DFL") == 3


def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    with start(tmp_path, f"say_pid(sys.argv[1]){FOREVER}", tmp_path / "pid") as process:
        number_in(tmp_path / "pid")
        groups = {os.getpgid(0), os.getpgid(process.watchdog_pid), os.getpgid(process.pid)}
    assert len(groups) == 3


BENCH = """
import pathlib, signal, sys
from serving_bench.harness.processes.supervise import supervised
child = sys.argv[2]
argv = [sys.executable, "-c", child, *sys.argv[3:]]
with supervised(argv, log_path=pathlib.Path(sys.argv[1]), grace_s=0.3) as process:
    print(process.watchdog_pid, flush=True)
    signal.pause()
"""


def bench_with(tmp_path: Path, child: str, *arguments: object) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", BENCH, str(tmp_path / "log"), SAY_PID + child, *map(str, arguments)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def test_kill_9_of_bench_leaves_nothing_behind(tmp_path: Path) -> None:
    source = f"{WITH_DAEMON}daemon(sys.argv[1]); say_pid(sys.argv[2]){FOREVER}"
    with bench_with(tmp_path, source, tmp_path / "daemon", tmp_path / "pid") as bench:
        assert bench.stdout
        pids = [int(bench.stdout.readline()), number_in(tmp_path / "daemon"), number_in(tmp_path / "pid")]
        assert all(map(is_running, pids))
        bench.kill()
    wait_until(lambda: not any(map(is_running, pids)))


def test_kill_9_of_bench_while_a_forked_copy_of_it_holds_the_pipe_leaves_nothing_behind(tmp_path: Path):
    source = BENCH.replace(
        "    signal.pause()", "    copy = os.fork()\n    if copy: print(copy, flush=True)\n    signal.pause()"
    )
    argv = [sys.executable, "-c", "import os\n" + source, str(tmp_path / "log")]
    argv += [SAY_PID + "say_pid(sys.argv[1])" + FOREVER, str(tmp_path / "pid")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as bench:
        assert bench.stdout
        watchdog, copy = int(bench.stdout.readline()), int(bench.stdout.readline())
        child = number_in(tmp_path / "pid")
        os.kill(bench.pid, signal.SIGKILL)
        try:
            wait_until(lambda: not is_running(child) and not is_running(watchdog))
            assert is_running(copy)
        finally:
            os.kill(copy, signal.SIGKILL)


def test_kill_9_of_the_watchdog_ends_the_child_and_is_noticed(tmp_path: Path) -> None:
    with start(tmp_path, f"say_pid(sys.argv[1]){FOREVER}", tmp_path / "pid") as process:
        number_in(tmp_path / "pid")
        os.kill(process.watchdog_pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
        wait_until(lambda: not is_running(process.pid))  # by the kernel: nobody has asked for a stop yet
        ended = process.stop()
    assert ended == -signal.SIGKILL


INTERRUPTED = """
import os, pathlib, signal, sys
from serving_bench.harness.processes.supervise import supervised
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests begun in the background ignore Ctrl-C
tmp = pathlib.Path(sys.argv[1])
child = ("import os,pathlib,signal,sys\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
         "pathlib.Path(sys.argv[1]).write_text(f'{os.getpid()}\\\\n')\\nwhile True: signal.pause()")
try:
    argv = [sys.executable, "-c", child, str(tmp / "pid")]
    with supervised(argv, log_path=tmp / "log", grace_s=60.0) as process:
        print("up", flush=True)
        while True:
            signal.sigtimedwait([], 0.05)  # a signal just before signal.pause() would leave it waiting
except KeyboardInterrupt:
    print("out", process.ended, flush=True)
signal.pause()  # bench lives on: what ended the child is the lifeline, not bench's exit
"""


def test_a_second_ctrl_c_during_the_stop_is_raised_once_the_child_is_gone(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as bench, ExitStack() as stack:
        stack.callback(bench.kill)
        assert bench.stdout
        assert bench.stdout.readline() == b"up\n"
        pid = number_in(tmp_path / "pid")
        bench.send_signal(signal.SIGINT)
        # The stop is under way, and the child ignores TERM.
        wait_until(lambda: term_was_sent(pid))
        bench.send_signal(signal.SIGINT)
        os.kill(pid, signal.SIGKILL)
        assert bench.stdout.readline() == b"out -9\n"
        assert not is_running(pid)
        assert bench.poll() is None


def term_was_sent(pid: int) -> bool:
    """Whether the watchdog has begun to stop pid: its lifeline is closed (the child itself shows nothing)."""
    watchdog = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    bench = int(Path(f"/proc/{watchdog}/stat").read_text().rpartition(")")[2].split()[1])
    lifeline = os.readlink(f"/proc/{watchdog}/fd/0")
    held = set()
    for descriptor in Path(f"/proc/{bench}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            held.add(os.readlink(descriptor))
    return lifeline not in held


INTERRUPTED_AT_ONCE = """
import pathlib, signal, sys
from serving_bench.harness.processes.supervise import supervised
def interrupt(frame, event, called):
    if event == "c_return" and called.__name__ == "close":
        sys.setprofile(None)
        raise KeyboardInterrupt
try:
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    with supervised(argv, log_path=pathlib.Path(sys.argv[1])) as process:
        sys.setprofile(interrupt)
except KeyboardInterrupt:
    print(process.ended)
"""


def test_a_ctrl_c_right_after_the_lifeline_was_closed_does_not_cut_the_stop_short(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", INTERRUPTED_AT_ONCE, str(tmp_path / "log")]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == f"{-signal.SIGTERM}\n"
