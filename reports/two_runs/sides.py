"""The two sides of a comparison: which runs and deployments are meant, and what both have, case by case.

A case is a deployment of each side under the same load of the same scenario. Decides no verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.contracts import Load
from harness.errors import UserError
from reports.data.cells import Group
from reports.data.run import Run, open_run
from reports.two_runs.differences import hardware_differs
from reports.verdicts.pairs import Names, Pair


@dataclass(frozen=True)
class Side:
    """A run, and the label of the one deployment of it that is meant; None: all."""

    run: Run
    label: str | None = None

    @property
    def labels(self) -> list[str]:
        """The deployments that are meant, in the plan's order."""
        return [self.label] if self.label is not None else list(self.run.deployments)

    @property
    def groups(self) -> list[Group]:
        return [group for group in self.run.groups if group.deployment in self.labels]


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


# --- which runs ------------------------------------------------------------------------------------


def open_sides(a: str, b: str) -> tuple[Side, Side]:
    """Open both sides, each `DIR` or `DIR:deployment`; a directory that is given twice is read once.

    Raises StoreError where a run cannot be read, UserError for a search and for an unknown deployment.
    """
    (path, first), (other_path, second) = _split(a), _split(b)
    run = open_run(path)
    other = run if other_path.resolve() == path.resolve() else open_run(other_path)
    for text, each in ((a, run), (b, other)):
        if each.record.search is not None:
            raise UserError(
                f"{text}: is a search, which tried other loads on each start; its page compares them"
            )
    sides = Side(run, _label(run, a, first)), Side(other, _label(other, b, second))
    pair = _like(sides[0], sides[1], a), _like(sides[1], sides[0], b)
    if other is run and pair[0].label == pair[1].label:
        raise UserError(f"{a}, {b}: are the same starts; give another run, or two deployments: DIR:LABEL")
    return pair


def _split(text: str) -> tuple[Path, str | None]:
    """Return the directory, the longest name that is a run (it may have a `:`), and the label after it."""
    cuts = [n for n, character in enumerate(text) if character == ":" and n]
    for end in (len(text), *reversed(cuts)):
        if (Path(text[:end]) / "run.json").is_file():
            return Path(text[:end]), text[end + 1 :] if end < len(text) else None
    return Path(text), None


def _label(run: Run, text: str, asked: str | None) -> str | None:
    if asked is None or asked in run.deployments:
        return asked
    by_slug = [label for label, deployment in run.deployments.items() if deployment.slug == asked]
    if len(by_slug) == 1:
        return by_slug[0]
    raise UserError(f"{text}: no such deployment; {run.path} has {_listed(run)}")


def _like(side: Side, other: Side, text: str) -> Side:
    """Return one deployment where the other side is one: of the same label, or the only one there is."""
    if side.label is not None or other.label is None:
        return side
    if other.label in side.run.deployments:
        return Side(side.run, other.label)
    if len(side.run.deployments) == 1:
        return Side(side.run, next(iter(side.run.deployments)))
    raise UserError(f"{text}: say which deployment is compared with {other.label}: {_listed(side.run)}")


def _listed(run: Run) -> str:
    return ", ".join(run.deployments) or "none"


# --- what both have --------------------------------------------------------------------------------


def cases_of(a: Side, b: Side, names: Names = ("A", "B")) -> tuple[list[Case], list[LeftOut]]:
    """Return all cases of both sides, in the order of a's, and what is left out."""
    whole, rest = _why_none(a, b, names), b.groups
    cases, left_out = [], []
    for group in a.groups:
        other = _partner(group, rest, is_same_label=a.label is None)
        if other is None:
            left_out.append(LeftOut(names[0], *group.key, f"only {names[0]} has it"))
            continue
        rest.remove(other)
        if why := _why_not_comparable(group, other):
            left_out.append(LeftOut(" and ".join(names), *group.key, why))
        else:
            cases.append(_case(Pair(names, (a.run, b.run), (group, other), whole)))
    left_out += [LeftOut(names[1], *group.key, f"only {names[1]} has it") for group in rest]
    return cases, left_out


def _case(pair: Pair) -> Case:
    notes = [] if pair.has_same_seeds else ["other seeds: not the same conversations on both sides"]
    if _load(pair.groups[0]) != _load(pair.groups[1]):
        notes.append("other bounds of the load; see what differs")
    return Case(pair, tuple(notes))


def _partner(group: Group, others: Sequence[Group], *, is_same_label: bool) -> Group | None:
    """Return the group of the same load; else the only one whose load is called so, with other bounds."""
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
    first, second = (group.cells[0].planned.scenario.options for group in (a, b))
    said = [
        f"{name} {first.get(name)} and {second.get(name)}"
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    ]
    return f"other scenario options: {', '.join(said)}" if said else None


def _why_none(a: Side, b: Side, names: Names) -> str | None:
    """Return why nothing of the two sides gets a verdict."""
    for name, side in zip(names, (a, b), strict=True):
        if not all(side.run.is_restarted(label) for label in side.labels):
            return f"{name} was running already and was not restarted between repeats"
    return hardware_differs(a.run, b.run)


def check_common(a: str | Path, b: str | Path, cases: Sequence[Case], left_out: Sequence[LeftOut]) -> None:
    """Raise UserError where two sides have no case in common, with the reason."""
    if cases:
        return
    whys = list(dict.fromkeys(each.why for each in left_out if " and " in each.side))
    why = "; ".join(whys[:3])
    if not why:
        listed = [f"{each.side} has {each.what}" for each in left_out[:4]]
        more = f", and {len(left_out) - 4} more" if len(left_out) > 4 else ""
        why = (
            f"no deployment, scenario and load in common ({'; '.join(listed)}{more}); "
            "DIR:DEPLOYMENT compares deployments of other names"
        )
    raise UserError(f"{a} and {b} cannot be compared: {why}")
