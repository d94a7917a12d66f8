"""Energy and cost: power, joules per output token net of idle, and what a million output tokens cost."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import ApiPrice
from reports.cells import Group
from reports.charts import Section
from reports.energy import api_cost_per_million, power_in, price_of
from reports.frames import Run
from reports.looks import looks, named
from reports.markup import NOTHING, Html, aggregate_cell, join, number, paragraph, table, tag

_ENERGY = "energy_j_per_output_token"
_COST = "cost_per_million_output_tokens"


def section(run: Run) -> Section | None:
    """None for runs of an older bench, which knew neither."""
    if run.record.schema_version < 4 or not run.groups:
        return None
    return Section("Energy and cost", join([*_energy(run), *_cost(run)]))


def _energy(run: Run) -> list[Html]:
    found = looks(run)
    rows: list[Sequence[Html | str]] = []
    for group in run.groups:
        powers = [power for cell in group.counted if (power := power_in(run, cell)) is not None]
        if not powers:
            continue
        idle = [power.idle_w for power in powers if power.idle_w is not None]
        rows.append(
            [
                named(found[group.deployment]),
                group.load,
                number(sum(power.mean_w for power in powers) / len(powers), 0),
                number(sum(idle) / len(idle), 0) if idle else NOTHING,
                aggregate_cell(_ENERGY, run.aggregate(group, _ENERGY)),
                f"{sum(power.n for power in powers):,}",
            ]
        )
    if not rows:
        return [paragraph(f"Energy is not known: {_why_no_energy(run)}.")]
    columns = ["deployment", "load", "power W", "idle W", "J per output token", "samples"]
    note = paragraph(
        "Power in the windows, of all the server's devices together (on a host: of the CPU's packages alone, "
        "without memory); idle: over the second before each start. Joules per output token are net of idle, "
        "and have the reading of the prompts in them."
    )
    return [table(columns, rows, "plain"), note]


def _why_no_energy(run: Run) -> str:
    said = dict.fromkeys(record.idle_power_note for record in run.start_records if record.idle_power_note)
    return "; ".join(said) if said else "nothing that was sampled tells it"


def _cost(run: Run) -> list[Html]:
    price = price_of(run)
    if price is None:
        return [
            paragraph("Cost: give price.gpu_hour, what an hour of the device costs (and price.currency).")
        ]
    found = looks(run)
    providers = {
        (api.provider, api.currency): api for record in run.start_records for api in record.api_prices
    }
    rows: list[Sequence[Html | str]] = [
        [
            named(found[group.deployment]),
            group.load,
            aggregate_cell(_COST, run.aggregate(group, _COST)),
            *(_api_cost(run, group, api) for api in providers.values()),
        ]
        for group in run.groups
    ]
    own = f"{price.currency} per million output tokens"
    columns = ["deployment", "load", own, *(f"{name}, {currency}" for name, currency in providers)]
    whose = " or this machine" if any(r.memory_kind == "host" for r in run.start_records) else ""
    text = (
        f"At {price.gpu_hour:g} {price.currency} for an hour of a device{whose}, used for nothing else "
        "and as busy as in the window; the reading of the prompts is in it."
    )
    if providers:
        sources = ", ".join(dict.fromkeys(f"{api.source}, {api.as_of}" for api in providers.values()))
        text += (
            f" Providers: the same requests at their prices for the model ({sources}); how they quantize it "
        )
        text += "is their own affair."
    return [tag("h3", "Cost"), table(columns, rows, "plain"), paragraph(text)]


def _api_cost(run: Run, group: Group, api: ApiPrice) -> Html | str:
    asked, given = (run.aggregate(group, name).mean for name in ("input_tokens", "output_tokens"))
    if asked is None or not given:
        return NOTHING
    return number(api_cost_per_million(api, asked, given), 2)
