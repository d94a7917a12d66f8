"""Many at once: what a batch took, and how long a server needs after a burst."""

from collections.abc import Iterator
from functools import partial

from reports.data import Group, Run
from reports.measures import number, plural, values_of
from reports.measures.traffic.parts import groups_under, parts_of
from reports.page.declared import Notes, Topic
from reports.page.looks import prose
from reports.page.sections.traffic.by_group import group_table

_WHEN = ("before the burst", "in the burst", "after it")


def _ttft(run: Run, number_: int, group: Group) -> str:
    found = (part for part in parts_of(run, "burst") if part.group is group and part.number == number_)
    return next((number(part.ttft_s, scale=1e3) for part in found), "")


def _never(run: Run) -> Iterator[str]:
    for group in groups_under(run, "burst"):
        found = [values_of(run)[cell.number]["recovery_s"].value for cell in group.counted]
        if missing := found.count(None):
            where = f"{group.deployment} at {group.load}"
            of = f"{missing} of {plural(len(found), 'window')}"
            yield f"{where}: not recovered when the last request was sent, in {of}."


BATCH = Topic(
    "batch",
    "All at once",
    [
        group_table(
            lambda run: [each for each in run.groups if each.family == "batch" and each.counted],
            ["makespan_s", "batch_tokens_per_s", "success_share", "input_tokens", "output_tokens"],
        )
    ],
    prose("batch"),
)
BURST = Topic(
    "burst",
    "After a burst",
    [
        group_table(
            "burst",
            ["recovery_s", "success_share"],
            lambda run: {f"TTFT p50 ms {when}": partial(_ttft, run, at) for at, when in enumerate(_WHEN)},
        ),
        Notes(lambda run: list(_never(run))),
    ],
    prose("burst"),
)
