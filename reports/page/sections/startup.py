"""Start-up: from the spawn of each server to its first tokens, split by the stages that were seen."""

from collections.abc import Iterable, Sequence
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
_OTHER_FILL = ("--mut", "-")


def startup_chart(run: Run) -> list[Chart]:
    """Return how long servers took to start; nothing if none was started by us, or none became ready."""
    found = [launch for launch in launches_of(run) if launch.steps_s]
    if not found:
        return []
    stages = _in_order(stage for launch in found for stage in launch.steps_s)
    fills = {_title(stage): _FILLS.get(stage, _OTHER_FILL) for stage in stages}
    bars = [
        Bar(
            Of(launch.label),
            f"{_name(launch, found)}: {number(sum(launch.steps_s.values()), 2)} s",
            {_title(stage): length_s for stage, length_s in launch.steps_s.items()},
            [(_end_s(record), _of(record)) for record in launch.records],
        )
        for launch in found
    ]
    is_whole = all([*launch.steps_s][-1] == "steady_token" for launch in found)
    records = [(launch, record) for launch in found for record in launch.records]
    chart = bar_chart(
        "startup",
        f"From the spawn to the first {'steady token' if is_whole else 'good generation'}",
        None,
        bars,
        fills,
        ("seconds since the spawn", "s"),
        filled(_columns(run, [record for _, record in records]), records, lambda pair: _of(pair[1])),
        "Means over a bar's starts; a tick is one start. Each step ends with the stage that it is named by; "
        "one that was not seen is part of the next. A first start may compile, and may read its files for "
        "the first time.",
    )
    return [chart]


def _columns(run: Run, records: Sequence[StartRecord]) -> Columns[tuple[Launch, StartRecord]]:
    stages = _in_order(stage for record in records for stage in instants_s(record))
    return {
        "deployment": lambda pair: pair[0].label,
        "start": lambda pair: start_title(run, pair[1]),
        "which": lambda pair: pair[0].which,
        **{f"{_title(stage)} s": partial(_instant, stage) for stage in stages},
        "launch s": lambda pair: number(pair[1].launch_s, 2),
        "status": lambda pair: pair[1].status,
    }


def _instant(stage: str, pair: tuple[Launch, StartRecord]) -> str:
    return number(instants_s(pair[1]).get(stage), 2)


def _end_s(record: StartRecord) -> float:
    return max(instants_s(record).values(), default=record.launch_s or 0.0)


def _of(record: StartRecord) -> Of:
    return Of(record.deployment.label, start=record.repeat + 1)


def _title(stage: str) -> str:
    return STAGES.get(stage, stage.replace("_", " "))


def _in_order(stages: Iterable[str]) -> list[str]:
    """Return each stage once, known ones first in their order."""
    order = list(STAGES)
    return sorted(
        dict.fromkeys(stages), key=lambda stage: order.index(stage) if stage in order else len(order)
    )


def _name(launch: Launch, found: Sequence[Launch]) -> str:
    """Return what a bar is called: with its kind of start where its deployment has both."""
    has_both = sum(other.label == launch.label for other in found) > 1
    count = len(launch.records)
    later = "later" if count == 1 else f"{count} later"
    return f"{launch.label}, {'first' if launch.which == FIRST else later}" if has_both else launch.label
