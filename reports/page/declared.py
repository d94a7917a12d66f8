"""What a section of the page is declared with: topics, charts and tables as data.

A declaration names the rows to show, their columns and how they are drawn, and knows no run. Called with a
run, it returns parts of the page, or none if there is no row. Text that depends on the run is given as a
function of the run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serving_bench.reports.data import Group, Run, grouped
from serving_bench.reports.measures import NOTHING
from serving_bench.reports.page.drawing import charts
from serving_bench.reports.page.drawing.kinds import Drawn
from serving_bench.reports.page.looks import ALL, OPEN_ROWS, Html, Of, Row, macro, paragraph, table, tag
from serving_bench.reports.verdicts import LoadCase, load_cases_of, title_of_case

T = TypeVar("T")
Words = str | Callable[[Run], str]
Shown = Html | str
# By the column's title (text, Html, or a Head that says what all of it is about), what one thing has in it.
Columns = Mapping[Any, Callable[[T], Shown]]
# A declared chart or table, or a plain function that returns parts.
Shows = Callable[[Run], Sequence[charts.Part]]


def said(words: Words, run: Run) -> str:
    """Return the text, which may be a function of the run."""
    return words if isinstance(words, str) else words(run)


def shown(shows: Sequence[Shows], run: Run) -> list[charts.Part]:
    """Return all parts that some declarations show of a run."""
    return [part for show in shows for part in show(run)]


@dataclass(frozen=True)
class Notes:
    """One or several paragraphs of text."""

    words: str | Callable[[Run], str | Sequence[str]]

    def __call__(self, run: Run) -> list[charts.Part]:
        given = self.words if isinstance(self.words, str) else self.words(run)
        return [paragraph(each) for each in ([given] if isinstance(given, str) else given) if each]


@dataclass(frozen=True)
class Table(Generic[T]):
    """A table below a heading and a note, folded if it is long.

    `of`: what a row is about. `look`: the table's classes in the style sheet. `is_bare`: without heading and
    note.
    """

    title: Words
    rows: Callable[[Run], Sequence[T]]
    columns: Callable[[Run], Columns[T]]
    of: Callable[[T], Of] = lambda _: ALL
    look: str = "plain loads"
    note: Words = ""
    is_bare: bool = False

    def __call__(self, run: Run) -> list[charts.Part]:
        title, rows = said(self.title, run), self.rows(run)
        if not rows:
            return []
        whole = table(*filled(self.columns(run), rows, self.of), self.look, title)
        if self.is_bare:
            return [whole]
        if len(rows) > OPEN_ROWS:
            whole = tag("details", tag("summary", "Table"), whole, class_="folded")
        return charts.block(title, [*Notes(self.note)(run), whole])


@dataclass(frozen=True)
class Chart(Generic[T]):
    """A chart of rows, with a table of the same rows. With fewer than two points there is only the table.

    `draw` makes traces and layout with a function of reports/page/drawing. `what` says what is drawn and
    `finding` what it shows. With `each` there is a chart for every value it has, which is that chart's title.
    `of`: what a row is about; `about`: what all rows are about.
    """

    id: str
    what: Words
    rows: Callable[[Run], Sequence[T]]
    draw: Callable[[Run, Sequence[T]], Drawn]
    columns: Callable[[Run], Columns[T]]
    of: Callable[[T], Of] = lambda _: ALL
    each: Callable[[T], str] | None = None
    finding: Callable[[Run], str | None] = lambda _: None
    note: str | Callable[[Sequence[T]], str] = ""
    about: Of = ALL
    names_ends: bool = False
    is_wide: bool = False

    def __call__(self, run: Run) -> list[charts.Part]:
        rows = self.rows(run)
        if not self.each:
            return self._chart(run, self.id, said(self.what, run), rows) if rows else []
        by_title = enumerate(grouped(rows, self.each).items())
        return [
            part for at, arguments in by_title for part in self._chart(run, f"{self.id}-{at}", *arguments)
        ]

    def _chart(self, run: Run, id_: str, what: str, rows: Sequence[T]) -> list[charts.Part]:
        traces, layout = self.draw(run, rows)
        cells = filled(self.columns(run), rows, self.of)
        if len({(t["type"], *at) for t in traces for at in zip(t["x"], t["y"], strict=True)}) < 2:
            return charts.block(what, [table(*cells, "plain", what)], shared(list(map(self.of, rows))))
        return [
            charts.Chart(
                id_,
                what,
                traces,
                layout,
                *cells,
                self.note if isinstance(self.note, str) else self.note(rows),
                finding=self.finding(run),
                of=shared(list(map(self.of, rows))) if self.each else self.about,
                names_ends=self.names_ends,
                is_wide=self.is_wide,
            )
        ]


def shared(ofs: Sequence[Of]) -> Of:
    """Return what all of them have in common."""
    same = (set(values) for values in zip(*(vars(of).values() for of in ofs), strict=True))
    return Of(*(values.pop() if len(values) == 1 else None for values in same))


@dataclass(frozen=True)
class Block:
    """Parts below a heading of their own, or folded behind it."""

    title: Words
    shows: Sequence[Shows]
    is_folded: bool = False

    def __call__(self, run: Run) -> list[charts.Part]:
        parts = shown(self.shows, run)
        return charts.block(said(self.title, run), parts, is_folded=self.is_folded) if parts else []


@dataclass(frozen=True)
class AtEachLoad:
    """A block for each load, of which the one shown first is open. `shows` returns a block's parts."""

    shows: Callable[[Run, LoadCase], Sequence[Shows]]

    def __call__(self, run: Run) -> list[charts.Part]:
        blocks = list[charts.Part]()
        for case in load_cases_of(run):
            if parts := shown(self.shows(run, case), run):
                title = title_of_case(run, case)
                blocks += charts.block(title, parts, Of(load=case.load), is_folded=not case.is_open)
        return blocks


@dataclass(frozen=True)
class Fold:
    """A line with a title and what it comes to, which unfolds. It is left out if it comes to nothing."""

    id: str
    title: str
    claim: Words
    shows: Sequence[Shows]

    def __call__(self, run: Run) -> list[charts.Part]:
        if not (claim := said(self.claim, run)):
            return []
        return [macro("ground", self.id, self.title, claim, charts.rendered(shown(self.shows, run)))]


@dataclass(frozen=True)
class Topic:
    """A part of a section: its heading, what it says first (`claim`), what it shows, and how to read that.

    It is left out if it shows nothing, or if `when` is false for the run.
    """

    id: str
    title: Words
    shows: Sequence[Shows]
    claim: Words = ""
    how: Words = ""
    when: Callable[[Run], bool] = lambda _: True

    def __call__(self, run: Run) -> charts.Section:
        parts = shown(self.shows, run) if self.when(run) else []
        title, claim, how = (said(each, run) if parts else "" for each in (self.title, self.claim, self.how))
        return charts.Section(title, claim, how, parts)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    `name` stands in the bar; `title` is the heading, if it is longer than the name.
    """

    id: str
    name: str
    topics: Sequence[Topic]
    title: str = ""


# --- cells -----------------------------------------------------------------------------------------


def filled(
    columns: Columns[T], things: Sequence[T], of: Callable[[T], Of] = lambda _: Of()
) -> tuple[list[Any], list[Row]]:
    """Return the columns that are not empty, and a row for each thing."""
    cells = {name: [show(thing) for thing in things] for name, show in columns.items()}
    kept = {
        name: column for name, column in cells.items() if any(cell not in ("", NOTHING) for cell in column)
    }
    return list(kept), [
        Row([column[at] for column in kept.values()], of(thing)) for at, thing in enumerate(things)
    ]


def of_group(group: Group) -> Of:
    """Return what a group's row or point is about."""
    return Of(group.deployment, group.load)


def below(main: Shown, *lines: str) -> Html:
    """Return a cell's value with lines of smaller text below it."""
    return tag("div", main, *(tag("span", line, class_="range") for line in lines if line))
