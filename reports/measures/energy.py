"""Energy and cost of a cell's window: what the devices drew beyond idle, per output token, and its price.

On a device: all the server's devices together, by NVML's energy counters, else by the mean of its power
samples. On a host: the CPU's packages, where the system shows their counter, with all that runs there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from harness.contracts import Price, counter_fell, mean_power_w
from harness.store.store import StartRecord
from reports.data.cells import Cell
from reports.data.run import Run, once
from reports.data.tables import floats, of_start
from reports.measures.metrics import Value


@dataclass(frozen=True)
class Power:
    """Mean power in a window, of all devices together, over n samples of each; `idle_w` was drawn before the
    server was there (None: not known)."""

    mean_w: float
    idle_w: float | None
    n: int


@once
def power_in(run: Run, cell: Cell) -> Power | None:
    """Return the power in a cell's window; None where nothing tells it, as of a server that ran already."""
    start = run.start_of(cell)
    if start is None or start.attached:
        return None
    if start.memory_kind == "host":
        each = [_counted(run.window_samples(run.host, cell), "package_energy_j")]
    else:
        samples = run.window_samples(run.device, cell)
        each = [_of_device(samples, device) for device in _devices(run, start)]
    known = [found for found in each if found is not None]
    if not known or len(known) < len(each):
        return None
    return Power(sum(watts for watts, _ in known), start.idle_power_w, min(n for _, n in known))


def _of_device(samples: pd.DataFrame, device: int) -> tuple[float, int] | None:
    """Return a device's mean power and the samples it is from: by its counter, else by its power."""
    own = samples[samples["device"] == device] if len(samples) else samples
    if not len(own) or counter_fell(own["energy_j"].dropna().astype(float).tolist()):
        return None
    mean_w = float(floats(own["power_w"]).mean())  # NaN where a sample has none
    return _counted(own, "energy_j") or (None if pd.isna(mean_w) else (mean_w, len(own)))


def _counted(samples: pd.DataFrame, column: str) -> tuple[float, int] | None:
    """Return the mean power by a counter in joules, and the readings; see harness.contracts.mean_power_w."""
    if column not in samples or samples[column].isna().any():
        return None
    readings = zip(samples["t_ns"].tolist(), samples[column].astype(float).tolist(), strict=True)
    mean_w = mean_power_w(list(readings))
    return None if mean_w is None else (mean_w, len(samples))


def price_of(run: Run) -> Price | None:
    """Return what the user said that a device's hour costs."""
    price = run.record.price
    return price if price is not None and price.gpu_hour is not None else None


def devices_of(run: Run, cell: Cell) -> int | None:
    """Return how many devices a cell's server had; this machine counts as one. None of a server that ran
    already."""
    start = run.start_of(cell)
    if start is None or start.attached:
        return None
    return 1 if start.memory_kind == "host" else len(_devices(run, start)) or None


def _devices(run: Run, start: StartRecord) -> Sequence[int]:
    """Return the devices that a start was given; where they are not on record, those that were sampled."""
    if start.devices or run.device is None:
        return start.devices
    return sorted(map(int, of_start(run.device, start.name)["device"].unique()))


def values_of(run: Run, cell: Cell, tokens_per_s: Value) -> dict[str, Value]:
    """Return joules per output token net of idle, and the cost of a million output tokens, the reading of the
    prompts included."""
    power, price, devices = power_in(run, cell), price_of(run), devices_of(run, cell)
    energy, cost, speed = Value(None, 0), Value(None, 0), tokens_per_s.value
    if power is not None and power.idle_w is not None and speed:
        energy = Value((power.mean_w - power.idle_w) / speed, power.n)
    if price is not None and price.gpu_hour is not None and devices and speed:
        cost = Value(price.gpu_hour * devices / (speed * 3600) * 1e6, tokens_per_s.n)
    return {"energy_j_per_output_token": energy, "cost_per_million_output_tokens": cost}
