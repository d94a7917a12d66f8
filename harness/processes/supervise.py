"""Start a process under harness/processes/watchdog.py: the client's half of its protocol.

harness/processes/running.py adds the record that a later run reaps by. Knows no server and no load.
"""

import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import msgspec

from harness.processes import watchdog

# Beyond the grace period and the limit on KILL: how long the watchdog itself may take to say that it is done.
_SLACK_S = 10.0


@dataclass(frozen=True)
class Ended:
    """How a supervised process ended: by `exit_code` or by `signal`; the other is None.

    `killed`: it or a descendant outlived the grace period. `leftovers`: how many processes it left behind
    when it exited by itself; they were ended.
    """

    exit_code: int | None
    signal: int | None
    killed: bool
    leftovers: int


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

    def next_line(self, timeout_s: float | None) -> str | None:
        """Return the next line without its newline, None after timeout_s or at the end."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._buffer and not self._is_closed:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._pipe], [], [], left)[0]:
                return None
            piece = os.read(self._pipe.fileno(), 65536)
            self._buffer += piece
            self._is_closed = not piece
        line, newline, self._buffer = self._buffer.partition(b"\n")
        return line.decode(errors="replace") if line or newline else None

    def close(self) -> None:
        """Close our side."""
        self._is_closed, self._buffer = True, b""
        self._pipe.close()


class Supervised:
    """A running process and its lifeline. Leaving the `with` block ends it and all that it started.

    `pid` is the program's own, not the watchdog's; `start_time_s` is as in watchdog.start_time_s;
    `spawned_ns` is the instant just before its spawn. The lifeline is a pipe that closes with this object or
    with bench, whatever happens first, so an interrupt at no point leaves the program running. Not for
    several threads.
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
        self.mark = mark
        self.grace_s = grace_s
        self.ended: Ended | None = None
        self._receive(None)
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

    @property
    def watchdog_pid(self) -> int:
        """Return the pid of the watchdog that it runs under."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return its exit code, -N for signal N, None while it runs. What it left may still be ending."""
        return self.wait(0.0)

    def wait(self, timeout_s: float | None) -> int | None:
        """Block until it has exited, at most timeout_s. See poll."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while "exited" not in self._events and not self._reports.at_end:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._receive(left) and left == 0.0:
                return None
        return self._code()

    def lines(self, timeout_s: float | None = None) -> Iterator[str | None]:
        """Yield the lines of its stdout (started with pass_stdout) to the end, and None at each timeout."""
        assert self._output is not None, "started without pass_stdout"
        while (line := self._output.next_line(timeout_s)) is not None or not self._output.at_end:
            yield line

    def stop(self) -> Ended:
        """End it and its descendants: TERM, KILL after the grace period. Block until they are gone.

        An interrupt does not end the waiting; it is raised after it. The watchdog needs no more of us, but
        who reads that bench has stopped may rely on the server being gone.
        """
        if self.ended is None:
            try:
                self._end()
            except BaseException:
                self._end()
                self.ended = self._how_it_ended()
                raise
            self.ended = self._how_it_ended()
        return self.ended

    def _end(self) -> None:
        """Close the lifeline, and hear the watchdog to its end."""
        self._lifeline.close()
        deadline = time.monotonic() + self.grace_s + watchdog.KILL_LIMIT_S + _SLACK_S
        while not self._reports.at_end and (left := deadline - time.monotonic()) > 0:
            self._receive(left)

    def _how_it_ended(self) -> Ended:
        done = self._events.get("done")
        if done is None:  # the watchdog hangs or was killed: do its work from here
            done = {"killed": True, "leftovers": 0}
            self._process.kill()
            find = partial(watchdog.left_of, self.pid, self.start_time_s, self.mark)
            watchdog.end(find, self.grace_s, time.sleep)
        self._process.wait()
        self._close()
        code = self._code()
        return Ended(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            killed=bool(done["killed"]),
            leftovers=int(done["leftovers"]),
        )

    def _code(self) -> int:
        # A watchdog that was killed says nothing: the kernel has killed the child with it.
        return int(self._events.get("exited", {}).get("returncode", -signal.SIGKILL))

    def _receive(self, timeout_s: float | None) -> bool:
        line = self._reports.next_line(timeout_s)
        if line is None:
            return False
        event = msgspec.json.decode(line)
        self._events[event["event"]] = event
        return True

    def _close(self) -> None:
        self._lifeline.close()
        self._reports.close()
        if self._output:
            self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._lifeline.close()


def supervise(
    argv: Sequence[str],
    *,
    log_path: Path,
    environment: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    grace_s: float = 10.0,
    pass_stdout: bool = False,
) -> Supervised:
    """Start argv in a session of its own, its output appended to log_path. Return once it runs.

    `environment` is added to a copy of ours that is `without` the variables of these names. With pass_stdout
    its stdout goes to `lines()` and must be read. Raises OSError if the program cannot be started.
    """
    mark = secrets.token_hex(8)
    read_end, write_end = os.pipe() if pass_stdout else (None, None)
    command = [sys.executable, "-P", watchdog.__file__, "--grace", str(grace_s)]
    if write_end is not None:
        command += ["--stdout-fd", str(write_end)]
    try:
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--", *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                bufsize=0,
                env={name: value for name, value in os.environ.items() if name not in without},
                start_new_session=True,
                pass_fds=() if write_end is None else (write_end,),
            )
    finally:
        if write_end is not None:
            os.close(write_end)
    assert process.stdin
    try:
        setup = {"environment": {**(environment or {}), watchdog.MARK: mark}}
        with suppress(BrokenPipeError):
            process.stdin.write(msgspec.json.encode(setup) + b"\n")
        output = Lines(os.fdopen(read_end, "rb", buffering=0)) if read_end is not None else None
        return Supervised(process, output, mark, grace_s)
    except BaseException:
        process.stdin.close()
        raise
