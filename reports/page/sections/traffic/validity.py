"""Whether answers are the JSON or the calls that were asked for, and what it costs to hold them to it."""

from functools import partial

from reports.data import Run, gathered
from reports.measures import number, several
from reports.measures.traffic.constraint import Validity, cost_of_constraint, validities_of
from reports.measures.traffic.validity import KINDS, VALID, why_not_judged
from reports.page.cells import mean_cell, name_cell
from reports.page.declared import Notes, Shown, Table, Topic, below, of_group
from reports.page.looks import prose


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
    found = ((why_not_judged(run, cell), f"{group.deployment} at {group.load}") for group, cell in cells)
    where = {why: list(dict.fromkeys(names)) for why, names in gathered(found).items() if why}
    return [f"Not judged, {several(names)}: {why}." for why, names in where.items()]


VALIDITY = Topic(
    "validity",
    "Are answers what was asked for?",
    [
        Table[Validity](
            "Answers with a form",
            validities_of,
            lambda run: {
                "deployment": lambda each: name_cell(run, each.group),
                "load": lambda each: each.group.load,
                "the server is told": lambda each: "yes" if each.is_forced else "no, the prompt alone",
                "answers": lambda each: f"{each.n:,}",
                "valid %": _share,
                **{kind: partial(lambda kind, each: str(each.counts[kind] or ""), kind) for kind in KINDS},
                "TPOT p50 ms": lambda each: mean_cell(run, each.group, "tpot_s.p50"),
                "TPOT told / not": partial(_cost, run),
            },
            lambda each: of_group(each.group),
            is_bare=True,
        ),
        Notes(_not_judged),
    ],
    prose("validity"),
)
