"""Start-up: from the spawn of each server to its first tokens, by the stages that were seen."""

from collections.abc import Iterable, Sequence
from functools import partial

from harness.store.store import StartRecord
from reports.data.run import Run
from reports.data.starts import FIRST, STAGES, Launch, instants_s, launches_of, start_title
from reports.measures.written import number
from reports.page.charts import Chart, figure
from reports.page.markup import Html, Of, Row, paragraph, tag
from reports.page.sections.listed import Columns, filled
from reports.page.stacked_bars import Bar, Fill, key, stacked_bars

# One hue from dark to light, and stripes in every other one: steps follow each other, whatever they are.
_FILLS = {
    "process_up": Fill("--s-1"),
    "weights_begin": Fill("--s-2", "."),
    "weights_loaded": Fill("--s-2", "/"),
    "engine_ready": Fill("--s-3"),
    "listening": Fill("--s-4", "\\"),
    "first_token": Fill("--s-5"),
    "ready": Fill("--s-5", "x"),
    "steady_token": Fill("--s-6", "."),
}


def startup_parts(run: Run) -> tuple[list[Html], list[Chart]]:
    """Return a chart with a bar per deployment and kind of start; nothing where we started no server."""
    found = launches_of(run)
    if not found:
        return [], []
    stages = _in_order(step.stage for launch in found for step in launch.steps)
    fills = {_title(stage): _FILLS.get(stage, Fill("--mut", "-")) for stage in stages}
    is_whole = all(launch.steps[-1].stage == "steady_token" for launch in found)
    chart = stacked_bars(
        "startup",
        "From the spawn to the first steady token" if is_whole else "From the spawn on, step by step",
        ("seconds since the spawn", "s"),
        fills,
        [_bar(launch, found) for launch in found],
        _each_start(run, found),
        "Means over a bar's starts; a tick is one start, and the table has each.",
    )
    later = any(launch.which != FIRST for launch in found)
    about = paragraph(
        "Each step ends with the stage that it is named by; one that was not seen is part of the next. A "
        "first start may compile, and read its files for the first time"
        + (": it stands apart from later ones." if later else ".")
    )
    return [tag("h3", "Start-up"), about, key(chart, fills), figure(chart)], [chart]


def _bar(launch: Launch, found: Sequence[Launch]) -> Bar:
    pieces = {_title(step.stage): step.length_s for step in launch.steps}
    ticks = [(_of(record), max(instants_s(record).values())) for record in launch.records]
    return Bar(_name(launch, found), f"{number(sum(pieces.values()), 2)} s", Of(launch.label), pieces, ticks)


def _name(launch: Launch, found: Sequence[Launch]) -> str:
    """Name a bar: with its kind of start where its deployment has both."""
    if sum(other.label == launch.label for other in found) == 1:
        return launch.label
    later = "later" if len(launch.records) == 1 else f"{len(launch.records)} later"
    return f"{launch.label}, {'first' if launch.which == FIRST else later}"


def _of(record: StartRecord) -> Of:
    return Of(record.deployment.label, start=record.repeat + 1)


def _title(stage: str) -> str:
    return STAGES.get(stage, stage.replace("_", " "))


def _in_order(stages: Iterable[str]) -> list[str]:
    """Return each stage once, known ones first in their order."""
    seen = dict.fromkeys(stages)
    return [name for name in STAGES if name in seen] + [name for name in seen if name not in STAGES]


def _at_s(stage: str, of: tuple[Launch, StartRecord]) -> str:
    return number(instants_s(of[1]).get(stage), 2)


def _each_start(run: Run, found: Sequence[Launch]) -> tuple[list[str], list[Row]]:
    each = [(launch, record) for launch in found for record in launch.records]
    stages = _in_order(stage for _, record in each for stage in instants_s(record))
    columns: Columns[tuple[Launch, StartRecord]] = {
        "deployment": lambda pair: pair[0].label,
        "start": lambda pair: start_title(run, pair[1]),
        "which": lambda pair: pair[0].which,
        **{f"{_title(stage)} s": partial(_at_s, stage) for stage in stages},
        "launch s": lambda pair: number(pair[1].launch_s, 2),
        "status": lambda pair: pair[1].status,
    }
    return filled(columns, each, lambda pair: _of(pair[1]))
