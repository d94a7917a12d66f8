"""Mean power by an energy counter: the same for idle power and for a window's. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def mean_power_w(counted: Sequence[tuple[int, float | None]]) -> float | None:
    """The mean power between a counter's first and last step, of (instant in ns, joules so far), in order.
    None where it was not always known, fell, or made fewer than two steps.

    A counter stands still between its updates (NVML's for 10 to 100 ms, by card): from step to step, the
    error is that of when a step was seen, not that of a whole update at each end.
    """
    known = [(t_ns, energy_j) for t_ns, energy_j in counted if energy_j is not None]
    steps = [now for before, now in pairwise(known) if now[1] != before[1]]
    if len(known) < len(counted) or len(steps) < 2 or counter_fell([energy_j for _, energy_j in known]):
        return None
    (begun_ns, begun_j), (ended_ns, ended_j) = steps[0], steps[-1]
    return (ended_j - begun_j) / ((ended_ns - begun_ns) / 1e9)


def counter_fell(energy_j: Sequence[float]) -> bool:
    """Whether a counter began anew, as with a driver that is loaded again."""
    # A reading at a mark runs beside the sampler's: two neighbours may be a moment out of turn.
    apart = zip(energy_j, energy_j[2:], strict=False)
    return len(energy_j) > 1 and (energy_j[-1] < energy_j[0] or any(now < before for before, now in apart))
