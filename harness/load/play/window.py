"""The window of a cell as one load process knows it: when it began, when and why it ended, what counts in it.

It ends by rules that are fixed before the run. Other instants follow from it. It asks no clock.
"""

from math import inf

from harness.contracts import EndedBy, Load, RequestRow
from harness.load.board import Board
from harness.load.play import arrivals
from harness.load.play.openloop import due_s

# An instant for what will not come, as seconds from the start.
_NEVER_S = 1e9


class Window:
    """One cell's window. `end_ns` and `ended_by` are None while it lasts."""

    def __init__(self, load: Load, worker: int, board: Board) -> None:
        self.cell_start_ns: int | None = None
        self.start_ns = 0  # conversations count from here on
        self.end_ns: int | None = None
        self.ended_by: EndedBy | None = None
        self._load = load
        self._worker = worker
        self._board = board

    def begin(self, cell_start_ns: int) -> None:
        """Fix when it begins, in a cell that begins then."""
        self.cell_start_ns = cell_start_ns
        self.start_ns = cell_start_ns + arrivals.ns(arrivals.phases(self._load).window_start_s)
        if self.end_ns is not None:  # interrupted before the cell began: the window is empty
            self.end_ns = max(self.end_ns, self.start_ns)

    def due_ns(self, at: float) -> int:
        """Return the instant of an open loop's beginning, as far as the window's end is known."""
        assert self.cell_start_ns is not None
        end_s = inf if self.end_ns is None else (self.end_ns - self.cell_start_ns) / 1e9
        return self.cell_start_ns + arrivals.ns(min(due_s(self._load, at, end_s), _NEVER_S))

    def user_ends_ns(self, number: int) -> float:
        """Return when a closed loop's user begins no more requests: in a ramp-down at its turn."""
        if self.end_ns is None or self.ended_by != "duration":
            return inf  # it is not known yet, or all that began is to be finished
        return self.end_ns + arrivals.ns(arrivals.user_ramps_down_s(self._load, number))

    def count(self, row: RequestRow) -> None:
        """Count a request that has ended, if it was sent in the window and bench did not end it."""
        at_ns = row.scheduled_ns if row.sent_ns is None else row.sent_ns
        if self.end_ns is None and at_ns >= self.start_ns and row.outcome != "cancelled":
            self._board.count(self._worker)

    @property
    def has_enough(self) -> bool:
        """True once enough requests were sent in it and have ended, those of all workers together."""
        return self._board.counted >= self._load.min_requests

    def end(self, ended_by: EndedBy, ended_ns: int) -> None:
        """End it. Only the first call counts."""
        if self.ended_by is None:
            self.ended_by = ended_by
            self.end_ns = max(ended_ns, self.start_ns)
            if self._worker == 0:
                self._board.end_window()

    def goes_on_after(self, step: int) -> bool | None:
        """Return whether it goes on after its first `step` times load.duration, of which the last is over.

        The first worker decides for all, since they would not count alike. Returns None until it has.
        """
        if self.end_ns is not None or step >= self._load.steps:
            return False
        if self._worker == 0:
            if not self.has_enough:
                self._board.go_on(step)
                return True
            return False
        if self._board.steps >= step:
            return True
        return False if self._board.is_window_over else None
