"""What two sides have in common, case by case, and what is left out.

A case is a deployment of each side under the same load of the same scenario. Decides no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.contracts import Load
from reports.data.cells import Group
from reports.two_runs.differences import hardware_differs
from reports.two_runs.sides import Side
from reports.verdicts.pairs import Names, Pair


@dataclass(frozen=True)
class Case:
    """One case. `notes`: what a reader has to know of it that no check of either run can have found."""

    pair: Pair
    notes: tuple[str, ...]

    @property
    def a(self) -> Group:
        return self.pair.groups[0]

    @property
    def b(self) -> Group:
        return self.pair.groups[1]

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
    deployment: str
    scenario: str
    load: str
    why: str

    @property
    def what(self) -> str:
        return ", ".join((self.deployment, self.scenario, self.load))


def cases_of(a: Side, b: Side, names: Names = ("A", "B")) -> tuple[list[Case], list[LeftOut]]:
    """All cases of both, in the order of a's, and what is left out."""
    pairs, left_out = _matched(a, b, names)
    whole = _why_none(a, b, names)
    return [_case(Pair(names, (a.run, b.run), groups, whole)) for groups in pairs], left_out


# --- what belongs together -------------------------------------------------------------------------


def _matched(a: Side, b: Side, names: Names) -> tuple[list[tuple[Group, Group]], list[LeftOut]]:
    rest = _groups(b)
    pairs, left_out = [], []
    for group in _groups(a):
        other = _partner(group, rest, is_same_label=a.label is None)
        if other is None:
            left_out.append(LeftOut(names[0], *group.key, f"only {names[0]} has it"))
            continue
        rest.remove(other)
        if why := _why_not_comparable(group, other):
            left_out.append(LeftOut(" and ".join(names), *group.key, why))
        else:
            pairs.append((group, other))
    left_out += [LeftOut(names[1], *group.key, f"only {names[1]} has it") for group in rest]
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


# --- of a case ------------------------------------------------------------------------------------


def _why_none(a: Side, b: Side, names: Names) -> str | None:
    """Why nothing of the two sides gets a verdict."""
    for name, side in zip(names, (a, b), strict=True):
        if not all(side.run.is_restarted(label) for label in side.labels):
            return f"{name} was running already and was not restarted between repeats"
        if side.run.record.search is not None:
            return f"{name} is a search, which tries other loads on each start"
    return hardware_differs(a.run, b.run)


def _case(pair: Pair) -> Case:
    notes = [] if pair.has_same_seeds else ["other seeds: not the same conversations on both sides"]
    if _load(pair.groups[0]) != _load(pair.groups[1]):
        notes.append("other bounds of the load; see what differs")
    return Case(pair, tuple(notes))
