"""Supervise one child process so that nothing it started outlives bench, however bench ends.

`python -P harness/processes/watchdog.py -- ARGV...`; bench (supervise.py) holds the other end of its stdin.
When that closes or the child exits, every process that descends from the child is ended: TERM, a grace
period, KILL. May import the standard library and psutil only.

The protocol: one JSON line with the child's extra environment on stdin (so that no key shows in an argument
list); events as JSON lines on stdout (`started` or `failed`, `exited`, `done`); the child's output on stderr.
"""

import argparse
import ctypes
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "SERVING_BENCH_CHILD"  # in the environment of the child and, unless they clear it, its descendants
KILL_LIMIT_S = 10.0  # a process in uninterruptible sleep survives KILL, so the wait must end
MOST_FILES = 1 << 20  # of a child
_TICK_S = 0.1
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def start_time_s(pid: int) -> float | None:
    """Return when the process started (on Linux since boot); None if there is none or it is a zombie."""
    if not sys.platform.startswith("linux"):
        with suppress(psutil.Error):
            return psutil.Process(pid).create_time()
        return None
    try:
        fields = stat_fields(pid)
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")


def stat_fields(pid: int) -> list[str]:
    """Read the fields of /proc/<pid>/stat from the state (the third) on. Raises OSError."""
    # The second field is the program's name in parentheses and may hold anything, parentheses too.
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def boot_id() -> str:
    """Return an id of this boot of the machine. Start times of two boots cannot be compared."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else f"{psutil.boot_time():.0f}"


def machine() -> str:
    """Return an id of this machine: its machine-id, if it has one, and its host name, which need not be
    unique."""
    try:
        machine_id = Path("/etc/machine-id").read_text(errors="replace")
    except OSError:
        machine_id = ""
    return f"{machine_id.strip()} {socket.gethostname()}".strip()


def pid_namespace() -> str:
    """Return the id of the namespace in which this process's pids are valid. A container has its own."""
    path = Path("/proc/self/ns/pid")
    return os.readlink(path) if path.exists() else "-"


def ending(find: Callable[[], Sequence[psutil.Process]], grace_s: float) -> Iterator[float]:
    """End the processes that `find` returns until it returns none: TERM, then KILL.

    Yields the seconds to wait before it looks again.
    """
    for number, limit_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, KILL_LIMIT_S)):
        deadline = time.monotonic() + limit_s
        signalled: set[int] = set()
        while (processes := find()) and time.monotonic() < deadline:
            for process in processes:
                if process.pid not in signalled:
                    signalled.add(process.pid)
                    with suppress(psutil.Error):
                        process.send_signal(number)
            yield _TICK_S


def left_of(pid: int, started_s: float, mark: str) -> list[psutil.Process]:
    """Return what still lives of a process that lost its watchdog: it, its descendants, its session, and all
    processes with its mark."""
    present_s = start_time_s(pid)
    # Otherwise the pid, and with it the session's id, belongs to another process by now.
    is_session = present_s in (None, started_s)
    by_pid: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            began_s = start_time_s(process.pid) or -1.0
            is_member = is_session and began_s >= started_s and os.getsid(process.pid) == pid
            if is_member or process.environ().get(MARK) == mark:
                by_pid[process.pid] = process
    if present_s == started_s:
        with suppress(psutil.Error):
            root = psutil.Process(pid)
            by_pid |= {process.pid: process for process in (root, *root.children(recursive=True))}
    return [process for process in by_pid.values() if start_time_s(process.pid) is not None]


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a program and end all that it started with it.")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds between TERM and KILL")
    parser.add_argument("--stdout-fd", type=int, help="inherited descriptor for the program's stdout")
    parser.add_argument("argv", nargs="+")
    options = parser.parse_args()
    setup = sys.stdin.buffer.readline()
    if not setup.endswith(b"\n"):
        return 1  # bench was gone before it had said what to start
    wake = _wakeup_pipe()
    environment = os.environ | json.loads(setup)["environment"]
    spawned_ns = time.monotonic_ns()
    try:
        child = _spawn(options.argv, environment, options.stdout_fd)
    except OSError as error:
        _report(event="failed", errno=error.errno, strerror=error.strerror)
        return 127
    _report(event="started", pid=child.pid, start_time_s=start_time_s(child.pid), spawned_ns=spawned_ns)
    _watch(child.pid, wake)

    def look(limit_s: float) -> None:
        if select.select([wake], [], [], limit_s)[0]:
            os.read(wake, 4096)
        _reap(child.pid)

    for pause_s in ending(lambda: _family(environment[MARK]), options.grace):
        look(pause_s)
    look(0.0)
    _report(event="done")
    return 0


def _wakeup_pipe() -> int:
    """Return a pipe of signal numbers. Uses handlers, since the child would inherit SIG_IGN."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    os.set_blocking(read_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    return read_end


def _spawn(
    argv: Sequence[str], environment: dict[str, str], stdout_fd: int | None
) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    if libc:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of the child become ours, setsid or not
    child = subprocess.Popen(
        argv,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=2 if stdout_fd is None else stdout_fd,
        stderr=2,
        start_new_session=True,
        preexec_fn=lambda: _in_child(libc),
    )
    if stdout_fd is not None:
        os.close(stdout_fd)  # so that the reader sees the end when the child's side closes
    return child


def _in_child(libc: ctypes.CDLL | None) -> None:
    """Let the child open files up to the hard limit, and have the kernel end it with this watchdog."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # No limit would slow down programs that close every possible descriptor, and macOS refuses it.
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if libc:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch(child_pid: int, wake: int) -> None:
    parent = os.getppid()
    while True:
        readable, _, _ = select.select([0, wake], [], [], 1.0)
        signals = os.read(wake, 4096) if wake in readable else b""
        is_asked = signal.SIGTERM in signals or (0 in readable and not os.read(0, 4096))
        # A copy of the other end in a forked child of bench would hide bench's death: look at the parent too.
        if _reap(child_pid) or is_asked or os.getppid() != parent:
            return


def _reap(child_pid: int) -> bool:
    """Reap all children that have ended and report the program's end. Return whether it was among them."""
    has_exited = False
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child_pid:
                has_exited = True
                _report(event="exited", returncode=os.waitstatus_to_exitcode(ended[1]))
    return has_exited


def _family(mark: str) -> list[psutil.Process]:
    children = [
        each for each in psutil.Process().children(recursive=True) if start_time_s(each.pid) is not None
    ]
    if not sys.platform.startswith("linux"):  # no subreaper: orphans are known only by their mark
        children += left_of(os.getpid(), 0.0, mark)
    return children


def _report(**event: object) -> None:
    with suppress(BrokenPipeError):  # bench may be gone, which is no reason to stop cleaning up
        os.write(1, json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
