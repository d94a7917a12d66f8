"""Cost and energy by load: power, joules per output token net of idle, cost of a million output tokens."""

from collections.abc import Sequence

from serving_bench.reports.data import Group, Run
from serving_bench.reports.measures import energy, metrics, values, written
from serving_bench.reports.page import by_load, cells
from serving_bench.reports.page.looks import Row
from serving_bench.reports.page.parts import Notes, Shown, Table, Topic, below, of_group
from serving_bench.reports.words import claims


def energy_and_cost(run: Run) -> Topic:
    return Topic(
        "energy",
        "Cost and energy",
        [
            *by_load.load_charts(run, energy.ENERGY, energy.COST),
            costs(run),
            Notes(claims.cost_unknown(run)),
        ],
        claims.cost_claim(run),
    )


def costs(run: Run) -> Table:
    providers = list(dict.fromkeys(key for group in run.groups for key in energy.api_prices(run, group)))
    rows = [Row(_cells(run, group, providers), of_group(group)) for group in energy.told_of(run)]
    return Table("By load", rows, note=claims.cost_note(run) + cells.LEGEND)


def _cells(run: Run, group: Group, providers: list[energy.Provider]) -> dict[str, Shown]:
    powers, price = energy.powers_of(run, group), values.price_of(run)
    row = {
        "deployment": cells.name_cell(run, group),
        "load": group.load,
        "power W": _power(powers),
        "J per output token": cells.mean_cell(run, group, energy.ENERGY) if powers else "",
    }
    if price:
        costs = {"million output tokens": energy.COST, "request": energy.COST_OF_REQUEST}
        row |= {
            f"{price.currency} per {what}": cells.mean_cell(run, group, name)
            if energy.is_costed(run, group)
            else ""
            for what, name in costs.items()
            if price.is_by_token or name == energy.COST
        }
        row |= {", ".join(each): written.precise(energy.api_cost(run, each, group), 2) for each in providers}
    return row


def _power(powers: Sequence[values.Power]) -> Shown:
    means = (metrics.mean(each) for each in ([p.mean_w for p in powers], [p.idle_w for p in powers]))
    mean_w, idle_w = (written.number(each, 0) for each in means)
    return below(mean_w, f"idle {idle_w}") if powers else written.NOTHING
