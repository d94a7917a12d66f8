"""The first screen: the question, the answer, the table to choose from, and the reasons to distrust them."""

import re
import shlex
from collections.abc import Iterator

from reports.checks.examine import examine, findings_of
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
    is_one, asked = len(said) == 1, unbroken(question(run))
    parts = [paragraph(asked, "kicker") if is_one else tag("h1", asked), *_warnings(run)]
    for place, each in enumerate(said):
        answer = _answer(each, "h1" if is_one else "h2")
        parts.append(tag("div", answer, *tables[place : place + 1], _note(each.note), class_="case"))
    decided = f"Bold: decided. {found}" if (found := basis(run)) else ""
    small: list[Html | str] = [unbroken(what_was_run(run)), decided, _skipped(run)]
    parts += [*tables[len(said) :], *(paragraph(each) for each in small if each), doubts(run)]
    return join(parts)


def _answer(said: Said, level: str) -> Html:
    """Draw what stands out of an answer, then the rest of it, and when another one should be served."""
    unless = [paragraph(said.unless, "unless")] if said.unless else []
    text = paragraph(said.text.replace(" %", "\N{NO-BREAK SPACE}%"), "said-so")
    return tag("div", tag(level, unbroken(f"{said.lead}.")), text, *unless, class_="answer")


def _note(text: str) -> Html:
    """Draw what would tell more; a command in it is set as one."""
    said, begin, rest = text.partition("bench run ")
    command = [tag("code", begin + rest, class_="command")] if begin else []
    return paragraph(join([said, *command]), "advice") if text else Html("")


def _warnings(run: Run) -> Iterator[Html]:
    if run.record.stopped_because:
        yield paragraph(f"until ended: {run.record.stopped_because}.", "sub")
    if run.is_going_on:
        said = "This run is still running. ", "bench writes the report again at its end."
    elif run.record.status != "completed":
        command = f"bench run --resume {shlex.quote(str(run.path))}"
        said = "This run was cut short. ", f"{command} measures what is missing."
    else:
        return
    yield tag("div", tag("b", said[0]), said[1], class_="cut", role="alert")


def _skipped(run: Run) -> Html | str:
    whats = [skip.what for skip in run.record.plan.skips]
    return join([tag("a", "Not run", href="#skipped"), f": {several(whats)}."]) if whats else ""


def doubts(run: Run) -> Html:
    """Draw the reasons to distrust, worst first, the rest of them folded; nothing where there is none."""
    found = findings_of(run)
    if not found:
        return Html("")
    items = [tag("li", _link(each), f": {_short(each.text)}") for each in found[:_TOLD]]
    rest = [tag("li", _link(each)) for each in found[_TOLD:]]
    clean = plural(sum(not seen for seen in examine(run).values()), "check")
    more = [details(f"{len(rest)} more, and {clean} that found nothing", tag("ul", *rest))] if rest else []
    title = f"{plural(len(found), 'reason')} to distrust this"
    return tag("div", tag("h2", title), tag("ul", *items), *more, class_="why-box doubts")


def _link(finding: Finding) -> Html:
    return tag("a", finding.title, href=f"#distrust-{finding.check}")


def _short(text: str) -> str:
    """Return the beginning of what was seen, up to where a sentence, a clause or a list may end."""
    first = re.split(r"[.;] ", text)[0].rstrip(".")
    begins = re.match(r".{1,120}(?=, |: | \(|$)", first)
    return re.sub(r" \([^)]*$", "", begins[0] if begins else first) + "."
