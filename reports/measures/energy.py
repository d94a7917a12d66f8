"""Power, energy and cost at a load, and why they are not known."""

from collections.abc import Mapping

from serving_bench.harness.contracts import ApiPrice, Fact, because, quoted
from serving_bench.reports.data import Group, Run
from serving_bench.reports.measures.over_starts import aggregate
from serving_bench.reports.measures.values import Power, is_priced, power_in, price_of

ENERGY, COST = "energy_j_per_output_token", "cost_per_million_output_tokens"
COST_OF_REQUEST = "cost_per_request"
# The name of an API's provider, and the currency of its price.
Provider = tuple[str, str]


def powers_of(run: Run, group: Group) -> list[Power]:
    return [power for cell in group.counted if (power := power_in(run, cell))]


def is_costed(run: Run, group: Group) -> bool:
    """Return whether a price was given for something that is known."""
    return any(is_priced(run, cell) for cell in group.counted)


def told_of(run: Run) -> list[Group]:
    """Return the groups with a known power or cost."""
    return [each for each in run.groups if each.counted and (powers_of(run, each) or is_costed(run, each))]


def api_prices(run: Run, group: Group) -> Mapping[Provider, ApiPrice]:
    prices = (api for record in run.starts_of(group.deployment) for api in record.api_prices)
    return {(api.provider, api.currency): api for api in prices}


def api_cost(run: Run, provider: Provider, group: Group) -> float | None:
    """Return the cost of a million output tokens at a provider's prices, with as many input tokens as the
    group's requests had."""
    api = api_prices(run, group).get(provider)
    input_tokens, given = (aggregate(run, group, name).mean for name in ("input_tokens", "output_tokens"))
    if api is None or input_tokens is None or not given:
        return None
    return api.output_per_million + api.input_per_million * input_tokens / given


def why_unknown(run: Run, group: Group) -> dict[str, Fact]:
    """Return why "Energy" and "Cost" are not known; no entry for one that is."""
    starts = run.starts_of(group.deployment)
    elsewhere = because("ran_already")
    is_attached = any(record.attached for record in starts)
    why = {}
    if not any(power.idle_w is not None for power in powers_of(run, group)):
        notes = dict.fromkeys(record.idle_power_note for record in starts if record.idle_power_note)
        unsampled = because("all", facts=tuple(map(quoted, notes))) if notes else because("no_power_sampled")
        why["Energy"] = elsewhere if is_attached else unsampled
    if not is_costed(run, group):
        if is_attached:
            why["Cost"] = because("prices_of_owner", why=elsewhere)
        elif price_of(run):
            why["Cost"] = because("devices_unrecorded")
        else:
            why["Cost"] = because("price_missing")
    return why
