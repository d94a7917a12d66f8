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
        """A cell has ended, or a start is ready or (not `is_ready`) has failed."""
        step = self._left.pop(key, None)
        if isinstance(step, PlannedStart) and is_ready:
            self._launches_s.setdefault(step.deployment.label, []).append(now_s - self._began_s)
        self._began_s = now_s

    def left(self) -> Left:
        """Return what is left from the last end on."""
        step_s, *later_s = [self._expected_s(step) for step in self._left.values()] or [0.0]
        return Left(sum(later_s), step_s, self._began_s, any(map(self._is_unknown, self._left.values())))

    def _expected_s(self, step: PlannedStart | PlannedCell) -> float:
        if isinstance(step, PlannedCell):
            return plan.cell_s(step)
        seen_s = self._launches_s.get(step.deployment.label)
        return median(seen_s) if seen_s else plan.start_s(step.deployment)

    def _is_unknown(self, step: PlannedStart | PlannedCell) -> bool:
        if isinstance(step, PlannedCell) or step.deployment.terms.base_url:
            return False
        return step.deployment.label not in self._launches_s
