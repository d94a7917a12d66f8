"""Cost and energy by load: power, joules per output token net of idle, cost of a million output tokens."""

from functools import partial

from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.energy import (
    COST,
    ENERGY,
    Provider,
    api_cost,
    api_prices,
    is_costed,
    powers_of,
    told_of,
)
from reports.measures.metrics import mean
from reports.measures.values import price_of
from reports.measures.written import NOTHING, number, precise
from reports.page.by_load import by_load_charts, of_group
from reports.page.cells import LEGEND, cell_marks, mean_cell
from reports.page.declared import Columns, Notes, Section, Shown, Table, Topic, below
from reports.page.looks import join, looks, named
from reports.words import claims


def _power(run: Run, group: Group) -> Shown:
    powers = powers_of(run, group)
    return (
        below(
            number(mean([power.mean_w for power in powers]), 0),
            f"idle {number(mean([power.idle_w for power in powers]), 0)}",
        )
        if powers
        else NOTHING
    )


def _costs(run: Run) -> Columns[Group]:
    providers = dict.fromkeys(key for group in run.groups for key in api_prices(run, group))
    asked = {", ".join(each): partial(_api_cost, run, each) for each in providers}
    if not (price := price_of(run)):
        return {}
    head = f"{price.currency} per million output tokens"
    return {head: lambda group: mean_cell(run, group, COST) if is_costed(run, group) else "", **asked}


def _api_cost(run: Run, provider: Provider, group: Group) -> Shown:
    return precise(api_cost(run, provider, group), 2)


_BY_LOAD = Table[Group](
    "By load",
    told_of,
    lambda run: {
        "deployment": lambda group: join([named(looks(run)[group.deployment]), cell_marks(run, group)]),
        "load": lambda group: group.load,
        "power W": partial(_power, run),
        "J per output token": lambda group: mean_cell(run, group, ENERGY) if powers_of(run, group) else "",
        **_costs(run),
    },
    of_group,
    note=lambda run: claims.cost_note(run) + LEGEND,
)
ENERGY_AND_COST = Topic(
    "energy",
    "Cost and energy",
    [
        lambda run: by_load_charts(run, ENERGY, COST),
        _BY_LOAD,
        Notes(claims.cost_unknown),
    ],
    claims.cost_claim,
)
SECTION = Section("cost", "Cost", [ENERGY_AND_COST], "Cost and energy")
