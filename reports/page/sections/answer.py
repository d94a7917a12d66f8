"""Answer: the question, the answer, the table to choose from, and the reasons to distrust them."""

from itertools import zip_longest

from reports.checks.examine import findings_of
from reports.data.run import Run
from reports.measures.written import several
from reports.page.looks import Html, macro, unbroken
from reports.page.standing import answer_table
from reports.verdicts.decisions import decisions_of
from reports.words.answer import answers_of, basis
from reports.words.described import cut_short, question, what_was_run

# Reasons to distrust that fit on a screen; the others are folded.
_TOLD = 5


def opening(run: Run) -> Html:
    """Draw the first screen: question, answer, the table to choose from, and what speaks against it."""
    said = answers_of(run)
    tables = [(made.case.load, answer_table(run, made)) for made in decisions_of(run)]
    return macro(
        "opening",
        unbroken(question(run)),
        len(said) == 1,
        run.record.stopped_because
        and f"{'until ended: ' * bool(run.record.until)}{run.record.stopped_because}",
        cut_short(run),
        [
            (each, each and unbroken(f"{each.lead}."), *(table or ("", "")))
            for each, table in zip_longest(said, tables)
        ],
        unbroken(what_was_run(run)),
        basis(run),
        several([skip.what for skip in run.record.plan.skips]),
        findings_of(run),
        _TOLD,
    )
