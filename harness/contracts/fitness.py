"""Types that say whether machine and client are fit to measure; a device's throttling and mean power."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from serving_bench.harness.contracts.keys import DAY_S, Range, key
from serving_bench.harness.contracts.records import Scalar, Validity
from serving_bench.harness.contracts.sentences import Fact, because

# Share of all cores that other programs may use. With more, they can change a result by that share.
FOREIGN_SHARE = 0.15
# How long a look before a cell lasts, in seconds. Server and load are idle then.
LOOK_S = 0.5
# What makes a machine unfit.
Unfit = Literal[
    "foreign_process",
    "idle_process",
    "memory_not_back",
    "throttled",
    "clocks_low",
    "device_lost",
    "foreign_load",
    "steal",
    "swap",
    "disk_low",
    "few_files",
]
# What comes from outside, whatever is measured. All else may be a deployment's own doing (its heat, its power
# or memory); to leave out its slow windows would make it look faster than it is.
FROM_OUTSIDE: tuple[Unfit, ...] = ("foreign_process", "foreign_load", "steal")
# bench waits for an unfit machine. If that did not help, mark measures and calls the cell suspect; strict
# refuses the cell, or calls it invalid if something from outside came into the window, and --resume measures
# it again. off does not look.
GuardMode = Literal["strict", "mark", "off"]


@dataclass(frozen=True)
class GuardTerms:
    """What the guard may do."""

    wait_s: float = key(60.0, "How long a run waits for a fit machine, all in all.", Range(0, DAY_S))


@dataclass(frozen=True)
class GuardFinding:
    """What made the machine unfit for a cell, and the `validity` it gives the cell.

    `share`: of the processor or of the samples that it took, 0 where there is no share.
    """

    kind: Unfit
    fact: Fact
    when: Literal["before", "during"]
    validity: Validity
    share: float = 0.0

    @property
    def reason(self) -> Fact:
        """Why the cell is suspect or invalid."""
        return because("unfit_before" if self.when == "before" else "unfit_during", fact=self.fact)

    @property
    def disturbs(self) -> bool:
        """Return whether it came into the window from outside, so that the window may decide nothing."""
        return self.when == "during" and self.kind in FROM_OUTSIDE


@dataclass(frozen=True)
class SelfTestStep:
    """One load of the self-test: `streams` at once, each offered `chunks_per_s`, one event per segment.

    Errors are what the client reported minus what the server did, paired per request (ITL: per gap): (median,
    p99) of the absolute value. TTFT and E2E count from each side's own start. `failed`: requests that went
    wrong or that the server recorded differently. `server_late_s`: how late the server sent (median, p99).
    `server_kept_up`: whether it sent the median chunk before the next was due. `cpu_s_per_chunk`: processor
    time of the load process, with decoding and writing.
    """

    streams: int
    chunks_per_s: float
    requests: int
    failed: int
    chunks: int
    reached_chunks_per_s: float
    ttft_error_s: tuple[float, float] | None
    itl_error_s: tuple[float, float] | None
    e2e_error_s: tuple[float, float] | None
    server_late_s: tuple[float, float] | None
    server_kept_up: bool
    cpu_s_per_chunk: float | None


@dataclass(frozen=True)
class SelfTest:
    """What `bench selftest` measured on this machine. `program` of the reference server: python or native.

    `steps` has the last measurement of each load. `largest`: the largest load up to which the p99 error of
    TTFT stays under 1 ms, as streams and chunks per second of each. `stopped`: why no larger load was tried.
    `machine`: facts that must be the same for the result to hold. `foreign_share`: the share of the processor
    that other programs used meanwhile.
    """

    created_at: str  # ISO 8601 with offset
    bench_version: str
    program: str
    stamp_source: Literal["kernel", "read"]
    machine: Mapping[str, Scalar]
    steps: tuple[SelfTestStep, ...]
    largest: tuple[int, float] | None
    stopped: str | None = None
    foreign_share: float | None = None

    @property
    def is_of_busy_machine(self) -> bool:
        return self.foreign_share is not None and self.foreign_share > FOREIGN_SHARE


@dataclass(frozen=True)
class Figure:
    """A figure with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> float:
        """The figure if it is known to be above 0, else 0."""
        return self.value if self.low > 0 else 0.0


@dataclass(frozen=True)
class StartNoise:
    """How starts of one deployment differ in a metric, as standard deviations of its logarithm.

    `noise`: of a start. `lag`: the correlation of a start with the next one. `of_run`: how far a run moves a
    deployment beside another. `between`: how far it moves one, whatever it does to the others.
    """

    noise: Figure
    lag: Figure
    of_run: Figure
    between: Figure


@dataclass(frozen=True)
class AlikeTest:
    """What `bench selftest verdicts` measured on this machine, in runs of deployments that are the same.

    `runs`: how many came to a test, of which `named` named a winner, each of them a wrong one, `claimed` as
    often at most. `levels`: how far apart the levels of starts are, as a logarithm; 0 if they have one.
    """

    created_at: str  # ISO 8601 with offset
    bench_version: str
    machine: Mapping[str, Scalar]
    settings: Mapping[str, Sequence[Scalar]]  # of each run
    deployment: str
    runs: int
    named: Figure
    same: Figure
    claimed: float
    by_metric: Mapping[str, StartNoise]
    levels: float = 0.0
    foreign_share: float | None = None  # of the processor, of other programs, in the mean of all starts


# Bits of NVML's clocks event reasons (nvml.h) that say that clocks were held below what was asked for.
_THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown by the driver",
    0x40: "thermal slowdown by the hardware",
    0x80: "power brake",
    0x200: "board limit",
    0x400: "reliability limit",
}
# Bits that do not: idle, clocks that somebody set (application, display), a sync boost group.
_NOT_THROTTLING = 0x01 | 0x02 | 0x10 | 0x100


def throttle_names(mask: int) -> tuple[str, ...]:
    """Return what throttles a device, from DeviceSample.throttle_reasons; unknown bits by number."""
    unknown = mask & ~(sum(_THROTTLING) | _NOT_THROTTLING)
    names = [name for bit, name in _THROTTLING.items() if mask & bit]
    return (*names, f"unknown reason {unknown:#x}") if unknown else tuple(names)


def mean_power_w(readings: Sequence[tuple[int, float | None]]) -> float | None:
    """Return the mean power between a counter's first and last step, from (ns, joules so far) in order.

    None if it was not always known, fell, or made fewer than two steps. A counter stands still between its
    updates (NVML's for 10 to 100 ms), so measuring from step to step misses no update at either end.
    """
    energies = [(t_ns, energy_j) for t_ns, energy_j in readings if energy_j is not None]
    steps = [now for before, now in pairwise(energies) if now[1] != before[1]]
    if (
        len(energies) < len(readings)
        or len(steps) < 2
        or counter_fell([energy_j for _, energy_j in energies])
    ):
        return None
    (begun_ns, begun_j), (ended_ns, ended_j) = steps[0], steps[-1]
    return (ended_j - begun_j) / ((ended_ns - begun_ns) / 1e9)


def counter_fell(energy_j: Sequence[float]) -> bool:
    """Return whether a counter began again at 0, as it does when a driver is loaded again."""
    # A mark is read in parallel with the sampler, so two neighbouring readings may be out of order.
    apart = zip(energy_j, energy_j[2:], strict=False)
    return len(energy_j) > 1 and (energy_j[-1] < energy_j[0] or any(now < before for before, now in apart))
