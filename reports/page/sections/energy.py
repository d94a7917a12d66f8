"""Cost and energy by load: power, joules per output token net of idle, cost of a million output tokens."""

from collections.abc import Mapping, Sequence
from functools import partial

from harness.contracts import ApiPrice, Price
from harness.store.store import StartRecord
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.energy import api_cost_per_million, devices_of, power_in, price_of
from reports.measures.over_starts import BARS, aggregate
from reports.measures.written import NOTHING, number, precise, several
from reports.page.cells import LEGEND, cell_marks, mean_cell, starts_that_count
from reports.page.drawing.charts import Section
from reports.page.listed import Columns, listed
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, join, paragraph
from reports.page.sections.by_load import by_load_charts

_RAN_ALREADY = "the server ran already, perhaps on another machine"
_ENERGY = "energy_j_per_output_token"
_COST = "cost_per_million_output_tokens"


def section(run: Run) -> Section:
    """Return energy and cost with what is not known of them and why."""
    if not run.groups:
        return Section("Cost and energy")
    charts = [chart for name in (_ENERGY, _COST) for chart in by_load_charts(run, name)]
    powered = [group for group in run.groups if _watts(run, group)]
    costed = [group for group in run.groups if price_of(run) and _has_devices(run, group)]
    shown = [group for group in run.groups if group in powered or group in costed]
    notes = (_energy_note(powered), _cost_note(run) if costed else "", LEGEND)
    note = " ".join(filter(None, notes))
    table = listed("By load", note, _columns(run), shown, lambda group: Of(group.deployment, group.load))
    claim = f"Lower is better. Points are means over starts. {BARS}" if charts else ""
    return Section("Cost and energy", claim, [*charts, *table, *_not_known(run)])


def _columns(run: Run) -> Columns[Group]:
    price, providers = price_of(run), list(dict.fromkeys(key for g in run.groups for key in _prices(run, g)))
    cost: Columns[Group] = {
        f"{price.currency if price else ''} per million output tokens": partial(_cost, run),
        **{f"{name}, {currency}": partial(_api_cost, run, (name, currency)) for name, currency in providers},
        "requests": lambda group: f"{aggregate(run, group, _COST).n:,}",
    }
    return {
        "deployment": lambda group: join([named(looks(run)[group.deployment]), cell_marks(run, group)]),
        "load": lambda group: group.load,
        "power W": lambda group: number(_mean(_watts(run, group)), 0),
        "idle W": lambda group: number(_mean(_idle_watts(run, group)), 0),
        "J per output token": lambda group: mean_cell(run, group, _ENERGY) if _watts(run, group) else "",
        "samples": lambda group: _samples(run, group),
        **(cost if price else {}),
        "starts": starts_that_count,
    }


def _watts(run: Run, group: Group) -> list[float]:
    return [power.mean_w for cell in group.counted if (power := power_in(run, cell))]


def _idle_watts(run: Run, group: Group) -> list[float]:
    powers = [power for cell in group.counted if (power := power_in(run, cell))]
    return [power.idle_w for power in powers if power.idle_w is not None]


def _samples(run: Run, group: Group) -> str:
    counts = [power.n for cell in group.counted if (power := power_in(run, cell))]
    return f"{sum(counts):,}" if counts else NOTHING


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _has_devices(run: Run, group: Group) -> bool:
    return any(devices_of(run, cell) is not None for cell in group.counted)


def _prices(run: Run, group: Group) -> Mapping[tuple[str, str], ApiPrice]:
    """Return what providers ask for the group's model, by provider and currency."""
    records = run.starts_of(group.deployment)
    return {(api.provider, api.currency): api for record in records for api in record.api_prices}


def _cost(run: Run, group: Group) -> Html | str:
    return mean_cell(run, group, _COST) if _has_devices(run, group) else ""


def _api_cost(run: Run, provider: tuple[str, str], group: Group) -> str:
    api = _prices(run, group).get(provider)
    asked, given = (aggregate(run, group, name).mean for name in ("input_tokens", "output_tokens"))
    if api is None or asked is None or not given:
        return NOTHING
    return precise(api_cost_per_million(api, asked, given), 2)


def _energy_note(powered: Sequence[Group]) -> str:
    if not powered:
        return ""
    return (
        "Power in the windows, of all the server's devices together (on a host: of the CPU's packages, and "
        "what the load process and bench itself draw is in it). Joules are net of idle, which is read in the "
        "second before each start."
    )


def _cost_note(run: Run) -> str:
    price = price_of(run)
    assert price is not None
    kinds = {record.memory_kind for record in run.start_records if not record.attached}
    whose = " or ".join(
        name for kind, name in (("device", "a device"), ("host", "this machine")) if kind in kinds
    )
    text = (
        f"At {precise(price.gpu_hour, 2)} {price.currency} for an hour of {whose or 'a device'}, used for "
        "nothing else and as busy as in the window."
    )
    known = [api for group in run.groups for api in _prices(run, group).values()]
    sources = ", ".join(dict.fromkeys(f"{api.source}, {api.as_of}" for api in known))
    said = f" Providers: the same requests at their prices for the model ({sources})." if known else ""
    return text + said


# --- what is not known -----------------------------------------------------------------------------


def _not_known(run: Run) -> list[Html]:
    measured = [group for group in run.groups if group.counted]
    energy = [
        (group, _why_no_energy(run.starts_of(group.deployment)))
        for group in measured
        if not _idle_watts(run, group)
    ]
    cost = [
        (group, _why_no_cost(run.starts_of(group.deployment), price_of(run)))
        for group in measured
        if price_of(run) is None or not _has_devices(run, group)
    ]
    return [*_said("Energy", energy, measured), *_said("Cost", cost, measured)]


def _why_no_energy(starts: Sequence[StartRecord]) -> str:
    if any(record.attached for record in starts):
        return _RAN_ALREADY
    said = dict.fromkeys(record.idle_power_note for record in starts if record.idle_power_note)
    return "; ".join(said) or "nothing that was sampled tells it"


def _why_no_cost(starts: Sequence[StartRecord], price: Price | None) -> str:
    if any(record.attached for record in starts):
        return _RAN_ALREADY
    return (
        "the server's devices are not on record"
        if price
        else "give price.gpu_hour, what an hour of the device costs (and price.currency)"
    )


def _said(what: str, unknown: Sequence[tuple[Group, str]], measured: Sequence[Group]) -> list[Html]:
    """Say where a figure is not known, and why: each reason once."""
    if not measured:
        return [paragraph(f"{what} is not known: no cell counts.")]
    by_reason: dict[str, list[Group]] = {}
    for group, why in unknown:
        by_reason.setdefault(why, []).append(group)
    said = [
        f"{what} is not known of {several([f'{g.deployment} at {g.load}' for g in groups])}: {why}."
        for why, groups in by_reason.items()
    ]
    if len(by_reason) == 1 and len(unknown) == len(measured):
        said = [f"{what} is not known: {unknown[0][1]}."]
    return list(map(paragraph, said))
