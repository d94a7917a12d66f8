"""Topics on one kind of traffic each, on the page if the run has it: rows by deployment and load."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from serving_bench.reports.checks.examine import marks_of
from serving_bench.reports.data import Group, Run, gathered
from serving_bench.reports.measures import (
    LOST_SHARE,
    aggregate,
    number,
    plural,
    several,
    unit_of,
    value_cells,
    values_of,
)
from serving_bench.reports.measures.traffic.of_cells import too_many_failed
from serving_bench.reports.measures.traffic.of_groups import (
    Validity,
    cost_of_constraint,
    groups_under,
    parts_of,
    validities_of,
)
from serving_bench.reports.measures.traffic.validity import KINDS, VALID, why_not_judged
from serving_bench.reports.page.cells import aggregate_cell, mark_html, mean_cell, name_cell
from serving_bench.reports.page.looks import Row, prose
from serving_bench.reports.page.parts import Notes, Part, Shown, Table, Topic, below, of_group
from serving_bench.reports.words.verdict_words import heading_of


def group_table(
    run: Run,
    groups: Sequence[Group],
    names: Sequence[str],
    more: Mapping[str, Sequence[Shown]] = MappingProxyType({}),
) -> Table:
    """Return a table with a row for each group and a column for each value, then `more` columns.

    If there are several scenarios, each row names its own.
    """
    has_several = len({group.scenario for group in groups}) > 1
    metrics = [name for name in names if name != "goodput_per_s" or run.record.slo]
    rows = [
        Row(
            {
                "deployment": name_cell(run, group),
                "load": below(group.load, group.scenario) if has_several else group.load,
                **{heading_of(name, unit_of(run, name)): _marked(run, name, group) for name in metrics},
                **{title: column[at] for title, column in more.items()},
            },
            of_group(group),
        )
        for at, group in enumerate(groups)
    ]
    return Table("By load", rows, is_bare=True)


def _marked(run: Run, name: str, group: Group) -> Shown:
    marks = marks_of(run, value_cells(run, group), name)
    return aggregate_cell(name, aggregate(run, group, name), mark_html(marks))


# --- prefill and decode apart, agents and users -----------------------------------------------------


def rates(run: Run) -> Topic:
    groups = groups_under(run, "fixed")
    lengths = {group.scenario: aggregate(run, group, "input_tokens").mean or 0.0 for group in groups}
    groups = sorted(groups, key=lambda group: lengths[group.scenario])
    names = ["input_tokens", "output_tokens", "prefill_tokens_per_s", "decode_tokens_per_s"]
    return Topic("rates", "Prefill and decode apart", [group_table(run, groups, names)], prose("rates", run))


# By the topic's id: its heading, the scenario whose groups it shows, and their values.
_OF_SCENARIO = {
    "tasks": (
        "Agent tasks",
        "agent_loop",
        ("task_s", "finished_share", "steps_per_s", "output_tokens", "ttft_s.p50"),
    ),
    "thinking": (
        "Reasoning before the answer",
        "reasoning",
        ("ttft_s.p50", "first_answer_s", "thinking_share", "tpot_s.p50", "output_tokens"),
    ),
    "left": (
        "Users who leave early",
        "code_completion",
        ("left_share", "in_time_share", "wasted_share", "answered_per_s", "goodput_per_s", "ttft_s.p50"),
    ),
}


def of_scenarios(run: Run) -> list[Topic]:
    return [
        Topic(id_, title, [group_table(run, groups_under(run, scenario), names)], prose(id_, run))
        for id_, (title, scenario, names) in _OF_SCENARIO.items()
    ]


# --- many at once -----------------------------------------------------------------------------------


_WHEN = ("before the burst", "in the burst", "after the burst")


def batch(run: Run) -> Topic:
    groups = [each for each in run.groups if each.family == "batch" and each.counted]
    names = ["makespan_s", "batch_tokens_per_s", "success_share", "input_tokens", "output_tokens"]
    return Topic(
        "batch",
        "Batch: all requests at once",
        [group_table(run, groups, names), Notes(list(_failed(run, groups)))],
        prose("batch", run),
    )


def burst(run: Run) -> Topic:
    groups = groups_under(run, "burst")
    ttfts = {
        f"TTFT p50 ms {when}": [_ttft(run, at, group) for group in groups] for at, when in enumerate(_WHEN)
    }
    return Topic(
        "burst",
        "Recovery after a burst",
        [
            group_table(run, groups, ["recovery_s", "success_share"], ttfts),
            Notes([*_never(run), *_failed(run, groups)]),
        ],
        prose("burst", run),
    )


def _ttft(run: Run, number_: int, group: Group) -> str:
    bursts = (part for part in parts_of(run, "burst") if part.group is group and part.number == number_)
    return next((number(part.ttft_s, scale=1e3) for part in bursts), "")


def _never(run: Run) -> Iterator[str]:
    for group in groups_under(run, "burst"):
        cells = [cell for cell in group.counted if not too_many_failed(run, cell)]
        recoveries = [values_of(run)[cell.number]["recovery_s"] for cell in cells]
        unsent = sum(each.n == 0 for each in recoveries)
        missing = sum(each.value is None for each in recoveries) - unsent
        yield from _noted(group, "no burst was sent, or nothing was sent before it", unsent)
        yield from _noted(group, "not recovered when the last request was sent", missing)


def _failed(run: Run, groups: list[Group]) -> Iterator[str]:
    for group in groups:
        missing = sum(too_many_failed(run, cell) for cell in group.counted)
        yield from _noted(group, f"no time, since over {100 * LOST_SHARE:.0f} % of requests failed", missing)


def _noted(group: Group, what: str, count: int) -> Iterator[str]:
    if count:
        of = f"{count} of {plural(len(group.counted), 'window')}"
        yield f"{group.name}: {what}, in {of}."


# --- answers with a form ----------------------------------------------------------------------------


def validity(run: Run) -> Topic:
    title = "Structured answers"
    rows = [Row(_validity(run, each), of_group(each.group)) for each in validities_of(run)]
    parts: list[Part] = [Table(title, rows, is_bare=True), Notes(_not_judged(run))]
    return Topic("validity", title, parts, prose("validity", run))


def _validity(run: Run, each: Validity) -> dict[str, Shown]:
    low, high = each.interval
    return {
        "deployment": name_cell(run, each.group),
        "load": each.group.load,
        "schema given to the server": "yes" if each.is_forced else "no, in the prompt",
        "answers": f"{each.n:,}",
        "valid %": below(
            number(each.counts[VALID] / each.n, scale=100), f"[{100 * low:.1f}, {100 * high:.1f}]"
        ),
        **{kind: str(each.counts[kind] or "") for kind in KINDS},
        "TPOT p50 ms": mean_cell(run, each.group, "tpot_s.p50"),
        "TPOT with / without": _cost(run, each),
    }


def _cost(run: Run, each: Validity) -> Shown:
    cost = cost_of_constraint(run, each)
    if cost is None:
        return ""
    low, high = cost.interval()
    return below(f"{cost.shown:.2f}×", f"[{low:.2f}, {high:.2f}]" if cost.k > 1 else "one start, no interval")


def _not_judged(run: Run) -> list[str]:
    cells = ((group, cell) for group in run.groups for cell in group.counted)
    reasons = ((why_not_judged(run, cell), group.name) for group, cell in cells)
    where = {why: list(dict.fromkeys(names)) for why, names in gathered(reasons).items() if why}
    return [f"Not judged: {several(names)}, because {why}." for why, names in where.items()]
