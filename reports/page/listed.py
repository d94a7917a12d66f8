"""Tables as data: what each column is called, and what stands in it for one thing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from reports.data.cells import Cell
from reports.measures.written import NOTHING
from reports.page.drawing.charts import Block, Part, Table, rendered
from reports.page.markup import Html, Of, Row, paragraph, tag

T = TypeVar("T")
Shown = Html | str
# What a column is called (text, Html, or a Head that says what all of it is about), and what stands in it for
# one thing.
Columns = Mapping[Any, Callable[[T], Shown]]


def listed(
    title: str,
    note: str,
    columns: Columns[T],
    things: Sequence[T],
    of: Callable[[T], Of] = lambda _: Of(),
    look: str = "plain loads",
) -> list[Part]:
    """Return a block with a row for each thing, folded if they are many; nothing without any. `of`: what a
    row is about."""
    said = [paragraph(note)] if note else []
    table = Table(title, *filled(columns, things, of), look, may_fold=True)
    return [Block(title, [*said, table])] if things else []


def tabled(
    name: str,
    columns: Columns[T],
    things: Sequence[T],
    of: Callable[[T], Of] = lambda _: Of(),
    look: str = "plain loads",
) -> Table:
    """Return the table alone; `name` is heard by who cannot see it."""
    return Table(name, *filled(columns, things, of), look)


def filled(
    columns: Columns[T], things: Sequence[T], of: Callable[[T], Of] = lambda _: Of()
) -> tuple[list[Any], list[Row]]:
    """Return the columns in which anything stands, and a row for each thing."""
    cells = {name: [show(thing) for thing in things] for name, show in columns.items()}
    kept = {name: own for name, own in cells.items() if any(cell not in ("", NOTHING) for cell in own)}
    return list(kept), [Row([own[at] for own in kept.values()], of(thing)) for at, thing in enumerate(things)]


def of_cells(name: str, cells: Sequence[Cell], columns: Columns[Cell], look: str) -> Table:
    """Return a table with a row for each cell, which begins with the cell's names."""
    names: Columns[Cell] = {
        "cell": lambda cell: f"{cell.number:03d}",
        "deployment": lambda cell: cell.label,
        "load": lambda cell: cell.load_label,
        "start": lambda cell: str(cell.planned.repeat + 1),
    }
    return tabled(
        name,
        {**names, **columns},
        cells,
        lambda cell: Of(cell.label, cell.load_label, cell.planned.repeat + 1),
        look,
    )


def fold(id_: str, title: str, claim: str, *parts: Part | str) -> Html:
    """Return parts that show their title and what they come to until they are opened. Text is a note; empty
    text and tables without a row are left out."""
    left = (part for part in parts if part and not (isinstance(part, Table) and not part.rows))
    body = rendered(paragraph(part) if isinstance(part, str) else part for part in left)
    return tag("details", tag("summary", tag("b", title), f": {claim}"), body, id=id_, class_="ground")


def below(main: Shown, *said: str) -> Html:
    """Return a cell's value with smaller words below it."""
    return tag("div", main, *(tag("span", line, class_="range") for line in said if line))
