"""Many at once: what a batch took, and how long a server needs after a burst."""

from collections.abc import Iterator
from functools import partial

from reports.data import Group, Run
from reports.measures import number, plural, values_of
from reports.measures.metrics import LOST_SHARE
from reports.measures.traffic.crowds import too_many_failed
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
        cells = [cell for cell in group.counted if not too_many_failed(run, cell)]
        found = [values_of(run)[cell.number]["recovery_s"] for cell in cells]
        unsent = sum(each.n == 0 for each in found)
        missing = sum(each.value is None for each in found) - unsent
        yield from _said(group, "no burst was sent, or nothing before it", unsent)
        yield from _said(group, "not recovered when the last request was sent", missing)


def _failed(run: Run, groups: list[Group]) -> Iterator[str]:
    for group in groups:
        missing = sum(too_many_failed(run, cell) for cell in group.counted)
        yield from _said(group, f"no time, since over {100 * LOST_SHARE:.0f} % of requests failed", missing)


def _said(group: Group, what: str, count: int) -> Iterator[str]:
    if count:
        of = f"{count} of {plural(len(group.counted), 'window')}"
        yield f"{group.deployment} at {group.load}: {what}, in {of}."


def _batches(run: Run) -> list[Group]:
    return [each for each in run.groups if each.family == "batch" and each.counted]


BATCH = Topic(
    "batch",
    "All at once",
    [
        group_table(
            _batches,
            ["makespan_s", "batch_tokens_per_s", "success_share", "input_tokens", "output_tokens"],
        ),
        Notes(lambda run: list(_failed(run, _batches(run)))),
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
        Notes(lambda run: [*_never(run), *_failed(run, groups_under(run, "burst"))]),
    ],
    prose("burst"),
)
