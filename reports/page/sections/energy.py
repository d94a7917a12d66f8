"""Energy and cost by load: power, joules per output token net of idle, and what a million output tokens
cost."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from harness.contracts import ApiPrice, Price
from harness.store.store import StartRecord
from reports.data.cells import Group
from reports.data.run import Run
from reports.measures.energy import api_cost_per_million, devices_of, power_in, price_of
from reports.measures.over_starts import BARS, aggregate
from reports.measures.written import NOTHING, number, precise, several
from reports.page.cells import LEGEND, cell_marks, mean_cell, starts_that_count
from reports.page.charts import Section, grid
from reports.page.looks import looks, named
from reports.page.markup import Html, Of, Row, join, long_table, paragraph, tag
from reports.page.sections.by_load import by_load_charts

# A deployment, a load.
_At = tuple[str, str]
_RAN_ALREADY = "the server ran already, perhaps on another machine"
_ENERGY = "energy_j_per_output_token"
_COST = "cost_per_million_output_tokens"


def section(run: Run) -> Section | None:
    """Return energy and cost. None if no group was measured."""
    if not run.groups:
        return None
    charts = [chart for name in (_ENERGY, _COST) for chart in by_load_charts(run, name)]
    drawn = [paragraph(f"Lower is better. Points are means over starts. {BARS}"), grid(charts)]
    body = [*(drawn if charts else []), *_energy(run), *_cost(run)]
    return Section("Energy and cost", join(body), charts)


def _energy(run: Run) -> list[Html]:
    found = looks(run)
    rows: list[Row] = []
    unknown: dict[_At, str] = {}
    for group in run.groups:
        powers = [power for cell in group.counted if (power := power_in(run, cell)) is not None]
        idle = [power.idle_w for power in powers if power.idle_w is not None]
        if group.counted and not idle:
            unknown[group.deployment, group.load] = _why_no_energy(run.starts_of(group.deployment))
        if not powers:
            continue
        rows.append(
            Row(
                [
                    join([named(found[group.deployment]), cell_marks(run, group)]),
                    group.load,
                    number(sum(power.mean_w for power in powers) / len(powers), 0),
                    number(sum(idle) / len(idle), 0) if idle else NOTHING,
                    mean_cell(run, group, _ENERGY),
                    f"{sum(power.n for power in powers):,}",
                    starts_that_count(group),
                ],
                Of(group.deployment, group.load),
            )
        )
    if not rows:
        return [_not_known("Energy", unknown, run)]
    columns = ["deployment", "load", "power W", "idle W", "J per output token", "samples", "starts"]
    note = paragraph(
        "Power in the windows, of all the server's devices together (on a host: of the CPU's packages alone, "
        "without memory, and what the load process and bench itself draw is in it); idle: over the second "
        "before each start. Joules per output token are net of idle, and have the reading of the prompts in "
        f"them. {LEGEND}"
    )
    return [
        tag("h3", "Energy"),
        note,
        long_table(columns, rows, "plain loads", "Energy"),
        *([_not_known("Energy", unknown, run)] if unknown else []),
    ]


def _why_no_energy(starts: Sequence[StartRecord]) -> str:
    if any(record.attached for record in starts):
        return _RAN_ALREADY
    said = dict.fromkeys(record.idle_power_note for record in starts if record.idle_power_note)
    return "; ".join(said) if said else "nothing that was sampled tells it"


def _not_known(what: str, unknown: Mapping[_At, str], run: Run) -> Html:
    """Where a figure is not known, and why; `unknown` has the reason of each."""
    measured = {(group.deployment, group.load) for group in run.groups if group.counted}
    reasons = list(dict.fromkeys(unknown.values()))
    if len(reasons) <= 1 and measured <= unknown.keys():
        return paragraph(f"{what} is not known: {reasons[0] if reasons else 'no cell counts'}.")
    places = {why: _places([at for at in unknown if unknown[at] == why], measured) for why in reasons}
    return paragraph(" ".join(f"{what} is not known of {several(places[why])}: {why}." for why in reasons))


def _places(found: Sequence[_At], measured: Collection[_At]) -> list[str]:
    """Deployments, with their loads where it is not all of those that were measured."""
    loads: dict[str, list[str]] = {}
    for deployment, load in found:
        loads.setdefault(deployment, []).append(load)
    whole = Counter(deployment for deployment, _ in measured)
    return [
        label if len(some) == whole[label] else f"{label} at {several(some)}" for label, some in loads.items()
    ]


def _cost(run: Run) -> list[Html]:
    price = price_of(run)
    unknown = {
        (group.deployment, group.load): _why_no_cost(run.starts_of(group.deployment))
        for group in run.groups
        if group.counted and all(devices_of(run, cell) is None for cell in group.counted)
    }
    is_known = any(group.counted and (group.deployment, group.load) not in unknown for group in run.groups)
    said = [_not_known("Cost", unknown, run)] if unknown and (price or not is_known) else []
    if price is None and is_known:
        said = [
            paragraph("Cost: give price.gpu_hour, what an hour of the device costs (and price.currency).")
        ]
    if price is None or not is_known:
        return said
    return [tag("h3", "Cost"), paragraph(_cost_note(run, price)), _cost_table(run, price), *said]


def _why_no_cost(starts: Sequence[StartRecord]) -> str:
    is_attached = any(record.attached for record in starts)
    return _RAN_ALREADY if is_attached else "the server's devices are not on record"


def _cost_table(run: Run, price: Price) -> Html:
    found = looks(run)
    prices = {group.deployment: _api_prices(run, group) for group in run.groups}
    providers = list(dict.fromkeys(key for known in prices.values() for key in known))
    rows = [
        Row(
            [
                join([named(found[group.deployment]), cell_marks(run, group)]),
                group.load,
                mean_cell(run, group, _COST),
                *(_api_cost(run, group, prices[group.deployment].get(key)) for key in providers),
                f"{aggregate(run, group, _COST).n:,}",
                starts_that_count(group),
            ],
            Of(group.deployment, group.load),
        )
        for group in run.groups
    ]
    own = f"{price.currency} per million output tokens"
    apis = (f"{name}, {currency}" for name, currency in providers)
    return long_table(["deployment", "load", own, *apis, "requests", "starts"], rows, "plain loads", "Cost")


def _api_prices(run: Run, group: Group) -> dict[tuple[str, str], ApiPrice]:
    """What providers ask for the group's model, by provider and currency; of several starts the last's."""
    return {
        (api.provider, api.currency): api
        for record in run.starts_of(group.deployment)
        for api in record.api_prices
    }


def _cost_note(run: Run, price: Price) -> str:
    kinds = {record.memory_kind for record in run.start_records if not record.attached}
    whose = " or ".join(
        name for kind, name in (("device", "a device"), ("host", "this machine")) if kind in kinds
    )
    text = (
        f"At {precise(price.gpu_hour, 2)} {price.currency} for an hour of {whose or 'a device'}, used for "
        "nothing else and as busy as in the window; the reading of the prompts is in it. Requests: those "
        f"that ended in the windows. {LEGEND}"
    )
    known = [api for group in run.groups for api in _api_prices(run, group).values()]
    if known:
        sources = ", ".join(dict.fromkeys(f"{api.source}, {api.as_of}" for api in known))
        text += (
            f" Providers: the same requests at their prices for the model ({sources}); how they quantize it "
            "is their own affair."
        )
    return text


def _api_cost(run: Run, group: Group, api: ApiPrice | None) -> Html | str:
    asked, given = (aggregate(run, group, name).mean for name in ("input_tokens", "output_tokens"))
    if api is None or asked is None or not given:
        return NOTHING
    return precise(api_cost_per_million(api, asked, given), 2)
