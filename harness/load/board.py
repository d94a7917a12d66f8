"""The few numbers that the load processes of one cell share, in a file that all of them map.

Each number has one writer, so nobody needs a lock and there are no messages. Knows no request and no clock.
"""

import mmap
from pathlib import Path
from typing import Self

_NUMBER_BYTES = 8
# The places of the numbers; behind them, each worker has one for the requests that it counts.
_START, _STOPPED, _STEPS, _OVER = range(4)
_COUNTS = 4


def create(path: Path, workers: int) -> Path:
    """Write the file of a board on which nothing stands yet."""
    path.write_bytes(bytes(_NUMBER_BYTES * (_COUNTS + workers)))
    return path


class Board:
    """A cell's board. Without a file it belongs to this process alone, for one worker. A context manager."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._map = mmap.mmap(-1, _NUMBER_BYTES * (_COUNTS + 1))
        else:
            with open(path, "r+b") as file:
                self._map = mmap.mmap(file.fileno(), 0)
        self._numbers = memoryview(self._map).cast("q")

    @property
    def start_ns(self) -> int | None:
        """Return the instant at which all workers begin. None until the parent has written it."""
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

    def count(self, worker: int) -> None:
        """Count a request of a worker, which does this for itself alone."""
        self._numbers[_COUNTS + worker] += 1

    @property
    def counted(self) -> int:
        """Return the requests that all workers have counted so far."""
        return sum(self._numbers[_COUNTS:])

    @property
    def steps(self) -> int:
        """Return the number of steps after which the first worker has let the window go on."""
        return self._numbers[_STEPS]

    def go_on(self, step: int) -> None:
        """Let the window of all go on after a step. Only the first worker does this."""
        self._numbers[_STEPS] = step

    @property
    def is_window_over(self) -> bool:
        """True once the first worker's window has ended."""
        return bool(self._numbers[_OVER])

    def end_window(self) -> None:
        """Tell the others that the first worker's window has ended. Only that worker does this."""
        self._numbers[_OVER] = 1

    def close(self) -> None:
        """Give the memory back."""
        self._numbers.release()
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
