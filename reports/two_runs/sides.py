"""The two sides of a comparison as they are given: a run's directory, or one of its deployments.

Reads the runs; compares nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from reports.data.run import Run, open_run


@dataclass(frozen=True)
class Side:
    """A run, and the label of the one deployment of it that is meant; None: all."""

    run: Run
    label: str | None = None

    @property
    def labels(self) -> list[str]:
        """Of the deployments that are meant, in the plan's order."""
        return [self.label] if self.label is not None else list(self.run.deployments)


def open_sides(a: str, b: str) -> tuple[Side, Side]:
    """Both sides, each `DIR` or `DIR:deployment`; a directory that is given twice is read once.

    Raises StoreError where a run cannot be read, UserError for a deployment that it has not.
    """
    first = _split(a)
    second = _split(b)
    run = open_run(first[0])
    other = run if second[0].resolve() == first[0].resolve() else open_run(second[0])
    for text, each in ((a, run), (b, other)):
        if each.record.search is not None:
            raise UserError(
                f"{text}: is a search, which tried other loads on each start; its page compares them"
            )
    sides = _side(run, a, first[1]), _side(other, b, second[1])
    pair = _like(sides[0], sides[1], a), _like(sides[1], sides[0], b)
    if other is run and pair[0].label == pair[1].label:
        raise UserError(f"{a}, {b}: are the same starts; give another run, or two deployments: DIR:LABEL")
    return pair


def _split(text: str) -> tuple[Path, str | None]:
    """The directory, and what follows it; the longest name that is a run, so that a `:` may be part of it."""
    whole = Path(text)
    if (whole / "run.json").is_file():
        return whole, None
    for directory, label in _cuts(text):
        if (Path(directory) / "run.json").is_file():
            return Path(directory), label
    return whole, None


def _cuts(text: str) -> Iterator[tuple[str, str]]:
    for place in reversed([n for n, character in enumerate(text) if character == ":"]):
        if text[:place]:
            yield text[:place], text[place + 1 :]


def _side(run: Run, text: str, asked: str | None) -> Side:
    if asked is None:
        return Side(run)
    if asked in run.deployments:
        return Side(run, asked)
    by_slug = [label for label, deployment in run.deployments.items() if deployment.slug == asked]
    if len(by_slug) == 1:
        return Side(run, by_slug[0])
    raise UserError(f"{text}: no such deployment; {run.path} has {_listed(run)}")


def _like(side: Side, other: Side, text: str) -> Side:
    """One deployment where the other side is one: of the same label, or the only one there is."""
    if side.label is not None or other.label is None:
        return side
    if other.label in side.run.deployments:
        return Side(side.run, other.label)
    if len(side.run.deployments) == 1:
        return Side(side.run, next(iter(side.run.deployments)))
    raise UserError(f"{text}: say which deployment is compared with {other.label}: {_listed(side.run)}")


def _listed(run: Run) -> str:
    return ", ".join(run.deployments) or "none"
