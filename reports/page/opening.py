"""The top of the page: the question, what was run in plain words, the answer, and what it goes by."""

import shlex
from collections.abc import Iterator

from reports.data.run import Run
from reports.measures.written import plural
from reports.page.doubts import doubts, left_out
from reports.page.marks import mark_html
from reports.page.markup import Html, join, paragraph, tag, unbroken
from reports.page.standing_table import standing_table
from reports.words.described import question, what_was_run
from reports.words.lineups import lineups_of
from reports.words.whole_answer import whole_answer


def opening(run: Run) -> Html:
    """The first screen: the question, the traffic, the answer, the table to choose from, and the reasons to
    distrust them."""
    parts = [tag("h1", unbroken(question(run))), paragraph(unbroken(what_was_run(run)), "sub")]
    if run.record.stopped_because:
        parts.append(paragraph(f"until ended: {run.record.stopped_because}.", "sub"))
    if cut := _cut(run):
        how = "is still running" if run.is_going_on else "was cut short"
        parts.append(tag("div", tag("b", f"This run {how}. "), cut, class_="cut", role="alert"))
    return join([*parts, _answer(run), *_tables(run), doubts(run), left_out(run)])


def _answer(run: Run) -> Html:
    """What stands out of the answer, then the rest of it, its marks, and by which rule it is given."""
    found = whole_answer(run)
    parts = [join([tag("b", f"{each.lead}."), f" {each.text}"]) for each in found.said]
    spaced = [part for each in parts for part in (Html(" "), each)][1:]
    small = [tag("small", found.basis)] if found.basis else []
    return paragraph(join([*spaced, mark_html(found.marks), *small]), "answer")


def _tables(run: Run) -> Iterator[Html]:
    """One for each scenario and model, where anything was measured."""
    lineups = [each for each in lineups_of(run) if any(cell.counts for cell in run.planned_cells)]
    for lineup in lineups:
        if len(lineups) > 1:
            names = {
                "scenario": (lineup.scenario, {each.scenario for each in lineups}),
                "model": (lineup.model, {each.model for each in lineups}),
                "family": (lineup.family, {each.family for each in lineups}),
            }
            title = ", ".join(name for name, others in names.values() if len(others) > 1)
            yield tag("h2", title, class_="case")
        yield tag("div", standing_table(run, lineup), data_at=lineup.load)


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
