"""The top of the page: the question, what was run in plain words, the answer, and what it goes by."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from reports import decision_text
from reports.answer import answer_of
from reports.described import question, what_was_run
from reports.frames import Run
from reports.marks import mark_html, marks_between
from reports.page.doubts import doubts, left_out
from reports.page.markup import Html, join, paragraph, plural, tag, unbroken
from reports.said import Said
from reports.standing_table import standing_table


def opening(run: Run) -> Html:
    """The first screen: the question, the traffic, the answer, the table to choose from, and the reasons to
    distrust them."""
    parts = [tag("h1", unbroken(question(run))), paragraph(unbroken(what_was_run(run)), "sub")]
    if run.record.stopped_because:
        parts.append(paragraph(f"until ended: {run.record.stopped_because}.", "sub"))
    if cut := _cut(run):
        parts.append(tag("div", tag("b", "This run was cut short. "), cut, class_="cut", role="alert"))
    return join([*parts, _answer(run), *_tables(run), doubts(run), left_out(run)])


def _answer(run: Run) -> Html:
    """What the run says, with the marks of the numbers that it goes by."""
    if decided := decision_text.answers(run):
        return _box(decided, mark_html(decision_text.answer_marks(run)), decision_text.basis(run))
    found = answer_of(run)
    marks = [each for a, b, metric in found.numbers for each in marks_between(run, a, b, metric)]
    return _box(found.said, mark_html(list(dict.fromkeys(marks))), found.basis)


def _box(said: Sequence[Said], marks: Html, basis: str) -> Html:
    """What stands out of an answer, then the rest of it, and by which rule it is given."""
    parts = [join([tag("b", f"{each.lead}."), f" {each.text}"]) for each in said]
    spaced = [part for each in parts for part in (Html(" "), each)][1:]
    small = [tag("small", basis)] if basis else []
    return paragraph(join([*spaced, marks, *small]), "answer")


def _tables(run: Run) -> Iterator[Html]:
    """One for each scenario and model, where anything was measured."""
    lineups = [each for each in run.lineups if any(cell.counts for cell in run.planned_cells)]
    for lineup in lineups:
        if len(lineups) > 1:
            names = {
                "scenario": (lineup.scenario, {each.scenario for each in lineups}),
                "model": (lineup.model, {each.model for each in lineups}),
                "family": (lineup.family, {each.family for each in lineups}),
            }
            title = ", ".join(name for name, others in names.values() if len(others) > 1)
            yield tag("h2", title, class_="case")
        yield standing_table(run, lineup)


def _cut(run: Run) -> str | None:
    """What is missing of a run that did not reach its end; None where it did."""
    if run.record.status == "completed":
        return None
    how = {
        "running": "It has no end on record: bench was killed, or is still running.",
        "interrupted": "It was interrupted.",
    }[run.record.status]
    groups = {
        status: [f"{cell.number:03d}" for cell in run.planned_cells if cell.status == status]
        for status in ("in flight", "interrupted", "not measured")
    }
    said = [
        f"{status.capitalize()}: {plural(len(numbers), 'cell')} ({', '.join(numbers)})."
        for status, numbers in groups.items()
        if numbers
    ]
    path = run.path
    return " ".join(
        [how, *said, f"bench run --resume {shlex.quote(str(path))} measures what is missing." if said else ""]
    )
