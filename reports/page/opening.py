"""The first screen: the question, the answer, the table to choose from, and the reasons to distrust them."""

import shlex
from collections.abc import Iterator

from reports.data.run import Run
from reports.measures.written import plural
from reports.page.answer_table import answer_table, capacity_table
from reports.page.doubts import doubts, left_out
from reports.page.markup import Html, join, paragraph, tag, unbroken
from reports.verdicts.decisions import decisions_of
from reports.verdicts.searches import cases_of_search
from reports.words.answer import answers_of, basis
from reports.words.described import question, what_was_run
from reports.words.said import Said


def opening(run: Run) -> Html:
    """Draw the first screen: question, answer, the table to choose from, and what speaks against it."""
    asked, ran = unbroken(question(run)), paragraph(unbroken(what_was_run(run)), "sub")
    said = answers_of(run)
    tables = list(_tables(run))
    if len(said) > 1:
        head = [tag("h1", asked), ran, *_warnings(run)]
        blocks = [
            tag("div", _answer(each, "h2"), *tables[place : place + 1], _note(each.note), class_="case")
            for place, each in enumerate(said)
        ]
        return join([*head, *blocks, *tables[len(said) :], _basis(run), doubts(run), left_out(run)])
    [only] = said
    kicker = paragraph(asked, "kicker")
    parts = [kicker, _answer(only, "h1"), ran, *_warnings(run), *tables, _note(only.note), _basis(run)]
    return join([*parts, doubts(run), left_out(run)])


def _answer(said: Said, level: str) -> Html:
    """Draw what stands out of an answer, then the rest of it, and when another one should be served."""
    unless = [paragraph(said.unless, "unless")] if said.unless else []
    return tag("div", tag(level, f"{said.lead}."), paragraph(said.text, "said-so"), *unless, class_="answer")


def _note(text: str) -> Html:
    """Draw what would tell more; a command in it is set as one."""
    if not text:
        return Html("")
    said, begin, rest = text.partition("bench run ")
    command = [tag("code", begin + rest, class_="command")] if begin else []
    return paragraph(join([said, *command]), "advice")


def _basis(run: Run) -> Html:
    found = basis(run)
    return paragraph(f"Bold: decided. {found}") if found else Html("")


def _tables(run: Run) -> Iterator[Html]:
    """Yield a table for each answer; of a search for each scenario and model."""
    for made in decisions_of(run):
        yield tag("div", answer_table(run, made), data_at=made.case.load)
    if run.record.search is not None:
        for found in cases_of_search(run).values():
            yield tag("div", capacity_table(run, found))


def _warnings(run: Run) -> Iterator[Html]:
    if run.record.stopped_because:
        yield paragraph(f"until ended: {run.record.stopped_because}.", "sub")
    if cut := _cut(run):
        how = "is still running" if run.is_going_on else "was cut short"
        yield tag("div", tag("b", f"This run {how}. "), cut, class_="cut", role="alert")


def _cut(run: Run) -> str | None:
    """What is missing of a run that did not reach its end; None where it did."""
    if run.record.status == "completed":
        return None
    how = {
        "running": "It has no end on record: bench was killed.",
        "interrupted": "It was interrupted.",
    }[run.record.status]
    if run.is_going_on:
        how = "This is what there is so far; bench writes the report anew at its end."
    groups = {
        status: [f"{cell.number:03d}" for cell in run.planned_cells if cell.status == status]
        for status in ("in flight", "interrupted", "not measured")
    }
    said = [
        f"{status.capitalize()}: {plural(len(numbers), 'cell')} ({', '.join(numbers)})."
        for status, numbers in groups.items()
        if numbers
    ]
    if said and not run.is_going_on:
        said.append(f"bench run --resume {shlex.quote(str(run.path))} measures what is missing.")
    return " ".join([how, *said])
