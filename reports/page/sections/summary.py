"""The summary table: a row per deployment and load."""

from reports.checks.examine import LEGEND, marks_of_cell
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.starts import start_title
from reports.measures.over_starts import withheld
from reports.measures.values import values_of
from reports.measures.written import plural
from reports.page.cell_marks import LEGEND as CELL_LEGEND
from reports.page.cell_marks import cell_marks, starts_that_count
from reports.page.charts import Section
from reports.page.looks import Look, looks, named
from reports.page.marks import mark_html, marked_cell
from reports.page.markup import Html, Of, Row, details, join, note, paragraph, table, tag, text, value_cell

_COLUMNS = (
    ("output_tokens_per_s", "output tokens/s"),
    ("requests_per_s", "requests/s"),
    ("ttft_s.p50", "TTFT p50 ms"),
    ("ttft_s.p95", "TTFT p95 ms"),
    ("tpot_s.p50", "TPOT p50 ms"),
    ("e2e_s.p50", "E2E p50 ms"),
    ("memory_peak_bytes", "peak memory GiB"),
    ("launch_s", "launch s"),
)
_BESIDE = {
    "starts": "Mean over starts; below it in brackets its 95 % interval (of two starts their range, of one "
    "nothing)",
    "blocks": "Mean over blocks (repeats); the server was running already and not restarted between them, so "
    "how much starts differ is not known: below it stands their range",
}


def section(run: Run) -> Section | None:
    """Each value is the mean over starts, with its interval below it."""
    if not run.groups:
        return None
    found, word = looks(run), "starts" if all(map(run.is_restarted, run.deployments)) else "blocks"
    columns = ["deployment", "load", *(title for _, title in _COLUMNS), "requests ok / failed", word]
    parts = []
    for scenario in dict.fromkeys(group.scenario for group in run.groups):
        rows = [
            _row(run, group, found[group.deployment]) for group in run.groups if group.scenario == scenario
        ]
        parts += [tag("h3", scenario), table(columns, rows, "summary", f"Values, {scenario}")]
    about = note(
        f"{_BESIDE[word]}. “–”: no value; its tooltip says why. {LEGEND}",
        f"At a row's name: {CELL_LEGEND} Where not all {word} have a value, below it stands how many have; a "
        "percentile has a mean only if each that counts has requests enough for it. E2E and requests/s need "
        "answers of the length asked for. A value's tooltip has its n.",
    )
    return Section("Values side by side", join([*parts, about, details("Every cell", _cells(run, found))]))


def _row(run: Run, group: Group, look: Look) -> Row:
    values = [marked_cell(run, group, name) for name, _ in _COLUMNS]
    name = join([named(look), cell_marks(run, group)])
    cells: list[Html | str] = [name, group.load, *values, _counts(run, group), starts_that_count(group)]
    return Row(cells, Of(group.deployment, group.load))


def _counts(run: Run, group: Group) -> Html:
    sent = [run.window_requests(cell.number) for cell in group.cells if cell.record]
    ok = sum(int((frame["outcome"] == "ok").sum()) for frame in sent)
    failed = sum(len(frame) for frame in sent) - ok
    return tag("span", f"{ok:,} / {failed:,}", class_="bad" if failed else "")


def _cells(run: Run, found: dict[str, Look]) -> Html:
    columns = ["deployment", "cell", "load", "start", "status", *(title for _, title in _COLUMNS), "why"]
    rows = [_cell_row(run, cell, found[cell.label]) for cell in run.planned_cells]
    about = paragraph(f"{plural(len(rows), 'cell')}, in the order of the plan's numbers.")
    return join([table(columns, rows, "summary", "Every cell"), about])


def _cell_row(run: Run, cell: Cell, look: Look) -> Row:
    status = cell.status if cell.validity == "valid" else f"{cell.status}, {cell.validity}"
    start = cell.planned.repeat + 1
    cells: list[Html | str] = [
        named(look),
        f"{cell.number:03d}",
        cell.load_label,
        start_title(run, record) if (record := run.start_of(cell)) else str(start),
        tag("span", status, class_="" if status == "completed" else "bad"),
        *(_value(run, cell, name) for name, _ in _COLUMNS),
        tag("span", text(cell.reason), class_="why"),
    ]
    return Row(cells, Of(cell.label, cell.load_label, start=start))


def _value(run: Run, cell: Cell, name: str) -> Html:
    found, why = values_of(run).get(cell.number, {}).get(name), withheld(run, cell.key, name)
    has_value = found is not None and found.value is not None and not why
    mark = mark_html(marks_of_cell(run, cell.number, name)) if has_value else ""
    return join([value_cell(name, found, why), mark])
