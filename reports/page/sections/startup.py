"""Start-up: from the spawn of each server to its first tokens, split by the stages that were seen."""

from functools import partial

from harness.store.store import StartRecord
from reports.data.run import Run
from reports.data.starts import FIRST, STAGES, Launch, instants_s, launches_of, start_title
from reports.measures.written import number
from reports.page.drawing.bars import Bar, bar_chart
from reports.page.drawing.charts import Chart
from reports.page.listed import Columns, filled
from reports.page.markup import Of

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
_NOTE = (
    "Means over a bar's starts; a tick is one start. Each step ends with the stage that it is named by; one "
    "that was not seen is part of the next. A first start may compile, and may read its files for the first "
    "time."
)
# A bar and one of its starts.
_Start = tuple[Launch, StartRecord]


def startup_chart(run: Run) -> list[Chart]:
    """Return how long servers took to start; nothing if none was started by us, or none became ready."""
    found = [launch for launch in launches_of(run) if launch.steps_s]
    if not found:
        return []
    starts = [(launch, record) for launch in found for record in launch.records]
    seen = {stage for launch in found for stage in launch.steps_s}
    seen |= {stage for _, record in starts for stage in instants_s(record)}
    titles = {
        stage: STAGES.get(stage, stage.replace("_", " "))
        for stage in [*STAGES, *sorted(seen - STAGES.keys())]
    }
    bars = [
        Bar(
            Of(launch.label),
            f"{_name(launch, found)}: {number(sum(launch.steps_s.values()), 2)} s",
            {titles[stage]: length_s for stage, length_s in launch.steps_s.items()},
            [(max(instants_s(record).values()), _of((launch, record))) for record in launch.records],
        )
        for launch in found
    ]
    columns: Columns[_Start] = {
        "deployment": lambda start: start[0].label,
        "start": lambda start: start_title(run, start[1]),
        "which": lambda start: start[0].which,
        **{f"{title} s": partial(_instant, stage) for stage, title in titles.items()},
        "launch s": lambda start: number(start[1].launch_s, 2),
        "status": lambda start: start[1].status,
    }
    is_whole = all([*launch.steps_s][-1] == "steady_token" for launch in found)
    chart = bar_chart(
        "startup",
        f"From the spawn to the first {'steady token' if is_whole else 'good generation'}",
        None,
        bars,
        {title: _FILLS.get(stage, ("--mut", "-")) for stage, title in titles.items()},
        ("seconds since the spawn", "s"),
        filled(columns, starts, _of),
        _NOTE,
    )
    return [chart]


def _instant(stage: str, start: _Start) -> str:
    return number(instants_s(start[1]).get(stage), 2)


def _of(start: _Start) -> Of:
    return Of(start[0].label, start=start[1].repeat + 1)


def _name(launch: Launch, found: list[Launch]) -> str:
    """Return what a bar is called: with its kind of start where its deployment has both."""
    has_both = sum(other.label == launch.label for other in found) > 1
    count = len(launch.records)
    later = "later" if count == 1 else f"{count} later"
    return f"{launch.label}, {'first' if launch.which == FIRST else later}" if has_both else launch.label
