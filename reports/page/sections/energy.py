"""Cost and energy by load: power, joules per output token net of idle, cost of a million output tokens."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from harness.contracts import ApiPrice
from reports.data.cells import Group, grouped
from reports.data.run import Run
from reports.measures.metrics import mean
from reports.measures.over_starts import BARS, aggregate
from reports.measures.values import Power, devices_of, power_in, price_of
from reports.measures.written import NOTHING, number, precise, several
from reports.page.cells import LEGEND, cell_marks, mean_cell, starts_that_count
from reports.page.drawing.charts import Section
from reports.page.listed import Columns, Shown, below, listed
from reports.page.looks import looks, named
from reports.page.markup import join, paragraph
from reports.page.sections.by_load import by_load_charts, of_group

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
    charts = by_load_charts(run, _ENERGY, _COST)
    shown = [group for group in groups if _powers(run, group) or _is_costed(run, group)]
    power = [_POWER] if any(_powers(run, group) for group in shown) else []
    note = " ".join([*power, *_cost_notes(run, shown), LEGEND])
    table = listed("By load", note, _columns(run), shown, of_group)
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
    idle = f"idle {number(mean([power.idle_w for power in powers]), 0)}"
    samples = f"{sum(power.n for power in powers):,} samples"
    return below(number(mean([power.mean_w for power in powers]), 0), idle, samples) if powers else NOTHING


def _is_costed(run: Run, group: Group) -> bool:
    return price_of(run) is not None and any(devices_of(run, cell) for cell in group.counted)


def _prices(run: Run, group: Group) -> Mapping[tuple[str, str], ApiPrice]:
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


def _unknown(run: Run, groups: Sequence[Group]) -> list[str]:
    found = [(what, why, group) for group in groups for what, why in _reasons(run, group).items()]
    said = []
    for (what, why), own in grouped(found, lambda each: each[:2]).items():
        of = f" of {several([f'{group.deployment} at {group.load}' for *_, group in own])}"
        said.append(f"{what} is not known{'' if len(own) == len(groups) else of}: {why}.")
    return said


def _reasons(run: Run, group: Group) -> dict[str, str]:
    """Return why a group's energy and cost are not known, of those that are not."""
    starts = run.starts_of(group.deployment)
    is_elsewhere = "the server ran already, perhaps on another machine" * any(s.attached for s in starts)
    no_price = "give price.gpu_hour, what an hour of the device costs (and price.currency)"
    why = {}
    if not any(power.idle_w is not None for power in _powers(run, group)):
        notes = dict.fromkeys(record.idle_power_note for record in starts if record.idle_power_note)
        why["Energy"] = is_elsewhere or "; ".join(notes) or "nothing that was sampled tells it"
    if not _is_costed(run, group):
        why["Cost"] = is_elsewhere or (
            "the server's devices are not on record" if price_of(run) else no_price
        )
    return why
