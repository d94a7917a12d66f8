"""Run processes under harness/processes/watchdog.py, record them, and end what a killed run left."""

import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec

from serving_bench.harness.processes import watchdog
from serving_bench.harness.whole_files import opened_log, remove_left, write_whole

# How long the watchdog itself may take to say that it is done, after the grace period and the limit on KILL.
_SLACK_S = 10.0

# A pid names a process only together with its start time and the boot.
_Identity = tuple[int, float]

FOREVER_S = 1e9
# A container or machine that is gone never removes its records. No run takes as long as this.
_FOREIGN_AGE_S = 30 * 86400.0


@dataclass(frozen=True)
class Record:
    """Which bench runs which process, as kept on disk."""

    label: str
    boot_id: str
    owner: _Identity  # bench itself; while it lives, no other bench ends its processes
    watchdog: _Identity
    process: _Identity
    mark: str
    grace_s: float
    # An older bench did not record these two; its records are taken for this machine's.
    machine: str = ""
    pid_namespace: str = ""


class Lines:
    """The lines of a pipe, each with a time limit."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._buffer = b""
        self._is_closed = False

    @property
    def at_end(self) -> bool:
        """Return whether the other side has closed and all is read."""
        return self._is_closed and not self._buffer

    def next_line(self, timeout_s: float) -> str | None:
        """Return the next line without its newline; None after timeout_s or at the end."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer and not self._is_closed:
            if not select.select([self._pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            piece = os.read(self._pipe.fileno(), 65536)
            self._buffer += piece
            self._is_closed = not piece
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace") if line or newline else None

    def close(self) -> None:
        self._is_closed, self._buffer = True, b""
        self._pipe.close()


class Supervised:
    """A running process and its lifeline, a pipe that closes with this object or with bench.

    `pid` is the program's own, not the watchdog's. `spawned_ns` is just before its spawn. `ended` is its exit
    code (-N for signal N) once it and all that it started are gone. One thread at a time may use it.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], output: Lines | None, mark: str, grace_s: float
    ) -> None:
        assert process.stdin
        assert process.stdout
        self._process = process
        self._lifeline = process.stdin
        self._reports = Lines(process.stdout)
        self._output = output
        self._events: dict[str, Mapping[str, Any]] = {}
        self.watchdog_pid = process.pid
        self.mark = mark
        self.grace_s = grace_s
        self.ended: int | None = None
        self._receive(FOREVER_S)
        started = self._events.get("started")
        if started is None:
            process.wait()
            self._close()
            failed = self._events.get("failed", {})
            why = failed.get("strerror") or "the watchdog ended at once; see the log"
            raise OSError(failed.get("errno"), why)
        self.pid = int(started["pid"])
        self.start_time_s = float(started["start_time_s"] or 0.0)
        self.spawned_ns = int(started["spawned_ns"])

    def poll(self) -> int | None:
        """Return its exit code (-N for signal N), None while it runs. Its children may still be ending."""
        return self.wait(0.0)

    def wait(self, timeout_s: float = FOREVER_S) -> int | None:
        """Wait until it has exited, at most timeout_s. Return what `poll` returns."""
        deadline = time.monotonic() + timeout_s
        while "exited" not in self._events and not self._reports.at_end:
            if not self._receive(deadline - time.monotonic()) and time.monotonic() >= deadline:
                return None
        return self._code()

    def lines(self, timeout_s: float = FOREVER_S) -> Iterator[str | None]:
        """Yield the lines of its stdout (started with pass_stdout) to the end, and None at each timeout."""
        assert self._output is not None, "started without pass_stdout"
        while (line := self._output.next_line(timeout_s)) is not None or not self._output.at_end:
            yield line

    def stop(self) -> int:
        """Stop it and its descendants (TERM, then KILL after the grace period), and return its exit code.

        Blocks until they are gone. An interrupt is raised after the waiting, so that when bench has stopped,
        the server is gone.
        """
        if self.ended is None:
            deadline = time.monotonic() + self.grace_s + watchdog.KILL_LIMIT_S + _SLACK_S
            try:
                self._hear_the_end(deadline)
            finally:
                self._hear_the_end(deadline)
                self._clean_up()
                self.ended = self._code()
        return self._code()

    def _hear_the_end(self, deadline: float) -> None:
        self._lifeline.close()  # within the `try` of `stop`: an interrupt right after it skips nothing
        while not self._reports.at_end and (left_s := deadline - time.monotonic()) > 0:
            self._receive(left_s)

    def _clean_up(self) -> None:
        if "done" not in self._events:  # the watchdog hangs or was killed: do its work from here
            self._process.kill()
            find = partial(watchdog.left_of, self.pid, self.start_time_s, self.mark)
            for pause_s in watchdog.ending(find, self.grace_s):
                time.sleep(pause_s)
        self._process.wait()
        self._close()

    def _code(self) -> int:
        # A watchdog that was killed says nothing: the kernel has killed the child with it.
        return int(self._events.get("exited", {}).get("returncode", -signal.SIGKILL))

    def _receive(self, timeout_s: float) -> bool:
        line = self._reports.next_line(timeout_s)
        if line is None:
            return False
        event = msgspec.json.decode(line)
        self._events.setdefault(event["event"], event)
        return True

    def _close(self) -> None:
        self._lifeline.close()
        self._reports.close()
        if self._output:
            self._output.close()


@contextmanager
def supervised(
    argv: Sequence[str],
    *,
    log_path: Path,
    state_dir: Path | None = None,
    label: str = "",
    environment: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    grace_s: float = 10.0,
    pass_stdout: bool = False,
) -> Iterator[Supervised]:
    """Run argv in a session of its own during the block, and append its output to log_path.

    Leaving the block ends it and everything it started. Until then state_dir has a record of it, with
    `label`, for `reap`. It gets bench's environment without the names in `without`, plus `environment`. With
    pass_stdout its stdout goes to `lines()` and must be read. Raises OSError.
    """
    process = _spawned(argv, log_path, environment or {}, without, grace_s, pass_stdout)
    path = state_dir / f"{process.mark}.json" if state_dir else None
    try:
        if path:
            record = Record(
                label=label,
                boot_id=watchdog.boot_id(),
                owner=_identity(os.getpid()),
                watchdog=_identity(process.watchdog_pid),
                process=(process.pid, process.start_time_s),
                mark=process.mark,
                grace_s=grace_s,
                machine=watchdog.machine(),
                pid_namespace=watchdog.pid_namespace(),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            # It need not last, since no process outlives the boot. Before this write, killing bench and the
            # watchdog with -9 leaves no trace of the process.
            write_whole(path, msgspec.json.encode(record), lasts=False)
        yield process
    finally:
        try:
            process.stop()
        finally:
            if path and process.ended is not None:
                path.unlink(missing_ok=True)


def _spawned(
    argv: Sequence[str],
    log_path: Path,
    environment: Mapping[str, str],
    without: Sequence[str],
    grace_s: float,
    pass_stdout: bool,
) -> Supervised:
    mark = secrets.token_hex(8)
    command = [sys.executable, "-P", watchdog.__file__, "--grace", str(grace_s)]
    with ExitStack() as stack:
        output, passed = None, []
        if pass_stdout:
            read_end, write_end = os.pipe()
            stack.callback(os.close, write_end)
            output, passed = Lines(os.fdopen(read_end, "rb", buffering=0)), [write_end]
            command += ["--stdout-fd", str(write_end)]
        process = subprocess.Popen(
            [*command, "--", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stack.enter_context(opened_log(log_path)),
            bufsize=0,
            env={name: value for name, value in os.environ.items() if name not in without},
            start_new_session=True,
            pass_fds=passed,
        )
    assert process.stdin
    try:
        setup = {"environment": {**environment, watchdog.MARK: mark}}
        with suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(setup) + b"\n")
        return Supervised(process, output, mark, grace_s)
    except BaseException:
        # An interrupt while it starts: the watchdog ends what it has started, and then itself.
        process.stdin.close()
        process.wait()
        for pipe in (process.stdout, output):
            if pipe:
                pipe.close()
        raise


def reap(state_dir: Path) -> list[str]:
    """End the processes that killed runs left, with a sentence for each. Blocks for their grace periods.

    Leaves alone the processes of a bench that still runs, and any other process that now has an old pid.
    The records of other machines and containers, which may share the folder, stay for 30 days: their pids
    mean nothing here.
    """
    remove_left(state_dir)
    lines = []
    for path in sorted(state_dir.glob("*.json")):
        try:
            record = msgspec.json.decode(path.read_bytes(), type=Record)
        except (OSError, ValueError, RecursionError):  # another run may have reaped it
            record = None
        if record and _is_foreign(record):
            _remove_old(path)
            continue
        if record and record.boot_id == watchdog.boot_id():
            if _is_alive(record.owner):
                continue
            if ended := _end(record):
                lines.append(f"ended what a killed run had left: {record.label}, pid {', '.join(ended)}")
        path.unlink(missing_ok=True)
    return lines


def _is_foreign(record: Record) -> bool:
    if record.boot_id == watchdog.boot_id():
        return record.pid_namespace not in ("", watchdog.pid_namespace())
    return record.machine not in ("", watchdog.machine())


def _remove_old(path: Path) -> None:
    with suppress(OSError):  # another run may have reaped it
        if time.time() - path.stat().st_mtime > _FOREIGN_AGE_S:
            path.unlink()


def _end(record: Record) -> list[str]:
    find = partial(watchdog.left_of, *record.process, record.mark)
    left = [str(process.pid) for process in find()]
    if _is_alive(record.watchdog):
        with suppress(ProcessLookupError):
            os.kill(record.watchdog[0], signal.SIGTERM)
        deadline = time.monotonic() + record.grace_s + watchdog.KILL_LIMIT_S
        while _is_alive(record.watchdog) and time.monotonic() < deadline:
            time.sleep(0.05)
    for pause_s in watchdog.ending(find, record.grace_s):
        time.sleep(pause_s)
    return left


def _identity(pid: int) -> _Identity:
    return pid, watchdog.start_time_s(pid) or 0.0


def _is_alive(identity: _Identity) -> bool:
    return watchdog.start_time_s(identity[0]) == identity[1]
