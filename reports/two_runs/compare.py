"""Compares two runs or two deployments: what differs in how they were made, then B over A, case by case."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving_bench.harness.contracts import CompareTerms, Fact
from serving_bench.reports.checks.examine import findings_of, mark_text, marks_of
from serving_bench.reports.checks.finding import OF_LENGTHS, Finding
from serving_bench.reports.data import Group, Run, gathered
from serving_bench.reports.measures import (
    NOTHING,
    Aggregate,
    aggregate,
    metric_of,
    plural,
    price_of,
    value_cells,
    value_names,
    value_text,
)
from serving_bench.reports.measures.metric import CURRENCY
from serving_bench.reports.measures.quality import answers_by
from serving_bench.reports.stats.intervals import Question, Verdict, decide
from serving_bench.reports.two_runs.answers import Answers, answers_of
from serving_bench.reports.two_runs.matching import (
    Difference,
    LeftOut,
    Side,
    differences,
    open_sides,
    pairs_of,
)
from serving_bench.reports.verdicts import Pair, pair_name, question_of
from serving_bench.reports.words.verdict_words import (
    change_text,
    family_text,
    is_slight,
    margin_text,
    word_of,
)

NAMES = ("A", "B")
_PAIRED = "Paired by block: each block of the run started both deployments."
_NOT_INTERLEAVED = (
    "The two runs were not interleaved, so whatever changed between them, such as the machine's other load "
    "or its temperature, is part of the difference."
)
_JUDGE = ", or judge the answers on a task of yours."
_REMEDY = f"Use quality=fidelity on both sides{_JUDGE}"
# Remedies for two deployments of one run, for which the usual remedy would leave nothing to compare.
_REMEDIES = {"quality_not_measured": f"Use quality=fidelity with a longer quality.budget{_JUDGE}"}


@dataclass(frozen=True)
class Reason:
    """A finding that bears on the compared values, with its remedy and the runs that have it (`sides`)."""

    check: str
    title: str
    remedy: str
    sides: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.title} ({' and '.join(self.sides)}). {self.remedy}".rstrip()


@dataclass(frozen=True)
class MetricRow:
    """A metric of a case: both values over their starts, and the verdict, None if none was asked for.

    `unit`: of the values as stored; for a cost, the currency. `marks`: names of the checks that speak against
    comparing the two; `Comparison.distrust` has their text.
    """

    metric: str
    unit: str
    a: Aggregate
    b: Aggregate
    verdict: Verdict | None
    marks: tuple[str, ...] = ()

    @property
    def shown_unit(self) -> str:
        metric = metric_of(self.metric)
        return self.unit if metric.unit == CURRENCY else metric.shown_unit

    @property
    def values(self) -> tuple[str, str]:
        """Return A and B as means with their intervals, without unit."""
        return value_text(self.metric, self.a), value_text(self.metric, self.b)

    @property
    def cells(self) -> dict[str, str]:
        """Return its columns without a verdict."""
        return {"metric": self.metric, "unit": self.shown_unit, **dict(zip(NAMES, self.values, strict=True))}

    @property
    def change(self) -> str:
        """Return B relative to A: `3 % less [5 % less, 1 % less]`, or `–`."""
        return (self.verdict and change_text(self.metric, self.verdict)) or NOTHING

    @property
    def marked_change(self) -> str:
        """Return the change with the number of its marks: `3 % less [5 % less, 1 % less] ▲ 2`."""
        return f"{self.change} {mark_text(self.marks)}".rstrip()


@dataclass(frozen=True)
class ComparedCase:
    """One deployment of each side at a load of a scenario. A case about quality names neither.

    `deployment`: its label, or `b against a` if the labels differ. `why_none`: why no metric gets a verdict,
    if all share the reason. `notes`: what else a reader has to know.
    """

    deployment: str
    scenario: str = ""
    load: str = ""
    starts_text: str = ""
    why_none: Fact | None = None
    notes: tuple[str, ...] = ()
    rows: tuple[MetricRow, ...] = ()

    @property
    def name(self) -> str:
        return ", ".join(filter(None, (self.deployment, self.scenario, self.load)))

    @property
    def by_verdict(self) -> tuple[list[MetricRow], list[MetricRow]]:
        """Return the rows that were asked for a verdict, and the others."""
        deciding, others = ([row for row in self.rows if bool(row.verdict) is has] for has in (True, False))
        return deciding, others


@dataclass(frozen=True)
class Comparison:
    """Two sides compared. `how`: a sentence that says whether their starts are paired.

    `family`: how many verdicts were decided together. `distrust`: the findings that bear on these values.
    `answers`: one for each pair of deployments of which either was asked for its quality.
    """

    a: str
    b: str
    how: str
    margin_share: float
    family: int
    differences: tuple[Difference, ...]
    distrust: tuple[Reason, ...]
    cases: tuple[ComparedCase, ...]
    left_out: tuple[LeftOut, ...]
    answers: tuple[Answers, ...] = ()

    @property
    def is_marked(self) -> bool:
        """Whether any value has a mark."""
        return any(row.marks for case in self.cases for row in case.rows)

    @property
    def rule(self) -> str:
        if not self.family:
            return "B relative to A, with 95 % intervals; no verdicts."
        return (
            f"B relative to A, with verdicts on B ({family_text(self.family)}). Same: within "
            f"{margin_text(self.margin_share)}. Each interval is at the level that decides its verdict."
        )

    def cells(self, case: ComparedCase, row: MetricRow) -> dict[str, str]:
        """Return the columns of a metric that was asked for a verdict."""
        return {**row.cells, "B against A": row.marked_change, "verdict": self.verdict_text(case, row)}

    def verdict_text(self, case: ComparedCase, row: MetricRow) -> str:
        """Return `B faster`, `same within 5 %`, `cannot tell`, or why there is no verdict.

        `–` if none was asked for, or if the case already says why there is none.
        """
        if row.verdict is None or (row.verdict.kind == "none" and case.why_none):
            return NOTHING
        if row.verdict.kind == "none":
            return f"none: {row.verdict.why}"
        word = word_of(row.metric, row.verdict, self.margin_share)
        leans = row.verdict.kind in ("better", "worse") or is_slight(row.verdict)
        return f"B {word}" if leans else word


def compare_runs(a: str | Path, b: str | Path, terms: CompareTerms | None = None) -> Comparison:
    """Read and compare two sides, each `DIR` or `DIR:deployment`.

    Raises StoreError if a run cannot be read, UserError if the two have nothing that can be compared.
    """
    terms = terms or CompareTerms()
    sides = open_sides(str(a), str(b))
    pairs, left_out = pairs_of(*sides)
    questions = [[question_of(pair, name, terms.margin_share) for name in terms.metrics] for pair in pairs]
    metrics = list(dict.fromkeys([*terms.metrics, *value_names()]))
    names = {pair_name(pair.labels) for pair in pairs}
    answers = [each for each in answers_of(sides, NAMES) if each.figures and each.deployment in names]
    return compare_pairs(sides, pairs, left_out, metrics, questions, answers, terms.margin_share)


def compare_pairs(
    sides: tuple[Side, Side],
    pairs: Sequence[Pair],
    left_out: Sequence[LeftOut],
    metrics: Sequence[str],
    questions: Sequence[Sequence[Question]],
    answers: Sequence[Answers],
    margin_share: float = 0.0,
) -> Comparison:
    """Decide all questions as one family, and add the values.

    `questions`: for each pair, one question for each of the first metrics; the other metrics only have
    values.
    """
    verdicts = decide([each for of_pair in questions for each in of_pair])
    (first, second), following = sides, iter(verdicts)
    labels = dict.fromkeys(pair.labels for pair in pairs)
    return Comparison(
        a=first.text,
        b=second.text,
        how=_PAIRED if first.run is second.run else _NOT_INTERLEAVED,
        margin_share=margin_share,
        family=sum(verdict.kind != "none" for verdict in verdicts),
        differences=differences(first.run, second.run, list(labels)),
        distrust=_reasons(
            pairs, metrics, {each.deployment for each in answers if not each.missing or each.scores}
        ),
        cases=tuple(
            _case(pair, metrics, [next(following) for _ in of_pair])
            for pair, of_pair in zip(pairs, questions, strict=True)
        ),
        left_out=tuple(left_out),
        answers=tuple(answers),
    )


def _case(pair: Pair, metrics: Sequence[str], verdicts: Sequence[Verdict]) -> ComparedCase:
    a, b = pair.groups
    by_metric = dict(zip(metrics, verdicts, strict=False))
    whys = {verdict.why for verdict in verdicts}
    are_starts = all(run.is_restarted(group.deployment) for _, run, group in pair.sides)
    notes = {
        "other seeds: not the same conversations on both sides": not pair.has_same_seeds,
        "the load is bounded differently; see what differs": a.cells[0].load != b.cells[0].load,
    }
    return ComparedCase(
        pair_name(pair.labels),
        a.scenario,
        a.load,
        f"{plural(len(a.counted), 'start' if are_starts else 'block')} of {pair.names[0]}, "
        f"{len(b.counted):,} of {pair.names[1]}",
        whys.pop() if len(whys) == 1 else None,
        tuple(note for note, is_so in notes.items() if is_so),
        tuple(
            row
            for row in (_row(pair, name, by_metric.get(name)) for name in metrics)
            if row.verdict or row.a.mean is not None or row.b.mean is not None
        ),
    )


def _row(pair: Pair, metric: str, verdict: Verdict | None) -> MetricRow:
    findings = [
        each
        for _, run, group in pair.sides
        for each in [*marks_of(run, value_cells(run, group), metric), *_raced(run, group)]
    ]
    findings += [each for each in _of_two_runs(pair) if each.marks and _bears_on(each, [metric])]
    a, b = (aggregate(run, group, metric) for _, run, group in pair.sides)
    marks = dict.fromkeys(each.check for each in findings)
    return MetricRow(metric, _unit(metric, pair.runs), a, b, verdict, tuple(marks))


def _unit(metric: str, runs: Sequence[Run]) -> str:
    unit = metric_of(metric).unit
    currencies = [price.currency for run in runs if unit == CURRENCY and (price := price_of(run))]
    return " and ".join(dict.fromkeys(currencies)) or unit


# --- doubts ----------------------------------------------------------------------------------------


def _raced(run: Run, group: Group) -> list[Finding]:
    """Return that the values of a run decided how often its deployments were started."""
    if run.record.plan.race is None or not run.record.plan.race.looked:
        return []
    text = "In a race the values decide when it ends, so leads in it are on average too large."
    return [Finding("raced", "It ran in a race", text, f"{text} Use repeats=N on both sides.", marks=True)]


def _of_two_runs(pair: Pair, already: Container[str] = ()) -> list[Finding]:
    """Return findings that only both runs together show, named after the checks that find them within a run.

    `already`: deployments for which something is known about both sides' answers.
    """
    findings = []
    if why := pair.other_answers:
        findings.append(
            Finding(
                "output_lengths_differ",
                "Output lengths differ",
                str(why),
                "Compare only figures per token: E2E and requests/s get no verdict.",
                metrics=OF_LENGTHS,
                marks=True,
            )
        )
    is_known = pair.is_paired or pair_name(pair.labels) in already
    kinds = {answers_by(run.deployments[group.deployment]) for _, run, group in pair.sides}
    if len({kind for kind in kinds if kind[0] != "-"}) > 1 and not is_known:
        findings.append(Finding("quality_not_measured", "Quality is not measured", "", _REMEDY))
    return findings


def _reasons(pairs: Sequence[Pair], metrics: Sequence[str], already: Container[str]) -> tuple[Reason, ...]:
    reasons = gathered(
        ((each.check, each.title, (pair.is_paired and _REMEDIES.get(each.check)) or each.remedy), name)
        for pair in pairs
        for name, run, group in pair.sides
        for cells in [{cell.number for cell in group.counted}]
        for each in [*findings_of(run), *_raced(run, group), *_of_two_runs(pair, already)]
        if not (each.cells and cells.isdisjoint(each.cells)) and _bears_on(each, metrics)
    )
    return tuple(Reason(*key, tuple(sorted(set(sides)))) for key, sides in reasons.items())


def _bears_on(finding: Finding, metrics: Sequence[str]) -> bool:
    return not finding.metrics or any(metric.partition(".")[0] in finding.metrics for metric in metrics)
