"""Start-up: what each step of a start took, from the spawn until the server answers."""

from functools import partial

from harness.store.store import StartRecord
from reports.data.samples import instants_s, launches_of, stage_titles, start_title
from reports.measures.written import number
from reports.page.declared import Chart
from reports.page.drawing.more_kinds import start_up_bars
from reports.page.looks import Of


def _instant(stage: str, start: StartRecord) -> str:
    return number(instants_s(start).get(stage), 2)


START_UP = Chart[StartRecord](
    "startup",
    "From the spawn until the server answers",
    lambda run: [start for launch in launches_of(run) for start in launch.records],
    lambda run, _: start_up_bars(launches_of(run), stage_titles(run)),
    lambda run: {
        "deployment": lambda start: start.deployment.label,
        "start": partial(start_title, run),
        **{f"{title} s": partial(_instant, stage) for stage, title in stage_titles(run).items()},
        "launch s": lambda start: number(start.launch_s, 2),
        "status": lambda start: start.status,
    },
    lambda start: Of(start.deployment.label, start=start.repeat + 1),
    note=(
        "Means over a bar's starts; a tick is one start. Each step ends with the stage that it is named by; "
        "one that was not seen is part of the next. A first start may compile, and read its files for the "
        "first time."
    ),
    is_wide=True,
)
