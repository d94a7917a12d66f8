"""Side by side: every value, every verdict, and how long servers took to start."""

from functools import partial

from harness.store.store import StartRecord
from reports.checks.examine import marks_of
from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.samples import FIRST, STAGES, Launch, instants_s, launches_of, start_title
from reports.measures.metrics import metric_of
from reports.measures.over_starts import unit_of, withheld
from reports.measures.values import values_of
from reports.measures.written import number, plural
from reports.page.cells import LEGEND, cell_marks, mark_html, mean_cell, starts_that_count, value_cell
from reports.page.drawing.bars import Bar, stacked
from reports.page.drawing.charts import Block, Chart, Part, Section, Table, block
from reports.page.listed import Columns, Shown, below, filled
from reports.page.looks import looks, named
from reports.page.markup import Of, join, paragraph, tag
from reports.page.sections.by_load import of_group
from reports.verdicts.comparisons import Compared, comparisons_of
from reports.verdicts.decisions import decisions_of
from reports.verdicts.load_cases import LoadCase, load_cases_of, opened, title_of_case
from reports.words.verdict_words import family_text, heading_of, margin_text, ratio_text, word_of

_COLUMNS = (
    "output_tokens_per_s",
    "requests_per_s",
    "ttft_s.p50",
    "ttft_s.p95",
    "tpot_s.p50",
    "e2e_s.p50",
    "memory_peak_bytes",
    "launch_s",
)
_BESIDE = {
    "starts": "Means over starts, with their 95 % interval in brackets (of two starts their range).",
    "blocks": "Means over blocks (repeats), with their range in brackets: the server was running already and "
    "not restarted between them, so how much starts differ is not known.",
}
_HOW = (
    "A dash is no value; its tooltip says why, that of a value has its n. Where not all starts have a "
    "value, how many have stands below it; a percentile has a mean only if each start has requests enough. "
    "E2E and requests/s need answers of the length asked for. A ratio is the mean of the blocks' ratios; a "
    "block is one repeat, in which every deployment was started once."
)
# One hue from dark to light, and stripes in every other one: steps follow each other, whatever they are.
_FILLS = {
    "process_up": ("--s-1", ""),
    "weights_begin": ("--s-2", "."),
    "weights_loaded": ("--s-2", "/"),
    "engine_ready": ("--s-3", ""),
    "listening": ("--s-4", "\\"),
    "first_token": ("--s-5", ""),
    "ready": ("--s-5", "x"),
    "steady_token": ("--s-6", "."),
}
_START_UP = (
    "Means over a bar's starts; a tick is one start. Each step ends with the stage that it is named by; one "
    "that was not seen is part of the next. A first start may compile, and read its files for the first time."
)


def section(run: Run) -> Section:
    """Return all values and verdicts; those of the load told first stand open."""
    word = "starts" if all(map(run.is_restarted, run.deployments)) else "blocks"
    cases = load_cases_of(run)
    first = opened(run, cases)
    parts: list[Part] = []
    for case in cases:
        title = title_of_case(run, case)
        values = filled(_values(run, case, word), case.groups, of_group)
        table = Table(f"Values, {title}", *values, "summary verdicts")
        parts.append(Block(title, [table], Of(load=case.load), is_folded=case not in first))
    parts += block("Start-up, step by step", startup_chart(run), is_folded=True)
    if cells := run.planned_cells:
        table = Table("Every cell", *filled(_every(run), cells, _of_cell))
        parts = [paragraph(_rule(run)), *parts, Block(f"Every cell: {len(cells):,}", [table], is_folded=True)]
    return Section("Side by side", f"{_BESIDE[word]} {LEGEND}", parts, _HOW)


def _rule(run: Run) -> str:
    found = comparisons_of(run)
    if not found.rows:
        return "No verdicts on values: no two deployments are of one model."
    if found.why_none or not found.family:
        return f"No verdicts: {found.why_none or 'no comparison allows one; each says why'}."
    margin = margin_text(run.record.compare.margin_share)
    return (
        "Below a value its ratio to that of the column's reference (the leader, or compare.baseline), "
        f"{family_text(found.family, found.alpha)}; same: within {margin}."
    )


# --- values ----------------------------------------------------------------------------------------


def _values(run: Run, case: LoadCase, word: str) -> Columns[Group]:
    names = dict.fromkeys([*_COLUMNS, *run.record.compare.metrics])
    return {
        "deployment": lambda group: join([named(looks(run)[group.deployment]), cell_marks(run, group)]),
        **{heading_of(name, unit_of(run, name)): partial(_value, run, case, name) for name in names},
        "requests ok / failed": partial(_requests, run, word),
    }


def _value(run: Run, case: LoadCase, name: str, group: Group) -> Shown:
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
    named = [made.leaders.get(name) for made in decisions_of(run) if made.case.key == case.key]
    if verdict.kind == "unknown" and found.b in named:
        word = f"{metric_of(name).words[1]} by the leader's own test"
    title = f"{plural(verdict.k, 'block')}; interval at {100 * verdict.confidence:.4g} %"
    other = next(each for each in case.groups if each.deployment == found.b)
    marks = mark_html(marks_of(run, [*group.counted, *other.counted], name))
    said = tag("span", f"{ratio} {word}", marks, title=title, class_=f"verdict {verdict.kind}")
    return join([value, said, tag("span", interval, class_="range")])


def _requests(run: Run, word: str, group: Group) -> Shown:
    ok = [run.window_requests(cell.number)["outcome"] == "ok" for cell in group.cells if cell.record]
    good = sum(int(each.sum()) for each in ok)
    failed = sum(map(len, ok)) - good
    main = tag("span", f"{good:,} / {failed:,}", class_="bad" if failed else "")
    return below(main, f"{starts_that_count(group)} {word}")


def _every(run: Run) -> Columns[Cell]:
    return {
        "deployment": lambda cell: named(looks(run)[cell.label]),
        "cell": lambda cell: f"{cell.number:03d}",
        "load": lambda cell: cell.load_label,
        "start": lambda cell: (
            start_title(run, start) if (start := run.start_of(cell)) else str(_of_cell(cell).start)
        ),
        "status": _status,
        **{heading_of(name): partial(_value_of, run, name) for name in _COLUMNS},
        "why": lambda cell: tag("span", cell.reason, class_="why") if cell.reason else "",
    }


def _status(cell: Cell) -> Shown:
    said = cell.status if cell.validity == "valid" else f"{cell.status}, {cell.validity}"
    return tag("span", said, class_="" if said == "completed" else "bad")


def _value_of(run: Run, name: str, cell: Cell) -> Shown:
    return value_cell(name, values_of(run).get(cell.number, {}).get(name), withheld(run, cell.key, name))


def _of_cell(cell: Cell) -> Of:
    return Of(cell.label, cell.load_label, cell.planned.repeat + 1)


def _compared(run: Run, case: LoadCase, name: str) -> dict[str, Compared]:
    """Return what is compared with a metric's reference at a load, by deployment."""
    labels = {group.deployment for group in case.groups}
    return {
        row.a: row
        for row in comparisons_of(run).rows
        if (row.scenario, row.load, row.metric) == (case.scenario, case.load, name) and row.a in labels
    }


# --- start-up --------------------------------------------------------------------------------------


def startup_chart(run: Run) -> list[Chart]:
    """Return how long servers took to start; nothing if none was started by us, or none became ready."""
    found = [launch for launch in launches_of(run) if launch.steps_s]
    if not found:
        return []
    starts = [record for launch in found for record in launch.records]
    seen = {stage for record in starts for stage in instants_s(record)}
    titles = STAGES | {stage: stage.replace("_", " ") for stage in sorted(seen - STAGES.keys())}
    bars = [
        Bar(
            Of(launch.label),
            f"{launch.label}, {_which(launch)}: {number(sum(launch.steps_s.values()), 2)} s",
            {titles[stage]: length_s for stage, length_s in launch.steps_s.items()},
            [(max(instants_s(record).values()), _of_start(record)) for record in launch.records],
        )
        for launch in found
    ]
    columns: Columns[StartRecord] = {
        "deployment": lambda start: start.deployment.label,
        "start": lambda start: start_title(run, start),
        **{f"{title} s": partial(_instant, stage) for stage, title in titles.items()},
        "launch s": lambda start: number(start.launch_s, 2),
        "status": lambda start: start.status,
    }
    fills = {title: _FILLS.get(stage, ("--mut", "-")) for stage, title in titles.items()}
    chart = Chart(
        "startup",
        "From the spawn until the server answers",
        *stacked(bars, fills, "seconds since the spawn", "s"),
        *filled(columns, starts, _of_start),
        _START_UP,
        is_wide=True,
    )
    return [chart]


def _which(launch: Launch) -> str:
    return launch.which if launch.which == FIRST else f"{len(launch.records)} later"


def _instant(stage: str, start: StartRecord) -> str:
    return number(instants_s(start).get(stage), 2)


def _of_start(start: StartRecord) -> Of:
    return Of(start.deployment.label, start=start.repeat + 1)
