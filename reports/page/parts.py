"""What a section of the page is made of: topics, charts, tables and notes as data, and their markup.

A part that shows nothing is false, and the page leaves it out. Knows no run.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from serving_bench.reports.data import Group
from serving_bench.reports.measures import NOTHING
from serving_bench.reports.page.looks import ALL, OPEN_ROWS, Html, Of, Row, join, macro, paragraph, table, tag

HEIGHT_PX = 300
# The style sheet's class of each pattern of a bar.
_PATTERNS = {"": "", "/": "slash", ".": "dots", "|": "bars", "-": "dashes", "x": "crosses"}
Shown = Html | str


class Part(Protocol):
    """What stands in a section, with its markup: one of the classes below, or markup alone."""

    def __html__(self) -> str: ...


@dataclass(frozen=True)
class Notes:
    """Paragraphs of text; empty ones are left out."""

    words: Sequence[str]

    def __bool__(self) -> bool:
        return any(self.words)

    def __html__(self) -> str:
        return join(paragraph(each) for each in self.words if each)


@dataclass(frozen=True)
class Table:
    """A table below a heading and a note, folded if it is long. Columns without any value are left out.

    `look`: its classes in the style sheet. `is_bare`: without heading and note.
    """

    title: str
    rows: Sequence[Row]
    look: str = "plain loads"
    note: str = ""
    is_bare: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __html__(self) -> str:
        whole = table(filled(self.rows), self.look, self.title)
        if self.is_bare:
            return whole
        if len(self.rows) > OPEN_ROWS:
            whole = tag("details", tag("summary", "Table"), whole, class_="folded")
        return Block(self.title, [Notes([self.note]), whole]).__html__()


@dataclass(frozen=True)
class Chart:
    """A drawing with its title, its note, and a table of the same numbers.

    `what` says what is drawn; `finding` says what it shows, if the intervals support that. When the filters
    leave only a part, the title is `what`, since a finding is about the whole. `names_ends`: each line's
    deployment is written where the line ends. The layout may set a height, and its annotations and shapes may
    say for the filters what they are about, as `of`.
    """

    id: str
    what: str
    traces: Sequence[dict[str, Any]]
    layout: dict[str, Any]
    rows: Sequence[Row]
    note: str = ""
    finding: str | None = None
    of: Of = ALL
    names_ends: bool = False
    is_wide: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows)

    @property
    def is_drawn(self) -> bool:
        """Return whether it has two different points. With fewer, the page has only the table."""
        points = (
            (trace["type"], *at) for trace in self.traces for at in zip(trace["x"], trace["y"], strict=True)
        )
        return len(set(points)) > 1

    @property
    def title(self) -> str:
        return self.finding or self.what

    def __html__(self) -> str:
        """Return its place on the page, with its title, note and table."""
        if not self.is_drawn:
            whole = Table(self.what, self.rows, "plain", is_bare=True)
            return Block(self.what, [whole], shared(self.rows)).__html__()
        load = self.of.load
        # Charts at several loads may have the same title.
        name = f"{self.title}, {load}" if load and load not in self.title else self.title
        return macro("figure", self, table(filled(self.rows), "plain", name))

    @property
    def key(self) -> list[tuple[Html, str, str, str]]:
        """Return the swatches of the bars: name, colour, the class of the pattern, and its ink."""
        bars = [(bar["name"], bar["marker"]) for bar in self.traces if bar["type"] == "bar"]
        return [
            (Html(name), drawn["color"], _PATTERNS[drawn["pattern"]["shape"]], drawn["pattern"]["fgcolor"])
            for name, drawn in bars
        ]

    def to_builtins(self) -> dict[str, Any]:
        return {
            "traces": list(self.traces),
            "layout": {"height": HEIGHT_PX, **self.layout},
            "names_ends": self.names_ends,
            **({"title": self.title, "quantity": self.what} if self.finding else {}),
        }


@dataclass(frozen=True)
class Block:
    """Parts below a heading of their own, or folded behind it."""

    title: str
    parts: Sequence[Part]
    of: Of = ALL
    is_folded: bool = False

    def __bool__(self) -> bool:
        return any(self.parts)

    def __html__(self) -> str:
        return macro("block", self, rendered(self.parts))


@dataclass(frozen=True)
class Fold:
    """A line with a title and what it comes to, which unfolds. It is left out if it comes to nothing."""

    id: str
    title: str
    claim: str
    parts: Sequence[Part]

    def __bool__(self) -> bool:
        return bool(self.claim)

    def __html__(self) -> str:
        return macro("fold", self, rendered(self.parts))


@dataclass(frozen=True)
class Topic:
    """A part of a section: its heading, what it shows, what it says first (`claim`), and how to read that."""

    id: str
    title: str
    parts: Sequence[Part]
    claim: str = ""
    how: str = ""

    def __bool__(self) -> bool:
        return any(self.parts)

    @property
    def body(self) -> Html:
        return macro("topic", self, rendered(self.parts))

    @property
    def charts(self) -> list[Chart]:
        return list(_charts(self.parts))


@dataclass(frozen=True)
class Section:
    """A section of the page. `name` stands in the bar; `title` is the heading, if it is another."""

    id: str
    name: str
    topics: Sequence[Topic]
    title: str = ""


def rendered(parts: Iterable[Part]) -> Html:
    """Return the markup of parts. Adjacent charts stand side by side if there is room."""
    blocks: list[Html] = []
    for is_grid, neighbours in itertools.groupby(filter(None, parts), _is_drawn):
        markup = map(Html, neighbours)
        blocks += [tag("div", *markup, class_="grid")] if is_grid else markup
    return join(blocks)


def _is_drawn(part: Part) -> bool:
    return isinstance(part, Chart) and part.is_drawn


def _charts(parts: Iterable[Part]) -> Iterator[Chart]:
    for part in filter(None, parts):
        if isinstance(part, Chart):
            yield from [part] * part.is_drawn
        elif isinstance(part, Block | Fold):
            yield from _charts(part.parts)


# --- rows ------------------------------------------------------------------------------------------


def filled(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without the columns that are empty in all of them."""
    kept = {title for row in rows for title, cell in row.cells.items() if cell not in ("", NOTHING)}
    return [
        replace(row, cells={title: row.cells[title] for title in row.cells if title in kept}) for row in rows
    ]


def shared(rows: Sequence[Row]) -> Of:
    """Return what all rows are about."""
    same = (set(values) for values in zip(*(vars(row.of).values() for row in rows), strict=True))
    return Of(*(values.pop() if len(values) == 1 else None for values in same))


def of_group(group: Group) -> Of:
    """Return what a group's row or point is about."""
    return Of(group.deployment, group.load)


def below(main: Shown, *lines: str) -> Html:
    """Return a cell's value with lines of smaller text below it."""
    return tag("div", main, *(tag("span", line, class_="range") for line in lines if line))
