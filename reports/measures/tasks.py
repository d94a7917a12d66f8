"""How many items of a task each deployment gets right, and which ones its reference gets otherwise."""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from harness.contracts import Item
from reports.data import Heard, Run, heard_of, once, rank, references_of
from reports.measures.slo import wilson
from reports.stats.intervals import of_values


@dataclass(frozen=True)
class Flips:
    """The items that a deployment answers otherwise than its reference: `broken` were right, `mended` wrong.

    `items`: those that both answered, and that are right or wrong, not between. `p`: of a split as uneven by
    chance, if both were as good (McNemar's exact test).
    """

    against: str
    items: int
    broken: int
    mended: int
    p: float


@dataclass(frozen=True)
class TaskScore:
    """A deployment's mean score over the items of a task that it answered (`scored` of `items`).

    `interval`, at 95 % over items: Wilson's where each is right or wrong, else Student's. `flips`: None for
    the reference itself, and where there is none.
    """

    label: str
    task: str
    items: int
    scored: int
    score: float | None
    interval: tuple[float, float] | None
    flips: Flips | None


@once
def task_scores(run: Run) -> list[TaskScore]:
    """Return the scores by task, and within by deployment; empty where no task was asked."""
    found = heard_of(run).values()
    tasks = dict.fromkeys(task for heard in found for task in heard.tasks)
    return [
        _score(task, heard, _reference(run, task, heard))
        for task in tasks
        for heard in found
        if task in heard.tasks
    ]


@once
def below_least(run: Run) -> dict[str, str]:
    """Return whose score of a task is not known to be at least what it has to be, by label, and why."""
    least, said = run.record.quality.least_score_share, "slo.tasks.score" in run.record.settings
    key = "slo.tasks.score" if said else "quality.least_score"
    return {
        each.label: f"{100 * each.score:.1f} % of {each.task} right, at least "
        f"{100 * each.interval[0]:.1f} %: not known to reach {key}={least:g}"
        for each in task_scores(run)
        if least is not None and each.score is not None and each.interval and each.interval[0] < least
    }


def _reference(run: Run, task: str, own: Heard) -> Heard | None:
    """Return whom its probabilities are held against; without those, the one with most bits."""
    alike = [each for each in heard_of(run).values() if each.model == own.model]
    known = references_of(run).get(own.model)
    found = [*([known] if known else []), *sorted(alike, key=rank)]
    return next((each for each in found if task in each.tasks), None)


def _score(task: str, own: Heard, base: Heard | None) -> TaskScore:
    items = own.tasks[task]
    scores = [each.score for each in items if each.score is not None]
    mean = sum(scores) / len(scores) if scores else None
    flips = _flips(items, base.tasks[task], base.name) if base and base is not own else None
    label = own.start.deployment.label
    return TaskScore(label, task, len(items), len(scores), mean, _interval(scores), flips)


def _interval(scores: Sequence[float]) -> tuple[float, float] | None:
    if len(scores) < 2:
        return None
    if set(scores) <= {0.0, 1.0}:
        return wilson(int(sum(scores)), len(scores))
    return of_values(scores, is_log=False).interval()


def _flips(own: Sequence[Item], theirs: Sequence[Item], against: str) -> Flips:
    before = {(each.item, each.prompt_sha256): each.score for each in theirs}
    pairs = [(before.get((each.item, each.prompt_sha256)), each.score) for each in own]
    decided = [pair for pair in pairs if set(pair) <= {0.0, 1.0}]
    broken, mended = decided.count((1.0, 0.0)), decided.count((0.0, 1.0))
    p = float(binomtest(broken, broken + mended).pvalue) if broken + mended else 1.0
    return Flips(against, len(decided), broken, mended, p)
