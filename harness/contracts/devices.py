"""How all read what a device says of itself: why it lowers its clocks, and its mean power."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# Bits of NVML's clocks event reasons (nvml.h; in nvidia-ml-py nvmlClocksEventReason...) that mean that
# the hardware or the driver held the clocks below what was asked for.
_THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown by the driver",
    0x40: "thermal slowdown by the hardware",
    0x80: "power brake",
    0x200: "board limit",
    0x400: "reliability limit",
}
# Those that do not: idle, clocks that somebody set (application, display), a sync boost group.
_NOT_THROTTLING = 0x01 | 0x02 | 0x10 | 0x100


def throttle_names(mask: int) -> tuple[str, ...]:
    """Return what throttles a device, from DeviceSample.throttle_reasons.

    That is nothing while it idles or runs at clocks that somebody set. A bit that is not known here counts,
    and is named by its number.
    """
    unknown = mask & ~(sum(_THROTTLING) | _NOT_THROTTLING)
    names = [name for bit, name in _THROTTLING.items() if mask & bit]
    return (*names, f"unknown reason {unknown:#x}") if unknown else tuple(names)


def mean_power_w(counted: Sequence[tuple[int, float | None]]) -> float | None:
    """Return the mean power between a counter's first and last step, from (instant in ns, joules so far), in
    order.

    None if it was not always known, fell, or made fewer than two steps. A counter stands still between its
    updates (NVML's for 10 to 100 ms, by card). From step to step the error is that of when a step was seen,
    not that of a whole update at each end.
    """
    known = [(t_ns, energy_j) for t_ns, energy_j in counted if energy_j is not None]
    steps = [now for before, now in pairwise(known) if now[1] != before[1]]
    if len(known) < len(counted) or len(steps) < 2 or counter_fell([energy_j for _, energy_j in known]):
        return None
    (begun_ns, begun_j), (ended_ns, ended_j) = steps[0], steps[-1]
    return (ended_j - begun_j) / ((ended_ns - begun_ns) / 1e9)


def counter_fell(energy_j: Sequence[float]) -> bool:
    """Return whether a counter began again at 0, as it does when a driver is loaded again."""
    # A reading at a mark runs beside the sampler's: two neighbours may be a moment out of turn.
    apart = zip(energy_j, energy_j[2:], strict=False)
    return len(energy_j) > 1 and (energy_j[-1] < energy_j[0] or any(now < before for before, now in apart))
