"""What a section of the page is declared with: topics, charts and tables as data.

A declaration names the rows that are shown, the columns that they have and how they are drawn; nothing of it
knows a run. Called with a run it returns the parts of the page, none where there is no row. Where words
depend on the run, a function of the run stands in their place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from reports.data import Group, Run, grouped
from reports.measures import NOTHING
from reports.page.drawing import charts
from reports.page.drawing.kinds import Drawn
from reports.page.looks import ALL, OPEN_ROWS, Html, Of, Row, macro, paragraph, table, tag
from reports.verdicts import LoadCase, load_cases_of, title_of_case

T = TypeVar("T")
Words = str | Callable[[Run], str]
Shown = Html | str
# What a column is called (text, Html, or a Head that says what all of it is about), and what stands in it for
# one thing.
Columns = Mapping[Any, Callable[[T], Shown]]
# A declared chart or table, or a function that returns such parts.
Shows = Callable[[Run], Sequence[charts.Part]]


def said(words: Words, run: Run) -> str:
    """Return words as they are, or what the function of the run returns."""
    return words if isinstance(words, str) else words(run)


def shown(shows: Sequence[Shows], run: Run) -> list[charts.Part]:
    """Return the parts of a run that are shown."""
    return [part for show in shows for part in show(run)]


@dataclass(frozen=True)
class Notes:
    """Paragraphs: one, or each of several."""

    words: str | Callable[[Run], str | Sequence[str]]

    def __call__(self, run: Run) -> list[charts.Part]:
        given = self.words if isinstance(self.words, str) else self.words(run)
        return [paragraph(each) for each in ([given] if isinstance(given, str) else given) if each]


@dataclass(frozen=True)
class Table(Generic[T]):
    """A table below a heading and a note, which is folded if it is long; `is_bare`: the table alone. `of`:
    what a row is about; `look`: its classes in the style sheet."""

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
    """A chart of rows, with the table of the same rows. `draw` makes traces and layout with a function of
    reports/page/drawing. `each`: a chart for every value that it has, which is then its title; else `what` is
    drawn, and `finding` what it shows. `of` is what a row is about, `about` what all are. Of fewer than two
    points there is the table alone."""

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
        return [part for at, own in by_title for part in self._chart(run, f"{self.id}-{at}", *own)]

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
    """Return what all of them are about."""
    same = (set(values) for values in zip(*(vars(of).values() for of in ofs), strict=True))
    return Of(*(values.pop() if len(values) == 1 else None for values in same))


@dataclass(frozen=True)
class Block:
    """What is shown below a heading of its own, or folded behind it."""

    title: Words
    shows: Sequence[Shows]
    is_folded: bool = False

    def __call__(self, run: Run) -> list[charts.Part]:
        parts = shown(self.shows, run)
        return charts.block(said(self.title, run), parts, is_folded=self.is_folded) if parts else []


@dataclass(frozen=True)
class AtEachLoad:
    """A block for each load, open for the one that is told first. `shows` returns what it has."""

    shows: Callable[[Run, LoadCase], Sequence[Shows]]

    def __call__(self, run: Run) -> list[charts.Part]:
        found = list[charts.Part]()
        for case in load_cases_of(run):
            if parts := shown(self.shows(run, case), run):
                title = title_of_case(run, case)
                found += charts.block(title, parts, Of(load=case.load), is_folded=not case.is_open)
        return found


@dataclass(frozen=True)
class Fold:
    """A line with its title and what it comes to, which opens. It is on the page if it comes to
    anything."""

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
    """A part of a section with a heading, what it says first, what it shows, and how to read that. It is not
    on the page where it shows nothing, or the run is none of its kind (`when`)."""

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
    """A section of the page: its id, its name in the bar, its topics, and its heading where that says more
    than the bar has room for."""

    id: str
    name: str
    topics: Sequence[Topic]
    title: str = ""


# --- cells -----------------------------------------------------------------------------------------


def filled(
    columns: Columns[T], things: Sequence[T], of: Callable[[T], Of] = lambda _: Of()
) -> tuple[list[Any], list[Row]]:
    """Return the columns in which anything stands, and a row for each thing."""
    cells = {name: [show(thing) for thing in things] for name, show in columns.items()}
    kept = {name: own for name, own in cells.items() if any(cell not in ("", NOTHING) for cell in own)}
    return list(kept), [Row([own[at] for own in kept.values()], of(thing)) for at, thing in enumerate(things)]


def of_group(group: Group) -> Of:
    """Return what a row or point of a group is about."""
    return Of(group.deployment, group.load)


def below(main: Shown, *said: str) -> Html:
    """Return a cell's value with smaller words below it."""
    return tag("div", main, *(tag("span", line, class_="range") for line in said if line))
