"""Why a device lowers its clocks: the bits of NVML's mask, in words. Standard library only."""

from __future__ import annotations

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
    """What throttles a device, of DeviceSample.throttle_reasons: nothing where it idles or runs at clocks
    that somebody set. A bit that is not known here counts, and is named by its number."""
    unknown = mask & ~(sum(_THROTTLING) | _NOT_THROTTLING)
    names = [name for bit, name in _THROTTLING.items() if mask & bit]
    return (*names, f"unknown reason {unknown:#x}") if unknown else tuple(names)
