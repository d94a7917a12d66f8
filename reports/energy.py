"""Energy and cost of a cell's window: what the devices drew beyond idle, per output token, and its price.

On a device: all the server's devices together, by NVML's energy counters, else by the mean of its power
samples. On a host: the CPU's packages, where the system shows their counter. Draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from harness.contracts import ApiPrice, Price
from harness.store import StartRecord
from reports.cells import Cell
from reports.metrics import Value

if TYPE_CHECKING:
    from reports.frames import Run

_HOUR_S = 3600.0
_MILLION = 1_000_000


@dataclass(frozen=True)
class Power:
    """Mean power in a window, of all devices together, over n samples of each; `idle_w` was drawn before the
    server was there (None: not known)."""

    mean_w: float
    idle_w: float | None
    n: int


def power_in(run: Run, cell: Cell) -> Power | None:
    """None where nothing tells it."""
    start = run.start_of(cell)
    if start is None:
        return None
    if start.memory_kind == "host":
        samples = run.window_samples(run.host, cell)
        found = _counted_w(samples, "package_energy_j")
        return None if found is None else Power(found[0], start.idle_power_w, found[1])
    return _of_devices(run.window_samples(run.device, cell), start)


def _of_devices(samples: pd.DataFrame, start: StartRecord) -> Power | None:
    if not len(samples):
        return None
    each = [_counted_w(own, "energy_j") or _sampled_w(own, "power_w") for _, own in samples.groupby("device")]
    known = [found for found in each if found is not None]
    if len(known) < len(each):
        return None
    return Power(sum(watts for watts, _ in known), start.idle_power_w, min(n for _, n in known))


def _counted_w(samples: pd.DataFrame, column: str) -> tuple[float, int] | None:
    """Mean power between the first and the last reading of a counter in joules."""
    if column not in samples:
        return None
    known = samples[["t_ns", column]].dropna().astype(float)
    if len(known) < 2:
        return None
    grown = known.iloc[-1] - known.iloc[0]
    return float(grown[column] / (grown["t_ns"] / 1e9)), len(known)


def _sampled_w(samples: pd.DataFrame, column: str) -> tuple[float, int] | None:
    known = samples[column].dropna().astype(float)
    return (float(known.mean()), len(known)) if len(known) else None


def energy_per_token(power: Power | None, tokens_per_s: float | None) -> Value:
    """Joules per output token net of idle: (mean power - idle power) / output tokens per second."""
    if power is None or power.idle_w is None or not tokens_per_s:
        return Value(None, 0)
    return Value((power.mean_w - power.idle_w) / tokens_per_s, power.n)


def price_of(run: Run) -> Price | None:
    """What the user said that a device's hour costs."""
    settings = run.record.settings
    if "price.gpu_hour" not in settings:
        return None
    currency = settings.get("price.currency", (Price.currency,))[0]
    return Price(float(settings["price.gpu_hour"][0]), currency)


def cost_per_million(price: Price | None, devices: int, tokens_per_s: float | None, n: int) -> Value:
    """Of output tokens, the reading of the prompts included: devices x price of an hour / output tokens in an
    hour x 1,000,000."""
    if price is None or price.gpu_hour is None or not tokens_per_s:
        return Value(None, 0)
    return Value(price.gpu_hour * devices / (tokens_per_s * _HOUR_S) * _MILLION, n)


def devices_of(run: Run, cell: Cell) -> int:
    """How many devices its server had; the machine counts as one."""
    start = run.start_of(cell)
    if start is None or start.memory_kind == "host":
        return 1
    samples = run.window_samples(run.device, cell)
    return int(samples["device"].nunique()) if len(samples) else 1


def api_cost_per_million(price: ApiPrice, input_tokens: float, output_tokens: float) -> float:
    """What the same requests cost there, per million output tokens; means per request."""
    return price.output_per_million + price.input_per_million * input_tokens / output_tokens
