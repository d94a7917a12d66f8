"""The page of a comparison: what differs, the ratios as a forest plot, then both sides' values."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from reports.checks.examine import LEGEND
from reports.measures.written import NOTHING
from reports.page.cells import mark_html
from reports.page.document import document, write_page
from reports.page.drawing import forest
from reports.page.drawing.charts import Block, Chart, Part, Table, rendered
from reports.page.listed import Columns, filled
from reports.page.looks import Look
from reports.page.markup import join, macro, paragraph, tag
from reports.stats.family import Kind
from reports.two_runs.compare import ComparedCase, Comparison, Row
from reports.two_runs.differences import KINDS
from reports.words.verdict_words import margin_text, title_of

# Colour and marker of a row by its verdict; the word itself is in its name.
_LOOKS: Mapping[Kind, Look] = {
    "better": Look("better", "", "--c-green", marker="triangle-up"),
    "worse": Look("worse", "", "--c-vermilion", marker="triangle-down"),
    "same": Look("same", "", "--c-blue"),
    "unknown": Look("cannot tell", "", "--c-grey", fill="open"),
    "none": Look("no verdict", "", "--c-other", marker="cross", fill="open"),
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
        paragraph(f"A: {comparison.a} · B: {comparison.b} · ratios are B over A", "sub"),
        paragraph(comparison.rule, "answer"),
        paragraph(comparison.how, "sub"),
        *([doubts] if reasons else []),
        tag("h2", "What differs"),
        *_differences(comparison),
        tag("h2", "B over A"),
        paragraph(_VALUES + LEGEND),
        *charts,
        *(Block(case.name, _case(comparison, case)) for case in comparison.cases),
        *([tag("h2", "Not compared"), tag("ul", *left_out)] if left_out else []),
    ]
    return document(title, tag("main", rendered(parts)), charts)


def _differences(comparison: Comparison) -> list[Part]:
    by_kind = {kind: [each.cells() for each in comparison.differences if each.kind == kind] for kind in KINDS}
    found = [
        Block(kind, [Table(kind, ["what", "A", "B"], rows, "words facts")], is_folded=kind == "versions")
        for kind, rows in by_kind.items()
        if rows
    ]
    return [*found] or [paragraph("Nothing that was recorded.")]


def _charts(comparison: Comparison) -> Iterator[Chart]:
    """Yield a chart of the ratios at each scenario and load; differences have a table only."""
    by_load: dict[str, list[tuple[ComparedCase, Row]]] = {}
    for case in comparison.cases:
        ratios = [row for row in case.rows if row.verdict and row.verdict.is_log and row.ratio != NOTHING]
        if ratios:
            by_load.setdefault(f"{case.scenario}, {case.load}", []).extend((case, row) for row in ratios)
    for number, (where, found) in enumerate(by_load.items()):
        yield _chart(comparison, f"ratios-{number}", where, found)


def _chart(comparison: Comparison, name: str, where: str, found: Sequence[tuple[ComparedCase, Row]]) -> Chart:
    rows, shown = [], []
    has_several = len({case.deployment for case, _ in found}) > 1
    for case, row in found:
        assert row.verdict is not None
        word = comparison.verdict_text(case, row)
        whose = f" · {case.deployment}" if has_several else ""
        words = f"{title_of(row.metric)}: {row.marked_ratio}, {word}{whose}"
        rows.append(forest.Row(_LOOKS[row.verdict.kind], words, row.verdict, row.ratio))
        shown.append([case.deployment, row.metric, row.ratio, word])
    return Chart(
        name,
        f"B over A at {where}, each with its interval",
        *forest.draw(rows, "B / A", comparison.margin_share),
        ["deployment", "metric", "B / A", "verdict"],
        shown,
        f"Right of 1: B has more. Band: within {margin_text(comparison.margin_share)}. "
        "▲ B better, ▼ B worse, ● same, ○ cannot tell, ✛ no verdict.",
        forest.height_px(rows),
    )


def _case(comparison: Comparison, case: ComparedCase) -> list[Part]:
    reasons = {each.check: each for each in comparison.distrust}
    columns: Columns[Row] = {
        "metric": lambda row: row.metric,
        "unit": lambda row: row.shown_unit,
        "A": lambda row: row.values[0],
        "B": lambda row: row.values[1],
        "B / A": lambda row: join([row.ratio, mark_html([reasons[check] for check in row.marks])]),
        "verdict": lambda row: comparison.verdict_text(case, row),
    }
    asked, others = ([row for row in case.rows if bool(row.verdict) is has] for has in (True, False))
    said = [f"No verdicts: {case.why_none}."] if case.why_none else []
    said += [f"Note: {note}." for note in case.notes]
    parts: list[Part] = [paragraph(each) for each in (case.starts_text, *said)]
    parts.append(Table(case.name, *filled(columns, asked), "words"))
    more = Table(f"Other values, {case.name}", *filled(columns, others), "words")
    return [*parts, *([Block("Other values, without verdicts", [more], is_folded=True)] if others else [])]
