"""Tables as data: what each column is called, and what stands in it for one thing."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from reports.measures.written import NOTHING
from reports.page.markup import OPEN_ROWS, Html, Of, Row, details, paragraph, table, tag

T = TypeVar("T")
Cell = Html | str
Columns = Mapping[str, Callable[[T], Cell]]


def listed(
    title: str,
    note: Html | str,
    columns: Columns[T],
    things: Sequence[T],
    of: Callable[[T], Of] = lambda _: Of(),
    class_: str = "plain loads",
) -> list[Html]:
    """Return a heading, a note and a table with a row for each thing, or nothing without any thing.

    A column in which nothing stands is left out; a long table is folded. `of`: what a row is about.
    """
    if not things:
        return []
    said = [paragraph(note) if isinstance(note, str) else note] if note else []
    whole = plainly(title, columns, things, of, class_)
    return [tag("h3", title), *said, whole if len(things) <= OPEN_ROWS else details("Table", whole)]


def plainly(
    name: str,
    columns: Columns[T],
    things: Sequence[T],
    of: Callable[[T], Of] = lambda _: Of(),
    class_: str = "plain loads",
) -> Html:
    """Return the table alone; `name` is heard by who cannot see it."""
    return table(*filled(columns, things, of), class_, name)


def filled(
    columns: Columns[T], things: Sequence[T], of: Callable[[T], Of] = lambda _: Of()
) -> tuple[list[str], list[Row]]:
    """Return the columns in which anything stands, and a row for each thing."""
    cells = {name: [show(thing) for thing in things] for name, show in columns.items()}
    kept = {
        name: column for name, column in cells.items() if any(cell not in ("", NOTHING) for cell in column)
    }
    return list(kept), [
        Row([column[at] for column in kept.values()], of(thing)) for at, thing in enumerate(things)
    ]


def fold(id_: str, title: str, claim: str, *content: Html | str) -> Html:
    """Return a part of a section that shows its title and what it comes to until it is opened."""
    head = tag("summary", tag("b", title), f": {claim}")
    return tag("details", head, *content, id=id_, class_="part")


def below(main: Html | str, *said: str) -> Html:
    """Return a cell's value with smaller words below it."""
    lines = [tag("span", line, class_="range") for line in said if line]
    return tag("div", main, *lines) if lines else tag("span", main)
