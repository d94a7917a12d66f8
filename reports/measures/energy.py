"""The power, energy and cost of a load's starts, and why those that are not known are not."""

from collections.abc import Mapping

from harness.contracts import ApiPrice
from reports.data import Group, Run
from reports.measures.over_starts import aggregate
from reports.measures.values import Power, is_priced, power_in, price_of

ENERGY, COST = "energy_j_per_output_token", "cost_per_million_output_tokens"
COST_OF_REQUEST = "cost_per_request"
_PRICES_OF_TOKENS = "give price.input_tokens and price.output_tokens, what its owner asks for a million"
# Who offers the model to others, and the currency of the price.
Provider = tuple[str, str]


def powers_of(run: Run, group: Group) -> list[Power]:
    return [power for cell in group.counted if (power := power_in(run, cell))]


def is_costed(run: Run, group: Group) -> bool:
    """Return whether a price was given, and what it is paid for is known."""
    return any(is_priced(run, cell) for cell in group.counted)


def told_of(run: Run) -> list[Group]:
    return [each for each in run.groups if each.counted and (powers_of(run, each) or is_costed(run, each))]


def api_prices(run: Run, group: Group) -> Mapping[Provider, ApiPrice]:
    prices = (api for record in run.starts_of(group.deployment) for api in record.api_prices)
    return {(api.provider, api.currency): api for api in prices}


def api_cost(run: Run, provider: Provider, group: Group) -> float | None:
    """Return the cost of a million output tokens at a provider's prices, with the input tokens that the
    group's requests had for them."""
    api = api_prices(run, group).get(provider)
    asked, given = (aggregate(run, group, name).mean for name in ("input_tokens", "output_tokens"))
    return (
        None
        if api is None or asked is None or not given
        else (api.output_per_million + api.input_per_million * asked / given)
    )


def why_unknown(run: Run, group: Group) -> dict[str, str]:
    """Return why energy and cost are not known, each that is not."""
    starts = run.starts_of(group.deployment)
    is_elsewhere = "the server ran already, perhaps on another machine" * any(s.attached for s in starts)
    why = {}
    if not any(power.idle_w is not None for power in powers_of(run, group)):
        notes = dict.fromkeys(record.idle_power_note for record in starts if record.idle_power_note)
        why["Energy"] = is_elsewhere or "; ".join(notes) or "nothing that was sampled tells it"
    if not is_costed(run, group):
        why["Cost"] = (is_elsewhere and f"{is_elsewhere}: {_PRICES_OF_TOKENS}") or (
            "the server's devices are not on record"
            if price_of(run)
            else "give price.gpu_hour, what an hour of the device costs (and price.currency)"
        )
    return why
