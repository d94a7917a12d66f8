"""How long the rest of a plan will take, as starts and cells end. Pure: whoever calls says what time it is.

Each step (a server's start, a cell) is expected to take what the same deployment's took in this run, else in
earlier runs (harness/plan/durations.py), else a flat share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from harness.contracts import Deployment, PlannedCell, PlannedStart
from harness.plan import plan
from harness.plan.durations import Expected
from harness.plan.plan import Expect


@dataclass(frozen=True)
class Left:
    """`later_s`: of what has not begun; `step_s`: what the step that began at `began_s` will take.
    `is_least`: a start among them is of an engine whose own start-up was never seen on this machine."""

    later_s: float
    step_s: float
    began_s: float
    is_least: bool

    def at(self, now_s: float) -> float:
        """Seconds that are left; a step that takes longer than it should is about to end."""
        return self.later_s + max(0.0, self.step_s - (now_s - self.began_s))


# A start by its name, a cell by its number.
_Key = str | int


@dataclass(frozen=True)
class _Step:
    deployment: Deployment
    load_s: float | None  # of a cell


class Outlook:
    """The steps that are left, in order."""

    def __init__(self, starts: Sequence[PlannedStart], expect: Expect, now_s: float) -> None:
        self._expect = expect
        self._known: dict[str, Expected | None] = {}
        self._left: dict[_Key, _Step] = {}
        self._seen_s: dict[tuple[str, bool], list[float]] = {}
        self._began_s = now_s
        self.add(starts)

    def add(self, starts: Iterable[PlannedStart]) -> None:
        """These follow."""
        for start in starts:
            deployment = start.deployment
            is_ours = deployment.terms.base_url is None
            self._known.setdefault(deployment.label, self._expect(deployment) if is_ours else None)
            self._left[start.name] = _Step(start.deployment, None)
            for cell in start.cells:
                self._left[cell.number] = _Step(start.deployment, _load_s(cell))

    def ends(self, key: str | int, now_s: float, *, is_telling: bool = True) -> None:
        """A start (its name) is ready or has failed, or a cell (its number) has ended; where `is_telling`,
        others like it will take as long."""
        step = self._left.pop(key, None)
        if step is not None and is_telling:
            took_s = now_s - self._began_s - (step.load_s or 0.0)
            self._seen_s.setdefault(_kind(step), []).append(max(0.0, took_s))
        self._began_s = now_s

    def left(self) -> Left:
        """From the last end on."""
        expected = [self._expected_s(step) for step in self._left.values()]
        return Left(
            later_s=sum(expected[1:]),
            step_s=expected[0] if expected else 0.0,
            began_s=self._began_s,
            is_least=any(self._is_unknown(step) for step in self._left.values()),
        )

    def _expected_s(self, step: _Step) -> float:
        seen = self._seen_s.get(_kind(step))
        known = self._known[step.deployment.label] or plan.flat(step.deployment)
        beside_s = median(seen) if seen else known.start_s if step.load_s is None else known.cell_s
        return beside_s + (step.load_s or 0.0)

    def _is_unknown(self, step: _Step) -> bool:
        is_ours = step.load_s is None and step.deployment.terms.base_url is None
        return is_ours and _kind(step) not in self._seen_s and self._known[step.deployment.label] is None


def _kind(step: _Step) -> tuple[str, bool]:
    return step.deployment.label, step.load_s is None


def _load_s(cell: PlannedCell) -> float:
    return plan.load_s(cell.load, cell.scenario)
