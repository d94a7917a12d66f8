"""Cost and energy by load: power, joules per output token net of idle, cost of a million output tokens."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from harness.contracts import ApiPrice
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.metrics import mean
from reports.measures.over_starts import BARS, aggregate
from reports.measures.values import Power, devices_of, power_in, price_of
from reports.measures.written import NOTHING, number, precise, several
from reports.page.cells import LEGEND, cell_marks, mean_cell, starts_that_count
from reports.page.drawing.charts import Section
from reports.page.listed import Columns, Shown, below, listed
from reports.page.looks import looks, named
from reports.page.markup import Of, join, paragraph
from reports.page.sections.by_load import by_load_charts

_ENERGY = "energy_j_per_output_token"
_COST = "cost_per_million_output_tokens"
_POWER = (
    "Power in the windows, of all the server's devices together (on a host: of the CPU's packages, and what "
    "the load process and bench itself draw is in it). Joules are net of idle, which is read in the second "
    "before each start."
)


def section(run: Run) -> Section:
    """Return energy and cost by load, with what is not known of them and why; empty where no cell counts."""
    groups = [group for group in run.groups if group.counted]
    charts = [chart for name in (_ENERGY, _COST) for chart in by_load_charts(run, name)]
    shown = [group for group in groups if _powers(run, group) or _is_costed(run, group)]
    power = [_POWER] if any(_powers(run, group) for group in shown) else []
    note = " ".join([*power, *_cost_notes(run, shown), LEGEND])
    table = listed("By load", note, _columns(run), shown, lambda group: Of(group.deployment, group.load))
    claim = f"Lower is better. Points are means over starts. {BARS}" if charts else ""
    return Section("Cost and energy", claim, [*charts, *table, *map(paragraph, _unknown(run, groups))])


def _columns(run: Run) -> Columns[Group]:
    price, providers = price_of(run), list(dict.fromkeys(key for g in run.groups for key in _prices(run, g)))
    cost: Columns[Group] = {
        f"{price.currency if price else ''} per million output tokens": lambda group: (
            mean_cell(run, group, _COST) if _is_costed(run, group) else ""
        ),
        **{f"{name}, {currency}": partial(_api_cost, run, (name, currency)) for name, currency in providers},
    }
    return {
        "deployment": lambda group: join([named(looks(run)[group.deployment]), cell_marks(run, group)]),
        "load": lambda group: group.load,
        "power W": lambda group: _power(_powers(run, group)),
        "J per output token": lambda group: mean_cell(run, group, _ENERGY) if _powers(run, group) else "",
        **(cost if price else {}),
        "starts": starts_that_count,
    }


def _powers(run: Run, group: Group) -> list[Power]:
    return [power for cell in group.counted if (power := power_in(run, cell))]


def _power(powers: Sequence[Power]) -> Shown:
    """Return the mean over starts, and that of the idle power."""
    idle = f"idle {number(mean([power.idle_w for power in powers]), 0)}"
    samples = f"{sum(power.n for power in powers):,} samples"
    return below(number(mean([power.mean_w for power in powers]), 0), idle, samples) if powers else NOTHING


def _is_costed(run: Run, group: Group) -> bool:
    return price_of(run) is not None and any(devices_of(run, cell) for cell in group.counted)


def _prices(run: Run, group: Group) -> Mapping[tuple[str, str], ApiPrice]:
    """Return what providers ask for the group's model, by provider and currency."""
    records = run.starts_of(group.deployment)
    return {(api.provider, api.currency): api for record in records for api in record.api_prices}


def _api_cost(run: Run, provider: tuple[str, str], group: Group) -> str:
    api = _prices(run, group).get(provider)
    asked, given = (aggregate(run, group, name).mean for name in ("input_tokens", "output_tokens"))
    if api is None or asked is None or not given:
        return NOTHING
    return precise(api.output_per_million + api.input_per_million * asked / given, 2)


def _cost_notes(run: Run, groups: Sequence[Group]) -> Iterator[str]:
    if price := price_of(run):
        yield (
            f"At {precise(price.gpu_hour, 2)} {price.currency} for an hour of a device (a host is one), "
            "used for nothing else and as busy as in the window."
        )
        if known := [api for group in groups for api in _prices(run, group).values()]:
            sources = ", ".join(dict.fromkeys(f"{api.source}, {api.as_of}" for api in known))
            yield f"Providers: the same requests at their prices for the model ({sources})."


def _unknown(run: Run, groups: Sequence[Group]) -> Iterator[str]:
    """Say where energy and cost are not known, and why: each reason once."""
    no_price = "give price.gpu_hour, what an hour of the device costs (and price.currency)"
    no_cost = "the server's devices are not on record" if price_of(run) else no_price
    where: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        starts = run.starts_of(group.deployment)
        notes = dict.fromkeys(record.idle_power_note for record in starts if record.idle_power_note)
        whys = {"Energy": "; ".join(notes) or "nothing that was sampled tells it", "Cost": no_cost}
        known = {
            "Energy": any(power.idle_w is not None for power in _powers(run, group)),
            "Cost": _is_costed(run, group),
        }
        if any(record.attached for record in starts):
            whys = dict.fromkeys(whys, "the server ran already, perhaps on another machine")
        for what in (each for each in whys if not known[each]):
            where.setdefault((what, whys[what]), []).append(group)
    for (what, why), unknown in where.items():
        of = f" of {several([f'{group.deployment} at {group.load}' for group in unknown])}"
        yield f"{what} is not known{'' if len(unknown) == len(groups) else of}: {why}."
