"""When the steps of a server's start were over, seen in its log while it is written.

Knows no engine: it is told the patterns. Instants are CLOCK_MONOTONIC nanoseconds, at most POLL_S late.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.contracts import Stage

POLL_S = 0.02
PROCESS_UP = "process_up"
_JOIN_LIMIT_S = 5.0
_LINE_LIMIT_BYTES = 1 << 20
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Stages:
    """`reached`: instant of each stage so far; `process_up` is the log's first line. `on_stage` is called
    with the name of each, by whoever looks."""

    def __init__(
        self, log_path: Path, stages: Sequence[Stage], on_stage: Callable[[str], None] = lambda name: None
    ) -> None:
        self._path = log_path
        self._on_stage = on_stage
        self._wanted = {stage.name: re.compile(stage.pattern) for stage in stages}
        self._reached: dict[str, int] = {}
        self._offset = 0
        self._rest = b""
        self._lock = threading.Lock()

    @property
    def reached(self) -> dict[str, int]:
        return dict(self._reached)

    @property
    def is_complete(self) -> bool:
        return bool(self._reached) and not self._wanted

    def look(self) -> None:
        """Read what was added to the log since the last look. A log that is not there yet is empty."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        now_ns = time.monotonic_ns()
        try:
            with self._path.open("rb") as log:
                log.seek(self._offset)
                added = log.read()
        except FileNotFoundError:
            return
        if not added:
            return
        self._offset += len(added)
        if PROCESS_UP not in self._reached:
            self._reach(PROCESS_UP, now_ns)
        # A progress bar's states end with a carriage return.
        *lines, self._rest = re.split(rb"[\r\n]", self._rest + added)
        self._rest = self._rest[-_LINE_LIMIT_BYTES:]
        for line in lines:
            self._match(_ESCAPES.sub("", line.decode(errors="replace")), now_ns)

    def _match(self, line: str, now_ns: int) -> None:
        for name in [name for name, pattern in self._wanted.items() if pattern.search(line)]:
            del self._wanted[name]
            self._reach(name, now_ns)

    def _reach(self, name: str, now_ns: int) -> None:
        self._reached[name] = now_ns
        self._on_stage(name)


@contextmanager
def watched_stages(
    log_path: Path, stages: Sequence[Stage], on_stage: Callable[[str], None] = lambda name: None
) -> Iterator[Stages]:
    """Look every POLL_S while the block runs, until all stages are reached; once more at its end. `on_stage`
    is called from another thread."""
    watched = Stages(log_path, stages, on_stage)
    over = threading.Event()
    thread = threading.Thread(target=_look_on, args=(watched, over), name="stages", daemon=True)
    thread.start()
    try:
        yield watched
    finally:
        over.set()
        thread.join(_JOIN_LIMIT_S)


def _look_on(watched: Stages, over: threading.Event) -> None:
    # Signals belong to the main thread: one that lands here would not interrupt what that one waits for.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while not over.wait(POLL_S) and not watched.is_complete:
        watched.look()
    watched.look()
