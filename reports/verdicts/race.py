"""Look at a race: who leaves it after a repeat, and which of its answers are decided.

The look after r repeats uses the same decisions as the report, on the first r repeats and at that look's
level. Only the leader can beat another, in one paired two-sided test. To leave is a choice of what to measure
and no verdict.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from serving_bench.harness.contracts import AnswerKey, Departure, Fact, Race, because
from serving_bench.harness.errors import StoreError
from serving_bench.reports.data import Group, Run, gathered, grouped, has_failed, open_run
from serving_bench.reports.measures.quality import ruled_out
from serving_bench.reports.measures.slo import judged_cells
from serving_bench.reports.stats.intervals import STARTS_NEEDED, of_blocks
from serving_bench.reports.verdicts.comparisons import level_of
from serving_bench.reports.verdicts.decisions import Decision, decisions_of, decisive_values
from serving_bench.reports.verdicts.pairs import answer_of, dependence_of

# A deployment leaves after two starts that failed, and at the second look at which it could not win.
_FAILED = 2


def look(run_dir: Path, repeats: int) -> Race:
    """Return a race after the look that follows this number of whole repeats.

    Raises StoreError if the directory cannot be read, or has no race.
    """
    run = open_run(run_dir)
    race = _race_of(run)
    # A look sees whole repeats only, so the run counts as ended.
    plan = replace(run.record.plan, race=replace(race, looks=(*race.looks, repeats)))
    return race_after(replace(run, record=replace(run.record, status="completed", plan=plan)))


def race_after(run: Run) -> Race:
    """Return a run's race with what its last look decides. Raises StoreError for a run without one."""
    race = _race_of(run)
    repeats = race.looked
    decided = {answer_of(run, each.case.groups[0]): each for each in decisions_of(run)}
    left, ended, doubted = list(race.left), dict(race.ended), dict.fromkeys(race.doubted)
    for answer, groups in grouped(run.groups, lambda group: answer_of(run, group)).items():
        if answer in ended:
            continue
        decision = decided.get(answer)
        gone = {each.label for each in race.left if each.answer == answer}
        rivals = [label for label in dict.fromkeys(g.deployment for g in groups) if label not in gone]
        whys = {label: why for label in rivals if (why := next(_whys_left(run, race, decision, label), None))}
        left += [
            Departure(label, answer, repeats, why, _behind(decision, why))
            for label, why in whys.items()
            if label not in race.kept
        ]
        if decision and race.level(repeats) and decision.groups:
            doubted |= dict.fromkeys((label, answer) for label in rivals if label in decision.left_out)
        is_same = decision is not None and _are_same_now(run, race, decision, left)
        # The last one is measured as often as the least, so that its own values have an interval.
        is_last = len(rivals) - len(whys) <= 1 and repeats >= race.least
        if is_same or is_last or len(whys) == len(rivals):
            ended[answer] = repeats
    return replace(
        race,
        left=tuple(left),
        ended=tuple(ended.items()),
        going=_going(run, left, ended),
        doubted=tuple(doubted),
    )


def _are_same_now(run: Run, race: Race, decision: Decision, left: Sequence[Departure]) -> bool:
    """Return whether those that this look leaves in an answer are the same."""
    if len(left) == len(race.left) or decision.best is None:
        return decision.kind == "same"
    plan = replace(run.record.plan, race=replace(race, left=tuple(left)))
    again = decisions_of(replace(run, record=replace(run.record, plan=plan)))
    return any(each.case == decision.case and each.kind == "same" for each in again)


def _race_of(run: Run) -> Race:
    if run.record.plan.race is None:
        raise StoreError(f"{run.path}: is no race")
    return run.record.plan.race


@dataclass(frozen=True)
class RaceLook:
    """A deployment's ratio to the leader after this many repeats, with the interval of level `alpha`."""

    repeats: int
    ratio: float
    low: float
    high: float
    alpha: float


@dataclass(frozen=True)
class RaceCourse:
    """How a deployment stood at each look. `left`: why it left at the last of them."""

    group: Group
    looks: Sequence[RaceLook]
    left: Fact | None


def courses_of(run: Run, decision: Decision) -> list[RaceCourse]:
    """Return how the other deployments of an answer stood against the one that leads at the end, by look.

    Empty for a run that is no race, and for values without a ratio.
    """
    race, best = run.record.plan.race, decision.best
    if race is None or best is None or not all(each.is_log for each in best.over.values()):
        return []
    values, courses = decisive_values(run, decision), []
    starts = dependence_of(run, decision.metric)
    last = race.look_of(answer_of(run, decision.case.groups[0]))
    for group in (each for each in decision.groups if each.deployment != best.leader):
        label, looks = group.deployment, []
        left = decision.left.get(label)
        for repeats in range(1, (left.after if left else last) + 1):
            pair = [{k: v for k, v in values[each].items() if k < repeats} for each in (label, best.leader)]
            over, alpha = of_blocks(*pair, is_log=True, starts=starts), level_of(run, repeats)
            if left and repeats == left.after and label in best.left:
                alpha = best.left[label]
            if over.k >= STARTS_NEEDED and alpha:
                looks.append(RaceLook(repeats, over.shown, *over.interval(1 - alpha), alpha))
        courses.append(RaceCourse(group, looks, left.why if left else None))
    return [each for each in courses if each.looks]


def _going(run: Run, left: list[Departure], ended: dict[AnswerKey, int]) -> tuple[str, ...]:
    """Return who can still be in an answer that is not decided, and who is kept in."""
    out = {(each.label, each.answer) for each in left}
    answers = gathered((group.deployment, answer_of(run, group)) for group in run.groups)
    return tuple(
        label
        for label, of_label in answers.items()
        if any(answer not in ended and (label, answer) not in out for answer in of_label)
    )


def _whys_left(run: Run, race: Race, decision: Decision | None, label: str) -> Iterator[Fact]:
    """Yield why a deployment leaves an answer at this look; nothing if it stays."""
    cells = gathered((cell.planned.repeat, cell) for cell in run.planned_cells if cell.label == label)
    begun = [of_repeat for of_repeat in cells.values() if any(cell.record for cell in of_repeat)]
    # What guard=strict refused to measure says nothing about the deployment.
    failed = sum(all(has_failed(cell) for cell in of_repeat) for of_repeat in begun)
    if failed >= _FAILED:
        yield because("failed_twice", failed=failed, starts=len(begun))
    if why := ruled_out(run).get(label):
        yield why
    if decision is None or not race.level(race.looked):
        return
    if decision.slo_row and label in decision.slo_row.labels("broken"):
        # Known at this look's level, not only at that of the table.
        [group] = (each for each in decision.case.groups if each.deployment == label)
        judged = judged_cells(run, group.cells, 1 - level_of(run, race.looked))
        if judged and judged.verdict == "broken":
            yield because("misses_slo")
    best = decision.best
    if best and label in best.over and label not in best.left and best.p_over(label) <= best.alpha:
        yield because("beaten", behind=best.leader, repeats=race.looked)
    # Where nobody can win yet, more repeats may tell who can.
    answer = answer_of(run, decision.case.groups[0])
    if label in decision.left_out and decision.groups and (label, answer) in race.doubted:
        yield because("left_out_twice", repeats=race.looked, why=decision.left_out[label])


def _behind(decision: Decision | None, why: Fact) -> str | None:
    return decision.best.leader if decision and decision.best and why.kind == "beaten" else None
