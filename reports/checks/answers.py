"""Reasons to doubt a server's answers: not of the same text, not the same twice, others under load.

And that nobody measured how well it answers.
"""

from collections.abc import Iterator, Mapping

from harness.contracts import Way
from reports.checks.finding import SPEED, Seen, cells_of, check
from reports.data.run import Run
from reports.measures.fidelity import Outcome
from reports.measures.quality import quality_of
from reports.measures.written import several

# What becomes of a prompt that is asked again; all but the first two are a reason to distrust.
BECAME: Mapping[Outcome, str] = {
    "same": "the same",
    "tie": "near ties",
    "other": "answered otherwise",
    "empty": "empty",
    "cut": "cut off",
    "failed": "failed",
}


@check(
    "Not the same text",
    "Not comparable: {}.",
    "The same engine.chat_template for all; look for a beginning-of-text token that is doubled or lacks.",
    (*SPEED, "input_tokens"),
    marks=True,
    is_at_name=True,
)
def text_not_comparable(run: Run) -> Iterator[Seen]:
    """Look for prompts and texts that are other tokens than the reference's."""
    for label, found in quality_of(run).items():
        if found.unlike:
            yield f"{label}: {found.unlike}", cells_of(run, {label})


@check(
    "Answers change under load",
    "Greedy answers at the highest load, against the same server's alone: {}.",
    "Its speed may be of answers that are worse: look at them, and at the server's log.",
    marks=True,
    is_at_name=True,
)
def answers_change_under_load(run: Run) -> Iterator[Seen]:
    """Look for answers that change, are empty, or break off under load."""
    for label, words in _asked_again(run, "load"):
        yield f"{label}: {words}", cells_of(run, {label})


@check(
    "Temperature 0 gives other answers",
    "The same prompts asked twice, alone: {}. What differs from its reference may be chance.",
    "Look for a sampling parameter that it does not take from requests.",
    (),
)
def not_repeatable(run: Run) -> Iterator[Seen]:
    """Look for answers that are not the same twice."""
    for label, words in _asked_again(run, "again"):
        yield f"{label}: {words}", ()


def _asked_again(run: Run, way: Way) -> Iterator[tuple[str, str]]:
    # A near tie may be rounding, which depends on what else is computed at once.
    for label, found in quality_of(run).items():
        counts = found.again.get(way, {})
        if words := [f"{n} {said}" for each, said in [*BECAME.items()][2:] if (n := counts.get(each))]:
            yield label, f"of {sum(counts.values())} {', '.join(words)}"


@check(
    "Quality is not measured",
    "{} may answer differently well; speed and memory alone do not choose between them.",
    "quality=fidelity, judge the answers on a task of yours, or compare at one quantization=NAME.",
    (),
)
def quality_not_measured(run: Run) -> Iterator[Seen]:
    """Look for several quantizations with quality not measured."""
    known = {label for label, each in quality_of(run).items() if each.is_reference or each.told}
    names = {label: each.quantization for label, each in run.deployments.items() if each.quantization != "-"}
    if len(set(names.values())) > 1 and (unknown := [names[label] for label in names if label not in known]):
        yield several(unknown), ()
