"""Side by side: every value, every verdict, and how long servers took to start."""

from collections.abc import Iterator, Sequence

from reports.checks.examine import marks_between
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.starts import start_title
from reports.measures.metrics import metric_of
from reports.measures.over_starts import unit_of, withheld
from reports.measures.values import values_of
from reports.measures.written import plural
from reports.page.cells import (
    LEGEND,
    cell_marks,
    mark_html,
    mean_cell,
    starts_that_count,
    value_cell,
)
from reports.page.drawing import forest
from reports.page.drawing.charts import Block, Chart, Part, Section, Table
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, Row, join, paragraph, tag, text
from reports.page.sections.startup import launches
from reports.stats.family import Verdict
from reports.verdicts.comparisons import Compared, comparisons_of
from reports.verdicts.load_cases import LoadCase, load_cases_of, opened, title_of_case
from reports.words.verdict_words import (
    capital,
    family_text,
    heading_of,
    margin_text,
    ratio_text,
    title_of,
    word_of,
)

_COLUMNS = {
    "output_tokens_per_s": "output tokens/s",
    "requests_per_s": "requests/s",
    "ttft_s.p50": "TTFT p50 ms",
    "ttft_s.p95": "TTFT p95 ms",
    "tpot_s.p50": "TPOT p50 ms",
    "e2e_s.p50": "E2E p50 ms",
    "memory_peak_bytes": "peak memory GiB",
    "launch_s": "launch s",
}
_BESIDE = {
    "starts": "Means over starts, with their 95 % interval in brackets (of two starts their range).",
    "blocks": "Means over blocks (repeats), with their range in brackets: the server was running already and "
    "not restarted between them, so how much starts differ is not known.",
}
_HOW = (
    "A dash is no value; its tooltip says why, that of a value has its n. Where not all starts have a "
    "value, how many have stands below it; a percentile has a mean only if each start has requests enough "
    "for it. E2E and requests/s need answers of the length asked for. A ratio is the mean of the blocks' "
    "ratios; a block is one repeat, in which every deployment was started once."
)


def section(run: Run) -> Section:
    """Return all values and verdicts."""
    if not run.groups:
        return Section("Side by side")
    word = "starts" if all(map(run.is_restarted, run.deployments)) else "blocks"
    cases = load_cases_of(run, at_least=1)
    first = opened(run, cases)
    parts: list[Part] = [paragraph(_rule(run))]
    for number, case in enumerate(cases):
        title, is_open = title_of_case(run, case), case in first
        charts: list[Part] = list(_charts(run, case, number)) if is_open else []
        table = _table(run, case, title, word)
        parts.append(Block(title, [table, *charts], Of(load=case.load), is_folded=not is_open))
    parts += launches(run)
    parts.append(Block(f"Every cell: {len(run.planned_cells):,}", [_cells(run)], is_folded=True))
    return Section("Side by side", f"{_BESIDE[word]} {LEGEND}", parts, _HOW)


def _rule(run: Run) -> str:
    """Say by which rule verdicts are given, or why there are none."""
    found = comparisons_of(run)
    if not found.rows:
        return "No verdicts on values: no two deployments are of one model."
    if found.why_none or not found.family:
        return f"No verdicts: {found.why_none or 'no comparison allows one; each says why'}."
    margin = margin_text(run.record.compare.margin_share)
    return (
        "Below a value its ratio to that of the column's reference (the leader, or compare.baseline), "
        f"{family_text(found.family)}; same: within {margin}."
    )


def _table(run: Run, case: LoadCase, title: str, word: str) -> Table:
    """Return a row per deployment with its values, and below them its ratios to the baseline."""
    more = {name: heading_of(name, unit_of(run, name)) for name in run.record.compare.metrics}
    columns = {**_COLUMNS, **{name: head for name, head in more.items() if name not in _COLUMNS}}
    rows = []
    for group in case.groups:
        sent = [run.window_requests(cell.number) for cell in group.cells if cell.record]
        ok = sum(int((frame["outcome"] == "ok").sum()) for frame in sent)
        failed = sum(len(frame) for frame in sent) - ok
        cells: list[Html | str] = [
            join([named(looks(run)[group.deployment]), cell_marks(run, group)]),
            *(_cell(run, case, group, name) for name in columns),
            join(
                [
                    tag("span", f"{ok:,} / {failed:,}", class_="bad" if failed else ""),
                    tag("span", f"{starts_that_count(group)} {word}", class_="range"),
                ]
            ),
        ]
        rows.append(Row(cells, Of(group.deployment, group.load)))
    heads = ["deployment", *columns.values(), "requests ok / failed"]
    return Table(f"Values, {title}", heads, rows, "summary verdicts")


def _cell(run: Run, case: LoadCase, group: Group, name: str) -> Html:
    """Return a value, and the verdict on it against its column's reference."""
    value, told = mean_cell(run, group, name), _compared(run, case, name)
    if not told or comparisons_of(run).why_none:
        return value
    found = told.get(group.deployment)
    if found is None:
        return join([value, tag("span", "reference", class_="range")])
    verdict = found.verdict
    if verdict.kind == "none":
        return join([value, tag("span", verdict.why or "no verdict", class_="range why-none")])
    ratio, _, interval = ratio_text(name, verdict).partition(" ")
    word = word_of(name, verdict, run.record.compare.margin_share).partition(" within")[0]
    title = f"{plural(verdict.k, 'block')}; interval at {100 * verdict.confidence:.4g} %"
    other = next(each for each in case.groups if each.deployment == found.b)
    marks = mark_html(marks_between(run, group, other, name))
    said = tag("span", f"{ratio} {word}", marks, title=title, class_=f"verdict {verdict.kind}")
    return join([value, said, tag("span", interval, class_="range")])


def _cells(run: Run) -> Table:
    columns = ["deployment", "cell", "load", "start", "status", *_COLUMNS.values(), "why"]
    return Table("Every cell", columns, [_cell_row(run, cell) for cell in run.planned_cells])


def _cell_row(run: Run, cell: Cell) -> Row:
    record, start = run.start_of(cell), cell.planned.repeat + 1
    status = cell.status if cell.validity == "valid" else f"{cell.status}, {cell.validity}"
    found = values_of(run).get(cell.number, {})
    cells: list[Html | str] = [
        named(looks(run)[cell.label]),
        f"{cell.number:03d}",
        cell.load_label,
        start_title(run, record) if record else str(start),
        tag("span", status, class_="" if status == "completed" else "bad"),
        *(value_cell(name, found.get(name), withheld(run, cell.key, name)) for name in _COLUMNS),
        tag("span", text(cell.reason), class_="why"),
    ]
    return Row(cells, Of(cell.label, cell.load_label, start))


# --- verdicts --------------------------------------------------------------------------------------


def _compared(run: Run, case: LoadCase, name: str) -> dict[str, Compared]:
    """Return what is compared with a metric's reference at a load, by deployment."""
    labels = {group.deployment for group in case.groups}
    return {
        row.a: row
        for row in comparisons_of(run).rows
        if (row.scenario, row.load, row.metric) == (case.scenario, case.load, name) and row.a in labels
    }


def _said(name: str, verdict: Verdict, margin_share: float) -> list[Html | str]:
    if verdict.kind == "none":
        return ["–", tag("span", verdict.why or "no verdict", class_="verdict none")]
    word = tag("span", word_of(name, verdict, margin_share), class_=f"verdict {verdict.kind}")
    return [ratio_text(name, verdict), word]


def _charts(run: Run, case: LoadCase, number: int) -> Iterator[Chart]:
    """Yield a chart per metric of the ratios with their intervals."""
    for name in run.record.compare.metrics:
        rows = _compared(run, case, name).values()
        drawn = [(row.a, row.verdict) for row in rows if row.verdict.kind != "none" and row.verdict.ratio]
        reference = next((row.b for row in rows), "")
        if drawn:
            yield _chart(run, case, reference, name, drawn, number)


def _chart(
    run: Run,
    case: LoadCase,
    reference: str,
    name: str,
    drawn: Sequence[tuple[str, Verdict]],
    number: int,
) -> Chart:
    margin, metric, is_log = run.record.compare.margin_share, metric_of(name), drawn[0][1].is_log
    scale = 1.0 if is_log else metric.shown_scale
    found = [
        forest.row(
            looks(run)[label],
            f"{label}: {word_of(name, verdict, margin)}",
            verdict,
            ratio_text(name, verdict),
            Of(label, case.load),
            scale,
        )
        for label, verdict in drawn
    ]
    unit = "ratio, log scale" if is_log else f"difference, {metric.shown_unit}"
    layout = forest.ratio_layout(found, unit, margin) if is_log else forest.difference_layout(found, unit)
    side = {"higher": "; better to the right", "lower": "; better to the left"}.get(metric.better, "")
    what = "Ratio to" if is_log else "Difference from"
    shown = {reference, *(label for label, _ in drawn)}
    absent = [group.deployment for group in case.groups if group.deployment not in shown]
    note = f"{what} {reference}{side}.{f' Band: within {margin_text(margin)}.' if is_log else ''}"
    note += f" No verdict: {', '.join(absent)}." if absent else ""
    rows = [
        Row([label, *_said(name, each, margin), str(each.k)], Of(label, case.load)) for label, each in drawn
    ]
    finding = _finding(name, reference, drawn, margin)
    subject = capital(title_of(name))
    return Chart(
        f"verdicts-{name}-{number}".replace(".", "-"),
        f"{subject} at {case.load}",
        forest.traces(found),
        layout,
        ["deployment", "ratio" if is_log else "difference", "verdict", "blocks"],
        rows,
        note,
        forest.height_px(found),
        finding=f"{subject}: {finding}" if finding else None,
        of=Of(load=case.load),
        has_baseline=True,
    )


def _finding(name: str, reference: str, drawn: Sequence[tuple[str, Verdict]], margin: float) -> str:
    """Return `sglang awq faster than vllm fp16; 2 slower`; empty if nothing is decided."""
    by_kind: dict[str, list[str]] = {}
    for label, verdict in drawn:
        by_kind.setdefault(verdict.kind, []).append(label)
    better, worse = metric_of(name).words
    words = {"better": better, "worse": worse, "same": f"the same within {margin_text(margin)}"}
    said = [f"{_names(by_kind[kind])} {word}" for kind, word in words.items() if kind in by_kind]
    if not said:
        return ""
    is_same = by_kind.keys() <= {"same", "unknown"}
    said[0] += f" {'as' if is_same else 'than'} {reference}"
    if unclear := by_kind.get("unknown"):
        said.append(f"{_names(unclear)} too close to call")
    return "; ".join(said)


def _names(labels: Sequence[str]) -> str:
    """Return two by their names; of more only how many."""
    return " and ".join(labels) if len(labels) <= 2 else str(len(labels))
