"""Keep the window of a cell in one load process, and share counts with the cell's other load processes."""

import ctypes
import mmap
from math import inf
from pathlib import Path

from serving_bench.harness.contracts import STEPS, EndedBy, Load, RequestRow
from serving_bench.harness.load.play import arrivals

# Stands for an instant that will not come, in seconds from the start.
_NEVER_S = 1e9
MOST_WORKERS = 256  # as harness/settings/decoding.py has it


class Board(ctypes.Structure):
    """The numbers that the load processes of one cell share in a mapped file.

    Each number has one writer, but any worker may set `is_stopped`.
    """

    _fields_ = (
        ("start_ns", ctypes.c_int64),  # when all workers begin; 0 until the parent has written it
        ("is_stopped", ctypes.c_int64),  # too many requests of one worker failed
        ("steps", ctypes.c_int64),  # after how many steps the first worker has let the window go on
        ("is_window_over", ctypes.c_int64),  # the first worker's window has ended
        ("counts", ctypes.c_int64 * MOST_WORKERS),  # requests that each worker has counted
        ("failures", ctypes.c_int64 * MOST_WORKERS),  # those of them that failed
    )


def shared_board(path: Path) -> Board:
    """Return the board in a file, and make the file if there is none."""
    with path.open("a+b") as file:
        file.truncate(ctypes.sizeof(Board))
        return Board.from_buffer(mmap.mmap(file.fileno(), 0))


class Window:
    """One cell's window. `end_ns` and `ended_by` are None while it lasts."""

    def __init__(self, load: Load, worker: int, board: Board, steps_to_first: int = 0) -> None:
        self.cell_start_ns: int | None = None  # None: Locust's own command line decides
        self.start_ns = 0  # conversations count from here on
        self.end_ns: int | None = None
        self.ended_by: EndedBy | None = None
        self._load = load
        self._steps = load.steps or STEPS
        self._steps_to_first = max(self._steps, steps_to_first)
        self._worker = worker
        self._board = board

    def begin(self, cell_start_ns: int) -> None:
        self.cell_start_ns = cell_start_ns
        self.start_ns = cell_start_ns + arrivals.ns(arrivals.phases(self._load).window_start_s)
        if self.end_ns is not None:  # interrupted before the cell began: the window is empty
            self.end_ns = max(self.end_ns, self.start_ns)

    def due_ns(self, at: float) -> int:
        """Return the instant of an open loop's beginning, by what is known of the window's end."""
        assert self.cell_start_ns is not None
        end_s = inf if self.end_ns is None else (self.end_ns - self.cell_start_ns) / 1e9
        return self.cell_start_ns + arrivals.ns(min(arrivals.due_s(self._load, at, end_s), _NEVER_S))

    def user_ends_ns(self, number: int) -> float:
        """Return when a user stops beginning requests: in a closed loop's ramp-down, in its turn."""
        if self.end_ns is None or self.ended_by != "duration" or self._load.kind != "closed":
            return inf  # it is not known yet, or all that began is to be finished, or the arrivals decide
        return self.end_ns + arrivals.ns(arrivals.user_ramps_down_s(self._load, number))

    def count(self, row: RequestRow) -> None:
        """Count a request that has ended, if it was sent in the window by a user who stays, and bench did
        not end it."""
        at_ns = row.scheduled_ns if row.sent_ns is None else row.sent_ns
        counts = row.leave_after_s is None and row.outcome != "cancelled"
        if self.end_ns is None and at_ns >= self.start_ns and counts:
            self._board.counts[self._worker] += 1
            self._board.failures[self._worker] += row.is_failed

    @property
    def has_enough(self) -> bool:
        """Return whether enough requests of all workers together were sent in the window and have ended."""
        return bool(sum(self._board.counts) >= self._load.min_requests)

    def end(self, ended_by: EndedBy, ended_ns: int) -> None:
        """End the window. Only the first call counts."""
        if self.ended_by is None:
            self.ended_by = ended_by
            self.end_ns = max(ended_ns, self.start_ns)
            if self._worker == 0:
                self._board.is_window_over = 1

    def _most_steps(self) -> int:
        """Return how many steps the window may last: more before any request ended, fewer while all fail."""
        ended, failed = sum(self._board.counts), sum(self._board.failures)
        if not ended:
            return self._steps_to_first
        return min(self._steps, STEPS) if failed == ended else self._steps

    def goes_on_after(self, step: int) -> bool | None:
        """Return whether the window goes on after `step` times load.duration.

        None until the first worker has decided.
        """
        if self.end_ns is not None or step >= self._steps_to_first:
            return False
        if self._worker == 0:
            goes_on = step < self._most_steps() and not self.has_enough
            if goes_on:
                self._board.steps = step
            return goes_on
        if self._board.steps >= step:
            return True
        return False if self._board.is_window_over else None
