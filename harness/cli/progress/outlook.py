"""How long the rest of a plan will take: what is planned, and how long servers took to start in this run.

Pure: whoever calls says what time it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from harness.contracts import PlannedCell, PlannedStart
from harness.plan import plan


@dataclass(frozen=True)
class Left:
    """The time that is left, as known when the last step ended.

    `step_s` is what the step that began at `began_s` will take, `later_s` all after it. `is_least`: among
    them is a start of an engine that was not started yet in this run.
    """

    later_s: float
    step_s: float
    began_s: float
    is_least: bool

    def at(self, now_s: float) -> float:
        """Return the seconds that are left. A step that takes longer than it should is about to end."""
        return self.later_s + max(0.0, self.step_s - (now_s - self.began_s))


class Outlook:
    """The steps that are left, in order: each start by its name, each cell by its number."""

    def __init__(self, starts: Iterable[PlannedStart], now_s: float) -> None:
        self._left: dict[str | int, PlannedStart | PlannedCell] = {}
        self._launches_s: dict[str, list[float]] = {}
        self._began_s = now_s
        self.add(starts)

    def add(self, starts: Iterable[PlannedStart]) -> None:
        for start in starts:
            self._left[start.name] = start
            self._left |= {cell.number: cell for cell in start.cells}

    def ends(self, key: str | int, now_s: float, *, is_ready: bool = True) -> None:
        """Note that a cell has ended, or that a start is ready or (not `is_ready`) has failed."""
        step = self._left.pop(key, None)
        if isinstance(step, PlannedStart) and is_ready:
            self._launches_s.setdefault(step.deployment.label, []).append(now_s - self._began_s)
        self._began_s = now_s

    def left(self) -> Left:
        """Return what is left from the last end on."""
        expected = [self._expected(step) for step in self._left.values()] or [(0.0, False)]
        step_s, *later_s = (seconds for seconds, _ in expected)
        return Left(sum(later_s), step_s, self._began_s, any(is_least for _, is_least in expected))

    def _expected(self, step: PlannedStart | PlannedCell) -> tuple[float, bool]:
        """Return how many seconds a step will take, and whether that is only the least."""
        if isinstance(step, PlannedCell):
            return plan.cell_s(step), False
        if seen_s := self._launches_s.get(step.deployment.label):
            return median(seen_s), False
        return plan.start_s(step.deployment), not step.deployment.terms.base_url
