"""The few numbers that the load processes of one cell share, in a file that all of them map.

Each number has one writer, so nobody needs a lock and there are no messages. Knows no request and no clock.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from types import TracebackType
from typing import Self

_NUMBER_BYTES = 8
_START, _STOPPED = range(2)
_NUMBERS = 2


def create(path: Path) -> Path:
    """Write the file of a board on which nothing stands yet."""
    path.write_bytes(bytes(_NUMBER_BYTES * _NUMBERS))
    return path


class Board:
    """A cell's board. Without a file it belongs to this process alone. A context manager."""

    def __init__(self, path: Path | None = None) -> None:
        size = _NUMBER_BYTES * _NUMBERS
        if path is None:
            self._map = mmap.mmap(-1, size)
        else:
            with open(path, "r+b") as file:
                self._map = mmap.mmap(file.fileno(), size)
        self._numbers = memoryview(self._map).cast("q")

    @property
    def start_ns(self) -> int | None:
        """The instant at which all workers begin. None until the parent has written it."""
        return self._numbers[_START] or None

    def start(self, start_ns: int) -> None:
        """Write the instant at which all workers begin. The parent does this once all are ready."""
        self._numbers[_START] = start_ns

    @property
    def is_stopped(self) -> bool:
        """True once too many requests of one worker failed."""
        return bool(self._numbers[_STOPPED])

    def stop(self) -> None:
        """Let all workers stop: too many requests of this one failed."""
        self._numbers[_STOPPED] = 1

    def close(self) -> None:
        """Give the memory back."""
        self._numbers.release()
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
