"""The first screen: the question, the answer, the table to choose from, and the reasons to distrust them."""

import re
import shlex
from collections.abc import Iterator

from reports.checks.examine import findings_of
from reports.checks.finding import Finding
from reports.data.run import Run
from reports.measures.written import plural, several
from reports.page.answer_table import answer_table
from reports.page.markup import Html, details, join, paragraph, tag, unbroken
from reports.verdicts.decisions import decisions_of
from reports.words.answer import Said, answers_of, basis
from reports.words.described import question, what_was_run

# Reasons to distrust that fit on a screen; the others are folded.
_TOLD = 5


def opening(run: Run) -> Html:
    """Draw the first screen: question, answer, the table to choose from, and what speaks against it."""
    said, made = answers_of(run), decisions_of(run)
    tables = [tag("div", answer_table(run, each), data_at=each.case.load) for each in made]
    level, asked = "h1" if len(said) == 1 else "h2", unbroken(question(run))
    parts = [tag("h1", asked) if level == "h2" else paragraph(asked, "kicker"), *_warnings(run)]
    for place, each in enumerate(said):
        parts.append(
            tag("div", _answer(each, level), *tables[place : place + 1], _note(each.note), class_="case")
        )
    parts += [*tables[len(said) :], paragraph(unbroken(what_was_run(run)))]
    if found := basis(run):
        parts.append(paragraph(f"Bold: decided. {found}"))
    if skips := run.record.plan.skips:
        whats = several([skip.what for skip in skips])
        parts.append(paragraph(join([tag("a", "Not run", href="#skipped"), f": {whats}."])))
    return join([*parts, doubts(run)])


def _answer(said: Said, level: str) -> Html:
    unless = [paragraph(said.unless, "unless")] if said.unless else []
    text = paragraph(said.text.replace(" %", "\N{NO-BREAK SPACE}%"), "said-so")
    return tag("div", tag(level, unbroken(f"{said.lead}.")), text, *unless, class_="answer")


def _note(text: str) -> Html:
    """Draw what would tell more; a command in it is set as one."""
    said, _, rest = text.partition(": bench ")
    command = join([": ", tag("code", f"bench {rest}", class_="command")]) if rest else ""
    return paragraph(join([said, command]), "advice") if text else Html("")


def _warnings(run: Run) -> Iterator[Html]:
    if run.record.stopped_because:
        yield paragraph(f"{'until ended: ' * bool(run.record.until)}{run.record.stopped_because}.", "sub")
    if run.is_going_on:
        said = "This run is still running. ", "bench writes the report again at its end."
    elif run.record.status != "completed":
        command = f"bench run --resume {shlex.quote(str(run.path))}"
        said = "This run was cut short. ", f"{command} measures what is missing."
    else:
        return
    yield tag("div", tag("b", said[0]), said[1], class_="cut", role="alert")


def doubts(run: Run) -> Html:
    """Draw the reasons to distrust, worst first, the rest of them folded; nothing where there is none."""
    found = findings_of(run)
    if not found:
        return Html("")
    items = [
        tag("li", _link(each), f": {re.split('[.;] ', each.text)[0].rstrip('.')}.") for each in found[:_TOLD]
    ]
    rest = [tag("li", _link(each)) for each in found[_TOLD:]]
    more = [details(f"{len(rest)} more", tag("ul", *rest))] if rest else []
    title = tag("h2", f"{plural(len(found), 'reason')} to distrust this")
    return tag("div", title, tag("ul", *items), *more, class_="why-box doubts")


def _link(finding: Finding) -> Html:
    return tag("a", finding.title, href=f"#distrust-{finding.check}")
