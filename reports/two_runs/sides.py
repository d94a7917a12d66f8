"""The two sides of a comparison: which runs and deployments are meant, and what both have. No verdicts."""

from dataclasses import dataclass
from pathlib import Path

from harness.contracts import Load
from harness.errors import UserError
from reports.data.cells import Group
from reports.data.run import Run, open_run
from reports.measures.written import several
from reports.two_runs.differences import hardware_differs
from reports.verdicts.comparisons import Names, Pair


@dataclass(frozen=True)
class Side:
    """A run, and the label of the one deployment of it that is meant; None: all. `text`: as it was given."""

    text: str
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
class LeftOut:
    """A deployment, scenario and load of one side, or of both (`A and B`), that is not compared, and why."""

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
    (path, label), (other_path, other_label) = _split(a), _split(b)
    run = open_run(path)
    other = run if other_path.resolve() == path.resolve() else open_run(other_path)
    first, second = _side(a, run, label), _side(b, other, other_label)
    first, second = _alike(first, second), _alike(second, first)
    if other is run and first.label == second.label:
        raise UserError(f"{a}, {b}: are the same starts; give another run, or two deployments: DIR:LABEL")
    return first, second


def _split(text: str) -> tuple[Path, str | None]:
    """Return the directory, the longest name that is a run (it may have a `:`), and the label after it."""
    cuts = [n for n, character in enumerate(text) if character == ":" and n]
    for end in (len(text), *reversed(cuts)):
        if (Path(text[:end]) / "run.json").is_file():
            return Path(text[:end]), text[end + 1 :] if end < len(text) else None
    return Path(text), None


def _side(text: str, run: Run, asked: str | None) -> Side:
    if run.record.search is not None:
        raise UserError(f"{text}: is a search, which tried other loads on each start; its page compares them")
    if asked is None or asked in run.deployments:
        return Side(text, run, asked)
    by_slug = [label for label, deployment in run.deployments.items() if deployment.slug == asked]
    if len(by_slug) != 1:
        raise UserError(f"{text}: no such deployment; {run.path} has {_listed(run)}")
    return Side(text, run, by_slug[0])


def _alike(side: Side, other: Side) -> Side:
    """Return one deployment where the other side is one: that of the same label, or the only one."""
    if side.label is not None or other.label is None:
        return side
    found = [label for label in side.labels if label == other.label] or side.labels
    if len(found) != 1:
        listed = _listed(side.run)
        raise UserError(f"{side.text}: say which deployment is compared with {other.label}: {listed}")
    return Side(side.text, side.run, found[0])


def _listed(run: Run) -> str:
    return ", ".join(run.deployments) or "none"


# --- what both have --------------------------------------------------------------------------------


def pairs_of(a: Side, b: Side, names: Names = ("A", "B")) -> tuple[list[Pair], list[LeftOut]]:
    """Return what both sides have under the same load of a scenario, in a's order, and what is left out.

    Raises UserError where they have nothing in common, with the reason.
    """
    whole, rest = _why_none(a, b, names), b.groups
    pairs, left_out = [], []
    for group in a.groups:
        fitting = [each for each in rest if _key(each, a) == _key(group, a)]
        # The same load, else one that is called so and has other bounds.
        other = min(fitting, key=lambda each: _load(each) != _load(group), default=None)
        if other is None:
            left_out.append(LeftOut(names[0], *group.key, f"only {names[0]} has it"))
            continue
        rest.remove(other)
        if why := _why_unlike(group, other):
            left_out.append(LeftOut(" and ".join(names), *group.key, why))
        else:
            pairs.append(Pair(names, (a.run, b.run), (group, other), whole))
    left_out += [LeftOut(names[1], *group.key, f"only {names[1]} has it") for group in rest]
    if not pairs:
        raise UserError(f"{a.text} and {b.text} cannot be compared: {_nothing_in_common(left_out)}")
    return pairs, left_out


def _key(group: Group, side: Side) -> tuple[str | None, ...]:
    """Return what two groups must share; their deployment too, unless one of each side was named."""
    label = group.deployment if side.label is None else None
    return label, group.cells[0].planned.scenario.name, group.scenario, _load(group).label


def _load(group: Group) -> Load:
    return group.cells[0].load


def _why_unlike(a: Group, b: Group) -> str | None:
    if a.model != b.model:
        return f"other models: {a.model} and {b.model}"
    first, second = (group.cells[0].planned.scenario.options for group in (a, b))
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    said = ", ".join(f"{name} {first.get(name)} and {second.get(name)}" for name in names)
    return f"other scenario options: {said}" if said else None


def _why_none(a: Side, b: Side, names: Names) -> str | None:
    """Return why nothing of the two sides gets a verdict."""
    for name, side in zip(names, (a, b), strict=True):
        if not all(side.run.is_restarted(label) for label in side.labels):
            return f"{name} was running already and was not restarted between repeats"
    return hardware_differs(a.run, b.run)


def _nothing_in_common(left_out: list[LeftOut]) -> str:
    if whys := [each.why for each in left_out if " and " in each.side]:
        return several(whys, "; ")
    listed = several([f"{each.side} has {each.what}" for each in left_out], "; ")
    return (
        f"no deployment, scenario and load in common ({listed}); "
        "DIR:DEPLOYMENT compares deployments of other names"
    )


def notes_of(pair: Pair) -> tuple[str, ...]:
    """Return what a reader has to know of a pair that no check of either run can have found."""
    notes = [] if pair.has_same_seeds else ["other seeds: not the same conversations on both sides"]
    if _load(pair.groups[0]) != _load(pair.groups[1]):
        notes.append("other bounds of the load; see what differs")
    return tuple(notes)
