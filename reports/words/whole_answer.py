"""The answer of a run as its page, the index of runs and other outputs give it: by its search or SLO, else by
its verdicts. Chooses between the two and says nothing of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from reports.checks.examine import marks_between, marks_of
from reports.checks.finding import Finding
from reports.data.run import Run
from reports.words import decision_text
from reports.words.answer import Compared, answer_of
from reports.words.decision_words import basis
from reports.words.said import Said


@dataclass(frozen=True)
class WholeAnswer:
    """`said`: one for each scenario, model and, with an SLO, family of loads. `basis`: by which rule, empty
    where there is no verdict."""

    said: tuple[Said, ...]
    basis: str
    find_marks: Callable[[], list[Finding]] = field(repr=False)

    @property
    def marks(self) -> tuple[Finding, ...]:
        """The reasons to distrust it, each once; the run is examined for them."""
        return tuple(dict.fromkeys(self.find_marks()))


def whole_answer(run: Run) -> WholeAnswer:
    if decided := decision_text.answers(run):
        return WholeAnswer(tuple(decided), basis(run), partial(decision_text.answer_marks, run))
    found = answer_of(run)
    return WholeAnswer(found.said, found.basis, partial(_marks, run, found))


def _marks(run: Run, found: Compared) -> list[Finding]:
    compared = [each for a, b, metric in found.numbers for each in marks_between(run, a, b, metric)]
    return compared + [each for group, metric in found.values for each in marks_of(run, group, metric)]
