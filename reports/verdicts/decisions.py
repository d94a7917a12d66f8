"""Which deployment to serve: decided once per run, for each scenario and model, by the values of its starts.

The primary metric decides among contenders that were fixed before the test: measured, with equal work, their
own kernels, and with an SLO known to keep it. Leaders of other metrics are named by the same rule.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from reports.data.cells import Group
from reports.data.run import Run, once
from reports.measures.equal_work import stand_ins, work_of
from reports.measures.metrics import metric_of
from reports.measures.over_starts import aggregate, by_start, withheld
from reports.stats.best import Best, best_of, level_of_look, repeats_to_tell
from reports.stats.family import STARTS_NEEDED
from reports.stats.intervals import may_be_logged
from reports.verdicts.load_cases import LoadCase, told_first
from reports.verdicts.standings import Row, slo_rows

SPEED = "output_tokens_per_s"
# Metrics whose leaders are named beside the primary one, Holm's procedure over those that have values.
SECONDARY = ("ttft_s.p50", "tpot_s.p50", SPEED, "memory_peak_bytes", "energy_j_per_output_token")
_NOT_KEPT = {
    "broken": "it misses the SLO",
    "unclear": "whether it keeps the SLO is not clear",
    "unknown": "whether it keeps the SLO is not known",
}
Kind = Literal["named", "slight", "same", "open", "values", "only", "none"]


@dataclass(frozen=True)
class Decision:
    """What is decided of one scenario and model at one load.

    `kind`: "named", a winner; "slight", a winner whose lead may lie within the margin; "same", all within the
    margin; "open", too close to call; "values", no test could be made, and `why` says why; "only", one
    contender is left; "none", no contender. `groups`: contenders, best first. `left_out`: why each other
    deployment is none. `leaders`: the decided leader of each other metric, by its name. `repeats`: how many
    repeats had a value of each contender, of `planned`; `disturbed` more are left out. `advised`: how many
    would tell; None if that is not known, or beyond what anyone would run.
    """

    case: LoadCase
    metric: str
    kind: Kind
    groups: tuple[Group, ...]
    left_out: Mapping[str, str]
    why: str | None = None
    best: Best | None = None
    leaders: Mapping[str, str] = field(default_factory=dict)
    repeats: int = 0
    planned: int = 0
    disturbed: int = 0
    advised: int | None = None
    slo_row: Row | None = None

    @property
    def leader(self) -> Group | None:
        """The deployment that is named, or the only one left."""
        return self.groups[0] if self.kind in ("named", "slight", "only") else None

    def ratio_to_leader(self, label: str) -> tuple[float, float, float] | None:
        """Return value, low and high of a deployment's value over the leader's.

        The intervals hold together, although the leader is chosen by the data: 5 % over all pairs. None for
        the leader, without a test, and for a metric that is not on a log scale.
        """
        estimate = self.best.over.get(label) if self.best else None
        if estimate is None or not estimate.is_log:
            return None
        low, high = estimate.interval(self.confidence)
        if metric_of(self.metric).better == "lower":
            return estimate.shown, low, high
        return 1 / estimate.shown, 1 / high, 1 / low

    @property
    def confidence(self) -> float:
        """The level of ratio_to_leader."""
        count = len(self.groups)
        return 1 - 0.05 / (count * (count - 1) / 2)


@once
def decisions_of(run: Run) -> tuple[Decision, ...]:
    """Return what is decided, one for each scenario and model; with an SLO for each family of loads too.

    Several are a family: their tests are Holm's. Nothing of a search, whose loads are its own on each start.
    """
    if run.record.search is not None or not any(cell.counts for cell in run.planned_cells):
        return ()
    made = [_decision(run, case) for case in told_first(run)]
    tested = [each.best for each in made if each.best]
    looks = _looks_before(run)
    level = _holm([best.p for best in tested], level_of_look(looks))
    return tuple(_told(each, level, looks, run.record.compare.margin_share) for each in made)


def _looks_before(run: Run) -> int:
    """How often this run was looked at with fewer repeats than it has now."""
    repeats = len({cell.planned.repeat for cell in run.planned_cells})
    return sum(looked < repeats for looked in run.record.looks)


def _holm(p: Sequence[float], alpha: float) -> float:
    """Return the level at which Holm's step-down procedure (1979) stops: p at or below it is told."""
    for place, each in enumerate(sorted(p)):
        if each > alpha / (len(p) - place):
            return alpha / (len(p) - place)
    return alpha


def _decision(run: Run, case: LoadCase) -> Decision:
    metric = primary_metric(run, case)
    groups, left_out, row = _contenders(run, case, metric)
    values: Mapping[str, Mapping[int, float]] = _values(run, groups, metric)
    for group in groups:
        if group.deployment not in values:
            left_out[group.deployment] = aggregate(run, group, metric).why or "it has no value"
    values = _with_enough(values, left_out)
    planned = len({cell.planned.repeat for cell in run.planned_cells})
    shared, unfit = _shared(values), _disturbed(groups)
    repeats = [repeat for repeat in shared if repeat not in unfit]
    means = {label: fmean(found[repeat] for repeat in repeats or found) for label, found in values.items()}
    named = sorted(
        (group for group in groups if group.deployment in values),
        key=lambda group: means[group.deployment],
        reverse=metric_of(metric).better != "lower",
    )
    made = Decision(
        case,
        metric,
        "none",
        tuple(named),
        left_out,
        repeats=len(repeats),
        planned=planned,
        disturbed=len(shared) - len(repeats),
        slo_row=row,
    )
    if len(named) < 2:
        return replace(made, kind="only" if named else "none")
    if why := _why_no_test(run, made, values):
        return replace(made, kind="values", why=why)
    best = _best(run, values, repeats, metric)
    groups = sorted(named, key=lambda group: group.deployment != best.leader)
    return replace(
        made, kind="open", groups=tuple(groups), best=best, leaders=_leaders(run, named, metric, unfit)
    )


def _with_enough(
    values: Mapping[str, Mapping[int, float]], left_out: dict[str, str]
) -> Mapping[str, Mapping[int, float]]:
    """Leave out, with the reason, one that has so few values that without it the others have enough."""
    if len(values) > 2 and len(_shared(values)) < STARTS_NEEDED:
        fewest = min(values, key=lambda label: len(values[label]))
        others = {label: found for label, found in values.items() if label != fewest}
        if len(_shared(others)) >= STARTS_NEEDED:
            left_out[fewest] = f"only {len(values[fewest])} of its starts have a value"
            return others
    return values


def _why_no_test(run: Run, made: Decision, values: Mapping[str, Mapping[int, float]]) -> str | None:
    if not all(run.is_restarted(label) for label in values):
        return "the server was running already, so its repeats are blocks on one start"
    if run.is_going_on:
        return "the run is still going on"
    if made.repeats >= STARTS_NEEDED:
        return None
    if made.disturbed:
        of = f"{made.disturbed} of {made.disturbed + made.repeats} repeats"
        return f"the machine was disturbed in {of}, and a verdict needs {STARTS_NEEDED} that were not"
    return f"a verdict needs {STARTS_NEEDED} repeats in which all have a value, here {made.repeats}"


def _disturbed(groups: Sequence[Group]) -> set[int]:
    """Return the repeats in which the guard found the machine unfit during a window of one of these."""
    cells = (cell for group in groups for cell in group.counted if cell.record)
    return {
        cell.planned.repeat
        for cell in cells
        if cell.record and any(finding.when == "during" for finding in cell.record.guard)
    }


def primary_metric(run: Run, case: LoadCase) -> str:
    """Return the metric that decides: what compare.metric names first, else by the kind of load."""
    if "compare.metric" in run.record.settings:
        return run.record.compare.metrics[0]
    if case.groups[0].family == "closed loop":
        return SPEED
    return "goodput_per_s" if run.record.slo else "ttft_s.p50"


# --- contenders ------------------------------------------------------------------------------------


def _contenders(run: Run, case: LoadCase, metric: str) -> tuple[list[Group], dict[str, str], Row | None]:
    """Split a case's deployments into contenders and those that are none, with the reason."""
    fakes, work = stand_ins(run), work_of(run)
    row = _slo_row(run, case)
    states = {each.label: each.state for each in row.standings} if row else {}
    groups, left_out = [], {}
    for group in case.groups:
        label = group.deployment
        if not group.counted:
            reason = next((cell.reason for cell in group.cells if cell.reason), "no cell was measured")
            left_out[label] = f"it failed: {reason}"
        elif label in fakes:
            left_out[label] = f"its speed is not its own: {fakes[label]}"
        elif work.prompt_class(label) != "A":
            left_out[label] = f"its prompts are not those of the others: {work.why_unlike(label)}"
        elif why := withheld(run, group.key, metric):
            left_out[label] = why
        elif states and states.get(label) != "kept":
            left_out[label] = _NOT_KEPT[states.get(label, "unknown")]
        else:
            groups.append(group)
    return groups, left_out, row


def _slo_row(run: Run, case: LoadCase) -> Row | None:
    family = case.groups[0].family
    asked = (case.scenario, case.model, family, case.load)
    rows = (row for row in slo_rows(run) if (row.scenario, row.model, row.family, row.load) == asked)
    return next(rows, None)


def _values(run: Run, groups: Sequence[Group], metric: str) -> dict[str, dict[int, float]]:
    """Return the values of each group by repeat, of those that have any."""
    found = {}
    for group in groups:
        known = {r: each.value for r, each in by_start(run, group, metric).items() if each.value is not None}
        if known:
            found[group.deployment] = known
    return found


def _shared(values: Mapping[str, Mapping[int, float]]) -> list[int]:
    """Return the repeats in which all have a value."""
    return sorted(set.intersection(*(set(found) for found in values.values()))) if values else []


# --- tests -----------------------------------------------------------------------------------------


def _best(run: Run, values: Mapping[str, Mapping[int, float]], repeats: Sequence[int], metric: str) -> Best:
    row = metric_of(metric)
    paired = {label: [found[repeat] for repeat in repeats] for label, found in values.items()}
    is_log = not row.is_additive and may_be_logged([value for each in paired.values() for value in each])
    alpha = level_of_look(_looks_before(run))
    return best_of(paired, is_higher_better=row.better != "lower", is_log=is_log, alpha=alpha)


def _leaders(run: Run, groups: Sequence[Group], primary: str, unfit: Collection[int]) -> dict[str, str]:
    """Return the decided leader of each other metric, by Holm's procedure over these metrics."""
    found = {}
    for metric in SECONDARY:
        values = _values(run, groups, metric) if metric != primary else {}
        repeats = [repeat for repeat in _shared(values) if repeat not in unfit]
        if len(values) == len(groups) and len(repeats) >= STARTS_NEEDED:
            found[metric] = _best(run, values, repeats, metric)
    level = _holm([best.p for best in found.values()], level_of_look(_looks_before(run)))
    return {metric: best.leader for metric, best in found.items() if best.p <= level}


def _told(made: Decision, level: float, looks: int, margin: float) -> Decision:
    """Say what a decision's tests come to at the level of its family. `margin`: a share, such as 0.05.

    `looks`: how often the run was looked at before.
    """
    if made.best is None:
        return made
    best = replace(made.best, alpha=level)
    made = replace(made, best=best)
    is_log = next(iter(best.over.values())).is_log
    if best.is_named:
        return replace(made, kind="slight" if is_log and best.least_lead <= 1 + margin else "named")
    ratios = [ratio for group in made.groups if (ratio := made.ratio_to_leader(group.deployment))]
    is_within = all(1 / (1 + margin) < low and high < 1 + margin for _, low, high in ratios)
    if is_within and len(ratios) == len(best.over):
        return replace(made, kind="same")
    if advised := repeats_to_tell(best, level_of_look(looks + 1)):
        # Repeats that do not count are there as well.
        advised += made.planned - made.repeats
    return replace(made, advised=advised)
