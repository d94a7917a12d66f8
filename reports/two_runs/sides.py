"""The two sides of a comparison: which runs and deployments are meant, and what both have. No verdicts."""

from dataclasses import dataclass
from pathlib import Path

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
    def groups(self) -> list[Group]:
        return [each for each in self.run.groups if self.label in (None, each.deployment)]


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


def open_sides(a: str, b: str) -> tuple[Side, Side]:
    """Open both sides, each `DIR` or `DIR:deployment`; a directory that is given twice is read once.

    A deployment that only one names is that of the other too, else the other's only one. Raises StoreError
    where a run cannot be read, UserError for a search and for an unknown deployment.
    """
    (path, label), (other_path, other_label) = _split(a), _split(b)
    run = open_run(path)
    other = run if other_path.resolve() == path.resolve() else open_run(other_path)
    first, second = _side(a, run, label, other_label), _side(b, other, other_label, label)
    if other is run and first.label == second.label:
        raise UserError(f"{a}, {b}: are the same starts; give another run, or two deployments: DIR:LABEL")
    return first, second


def _split(text: str) -> tuple[Path, str | None]:
    """Return the directory, the longest name that is a run (it may have a `:`), and the label after it."""
    cuts = [n for n, character in enumerate(text) if character == ":" and n]
    for end in (len(text), *reversed(cuts)):
        if (Path(text[:end]) / "run.json").is_file():
            return Path(text[:end]), text[end + 1 :] or None
    return Path(text), None


def _side(text: str, run: Run, label: str | None, others: str | None) -> Side:
    if run.record.search is not None:
        raise UserError(f"{text}: is a search, which tried other loads on each start; its page compares them")
    asked = label or others
    if asked is None:
        return Side(text, run)
    found = [name for name, each in run.deployments.items() if asked in (name, each.slug)]
    if label is None and not found:
        found = list(run.deployments)
    if len(found) != 1:
        raise UserError(
            f"{text}: which deployment is {asked}, or compared with it? {run.path} has "
            f"{', '.join(run.deployments) or 'none'}"
        )
    return Side(text, run, found[0])


def pairs_of(a: Side, b: Side, names: Names = ("A", "B")) -> tuple[list[Pair], list[LeftOut]]:
    """Return what both sides have under a load of the same name, in a's order, and what is left out.

    Raises UserError where they have nothing in common, with the reasons.
    """
    whole = _why_none(a, b, names)
    # Two deployments that were named may have other labels.
    first = 0 if a.label is None else 1
    rest = {group.key[first:]: group for group in b.groups}
    pairs, left_out = [], []
    for group in a.groups:
        other = rest.pop(group.key[first:], None)
        if other is None:
            left_out.append(LeftOut(names[0], *group.key, f"only {names[0]} has it"))
        elif why := _why_unlike(group, other):
            left_out.append(LeftOut(" and ".join(names), *group.key, why))
        else:
            pairs.append(Pair(names, (a.run, b.run), (group, other), whole))
    left_out += [LeftOut(names[1], *group.key, f"only {names[1]} has it") for group in rest.values()]
    if not pairs:
        whys = several([f"{each.what}: {each.why}" for each in left_out], "; ")
        raise UserError(
            f"{a.text} and {b.text} cannot be compared: {whys}. DIR:DEPLOYMENT compares deployments of other "
            "names"
        )
    return pairs, left_out


def _why_unlike(a: Group, b: Group) -> str | None:
    if a.model != b.model:
        return f"other models: {a.model} and {b.model}"
    scenarios = (group.cells[0].planned.scenario for group in (a, b))
    first, second = ({"scenario": each.name, **each.options} for each in scenarios)
    names = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    said = ", ".join(f"{name} {first.get(name)} and {second.get(name)}" for name in names)
    return f"other scenario options: {said}" if said else None


def _why_none(a: Side, b: Side, names: Names) -> str | None:
    for name, side in zip(names, (a, b), strict=True):
        if not all(side.run.is_restarted(group.deployment) for group in side.groups):
            return f"{name} was running already and was not restarted between repeats"
    return hardware_differs(a.run, b.run)
