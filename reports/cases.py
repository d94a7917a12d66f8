"""What two sides have in common, case by case, and what keeps a case from a verdict.

A case is a deployment of each side under the same load of the same scenario. Decides no verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.contracts import Load
from reports.caveats import stand_ins
from reports.cells import Aggregate, Group
from reports.differences import client_differs, hardware_differs
from reports.equal_work import TURNS_NEEDED, counted_prompts, differ, mean, turns_of
from reports.frames import Run
from reports.intervals import Estimate, may_be_logged, of_pairs, of_two_samples
from reports.markup import plural
from reports.metrics import is_percentile, metric_of, why_missing
from reports.sides import Side
from reports.verdicts import STARTS_NEEDED

Names = tuple[str, str]


@dataclass(frozen=True)
class Case:
    """One case: the groups of both sides, and what these are called (`A`, `B`). `is_paired`: of one run,
    whose blocks started both. `why_none`: why it gets no verdict on any metric; `marks`: what a reader has
    to know of it besides."""

    names: Names
    runs: tuple[Run, Run]
    a: Group
    b: Group
    is_paired: bool
    why_none: str | None
    marks: tuple[str, ...]

    @property
    def sides(self) -> tuple[tuple[str, Run, Group], tuple[str, Run, Group]]:
        """Name, run and group of each."""
        return (self.names[0], self.runs[0], self.a), (self.names[1], self.runs[1], self.b)

    @property
    def deployment(self) -> str:
        """Its label, or both where they differ, the second first: it is what is asked about."""
        if self.a.deployment == self.b.deployment:
            return self.a.deployment
        return f"{self.b.deployment} against {self.a.deployment}"


@dataclass(frozen=True)
class LeftOut:
    """A deployment, scenario and load of one side, or of both, that is not compared, and why."""

    side: str
    what: str
    why: str


def cases_of(a: Side, b: Side, names: Names = ("A", "B")) -> tuple[list[Case], list[LeftOut]]:
    """All cases of both, in the order of a's, and what is left out."""
    pairs, left_out = _matched(a, b, names)
    whole = _why_none(a, b, names)
    return [_case(a.run, b.run, one, other, whole, names) for one, other in pairs], left_out


# --- what belongs together -------------------------------------------------------------------------


def _matched(a: Side, b: Side, names: Names) -> tuple[list[tuple[Group, Group]], list[LeftOut]]:
    rest = _groups(b)
    pairs, left_out = [], []
    for group in _groups(a):
        other = _partner(group, rest, is_same_label=a.label is None)
        if other is None:
            left_out.append(LeftOut(names[0], ", ".join(group.key), f"only {names[0]} has it"))
            continue
        rest.remove(other)
        if why := _why_not_comparable(group, other):
            left_out.append(LeftOut(" and ".join(names), ", ".join(group.key), why))
        else:
            pairs.append((group, other))
    left_out += [LeftOut(names[1], ", ".join(group.key), f"only {names[1]} has it") for group in rest]
    return pairs, left_out


def _groups(side: Side) -> list[Group]:
    return [group for group in side.run.groups if side.label in (None, group.deployment)]


def _partner(group: Group, others: Sequence[Group], *, is_same_label: bool) -> Group | None:
    """Of the same load; else the only one whose load is called so, with other bounds."""
    fitting = [
        other
        for other in others
        if _scenario(other) == _scenario(group)
        and _load(other).label == _load(group).label
        and (not is_same_label or other.deployment == group.deployment)
    ]
    same = [other for other in fitting if _load(other) == _load(group)]
    return same[0] if same else fitting[0] if len(fitting) == 1 else None


def _scenario(group: Group) -> tuple[str, str]:
    return group.cells[0].planned.scenario.name, group.scenario


def _load(group: Group) -> Load:
    return group.cells[0].load


def _why_not_comparable(a: Group, b: Group) -> str | None:
    if a.model != b.model:
        return f"other models: {a.model} and {b.model}"
    options = [group.cells[0].planned.scenario.options for group in (a, b)]
    if options[0] == options[1]:
        return None
    names = [key for key in {**options[0], **options[1]} if options[0].get(key) != options[1].get(key)]
    said = (f"{name} {' and '.join(str(each.get(name)) for each in options)}" for name in names)
    return f"other scenario options: {', '.join(said)}"


# --- what keeps from a verdict ---------------------------------------------------------------------


def _why_none(a: Side, b: Side, names: Names) -> str | None:
    """Of both sides as a whole."""
    for name, side in zip(names, (a, b), strict=True):
        if any(record.attached for label in side.labels for record in side.run.starts_of(label)):
            return f"{name} was running already and was not restarted between repeats"
        if side.run.record.search is not None:
            return f"{name} is a search, which tries other loads on each start"
    return hardware_differs(a.run, b.run) or client_differs(a.run, b.run)


def _case(first: Run, second: Run, a: Group, b: Group, whole: str | None, names: Names) -> Case:
    has_same_seeds = _has_same_seeds(a, b)
    marks = [] if has_same_seeds else ["other seeds: not the same conversations on both sides"]
    if _load(a) != _load(b):
        marks.append("other bounds of the load; see what differs")
    case = Case(names, (first, second), a, b, first is second, whole, tuple(marks))
    return replace(case, why_none=whole or _why_no_verdict(case) or _lengths(case, has_same_seeds))


def _has_same_seeds(a: Group, b: Group) -> bool:
    """Whether repeats that both have had the same conversations."""
    seeds = [{cell.planned.repeat: cell.planned.seed for cell in group.cells} for group in (a, b)]
    shared = seeds[0].keys() & seeds[1].keys()
    return all(seeds[0][repeat] == seeds[1][repeat] for repeat in shared)


def _why_no_verdict(case: Case) -> str | None:
    if case.is_paired and case.a.deployment == case.b.deployment:
        return f"{case.names[0]} and {case.names[1]} are the same starts"
    for name, run, group in case.sides:
        if what := stand_ins(run).get(group.deployment):
            return f"{name}: {what}"
    counts = [counted_prompts(run.starts_of(group.deployment)) for _, run, group in case.sides]
    if any(counts[0][name] != counts[1][name] for name in counts[0].keys() & counts[1].keys()):
        return "their prompts are not the same: the servers count other tokens for the same text"
    return None


def _lengths(case: Case, has_same_seeds: bool) -> str | None:
    """What of the lengths differs by more than equal_work.LENGTHS_DIFFER: of turns that both answered where
    their conversations are the same, since a faster server plays further ones; else on average."""
    for name, title in (("input_tokens", "prompts"), ("output_tokens", "answers")):
        means = _same_turns(case, name) if has_same_seeds else None
        means = means or [found.mean for found in aggregates(case, name)]
        if differ(means):
            numbers = " and ".join(f"{value:,.1f}" for value in means if value is not None)
            return f"their {title} have other lengths: {numbers} tokens"
    return None


def _same_turns(case: Case, name: str) -> list[float | None] | None:
    """Both means over the turns that both answered; None where those are too few."""
    turns = [turns_of(run, group, name) for _, run, group in case.sides]
    shared = turns[0].keys() & turns[1].keys()
    if len(shared) < TURNS_NEEDED:
        return None
    return [mean(found[turn] for turn in shared) for found in turns]


# --- one metric of a case --------------------------------------------------------------------------


def aggregates(case: Case, metric: str) -> list[Aggregate]:
    """The value of both sides."""
    return [run.aggregate(group, metric) for _, run, group in case.sides]


def estimate_of(case: Case, metric: str, *, over: str = "b") -> Estimate | None:
    """B over A (A over B with `over="a"`), a difference where the metric is additive; None where a side has
    fewer than two values or one without a logarithm, and of prices in other currencies."""
    is_log = not metric_of(metric).is_additive
    if any(found.mean is None for found in aggregates(case, metric)) or _is_of_other_currencies(case, metric):
        return None
    sides = _values(case, metric)
    if min(map(len, sides)) < 2 or (is_log and not may_be_logged([*sides[0], *sides[1]])):
        return None
    top, bottom = sides if over == "a" else sides[::-1]
    make = of_pairs if case.is_paired else of_two_samples
    found = make(top, bottom, is_log=is_log)
    return found if math.isfinite(found.error) else None


def _values(case: Case, metric: str) -> tuple[list[float], list[float]]:
    """By start; of one run those of the blocks that have both."""
    first, second = (_by_repeat(run, group, metric) for _, run, group in case.sides)
    if not case.is_paired:
        return list(first.values()), list(second.values())
    shared = [repeat for repeat in first if repeat in second]
    return [first[repeat] for repeat in shared], [second[repeat] for repeat in shared]


def _by_repeat(run: Run, group: Group, metric: str) -> dict[int, float]:
    found = {}
    for cell in group.counted:
        value = run.values[cell.number].get(metric)
        if value is not None and value.value is not None:
            found[cell.planned.repeat] = value.value
    return found


def why_not(case: Case, metric: str) -> str | None:
    """Why a metric of a case gets no verdict; None where it may."""
    if case.why_none:
        return case.why_none
    for name, run, group in case.sides:
        if why := _why_missing(run, group, metric):
            return f"{name}: {why}"
    sides = _values(case, metric)
    if min(map(len, sides)) < STARTS_NEEDED:
        return _too_few(case, [len(side) for side in sides])
    if not metric_of(metric).is_additive and not may_be_logged([*sides[0], *sides[1]]):
        return "a value is 0, which has no ratio"
    if _is_of_other_currencies(case, metric):
        return "their prices are in other currencies"
    return None


def _is_of_other_currencies(case: Case, metric: str) -> bool:
    currencies = {run.record.price.currency for run in case.runs if run.record.price}
    return metric_of(metric).unit == "price.currency" and len(currencies) > 1


def _too_few(case: Case, counts: Sequence[int]) -> str:
    if case.is_paired:
        return f"a verdict needs {STARTS_NEEDED} blocks or more, here {counts[0]}"
    return f"a verdict needs {STARTS_NEEDED} starts of each or more, here {counts[0]} and {counts[1]}"


def _why_missing(run: Run, group: Group, metric: str) -> str | None:
    """Why a side has no value; None where it has."""
    found = run.aggregate(group, metric)
    if found.mean is not None:
        return None
    if not group.counted:
        reason = next((cell.reason for cell in group.cells if cell.reason), None)
        return f"no cell was measured{f' ({reason})' if reason else ''}"
    values = [value for cell in group.counted if (value := run.values[cell.number].get(metric))]
    lacking = [value for value in values if value.value is None]
    if not lacking or not is_percentile(metric) or run.withheld(group.key, metric):
        return found.why or "no value"
    least = min(lacking, key=lambda value: value.n)
    reason = why_missing(metric, least.n, least.requests)
    return f"{reason} ({len(lacking)} of {plural(len(group.counted), 'start')})"


def reasons_to_distrust(case: Case, metrics: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Of each side its name and the titles of what its run's checks found that bears on these values."""
    asked = {metric.partition(".")[0] for metric in metrics}
    for name, run, group in case.sides:
        cells = {cell.number for cell in group.counted}
        for finding in run.findings:
            touches = not finding.cells or not cells.isdisjoint(finding.cells)
            if cells and touches and (not finding.metrics or asked & set(finding.metrics)):
                yield name, finding.title
