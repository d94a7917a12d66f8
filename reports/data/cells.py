"""Planned cells and their outcomes, groups of repeats, and the names of loads.

Reads no file and computes no metric.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

from serving_bench.harness.contracts import Fact, Load, LoadSummary, PlannedCell, PlannedStart
from serving_bench.harness.store.store import CellRecord

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Cell:
    """One planned cell, with its record if it has one.

    `status`: completed, failed, interrupted, in flight (begun, no record yet), or not measured.
    """

    number: int
    planned: PlannedCell
    start: PlannedStart
    record: CellRecord | None
    status: str
    load_label: str
    reason: Fact | None

    @property
    def label(self) -> str:
        return self.start.deployment.label

    @property
    def load(self) -> Load:
        return self.planned.load

    @property
    def at_once(self) -> int | None:
        """The most requests that its users can have in flight; None in an open loop."""
        users = self.load.concurrency
        return None if users is None else users * self.planned.scenario.width

    @property
    def validity(self) -> str:
        return self.record.validity if self.record else "valid"

    @property
    def became(self) -> str:
        """Its validity if it was completed, else its status."""
        return self.validity if self.status == "completed" else self.status

    @property
    def summary(self) -> LoadSummary | None:
        return self.record.summary if self.record else None

    @property
    def window_ns(self) -> tuple[int, int] | None:
        """The begin and end of its window; None if it has none."""
        summary = self.summary
        is_there = summary is not None and summary.window_end_ns > summary.window_start_ns
        return (summary.window_start_ns, summary.window_end_ns) if summary and is_there else None

    @property
    def window_s(self) -> float | None:
        return (self.window_ns[1] - self.window_ns[0]) / 1e9 if self.window_ns else None

    @property
    def counts(self) -> bool:
        """Whether its values enter the statistics: it was completed and is not invalid."""
        return self.status == "completed" and self.validity != "invalid"

    @property
    def key(self) -> tuple[str, str, str]:
        """Deployment, scenario and load, which its repeats have in common."""
        return self.label, self.planned.scenario.label, self.load_label


@dataclass(frozen=True)
class Group:
    """The cells of one deployment, scenario and load, by repeat. For `family` and `level` see load_family and
    load_level."""

    deployment: str
    engine: str
    model: str
    quantization: str
    scenario: str
    load: str
    family: str
    level: float
    cells: tuple[Cell, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.deployment, self.scenario, self.load

    @property
    def name(self) -> str:
        """Its name in a sentence: `vllm awq at 4 users`."""
        return f"{self.deployment} at {self.load}"

    @property
    def counted(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.counts]

    @property
    def counted_by_start(self) -> list[list[Cell]]:
        """The counted cells of each start: one, or several if a search tried the load again."""
        return list(grouped(self.counted, lambda cell: cell.planned.repeat).values())


def has_failed(cell: Cell) -> bool:
    """Return whether a deployment failed in a cell. What guard=strict refused says nothing of it."""
    return cell.became == "failed" and (cell.reason is None or cell.reason.kind != "not_fit")


def gathered(pairs: Iterable[tuple[Key, Item]]) -> dict[Key, list[Item]]:
    """Return the items of (key, item) pairs by key. Keys and items stay in order."""
    groups: dict[Key, list[Item]] = {}
    for key, item in pairs:
        groups.setdefault(key, []).append(item)
    return groups


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    return gathered((key(item), item) for item in items)


def first_that_holds(conditions: Mapping[Key, object]) -> Key | None:
    """Return the first key (a reason, a state) whose value is true; None if there is none."""
    return next((key for key, holds in conditions.items() if holds), None)


def groups_of(
    cells: Sequence[Cell], labels: Sequence[str], requested: Mapping[str, Sequence[str]]
) -> tuple[Group, ...]:
    """Return the groups of cells: scenarios and deployments in the order asked for, then loads ascending.

    `requested`: the values given for each key.
    """
    groups = []
    for (label, scenario, load), of_key in grouped(cells, lambda cell: cell.key).items():
        of, ordered = of_key[0].start.deployment, tuple(sorted(of_key, key=lambda cell: cell.planned.repeat))
        family, level = load_family(ordered[0].load), load_level(ordered[0].load)
        groups.append(
            Group(label, of.engine, of.model, of.quantization, scenario, load, family, level, ordered)
        )
    groups.sort(
        key=lambda g: (
            _place(g.scenario, requested),
            g.scenario,
            labels.index(g.deployment),
            g.family,
            g.level,
        )
    )
    return tuple(groups)


def _place(scenario: str, requested: Mapping[str, Sequence[str]]) -> list[int]:
    """Return a scenario's place in the order asked for, from its label (`fixed input_tokens=64`)."""
    name, *options = scenario.split(" ")
    pairs = [("scenario", name), *(f"scenario.{option}".partition("=")[::2] for option in options)]
    return [list(requested[key]).index(value) for key, value in pairs if value in requested.get(key, ())]


# --- loads -----------------------------------------------------------------------------------------


# Fields that Load.label already says.
_IN_LABEL = ("concurrency", "rate_per_s", "arrival", "burstiness", "speedup")


def load_labels(loads: Sequence[Load]) -> dict[Load, str]:
    """Return a name for each load: Load.label, and the fields that differ between loads of that label."""
    labels, different = {}, dict.fromkeys(loads)
    for load in different:
        rivals = [other for other in different if other.label == load.label]
        more = (name for name in (f.name for f in fields(load)) if name not in _IN_LABEL)
        apart = [name for name in more if len({getattr(other, name) for other in rivals}) > 1]
        labels[load] = ", ".join([load.label, *(f"{name} {getattr(load, name)}" for name in apart)])
    return labels


def load_family(load: Load) -> str:
    """Return the name of the loads that share an axis: `closed loop`, `open loop, poisson`, `trace` ..."""
    if load.kind != "open":
        return "closed loop" if load.kind == "closed" else load.kind
    return f"open loop, {load.arrival}" + (f" {load.burstiness:g}" if load.arrival == "gamma" else "")


def load_level(load: Load) -> float:
    """Return a load's place on its family's axis: users, conversations (per second or at once) or speedup."""
    if load.kind == "trace":
        return load.speedup
    return float(load.rate_per_s or load.concurrency or load.conversations or 0)


def level_axis(family: str, levels: Sequence[float]) -> tuple[str, list[str]]:
    """Return the title of a family's axis and the levels as its tick labels."""
    axes = {
        "closed loop": ("users", "{:,.0f}"),
        "trace": ("speed of the trace", "x{:g}"),
        "batch": ("conversations at once", "{:,.0f}"),
    }
    title, pattern = axes.get(family, ("conversations begun per second", "{:g}"))
    return title, [pattern.format(level) for level in levels]
