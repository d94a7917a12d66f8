"""Starts a process under harness/processes/watchdog.py: the client's half of its protocol.

Knows no server and no load generator; harness/processes/running.py adds the record that a later run reaps by.
"""

from __future__ import annotations

import json
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

from harness.processes import watchdog

# Beyond the grace period and the limit on KILL: how long the watchdog itself may take to say that it is done.
_SLACK_S = 10.0


@dataclass(frozen=True)
class Ended:
    """How a supervised process ended: by `exit_code` or by `signal`, the other is None.

    `killed`: it or a descendant outlived the grace period. `leftovers`: processes that it left behind when it
    exited by itself; they were ended.
    """

    exit_code: int | None
    signal: int | None
    killed: bool
    leftovers: int


class Lines:
    """Lines of a pipe, each with a time limit. `at_end`: the other side has closed and all is read."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._buffer = b""
        self._is_closed = False

    @property
    def at_end(self) -> bool:
        return self._is_closed and not self._buffer

    def next_line(self, timeout_s: float | None) -> str | None:
        """The next line without its newline; None when timeout_s passed or at the end."""
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
        self._is_closed, self._buffer = True, b""
        self._pipe.close()


class Supervised:
    """A running process and its lifeline. Leaving the `with` block ends it and all that it started.

    `pid` is the program's own, not the watchdog's; `start_time_s` as in watchdog.start_time_s;
    `spawned_ns` is the instant just before its spawn. The lifeline is a pipe that closes with this object or
    this process, whatever happens first, so no interrupt at any
    point leaves the program running. Not for use by several threads.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reports: Lines,
        output: Lines | None,
        mark: str,
        grace_s: float,
    ) -> None:
        assert process.stdin
        self._process = process
        self._lifeline = process.stdin
        self._reports = reports
        self._output = output
        self._returncode: int | None = None
        self._done: Mapping[str, Any] | None = None
        self.mark = mark
        self.grace_s = grace_s
        self.ended: Ended | None = None
        started = self._first_event()
        self.pid = int(started["pid"])
        self.start_time_s = float(started["start_time_s"] or 0.0)
        self.spawned_ns = int(started["spawned_ns"])

    @property
    def watchdog_pid(self) -> int:
        return self._process.pid

    def _first_event(self) -> Mapping[str, Any]:
        line = self._reports.next_line(None)
        event: Mapping[str, Any] = json.loads(line) if line else {"event": "failed", "strerror": None}
        if event["event"] == "failed":
            self._process.wait()
            self._close()
            raise OSError(event.get("errno"), event["strerror"] or "the watchdog ended at once; see the log")
        return event

    def poll(self) -> int | None:
        """The exit code, -N for signal N, None while it runs; what it left behind may still be ending."""
        return self.wait(0.0)

    def wait(self, timeout_s: float | None) -> int | None:
        """Block until it has exited (see poll), at most timeout_s."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._returncode is None and not self._reports.at_end:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._receive(left) and left == 0.0:
                return None
        return self._returncode if self._returncode is not None else -signal.SIGKILL

    def lines(self, timeout_s: float | None = None) -> Iterator[str | None]:
        """Lines of its stdout (started with pass_stdout) until its end; None each time timeout_s passes."""
        assert self._output is not None, "started without pass_stdout"
        while (line := self._output.next_line(timeout_s)) is not None or not self._output.at_end:
            yield line

    def stop(self) -> Ended:
        """End it and its descendants: TERM, KILL after the grace period; blocks until they are gone.

        An interrupt does not end the waiting, it is raised after it. The watchdog needs no more of us, but
        who reads that bench has stopped may rely on the server being gone.
        """
        if self.ended is None:
            limit_s = self.grace_s + watchdog.KILL_LIMIT_S + _SLACK_S
            try:
                self._lifeline.close()
                self._drain(limit_s)
            except BaseException:
                self._lifeline.close()
                self._drain(limit_s)
                self._finish()
                raise
            self._finish()
        assert self.ended is not None
        return self.ended

    def _finish(self) -> None:
        self.ended = self._how_it_ended()
        self._close()

    def _drain(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while not self._reports.at_end and (left := deadline - time.monotonic()) > 0:
            self._receive(left)

    def _how_it_ended(self) -> Ended:
        if self._done is None:  # the watchdog hangs or was killed: do its work from here
            self._process.kill()
            find = partial(watchdog.left_of, self.pid, self.start_time_s, self.mark)
            watchdog.end(find, self.grace_s, time.sleep)
        self._process.wait()
        code = -signal.SIGKILL if self._returncode is None else self._returncode
        done = self._done or {"killed": True, "leftovers": 0}
        return Ended(
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            killed=bool(done["killed"]),
            leftovers=int(done["leftovers"]),
        )

    def _receive(self, timeout_s: float | None) -> bool:
        line = self._reports.next_line(timeout_s)
        if line is None:
            return False
        event = json.loads(line)
        if event["event"] == "exited":
            self._returncode = event["returncode"]
        elif event["event"] == "done":
            self._done = event
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
    """Start argv in a session of its own, its output appended to log_path; returns once it runs.

    `environment` is added to a copy of ours that is `without` the variables of these names. With pass_stdout
    its stdout goes to `lines()` and must be read.
    Raises OSError where the program cannot be started.
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
    assert process.stdout
    try:
        setup = {"environment": {**(environment or {}), watchdog.MARK: mark}}
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(setup).encode() + b"\n")
        output = Lines(os.fdopen(read_end, "rb", buffering=0)) if read_end is not None else None
        return Supervised(process, Lines(process.stdout), output, mark, grace_s)
    except BaseException:
        process.stdin.close()
        raise
