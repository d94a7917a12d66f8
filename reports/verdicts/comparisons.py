"""Compare all deployments of a run once: each verdict, its family and its level."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from serving_bench.harness.contracts import AnswerKey, Fact, because
from serving_bench.reports.data import Group, Run, first_that_holds, grouped, once
from serving_bench.reports.measures import aggregate, compared_metrics, disturbed_repeats, metric_of
from serving_bench.reports.stats.intervals import STARTS_NEEDED, Kind, Verdict, decide, level_of_look
from serving_bench.reports.verdicts.pairs import Pair, answer_of, question_of, repeats_tested

# Always compared, since the report's answers use them.
_DECIDED_BY = ("output_tokens_per_s", "memory_peak_bytes")
_MIRRORED: dict[Kind, Kind] = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Compared:
    """One comparison of deployment `a` with deployment `b` (labels), on a metric at a load of a scenario."""

    scenario: str
    load: str
    metric: str
    a: str
    b: str
    verdict: Verdict


@dataclass(frozen=True)
class Comparisons:
    """All comparisons of a run."""

    rows: tuple[Compared, ...]  # with the baseline, or without one with the best of each metric
    baselines: dict[str, str]  # by model: compare.baseline, otherwise the plan's first label
    family: int  # the most verdicts that were decided together
    alpha: float  # the level of a family
    why_none: Fact | None  # why the whole run has no verdict
    by_key: Mapping[tuple[str, str, str, str, str], Verdict]

    def of(self, scenario: str, load: str, metric: str, a: str, b: str) -> Verdict | None:
        """Return the verdict on `a` compared with `b`; None if the two were not compared."""
        return self.by_key.get((scenario, load, metric, a, b))


@once
def comparisons_of(run: Run) -> Comparisons:
    """Compare all deployments of a model at each load, on compare.metrics and the metrics of the answers.

    The comparisons of one metric at one load are a family: those with compare.baseline, or without one all
    pairs, since the data choose the leader. The level is that of this look at the run, divided by the number
    of answers, so that no comparison claims more than they do.
    """
    compare, why, family = run.record.compare, _why_none(run), 0
    alpha, compared = alpha_of(run), compared_metrics(run)
    rows: list[Compared] = []
    by_case: dict[tuple[str, str, str, str, str], Verdict] = {}
    for groups in grouped(run.groups, lambda group: (group.scenario, group.load, group.model)).values():
        case, labels = (groups[0].scenario, groups[0].load), [group.deployment for group in groups]
        baseline = compare.baseline if compare.baseline in labels else None
        pairs = [
            Pair((a.deployment, b.deployment), (run, run), (a, b), why or why_busy(run, a, b))
            for a, b in itertools.combinations(groups, 2)
            if baseline in (None, a.deployment, b.deployment)
        ]
        for metric in dict.fromkeys([*compared, *_DECIDED_BY]):
            questions = (
                replace(question_of(pair, metric, compare.margin_share), alpha=level_of_pair(run, pair))
                for pair in pairs
            )
            verdicts = decide([*questions], alpha)
            family = max(family, sum(verdict.kind != "none" for verdict in verdicts))
            for pair, verdict in zip(pairs, verdicts, strict=True):
                first, second = pair.names
                by_case[*case, metric, second, first] = verdict
                by_case[*case, metric, first, second] = mirrored(verdict)
            if metric in compared:
                reference = baseline or _best(run, groups, metric)
                keys = ((*case, metric, label, reference) for label in labels)
                rows += [Compared(*key, by_case[key]) for key in keys if key in by_case]
    baselines = {each.model: label for label, each in reversed(run.deployments.items())}
    if compare.baseline in run.deployments:
        baselines[run.deployments[compare.baseline].model] = compare.baseline
    return Comparisons(tuple(rows), baselines, family, alpha, why, by_case)


def alpha_of(run: Run, later: int = 0, answer: AnswerKey | None = None) -> float:
    """Return the level of each answer, or of this one, at this look at a run.

    It falls with each earlier look after fewer starts; a look with too few starts for a test does not count.
    In a race each look has a level that was fixed before. `later`: for the look that comes this many looks
    later.
    """
    if race := run.record.plan.race:
        look = race.look_of(answer) if answer else race.looked
        return (
            race.later_level / _answers(run) if later and look >= race.most else level_of(run, look + later)
        )
    least, now = STARTS_NEEDED * len(run.deployments), len(run.start_records)
    looks = later + sum(least <= starts < now for starts in run.record.looks)
    return level_of_look(looks) / _answers(run)


def wrong_of(run: Run) -> float | None:
    """Return how often a race names a wrong one at most, over all looks; None for a run that is no race."""
    race = run.record.plan.race
    return math.fsum(race.levels) / _answers(run) if race else None


def level_of(run: Run, look: int) -> float:
    """Return the level of each answer of a race at the look after so many repeats; 0 without a race."""
    race = run.record.plan.race
    return race.level(look) / _answers(run) if race else 0.0


def _answers(run: Run) -> int:
    """Return how many answers share the level of a run: those with two deployments or more."""
    topics = grouped(run.groups, lambda group: answer_of(run, group)).values()
    return max(1, sum(len({group.deployment for group in groups}) > 1 for groups in topics))


def level_that_left(run: Run, answer: AnswerKey, after: int) -> float:
    """Return the level of the interval of one that left a race at this look: its look's, divided by the
    number of pairs, since the values chose that it left and behind whom.

    Those that left for another reason than their values are in no pair.
    """
    race = run.record.plan.race
    out = {label for label, each in race.left_by(answer).items() if each.behind is None} if race else set()
    rivals = {group.deployment for group in run.groups if answer_of(run, group) == answer} - out
    return level_of(run, after) / max(1, math.comb(len(rivals), 2))


def level_of_pair(run: Run, pair: Pair) -> float | None:
    """Return the level of the last look at both of a pair, in a race; of its first one at the least, and
    None without a race."""
    race = run.record.plan.race
    if race is None:
        return None
    answer = answer_of(run, pair.groups[0])
    ends = (each.after for label, each in race.left_by(answer).items() if label in pair.labels)
    return level_of(run, max(race.least, min([race.look_of(answer), *ends])))


def _best(run: Run, groups: list[Group], metric: str) -> str:
    sign = 1 if metric_of(metric).better == "higher" else -1
    means = {group.deployment: aggregate(run, group, metric).mean for group in groups}
    return max(means, key=lambda label: -math.inf if (mean := means[label]) is None else sign * mean)


def mirrored(verdict: Verdict) -> Verdict:
    """Return the verdict on the second, compared with the first."""
    if verdict.ratio is None or verdict.low is None or verdict.high is None:
        return verdict
    ratio, low, high = (
        -value if not verdict.is_log else 1 / value if value else math.inf
        for value in (verdict.ratio, verdict.high, verdict.low)
    )
    return replace(verdict, kind=_MIRRORED.get(verdict.kind, verdict.kind), ratio=ratio, low=low, high=high)


def why_busy(run: Run, *groups: Group) -> Fact | None:
    """Return that disturbed repeats leave too few for a verdict; None if enough remain."""
    repeats = set.intersection(*({cell.planned.repeat for cell in group.counted} for group in groups))
    hit = repeats & disturbed_repeats(run, *groups)
    why = because("busy", hit=len(hit), repeats=len(repeats), needed=STARTS_NEEDED)
    return why if hit and len(repeats - hit) < STARTS_NEEDED else None


def why_early(run: Run) -> Fact | None:
    """Return that a race has had no look yet at which somebody can be beaten; else None."""
    race = run.record.plan.race
    is_early = race is not None and race.looked < race.least
    return because("race_too_early", least=race.least, repeats=race.looked) if race and is_early else None


def _why_none(run: Run) -> Fact | None:
    is_search = run.record.search is not None
    repeats = run.repeats if (looked := repeats_tested(run)) is None else min(looked, run.repeats)
    few = why_early(run) or because("verdict_needs_starts_of_all", needed=STARTS_NEEDED, repeats=repeats)
    return run.why_untested or first_that_holds(
        {because("other_loads_tried"): is_search, few: repeats < STARTS_NEEDED}
    )
