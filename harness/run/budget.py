"""Divide a run's time: how long its windows may last, and which starts will probably end within run.budget.

A window may be extended as long as two more repeats with equally long windows still fit, or in a race all
that may follow. Must not know servers, files or statistics.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median
from time import monotonic

from serving_bench.harness.contracts import STEPS, LoadSummary, PlannedCell, PlannedStart
from serving_bench.harness.plan import plan
from serving_bench.harness.settings.sections import DEFAULT_BUDGET_S
from serving_bench.harness.settings.units import duration_text

# run.budget=auto is this multiple of the planned time, but at least DEFAULT_BUDGET_S.
PLANNED_TIMES = 2.0
# A start-up that takes longer is added to the planned time, once it was seen.
_LONG_START_UP_S = 20.0
# A repeat that has begun is given up if it would end later than this multiple of the budget.
LATEST = 1.15


class Budget:
    """The time of one `bench run` from now on. `asked_s` is None for auto; `starts` are those to measure."""

    def __init__(self, asked_s: float | None, starts: Sequence[PlannedStart]) -> None:
        self._asked_s = asked_s
        self._began_s = self._start_began_s = monotonic()
        self._planned_s = plan.estimated_s(starts)
        self._most_s = 0.0
        self._left, self._later = list(starts), list[PlannedStart]()
        self._took_s: defaultdict[str, list[float]] = defaultdict(list)  # starts, by deployment
        self._beside_s: defaultdict[str, list[float]] = defaultdict(list)  # the part outside windows
        self._start_ups_s: dict[int, float] = {}  # the long ones, by index of the start

    @property
    def limit_s(self) -> float:
        """Return the seconds that the run may take. With auto it grows as slow start-ups are seen."""
        if self._asked_s is not None:
            return self._asked_s
        start_ups_s = sum(self._start_ups_s.values())
        times_s = PLANNED_TIMES * (self._planned_s + start_ups_s)
        return max(DEFAULT_BUDGET_S, times_s, self._most_s + start_ups_s)

    @property
    def text(self) -> str:
        return f"run.budget ({duration_text(self.limit_s)})"

    @property
    def left_s(self) -> float:
        return self._began_s + self.limit_s - monotonic()

    def has_time_for(self, starts: Sequence[PlannedStart], latest: float = 1.0) -> bool:
        expected_s = sum(map(self._expected_s, starts))
        return monotonic() + expected_s <= self._began_s + latest * self.limit_s

    def why_none_for(self, start: PlannedStart) -> str:
        """Say why has_time_for is False for this start."""
        expected_s, left_s = round(self._expected_s(start)), round(self.left_s)
        if left_s <= 0:
            return f"no time left of {self.text}"
        return f"no time for another start (about {expected_s} s) in the {left_s} s left of {self.text}"

    def _expected_s(self, start: PlannedStart) -> float:
        if took := self._took_s[start.deployment.label]:
            return median(took)
        # A deployment that was not measured yet may be as slow as the slowest one.
        return max([plan.estimated_s([start]), *(median(each) for each in self._took_s.values() if each)])

    def begins(self, start: PlannedStart) -> None:
        self._start_began_s = monotonic()
        self.cut([start])

    def ends(
        self,
        start: PlannedStart,
        launch_s: float | None,
        loads: Iterable[LoadSummary | None],
        once_s: float = 0.0,
    ) -> None:
        """Note that a start has ended, successfully or not.

        `launch_s`: how long its server took to start. `once_s`: the part of the time that no other start of
        the deployment will need.
        """
        label, took_s = start.deployment.label, monotonic() - self._start_began_s - once_s
        windows_s = sum((load.window_end_ns - load.window_start_ns) / 1e9 for load in loads if load)
        self._took_s[label].append(took_s)
        self._beside_s[label].append(max(0.0, took_s - windows_s))
        if launch_s is not None and launch_s > _LONG_START_UP_S:
            # All starts of the deployment will take as long.
            alike = (each.index for each in (start, *self._left) if each.deployment.label == label)
            self._start_ups_s |= dict.fromkeys(alike, launch_s)

    def may_follow(self, block: Sequence[PlannedStart], times: int) -> None:
        """Note that a repeat like `block` may follow this many times. The first call sets the most."""
        repeats = range(1, times + 1)
        self._later = [replace(start, repeat=start.repeat + more) for more in repeats for start in block]
        self._most_s = self._most_s or plan.estimated_s([*self._left, *self._later])

    def grow(self, starts: Sequence[PlannedStart]) -> None:
        """Note that these starts are to come as well."""
        self._left += starts

    def extend(self, seconds: float) -> None:
        """Give the run more time, for what was asked for beside its loads."""
        self._began_s += seconds

    def cut(self, starts: Sequence[PlannedStart]) -> None:
        """Note that these starts are no longer to come."""
        self._left = [each for each in self._left if each not in starts]

    def steps(self, start: PlannedStart, cell: PlannedCell) -> tuple[int, int]:
        """Return how many times load.duration a window may last, and how many while no request has ended.

        The first number leaves time for two more repeats with equally long windows, in a race for all that
        may follow; up to STEPS it only leaves time for the rest of this repeat. So does the second, which is
        STEPS or more. It is halved, since requests that have not ended will take as long again after the
        window.
        """
        if cell.load.steps is not None or cell.load.duration_s is None:
            return cell.load.steps or STEPS, 0
        repeats = sorted({s.repeat for s in (*self._left, *self._later) if s.repeat > start.repeat})
        few = len(repeats) if self._later else 2
        for_few, for_one = (self._share(start, cell, {start.repeat, *repeats[:more]}) for more in (few, 0))
        return max(for_few, min(for_one, STEPS)), max(for_one // 2, STEPS)

    def _share(self, start: PlannedStart, cell: PlannedCell, repeats: set[int]) -> int:
        others = [each for each in (*self._left, *self._later) if each.repeat in repeats]
        rest = start.cells[start.cells.index(cell) :]
        windows = [*rest, *(each for other in others for each in other.cells)]
        beside_s = sum(map(self._expected_beside_s, others)) + sum(map(_beside_s, rest))
        # The time is divided among the windows in proportion to their planned lengths.
        return max(1, int((self.left_s - beside_s) / sum(each.load.duration_s or 0.0 for each in windows)))

    def _expected_beside_s(self, start: PlannedStart) -> float:
        if seen := self._beside_s[start.deployment.label]:
            return median(seen)
        planned_s = plan.start_s(start.deployment) + sum(map(_beside_s, start.cells))
        seen_s = [median(each) for each in self._beside_s.values() if each]
        # Before any start has ended, only the time that the first has taken so far is known.
        return max(planned_s, *(seen_s or [monotonic() - self._start_began_s]))


def _beside_s(cell: PlannedCell) -> float:
    return plan.cell_s(cell) - (cell.load.duration_s or 0.0)
