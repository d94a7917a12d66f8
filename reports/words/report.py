"""The report of a run as data: its answers with their rows, and the reasons to distrust them.

Page, terminal, JSON and Markdown show it; none of them decides or computes any of it. A standing tests
nothing, so it spends no look at the data.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving_bench.harness.contracts import Fact, Standing, because
from serving_bench.reports.checks.examine import findings_of, mark_text, marks_of
from serving_bench.reports.checks.finding import Finding
from serving_bench.reports.data import Group, Run, once, open_run
from serving_bench.reports.measures import (
    MEANS_APART,
    NOTHING,
    Aggregate,
    aggregate,
    has_interval,
    mean_text,
    metric_of,
    plural,
    read_rates,
    several,
    shown,
    unit_of,
    value_cells,
    value_text,
)
from serving_bench.reports.measures.quality import Quality, TaskScore, quality_of, task_scores
from serving_bench.reports.verdicts import (
    MEMORY,
    SPEED,
    Capacity,
    Decision,
    LoadCase,
    State,
    answer_of,
    capacities_of,
    decisions_of,
    load_cases_of,
    place_of_case,
    slo_metrics,
    slo_rows,
    title_of_case,
)
from serving_bench.reports.words.answer import Said, answers_of, basis, headline, lead_of, on_each
from serving_bench.reports.words.described import cut_short, question, stopped, what_was_run
from serving_bench.reports.words.quality import HEADS, Cell, columns, origins
from serving_bench.reports.words.verdict_words import heading_of, ratio_words, title_of

# The columns that every table of an answer has, then those that it has if a deployment has a value there.
FIRST = (SPEED, "ttft_s.p50", "tpot_s.p50", MEMORY)
COLUMNS = (
    "output_tokens_per_s", "prefill_tokens_per_s", "decode_tokens_per_s", "makespan_s", "recovery_s",
    "valid_share", "left_share", "task_s", "finished_share", "first_answer_s",
    "ttft_s.p50", "tpot_s.p50", "memory_peak_bytes", "energy_j_per_output_token",
    "cost_per_million_output_tokens", "cores_used",
)  # fmt: skip
NO_DOUBT = "No check found a reason to distrust these numbers. That proves nothing yet."
_PER_CORE = "output_tokens_per_s_per_core"
KEPT, OBJECTIVES, RATIO = "keeps the SLO up to", "SLO", "against the leader"
STATES: Mapping[State | None, str] = {
    "kept": "keeps it", "broken": "does not", "unclear": "not clear", "unknown": "not measured", None: NOTHING
}  # fmt: skip
# From this ratio on, a lead is said as a ratio instead of a percentage.
_AS_RATIO = 2.0


@dataclass(frozen=True)
class Value:
    """A deployment's value of a metric at the load of an answer."""

    name: str
    over: Aggregate
    head: str  # the head of its column, with its unit
    marks: Sequence[Finding] = ()  # what forbids comparing it
    is_decided: bool = False  # it leads, and that is proven

    @property
    def is_pooled(self) -> bool:
        """Return whether it is a percentile of all starts' requests together, without an interval."""
        return self.over.mean is None and self.over.pooled is not None

    @property
    def is_known(self) -> bool:
        return self.over.mean is not None or self.over.pooled is not None

    @property
    def value(self) -> float | None:
        return self.over.mean if self.over.pooled is None or not self.is_pooled else self.over.pooled.value

    @property
    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval of its mean over starts."""
        return self.over.interval if has_interval(self.over) else None

    @property
    def text(self) -> str:
        return shown(self.name, self.value) if self.is_pooled else mean_text(self.name, self.over)

    @property
    def wide(self) -> str:
        return value_text(self.name, self.over)

    @property
    def narrow(self) -> str:
        """Return its text, with an asterisk if it is computed from all starts' requests together."""
        return self.text + "*" * self.is_pooled


@dataclass(frozen=True)
class Row:
    """A deployment in the table of an answer.

    `slo`: whether it keeps the objectives at that load; `kept`: up to which load, of a search.
    """

    group: Group
    values: Mapping[str, Value]
    why_not: Fact | str | None  # why it is not compared
    to_leader: tuple[float, float, float] | None  # the ratio to the leader's value, with its interval
    quality: Quality | None  # None: no deployment was asked
    cells: Mapping[str, Cell]  # quality and scores by the heads of their columns
    scores: Sequence[TaskScore]
    slo: State | None = None
    kept: Capacity | None = None
    left: Fact | None = None  # that it left a race

    @property
    def deployment(self) -> str:
        return self.group.deployment

    @property
    def ratio(self) -> str:
        """Return the ratio to the leader's value as text; empty if there is none."""
        return ratio_words(*self.to_leader) if self.to_leader else ""

    @property
    def ratio_or_why(self) -> str:
        """Return its ratio and that it left a race, or why it has no ratio."""
        left = str(self.left) if self.left else ""
        return ", ".join(filter(None, (self.ratio, left))) or str(self.why_not or NOTHING)

    @property
    def narrow_cells(self) -> dict[str, str]:
        """Return the columns of quality as a terminal has room for them: scores without their intervals."""
        scores = {head for head in self.cells if head not in HEADS}
        return {head: cell.text if head in scores else cell.plain for head, cell in self.cells.items()}


@dataclass(frozen=True)
class Entry:
    """A cell of a table that is no value: its text, and the one for which a terminal has room."""

    wide: str
    narrow: str = ""
    marks: Sequence[Finding] = ()
    is_decided: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table, with a cell for each row.

    `name`: its metric, or KEPT, OBJECTIVES or RATIO; empty for quality. `lines`: its head on a terminal, if
    that is another.
    """

    name: str
    head: str
    cells: Sequence[Value | Entry]
    lines: str = ""


@dataclass(frozen=True)
class Table:
    """Deployments at a load, those that are compared first and best first."""

    title: str
    rows: Sequence[Row]
    first: Sequence[str] = ()  # the metrics of a narrow table; if something is decided, by the first of them
    names: Sequence[str] = ()  # those of a wide one
    decision: Decision | None = None  # what it is about; None: it decides nothing

    def columns(self, names: Sequence[str]) -> list[Column]:
        """Return the columns beside the names of the deployments, with values of these metrics."""
        rows, decision, columns = self.rows, self.decision, list[Column]()
        if any(row.kept for row in rows):
            kept = [Entry(row.kept.words if row.kept else NOTHING) for row in rows]
            columns.append(Column(KEPT, KEPT, kept))
        elif any(row.slo for row in rows):
            columns.append(Column(OBJECTIVES, OBJECTIVES, [Entry(STATES[row.slo]) for row in rows]))
        for name in names:
            columns.append(Column(name, rows[0].values[name].head, [row.values[name] for row in rows]))
            if decision and decision.best and name == decision.metric:
                ratios = [Entry(row.ratio_or_why, row.ratio) for row in rows]
                each = "at its last look" if decision.left else f"{100 * (1 - decision.alpha):.4g} %"
                lines = f"to the leader\n{each}"
                columns.append(Column(RATIO, RATIO, ratios, lines))
        for head in rows[0].cells:
            texts = [Entry(row.cells[head].plain, row.narrow_cells[head]) for row in rows]
            columns.append(Column("", head, texts))
        return columns


@dataclass(frozen=True)
class Answer:
    """What to serve, in words, with the table of what decides that (without rows: nothing was measured)."""

    said: Said
    table: Table

    @property
    def decision(self) -> Decision | None:
        return self.table.decision

    @property
    def rows(self) -> Sequence[Row]:
        return self.table.rows

    @property
    def lead(self) -> tuple[float | None, float | None]:
        """Return the ratio of a winner's value to the next best, and the end nearest to 1 of the
        interval of that test."""
        decision = self.decision
        best = decision.best if decision and decision.leader else None
        if decision is None or best is None or not best.over[best.next].is_log:
            return None, None
        ratio, least, most = lead_of(decision, best, best.next)
        return ratio, least if least > 1 else most


@dataclass(frozen=True, repr=False)
class Report:
    """All that is said of a run before its sections.

    `stopped`: why there are no more repeats; `cut_short`: that it is no whole run, and what to do about it;
    `origins`: what the references of its quality are made from; `basis`: the rule that names a winner.
    """

    run: Run
    question: str
    headline: str
    stopped: str
    cut_short: tuple[str, str] | None
    origins: list[str]
    what_was_run: str
    basis: str
    answers: Sequence[Answer]
    others: Sequence[Table]  # at the loads that decide nothing
    findings: Sequence[Finding]  # the reasons to distrust it, the worst first

    def __repr__(self) -> str:
        return f"<Report of {self.run.path}: {self.headline}>"


@once
def report_of(run: Run) -> Report:
    decisions = decisions_of(run)
    decided = {decision.case.key for decision in decisions}
    cases = () if run.record.search else load_cases_of(run)
    return Report(
        run,
        question(run),
        headline(run),
        stopped(run),
        cut_short(run),
        origins(run),
        what_was_run(run),
        basis(run),
        [
            Answer(
                words,
                _table(run, decision.case, decision.ranked, decision) if decision else Table("", ()),
            )
            for words, decision in zip(answers_of(run), decisions or [None], strict=True)
        ],
        [_table(run, case, case.groups) for case in cases if case.key not in decided],
        findings_of(run),
    )


def _table(run: Run, case: LoadCase, groups: Sequence[Group], decision: Decision | None = None) -> Table:
    before = [*([decision.metric] if decision else []), *read_rates(run, groups)]
    names = list(dict.fromkeys([*before, *COLUMNS, _PER_CORE]))
    rows = [_row(run, group, decision, names) for group in groups]
    used = [row.values["cores_used"].over.mean or 0.0 for row in rows]
    if max(used, default=0.0) <= MEANS_APART * min(filter(None, used), default=math.inf):
        names.remove(_PER_CORE)
    columns_known = [each for each in names if any(row.values[each].is_known for row in rows)]
    wide = dict.fromkeys([*before[: decision is not None], *columns_known])
    return Table(title_of_case(run, case), rows, list(dict.fromkeys([*before, *FIRST])), list(wide), decision)


def _row(run: Run, group: Group, decision: Decision | None, names: Sequence[str]) -> Row:
    label, where = group.deployment, (group.scenario, group.load)
    qualities = quality_of(run)
    cells_of_quality = columns(run, label)
    standings = [each for row in slo_rows(run) if (row.scenario, row.load) == where for each in row.standings]
    kept = (each for each in capacities_of(run) if (each.deployment, each.scenario) == (label, where[0]))
    return Row(
        group,
        {name: _value(run, group, decision, name) for name in names},
        decision.left_out.get(label) if decision else None,
        decision.ratio_to_leader(label) if decision else None,
        qualities.get(label) or Quality(label, why=because("not_asked_for_tokens"))
        if cells_of_quality
        else None,
        cells_of_quality,
        [each for each in task_scores(run) if each.label == label],
        next((each.state for each in standings if each.label == label), None),
        next(kept, None),
        decision.left[label].why if decision and label in decision.left else None,
    )


def _value(run: Run, group: Group, decision: Decision | None, name: str) -> Value:
    over = decision.value(run, group, name) if decision else aggregate(run, group, name)
    cells = decision.cells(run, group) if decision else value_cells(run, group)
    is_decided = decision is not None and decision.leaders.get(name) == group.deployment
    return Value(name, over, heading_of(name, unit_of(run, name)), marks_of(run, cells, name), is_decided)


# --- while it runs, and of a search ----------------------------------------------------------------


def standings(run_dir: Path, repeats: int) -> tuple[Standing, ...]:
    """Return how each answer stands that is not decided after `repeats` whole repeats; empty for a run of one
    deployment.

    Raises StoreError as open_run does.
    """
    run = open_run(run_dir)
    ended = dict(run.record.plan.race.ended) if run.record.plan.race else {}
    return tuple(
        _standing(run, decision, repeats)
        for decision in decisions_of(run)
        if len(run.deployments) > 1 and answer_of(run, decision.case.groups[0]) not in ended
    )


def _standing(run: Run, decision: Decision, whole: int) -> Standing:
    where = f"{title_of(decision.metric)} {place_of_case(run, decision.case)}"
    # Repeats in which the machine was disturbed do not rank anyone.
    is_disturbed = bool(decision.disturbed) and not decision.used
    groups = () if is_disturbed else decision.stay
    first, second, *_ = [*(group.deployment for group in groups), None, None]
    means = [decision.value(run, group, decision.metric).mean or 0.0 for group in groups[:2]]
    ratio, words = None, f"no {'repeat that counts' if is_disturbed else 'value'} yet ({where})"
    if first:
        words = f"only {first} has a value ({where})"
    if second and min(means) > 0 and not metric_of(decision.metric).is_additive:
        ratio = means[0] / means[1] if metric_of(decision.metric).better == "higher" else means[1] / means[0]
    if second:
        words = f"{first} {_lead_words(ratio)}, not yet decided (next {second}; {where})"
    if decision.disturbed:
        repeats = plural(decision.disturbed + decision.repeats, "repeat")
        words += f"; the machine was busy or not fit in {decision.disturbed} of {repeats}"
    if decision.left_out:
        words += f"; not compared: {several(list(decision.left_out))}"
    case = decision.case
    return Standing(whole, case.scenario, case.model, case.load, decision.metric, first, second, ratio, words)


def _lead_words(ratio: float | None) -> str:
    if ratio is None or ratio >= _AS_RATIO:
        return f"ahead, {ratio:.2f}x" if ratio else "ahead"
    share = f"{100 * (ratio - 1):.0f} %"
    return "level with the next" if share == "0 %" else f"ahead by {share}"


def search_words(run: Run, capacity: Capacity) -> str:
    """Return `11 users ▲ 1 on each of 3 starts (12 users, 12 users, 11 users)`, or why it is not known."""
    by_start = f" ({', '.join(answer.words for answer in capacity.answers)})" if capacity.answers[1:] else ""
    if capacity.measured is None:
        return f"not known{by_start}: {capacity.why}"
    marks = mark_text(marks_of(run, capacity.cells_at_highest, *slo_metrics(run)))
    tried = " (the highest tried)" * capacity.is_at_limit
    at = (
        f"not known: {capacity.why}; {capacity.load} as measured{tried}"
        if capacity.level is None
        else capacity.words
    )
    return " ".join(filter(None, (at, marks, on_each(run, capacity)))) + by_start
