"""Two runs, or two deployments, compared: what differs in how they were made, then B over A, case by case."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.contracts import CompareTerms
from reports.measures.metrics import metric_of, value_names
from reports.measures.written import plural
from reports.stats.family import Question, Verdict, decide
from reports.two_runs.differences import Difference, differences
from reports.two_runs.side_values import Mark, Reason, SideValue, marks_of_pair, reasons_of, side_value
from reports.two_runs.sides import LeftOut, Side, notes_of, open_sides, pairs_of
from reports.verdicts.comparisons import Pair, question_of
from reports.words.verdict_words import family_text, margin_text, word_of

_PAIRED = "Paired by block: each block of the run started both."
_NOT_INTERLEAVED = (
    "The two runs were not interleaved: whatever changed between them, as the machine's other load or its "
    "temperature, is in the ratios."
)
# As metrics name the unit of a cost, which each run says for itself.
_CURRENCY = "price.currency"


@dataclass(frozen=True)
class Row:
    """A metric of a case: both values, and the verdict on the two; None where none was asked for.

    `unit`: that of the values as they are stored; of a cost the currency.
    """

    metric: str
    unit: str
    a: SideValue
    b: SideValue
    verdict: Verdict | None
    marks: tuple[Mark, ...] = ()

    @property
    def shown_unit(self) -> str:
        """The unit that a person reads."""
        return metric_of(self.metric).shown_unit.replace(_CURRENCY, self.unit)


@dataclass(frozen=True)
class ComparedCase:
    """One deployment of each side under a load of a scenario.

    `deployment`: its label, or `b against a` where they differ. `starts`: those of each side that count;
    blocks where a server was not restarted. `why_none`: why no metric of it gets a verdict; `notes`: what a
    reader has to know of it besides.
    """

    deployment: str
    scenario: str
    load: str
    a: str
    b: str
    starts: tuple[int, int]
    why_none: str | None
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    are_starts: bool = True

    @property
    def name(self) -> str:
        return ", ".join((self.deployment, self.scenario, self.load))

    @property
    def starts_text(self) -> str:
        first, second = self.starts
        word = "start" if self.are_starts else "block"
        return plural(first, word) + (" each" if first == second else f" of A, {second:,} of B")


@dataclass(frozen=True)
class Comparison:
    """Two sides compared. `how`: a sentence on what their starts have to do with each other.

    `family`: how many verdicts were decided together. `distrust`: what bears on these values.
    """

    a: str
    b: str
    how: str
    margin_share: float
    metrics: tuple[str, ...]
    family: int
    differences: tuple[Difference, ...]
    distrust: tuple[Reason, ...]
    cases: tuple[ComparedCase, ...]
    left_out: tuple[LeftOut, ...]


def compare_runs(a: str | Path, b: str | Path, terms: CompareTerms | None = None) -> Comparison:
    """Read and compare two sides, each `DIR` or `DIR:deployment`.

    Raises StoreError where a run cannot be read, UserError where nothing of the two can be compared.
    """
    terms = terms or CompareTerms()
    sides = open_sides(str(a), str(b))
    pairs, left_out = pairs_of(*sides)
    asked = [question_of(pair, name, terms.margin_share) for pair in pairs for name in terms.metrics]
    return compare_pairs(
        sides, pairs, left_out, terms.metrics, asked, others=value_names(), margin_share=terms.margin_share
    )


def compare_pairs(
    sides: tuple[Side, Side],
    pairs: Sequence[Pair],
    left_out: Sequence[LeftOut],
    metrics: Sequence[str],
    asked: Sequence[Question],
    *,
    others: Sequence[str] = (),
    margin_share: float = 0.0,
) -> Comparison:
    """Decide what is asked of each pair and metric, in that order, as one family, and put values beside it.

    `others` are metrics whose values are shown without a verdict.
    """
    verdicts = decide(asked)
    told = iter(verdicts)
    cases = tuple(_case(pair, {name: next(told) for name in metrics}, others) for pair in pairs)
    (first, second), shown = sides, dict.fromkeys(row.metric for case in cases for row in case.rows)
    return Comparison(
        a=first.text,
        b=second.text,
        how=_PAIRED if first.run is second.run else _NOT_INTERLEAVED,
        margin_share=margin_share,
        metrics=tuple(metrics),
        family=sum(verdict.kind != "none" for verdict in verdicts),
        differences=differences(first.run, second.run, list(dict.fromkeys((c.a, c.b) for c in cases))),
        distrust=reasons_of(pairs, list(shown)),
        cases=cases,
        left_out=tuple(left_out),
    )


def _case(pair: Pair, verdicts: dict[str, Verdict], others: Sequence[str]) -> ComparedCase:
    a, b = pair.groups
    rows = [_row(pair, name, verdicts.get(name)) for name in dict.fromkeys([*verdicts, *others])]
    have = (
        row for row in rows if row.verdict or row.a.value.mean is not None or row.b.value.mean is not None
    )
    return ComparedCase(
        a.deployment if a.deployment == b.deployment else f"{b.deployment} against {a.deployment}",
        a.scenario,
        a.load,
        a.deployment,
        b.deployment,
        (len(a.counted), len(b.counted)),
        pair.why_none,
        notes_of(pair),
        tuple(have),
        all(run.is_restarted(group.deployment) for _, run, group in pair.sides),
    )


def _row(pair: Pair, metric: str, verdict: Verdict | None) -> Row:
    first, second = (side_value(run, group, metric) for _, run, group in pair.sides)
    marks = marks_of_pair(pair, metric) if verdict else ()
    return Row(metric, _unit(metric, pair), first, second, verdict, marks)


def _unit(metric: str, pair: Pair) -> str:
    """Return a metric's stored unit, of a cost the currency, or both currencies."""
    unit = metric_of(metric).unit
    prices = [run.record.price for run in pair.runs if unit == _CURRENCY]
    found = [price.currency for price in prices if price and price.gpu_hour is not None]
    return " and ".join(dict.fromkeys(found)) or unit


# --- in words --------------------------------------------------------------------------------------


def verdict_line(comparison: Comparison) -> str:
    """Return by which rule the verdicts were given."""
    if not comparison.family:
        return "Ratios are B over A, with 95 % intervals; no verdicts."
    return (
        f"Ratios are B over A; verdicts on B, {family_text(comparison.family)}; same: within "
        f"{margin_text(comparison.margin_share)}. A ratio's interval is at the level that decides it."
    )


def verdict_text(metric: str, verdict: Verdict, margin_share: float) -> str:
    """Return `B faster`, `same within 5 %`, `cannot tell`, or why there is none."""
    if verdict.kind == "none":
        return f"none: {verdict.why}"
    word = word_of(metric, verdict, margin_share)
    return f"B {word}" if verdict.kind in ("better", "worse") else word


def to_builtins(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison as plain JSON values, in stored units."""
    return asdict(comparison)
