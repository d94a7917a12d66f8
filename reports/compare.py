"""Two runs side by side: first what differs between their settings and machines, then each value of both.

Values only: a difference, ratio or rank would need an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reports.cells import Aggregate, Group
from reports.frames import Run, open_run
from reports.markup import NOTHING, plural, shown
from reports.metrics import METRICS, PERCENTILES, metric_of
from reports.opening import flat

VALUE_NAMES = tuple(
    name
    for metric in METRICS
    for name in (
        [f"{metric.name}.p{level}" for level in PERCENTILES] if metric.is_distribution else [metric.name]
    )
)
# As metrics name the unit of a cost, which each run says for itself.
_CURRENCY = "price.currency"


@dataclass(frozen=True)
class Side:
    """One run's value: the mean over k starts, their range, and their n observations; None or 0 where absent,
    and `why` then says why, where a start was measured."""

    mean: float | None
    low: float | None
    high: float | None
    k: int
    n: int
    why: str | None = None


@dataclass(frozen=True)
class Row:
    """A metric's value of both runs, in its stored unit; of a price in each run's currency."""

    deployment: str
    scenario: str
    load: str
    metric: str
    unit: str
    a: Side
    b: Side

    def cells(self) -> tuple[str, ...]:
        """The row as a person reads it: deployment, scenario, load, metric, unit, a, b."""
        shown_unit = metric_of(self.metric).shown_unit
        unit = self.unit if shown_unit == _CURRENCY else shown_unit
        sides = (_side_text(self.metric, side) for side in (self.a, self.b))
        return (self.deployment, self.scenario, self.load, self.metric, unit, *sides)


@dataclass(frozen=True)
class Difference:
    """A setting or fact of the machine that is not the same in both runs; None: not recorded."""

    what: str
    a: str | None
    b: str | None

    def cells(self) -> tuple[str, ...]:
        """The difference as a person reads it."""
        return (
            self.what,
            self.a if self.a is not None else NOTHING,
            self.b if self.b is not None else NOTHING,
        )


@dataclass(frozen=True)
class Comparison:
    """Two runs' values by deployment, scenario, load and metric; a row where at least one run has a value."""

    a: Path
    b: Path
    differences: tuple[Difference, ...]
    rows: tuple[Row, ...]


def compare_runs(a: Path, b: Path) -> Comparison:
    """Read two results directories. Raises StoreError where one cannot be read."""
    first, second = open_run(a), open_run(b)
    return Comparison(a, b, tuple(_differences(first, second)), tuple(_rows(first, second)))


def _differences(first: Run, second: Run) -> list[Difference]:
    a, b = _facts(first), _facts(second)
    keys = dict.fromkeys([*a, *b])
    return [Difference(key, a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)]


def _facts(run: Run) -> dict[str, str]:
    settings = {f"settings.{key}": ",".join(values) for key, values in run.record.settings.items()}
    environment = {
        f"environment.{key}": str(value)
        for key, value in flat(run.record.environment)
        if not key.startswith(("clock.", "selftest."))
    }
    return {**settings, **environment, "status": run.record.status}


def _rows(first: Run, second: Run) -> list[Row]:
    a, b = _groups(first), _groups(second)
    rows = []
    for key in dict.fromkeys([*a, *b]):
        for name in VALUE_NAMES:
            sides = (_side(first, a.get(key), name), _side(second, b.get(key), name))
            if any(side.mean is not None for side in sides):
                rows.append(Row(*key, name, _unit(name, first, second), *sides))
    return rows


def _unit(name: str, first: Run, second: Run) -> str:
    unit = metric_of(name).unit
    if unit != _CURRENCY:
        return unit
    prices = {"A": first.record.price, "B": second.record.price}
    found = {side: price.currency for side, price in prices.items() if price and price.gpu_hour is not None}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    return ", ".join(f"{side} in {currency}" for side, currency in found.items()) or unit


def _groups(run: Run) -> Mapping[tuple[str, str, str], Group]:
    return {(group.deployment, group.scenario, group.load): group for group in run.groups}


def _side(run: Run, group: Group | None, name: str) -> Side:
    found = run.aggregate(group, name) if group else Aggregate(None, None, None, 0, 0, ())
    return Side(found.mean, found.low, found.high, found.k, found.n, found.why)


def _side_text(name: str, side: Side) -> str:
    if side.mean is None:
        return f"{NOTHING} ({side.why})" if side.why else NOTHING
    text = shown(name, side.mean)
    if side.k > 1:
        text += f" ({shown(name, side.low)}–{shown(name, side.high)} over {plural(side.k, 'start')})"
    return f"{text}, n = {side.n:,}"


def to_builtins(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain JSON values, in stored units."""
    return {**asdict(comparison), "a": str(comparison.a), "b": str(comparison.b)}
