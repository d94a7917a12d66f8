"""Topics on one kind of traffic each, on the page if the run has it: rows by deployment and load."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

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
from serving_bench.reports.page.declared import Columns, Notes, Shown, Table, Topic, below, of_group
from serving_bench.reports.page.looks import prose
from serving_bench.reports.words.verdict_words import heading_of


def group_table(
    of: str | Callable[[Run], list[Group]],
    names: Sequence[str],
    more: Callable[[Run], Columns[Group]] = lambda _: {},
) -> Table[Group]:
    """Return a table with a row for each group and a column for each value, then `more` columns.

    `of`: a scenario's name, or a function that returns the groups. If there are several scenarios, each row
    names its own.
    """

    def chosen(run: Run) -> list[Group]:
        return groups_under(run, of) if isinstance(of, str) else of(run)

    def columns(run: Run) -> Columns[Group]:
        has_several = len({group.scenario for group in chosen(run)}) > 1
        metrics = [name for name in names if name != "goodput_per_s" or run.record.slo]
        return {
            "deployment": partial(name_cell, run),
            "load": lambda group: below(group.load, group.scenario) if has_several else group.load,
            **{heading_of(name, unit_of(run, name)): partial(_marked, run, name) for name in metrics},
            **more(run),
        }

    return Table[Group]("By load", chosen, columns, of_group, is_bare=True)


def _marked(run: Run, name: str, group: Group) -> Shown:
    marks = marks_of(run, value_cells(run, group), name)
    return aggregate_cell(name, aggregate(run, group, name), mark_html(marks))


# --- prefill and decode apart -----------------------------------------------------------------------


def _by_length(run: Run) -> list[Group]:
    groups = groups_under(run, "fixed")
    lengths = {group.scenario: aggregate(run, group, "input_tokens").mean or 0.0 for group in groups}
    return sorted(groups, key=lambda group: lengths[group.scenario])


RATES = Topic(
    "rates",
    "Prefill and decode apart",
    [
        group_table(
            _by_length, ["input_tokens", "output_tokens", "prefill_tokens_per_s", "decode_tokens_per_s"]
        )
    ],
    prose("rates"),
)


# --- agents and users -------------------------------------------------------------------------------


TASKS = Topic(
    "tasks",
    "Agent tasks",
    [group_table("agent_loop", ["task_s", "finished_share", "steps_per_s", "output_tokens", "ttft_s.p50"])],
    prose("agents"),
)
THINKING = Topic(
    "thinking",
    "Reasoning before the answer",
    [
        group_table(
            "reasoning", ["ttft_s.p50", "first_answer_s", "thinking_share", "tpot_s.p50", "output_tokens"]
        )
    ],
    prose("thinking"),
)
LEFT = Topic(
    "left",
    "Users who leave early",
    [
        group_table(
            "code_completion",
            ["left_share", "in_time_share", "wasted_share", "answered_per_s", "goodput_per_s", "ttft_s.p50"],
        )
    ],
    prose("left"),
)


# --- many at once -----------------------------------------------------------------------------------


_WHEN = ("before the burst", "in the burst", "after the burst")


def _ttft(run: Run, number_: int, group: Group) -> str:
    bursts = (part for part in parts_of(run, "burst") if part.group is group and part.number == number_)
    return next((number(part.ttft_s, scale=1e3) for part in bursts), "")


def _never(run: Run) -> Iterator[str]:
    for group in groups_under(run, "burst"):
        cells = [cell for cell in group.counted if not too_many_failed(run, cell)]
        recoveries = [values_of(run)[cell.number]["recovery_s"] for cell in cells]
        unsent = sum(each.n == 0 for each in recoveries)
        missing = sum(each.value is None for each in recoveries) - unsent
        yield from _said(group, "no burst was sent, or nothing was sent before it", unsent)
        yield from _said(group, "not recovered when the last request was sent", missing)


def _batches(run: Run) -> list[Group]:
    return [each for each in run.groups if each.family == "batch" and each.counted]


def _failed(run: Run, groups: list[Group]) -> Iterator[str]:
    for group in groups:
        missing = sum(too_many_failed(run, cell) for cell in group.counted)
        yield from _said(group, f"no time, since over {100 * LOST_SHARE:.0f} % of requests failed", missing)


def _said(group: Group, what: str, count: int) -> Iterator[str]:
    if count:
        of = f"{count} of {plural(len(group.counted), 'window')}"
        yield f"{group.name}: {what}, in {of}."


BATCH = Topic(
    "batch",
    "Batch: all requests at once",
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
    "Recovery after a burst",
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


# --- answers with a form ----------------------------------------------------------------------------


def _share(each: Validity) -> Shown:
    low, high = each.interval
    return below(number(each.counts[VALID] / each.n, scale=100), f"[{100 * low:.1f}, {100 * high:.1f}]")


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


VALIDITY = Topic(
    "validity",
    "Structured answers",
    [
        Table[Validity](
            "Structured answers",
            validities_of,
            lambda run: {
                "deployment": lambda each: name_cell(run, each.group),
                "load": lambda each: each.group.load,
                "schema given to the server": lambda each: "yes" if each.is_forced else "no, in the prompt",
                "answers": lambda each: f"{each.n:,}",
                "valid %": _share,
                **{kind: partial(lambda kind, each: str(each.counts[kind] or ""), kind) for kind in KINDS},
                "TPOT p50 ms": lambda each: mean_cell(run, each.group, "tpot_s.p50"),
                "TPOT with / without": partial(_cost, run),
            },
            lambda each: of_group(each.group),
            is_bare=True,
        ),
        Notes(_not_judged),
    ],
    prose("validity"),
)
