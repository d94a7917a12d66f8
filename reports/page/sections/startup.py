"""Start-up: from the spawn of each server to its first tokens, split by the stages that were seen."""

from collections.abc import Iterable, Sequence

from harness.store.store import StartRecord
from reports.data.run import Run
from reports.data.starts import FIRST, STAGES, Launch, Step, instants_s, launches_of, start_title
from reports.measures.written import number
from reports.page.drawing.bars import Bar, bar_chart
from reports.page.drawing.charts import Block, Chart, Part
from reports.page.markup import Of, Row, paragraph

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
_OTHER_FILL = ("--mut", "-")


def launches(run: Run) -> list[Part]:
    """Return how long servers took to start; nothing if none was started by us, or none became ready."""
    found = launches_of(run)
    if not found:
        return []
    if not any(record.stages for launch in found for record in launch.records):
        found = [_whole(launch) for launch in found]
    note = (
        "Each step ends with the stage that it is named by; one that was not seen is part of the next. A "
        "first start may compile, and may read its files for the first time."
    )
    return [Block("Start-up, step by step", [paragraph(note), _chart(run, found)], is_folded=True)]


def _whole(launch: Launch) -> Launch:
    """Return a launch as one step, where stages were not recorded."""
    lengths = [record.launch_s or 0.0 for record in launch.records]
    mean_s = sum(lengths) / len(lengths)
    return Launch(launch.label, launch.which, launch.records, (Step("ready", 0.0, mean_s),))


def _chart(run: Run, found: Sequence[Launch]) -> Chart:
    stages = _in_order(step.stage for launch in found for step in launch.steps)
    fills = {_title(stage): _FILLS.get(stage, _OTHER_FILL) for stage in stages}
    bars = [
        Bar(
            Of(launch.label),
            f"{_name(launch, found)}: {number(launch.steps[-1].end_s, 2)} s",
            {_title(step.stage): step.length_s for step in launch.steps},
            [(_end_s(record), Of(launch.label, start=record.repeat + 1)) for record in launch.records],
        )
        for launch in found
    ]
    is_whole = all(launch.steps[-1].stage == "steady_token" for launch in found)
    return bar_chart(
        "startup",
        f"From the spawn to the first {'steady token' if is_whole else 'good generation'}",
        None,
        bars,
        fills,
        ("seconds since the spawn", "s"),
        _each_start(run, found),
        "Means over a bar's starts; a tick is one start.",
    )


def _end_s(record: StartRecord) -> float:
    return max(instants_s(record).values(), default=record.launch_s or 0.0)


def _each_start(run: Run, found: Sequence[Launch]) -> tuple[list[str], list[Row]]:
    records = [(launch, record, instants_s(record)) for launch in found for record in launch.records]
    stages = _in_order(stage for _, _, instants in records for stage in instants)
    rows = [
        Row(
            [
                record.deployment.label,
                start_title(run, record),
                launch.which,
                *(number(instants.get(stage), 2) for stage in stages),
                number(record.launch_s, 2),
                record.status,
            ],
            Of(record.deployment.label, start=record.repeat + 1),
        )
        for launch, record, instants in records
    ]
    return ["deployment", "start", "which", *(f"{_title(s)} s" for s in stages), "launch s", "status"], rows


def _title(stage: str) -> str:
    return STAGES.get(stage, stage.replace("_", " "))


def _in_order(stages: Iterable[str]) -> list[str]:
    """Return each stage once, known ones first in their order."""
    seen = dict.fromkeys(stages)
    return [name for name in STAGES if name in seen] + [name for name in seen if name not in STAGES]


def _name(launch: Launch, found: Sequence[Launch]) -> str:
    """Return what a bar is called: with its kind of start where its deployment has both."""
    if sum(other.label == launch.label for other in found) == 1:
        return launch.label
    count = len(launch.records)
    return (
        f"{launch.label}, {'first' if launch.which == FIRST else 'later' if count == 1 else f'{count} later'}"
    )
