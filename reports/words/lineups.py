"""What the first screen is about: of each scenario and model the deployments at one load, best first.

Computes values through the run and draws nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from reports.checks.examine import marks_between, marks_of, marks_of_answer, marks_of_capacity
from reports.checks.finding import Finding
from reports.data.cells import Group, level_text
from reports.data.run import Run, once
from reports.measures.anatomy import anatomies
from reports.measures.metrics import metric_of
from reports.measures.over_starts import Aggregate, aggregate
from reports.stats.family import Verdict
from reports.verdicts.comparisons import DECIDED_BY, comparisons_of
from reports.verdicts.decision import Row, decision_rows, needed_by_start, over_starts
from reports.verdicts.picks import State
from reports.verdicts.search_decision import cases_of_search
from reports.verdicts.search_starts import at_highest
from reports.verdicts.searches import CAPACITY, Capacity, mean_words, span_words
from reports.words.load_cases import LoadCase, told_first, verdict_of

SPEED = DECIDED_BY[0]
NO_VALUE = Aggregate(None, None, None, 0, 0, ())
# Those that keep the SLO stand first.
_ORDER: Mapping[State | None, int] = {None: 0, "kept": 0, "unclear": 1, "broken": 2, "unknown": 3}


@dataclass(frozen=True)
class Within:
    """The highest load that keeps the SLO: `words` (`12`, `not clear`), `span` beside it, `why` in a few
    words."""

    words: str
    span: str
    why: str


@dataclass(frozen=True)
class Contender:
    """A deployment of a line-up. `value` and `marks`: of a name (`ttft_s.p95`); `verdict`: against the
    baseline, None of the baseline itself and where none was asked; `doubts` bear on it. `group`: None of a
    search, whose loads are its own on each start."""

    label: str
    value: Callable[[str], Aggregate]
    marks: Callable[[str], Sequence[Finding]]
    is_baseline: bool
    verdict: Verdict | None
    doubts: Sequence[Finding] = ()
    state: State | None = None
    within: Within | None = None
    group: Group | None = None


@dataclass(frozen=True)
class Lineup:
    """`metric`: what the verdicts are on, CAPACITY of a search. `needed`: bytes that each start needed, by
    deployment and repeat; empty where that is not known of all."""

    scenario: str
    model: str
    family: str
    load: str
    metric: str
    baseline: str | None
    contenders: tuple[Contender, ...]
    needed: Mapping[str, Mapping[int, float]]

    def needed_by(self, label: str) -> Aggregate:
        """What a deployment needs, over its starts."""
        found = self.needed.get(label)
        return over_starts(list(found.values())) if found else NO_VALUE


@once
def lineups_of(run: Run) -> list[Lineup]:
    """One for each scenario and model; with an SLO also for each family of loads."""
    if run.record.search is not None:
        cases = cases_of_search(run)
        return [_of_search(run, scenario, model, found) for (scenario, model), found in cases.items()]
    return [_lineup(run, case) for case in told_first(run)]


def metric_told(run: Run) -> str:
    """What its verdicts are on: speed where an SLO chooses, else the first metric that is compared."""
    return SPEED if run.record.slo else run.record.compare.metrics[0]


def _lineup(run: Run, case: LoadCase) -> Lineup:
    metric, family = metric_told(run), case.groups[0].family
    rows = [
        row
        for row in decision_rows(run)
        if (row.scenario, row.model, row.family) == (case.scenario, case.model, family)
    ]
    contenders = [_contender(run, case, group, metric, rows) for group in case.groups]
    baseline = case.baseline.deployment if case.baseline and len(case.groups) > 1 else None
    return Lineup(
        case.scenario,
        case.model,
        family,
        case.load,
        metric,
        baseline,
        tuple(_best_first(run, metric, contenders)),
        _needed(run, [group.deployment for group in case.groups if group.counted]),
    )


def _contender(run: Run, case: LoadCase, group: Group, metric: str, rows: Sequence[Row]) -> Contender:
    own = next((row for row in rows if row.load == case.load), None)
    state = next((s.state for s in own.standings if s.label == group.deployment), None) if own else None
    doubts = marks_between(run, group, case.baseline, metric) if case.baseline else ()
    return Contender(
        group.deployment,
        partial(partial(aggregate, run), group),
        partial(marks_of, run, group),
        group is case.baseline and len(case.groups) > 1,
        verdict_of(run, case, group, metric),
        doubts,
        state,
        _within(rows, group.deployment) if rows else None,
        group,
    )


def _best_first(run: Run, metric: str, contenders: Sequence[Contender]) -> list[Contender]:
    """Those that keep the SLO first, then by value; as planned where there are no verdicts, so that no order
    seems to be one."""
    if comparisons_of(run).why_none:
        return list(contenders)
    sign = 1.0 if metric_of(metric).better == "lower" else -1.0

    def place(each: Contender) -> tuple[int, bool, float]:
        mean = each.value(metric).mean
        return _ORDER[each.state], mean is None, sign * (mean or 0.0)

    return sorted(contenders, key=place)


def _within(rows: Sequence[Row], label: str) -> Within:
    """Of the loads that were measured; `rows` rise from the lowest to the highest."""
    states = [next((s.state for s in row.standings if s.label == label), None) for row in rows]
    kept = [place for place, state in enumerate(states) if state == "kept"]
    if not kept:
        unclear = [row.load for row, state in zip(rows, states, strict=True) if state == "unclear"]
        said = f"not clear at {unclear[-1]}" if unclear else f"of {', '.join(row.load for row in rows)}"
        return Within("not clear" if unclear else "none", "", said)
    at = kept[-1]
    level = next(s.group.level for s in rows[at].standings if s.group)
    higher = rows[at + 1].load if at + 1 < len(rows) else ""
    why = f"not known to keep it at {higher}" if higher else "no higher load was measured"
    return Within(level_text(rows[at].family, level), "", why)


def _needed(run: Run, labels: Sequence[str]) -> dict[str, dict[int, float]]:
    found = anatomies(run)
    if len({each.is_host for label in labels for each in found.get(label, ())}) > 1:
        return {}
    return needed_by_start(found, labels) if labels else {}


# --- a search --------------------------------------------------------------------------------------


def _of_search(run: Run, scenario: str, model: str, found: Sequence[Capacity]) -> Lineup:
    def place(each: Capacity) -> tuple[bool, float]:
        return each.estimate is None, -(each.estimate.shown if each.estimate else 0.0)

    has_verdict = any(each.verdict and each.verdict.kind != "none" for each in found)
    ordered = sorted(found, key=place) if has_verdict else found
    baseline = next((each.deployment for each in found if each.baseline is None), None)
    return Lineup(
        scenario,
        model,
        found[0].family,
        "at its own highest load",
        CAPACITY,
        baseline if len(found) > 1 else None,
        tuple(_searched(run, each, is_alone=len(found) == 1) for each in ordered),
        {},
    )


def _searched(run: Run, each: Capacity, *, is_alone: bool) -> Contender:
    return Contender(
        each.deployment,
        partial(_at_highest, run, each),
        partial(_marks_at_highest, run, each),
        each.baseline is None and not is_alone,
        each.verdict,
        marks_of_capacity(run, each),
        within=Within(_load_words(each), span_words(each), each.why or "over its starts"),
    )


def _load_words(each: Capacity) -> str:
    """`12`, `64 or more`, without the unit, which stands above it; `–` without an answer."""
    return mean_words(each).replace(" users", "").replace(" user", "").replace("/s", "") or "–"


def _at_highest(run: Run, each: Capacity, name: str) -> Aggregate:
    """Over the starts' values at the highest load that each kept, where all have one."""
    if each.estimate is None:
        return Aggregate(None, None, None, 0, 0, (), why=each.why)
    values = [at_highest(run, answer, name) for answer in each.answers]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or any(value <= 0 for value in known):
        return Aggregate(None, None, None, 0, 0, tuple(values), why="a start has no value")
    return over_starts(known)


def _marks_at_highest(run: Run, each: Capacity, name: str) -> Sequence[Finding]:
    return marks_of_answer(run, each.cells_at_highest, [name])
