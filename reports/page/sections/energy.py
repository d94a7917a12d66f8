"""Cost and energy by load: power, joules per output token net of idle, cost of a million output tokens."""

from functools import partial

from serving_bench.reports.data import Group, Run
from serving_bench.reports.measures import energy, metrics, values, written
from serving_bench.reports.page import by_load, cells
from serving_bench.reports.page.declared import Columns, Notes, Shown, Table, Topic, below, of_group
from serving_bench.reports.words import claims


def _power(run: Run, group: Group) -> Shown:
    powers = energy.powers_of(run, group)
    means = (metrics.mean(each) for each in ([p.mean_w for p in powers], [p.idle_w for p in powers]))
    mean_w, idle_w = (written.number(each, 0) for each in means)
    return below(mean_w, f"idle {idle_w}") if powers else written.NOTHING


def _costs(run: Run) -> Columns[Group]:
    if not (price := values.price_of(run)):
        return {}
    providers = dict.fromkeys(key for group in run.groups for key in energy.api_prices(run, group))
    costs = {"million output tokens": energy.COST}
    if price.is_by_token:
        costs["request"] = energy.COST_OF_REQUEST
    return {
        **{f"{price.currency} per {what}": partial(_cost, run, name) for what, name in costs.items()},
        **{", ".join(each): partial(_api_cost, run, each) for each in providers},
    }


def _cost(run: Run, name: str, group: Group) -> Shown:
    return cells.mean_cell(run, group, name) if energy.is_costed(run, group) else ""


def _api_cost(run: Run, provider: energy.Provider, group: Group) -> str:
    return written.precise(energy.api_cost(run, provider, group), 2)


ENERGY_AND_COST = Topic(
    "energy",
    "Cost and energy",
    [
        lambda run: by_load.load_charts(run, energy.ENERGY, energy.COST),
        Table[Group](
            "By load",
            energy.told_of,
            lambda run: {
                "deployment": partial(cells.name_cell, run),
                "load": lambda group: group.load,
                "power W": partial(_power, run),
                "J per output token": lambda group: (
                    cells.mean_cell(run, group, energy.ENERGY) if energy.powers_of(run, group) else ""
                ),
                **_costs(run),
            },
            of_group,
            note=lambda run: claims.cost_note(run) + cells.LEGEND,
        ),
        Notes(claims.cost_unknown),
    ],
    claims.cost_claim,
)
