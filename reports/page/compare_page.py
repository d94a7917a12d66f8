"""The page of a comparison: what differs, the ratios as a forest plot, then both sides' values."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from reports.checks.examine import LEGEND
from reports.data.cells import grouped
from reports.measures.written import NOTHING
from reports.page.cells import mark_html
from reports.page.declared import Columns, filled
from reports.page.document import document, write_page
from reports.page.drawing.charts import Block, Chart, Part, Table, rendered
from reports.page.drawing.more_kinds import Ratio, forest
from reports.page.looks import Look
from reports.page.markup import join, macro, paragraph, tag
from reports.stats.intervals import Kind
from reports.two_runs.compare import ComparedCase, Comparison, MetricRow
from reports.words.verdict_words import margin_text, title_of

# Colour and marker of a row by its verdict; the word itself is in its name.
_LOOKS: Mapping[Kind, Look] = {
    "better": Look("better", "--c-green", marker="triangle-up"),
    "worse": Look("worse", "--c-vermilion", marker="triangle-down"),
    "same": Look("same", "--c-blue"),
    "unknown": Look("cannot tell", "--c-grey", fill="open"),
    "none": Look("no verdict", "--c-other", marker="cross", fill="open"),
}
_VALUES = "Values are means over starts, in brackets their 95 % intervals; of two starts their range. "


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the page and return its path. Raises UserError where it cannot be written."""
    return write_page(path, lambda: comparison_page(comparison))


def comparison_page(comparison: Comparison) -> str:
    """Return the whole page as text."""
    title = f"{comparison.b} against {comparison.a}"
    charts = list(_charts(comparison))
    reasons = [macro("reason", each, f"{' and '.join(each.sides)}.", "") for each in comparison.distrust]
    doubts = tag(
        "div", tag("h2", "Reasons to distrust"), tag("ul", *reasons), class_="why-box", id="distrust"
    )
    left_out = [tag("li", f"{each.what}: {each.why}") for each in comparison.left_out]
    parts: list[Part] = [
        tag("h1", title),
        paragraph(f"A: {comparison.a} · B: {comparison.b} · B is set against A", "sub"),
        paragraph(comparison.rule, "answer"),
        paragraph(comparison.how, "sub"),
        *([doubts] if reasons else []),
        tag("h2", "What differs"),
        *_differences(comparison),
        tag("h2", "B against A"),
        paragraph(_VALUES + LEGEND),
        *charts,
        *(Block(case.name, _case(comparison, case)) for case in comparison.cases),
        *([tag("h2", "Not compared"), tag("ul", *left_out)] if left_out else []),
    ]
    return document(title, tag("main", rendered(parts)), charts)


def _differences(comparison: Comparison) -> list[Part]:
    by_kind = grouped(comparison.differences, lambda each: each.kind)  # which are sorted by it
    found: list[Part] = [
        Block(
            kind,
            [Table(kind, ["what", "A", "B"], [each.cells() for each in own], "words facts")],
            is_folded=kind == "versions",
        )
        for kind, own in by_kind.items()
    ]
    return found or [paragraph("Nothing that was recorded.")]


def _charts(comparison: Comparison) -> Iterator[Chart]:
    """Yield a chart of the ratios at each scenario and load; differences have a table only."""
    asked = ((case, row, row.verdict) for case in comparison.cases for row in case.rows if row.verdict)
    ratios = [each for each in asked if each[2].is_log and each[1].change != NOTHING]
    by_load = grouped(ratios, lambda each: f"{each[0].scenario}, {each[0].load}")
    for number, (where, found) in enumerate(by_load.items()):
        has_several = len({case.deployment for case, *_ in found}) > 1
        drawn, rows = [], []
        for case, row, verdict in found:
            word = comparison.verdict_text(case, row)
            whose = f" · {case.deployment}" if has_several else ""
            said = f"{row.marked_change}, {word}"
            drawn.append(Ratio(_LOOKS[verdict.kind], f"{title_of(row.metric)}{whose}", said, verdict))
            rows.append([case.deployment, row.metric, row.change, word])
        yield Chart(
            f"ratios-{number}",
            f"B over A at {where}, each with its interval",
            *forest(drawn, "B / A", comparison.margin_share),
            ["deployment", "metric", "B against A", "verdict"],
            rows,
            f"Right of 1: B has more. Band: within {margin_text(comparison.margin_share)}. "
            "▲ B better, ▼ B worse, ● same, ○ cannot tell, ✛ no verdict.",
        )


def _case(comparison: Comparison, case: ComparedCase) -> list[Part]:
    reasons = {each.check: each for each in comparison.distrust}
    columns: Columns[MetricRow] = {
        "metric": lambda row: row.metric,
        "unit": lambda row: row.shown_unit,
        "A": lambda row: row.values[0],
        "B": lambda row: row.values[1],
        "B against A": lambda row: join([row.change, mark_html([reasons[check] for check in row.marks])]),
        "verdict": lambda row: comparison.verdict_text(case, row),
    }
    asked, others = ([row for row in case.rows if bool(row.verdict) is has] for has in (True, False))
    said = [case.starts_text, *(f"Note: {note}." for note in case.notes)]
    said += [f"No verdicts: {case.why_none}."] if case.why_none else []
    more = Table(f"Other values, {case.name}", *filled(columns, others), "words")
    return [
        *map(paragraph, said),
        Table(case.name, *filled(columns, asked), "words"),
        *([Block("Other values, without verdicts", [more], is_folded=True)] if others else []),
    ]
