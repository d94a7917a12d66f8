"""Read a server's log: the steps of its start while it is written, its end, and the remedies for what it
says.

Instants are CLOCK_MONOTONIC nanoseconds. Knows no engine: it is told the patterns.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from harness.contracts import Hint, Stage
from harness.sampling.sampling import quiet_thread

POLL_S = 0.02
PROCESS_UP = "process_up"
_JOIN_LIMIT_S = 5.0
_LINE_LIMIT_BYTES = 1 << 20
_TAIL_BYTES = 256 * 1024
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NAMES_ERROR = re.compile(r"\w(Error|Exception)\b|\b(?i:error|fatal|failed|killed|aborted)\b")


class Stages:
    """The steps that a log has told of so far. `on_stage` is called with the name of each, by whoever
    looks."""

    def __init__(
        self, log_path: Path, stages: Sequence[Stage], on_stage: Callable[[str], None] = lambda name: None
    ) -> None:
        self._path = log_path
        self._on_stage = on_stage
        self._patterns = {stage.name: re.compile(stage.pattern) for stage in stages}
        self._reached: dict[str, int] = {}
        self._offset = 0
        self._rest = b""
        self._lock = threading.Lock()

    @property
    def reached(self) -> dict[str, int]:
        """Return the instants of the stages so far, POLL_S late at most. `process_up`: the first line."""
        return dict(self._reached)

    @property
    def is_complete(self) -> bool:
        """Return whether no stage is left to wait for."""
        return self._reached.keys() >= {PROCESS_UP, *self._patterns}

    def look(self) -> None:
        """Read what was added to the log since the last look. A log that is not there yet is empty."""
        with self._lock:
            now_ns = time.monotonic_ns()
            added = _bytes_from(self._path, self._offset)
            self._offset += len(added)
            # A progress bar's states end with a carriage return.
            *lines, self._rest = re.split(rb"[\r\n]", self._rest + added)
            self._rest = self._rest[-_LINE_LIMIT_BYTES:]
            told = [PROCESS_UP] if added else []
            for line in lines:
                text = _ESCAPES.sub("", line.decode(errors="replace"))
                told += [name for name, pattern in self._patterns.items() if pattern.search(text)]
            for name in told:
                if name not in self._reached:
                    self._reached[name] = now_ns
                    self._on_stage(name)


@contextmanager
def watched_stages(
    log_path: Path, stages: Sequence[Stage], on_stage: Callable[[str], None] = lambda name: None
) -> Iterator[Stages]:
    """Look every POLL_S while the block runs, until all stages are reached, and once more at its end.

    `on_stage` is called from a thread of its own, in order. While it takes its time, the log is read on, so
    it delays no instant. Leaving the block waits for it, for up to some seconds.
    """
    told = SimpleQueue[str | None]()
    watched = Stages(log_path, stages, told.put)
    over = threading.Event()

    def look_on() -> None:
        while not over.wait(POLL_S) and not watched.is_complete:
            watched.look()
        watched.look()

    def tell() -> None:
        while (name := told.get()) is not None:
            on_stage(name)

    looking, telling = quiet_thread(look_on, "stages"), quiet_thread(tell, "stages told")
    try:
        yield watched
    finally:
        over.set()
        looking.join(_JOIN_LIMIT_S)
        told.put(None)
        telling.join(_JOIN_LIMIT_S)


def log_tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log without terminal colours, nothing if there is no log.

    Each state of a progress bar counts as a line.
    """
    return "\n".join(_end_of(path).splitlines()[-lines:])


def telling_line(tail: str) -> str:
    """Return the last line that names an error, else the last: warnings may come after the error."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    errors = [line for line in lines if _NAMES_ERROR.search(line)]
    return next(reversed(errors or lines), "(empty)")[:300]


def remedies(path: Path, hints: Sequence[Hint]) -> list[str]:
    """Return the remedies of the hints whose pattern is in the end of the log, each once.

    In a pattern, ^ and $ are those of a line.
    """
    text = _end_of(path)
    return list(dict.fromkeys(hint.remedy for hint in hints if re.search(hint.pattern, text, re.MULTILINE)))


def _end_of(path: Path) -> str:
    return _ESCAPES.sub("", _bytes_from(path, -_TAIL_BYTES).decode(errors="replace"))


def _bytes_from(path: Path, offset: int) -> bytes:
    """Read a log from an offset on, which counts from its end if it is negative. No log is an empty one."""
    try:
        with path.open("rb") as log:
            log.seek(offset if offset >= 0 else max(0, log.seek(0, os.SEEK_END) + offset))
            return log.read()
    except FileNotFoundError:
        return b""
