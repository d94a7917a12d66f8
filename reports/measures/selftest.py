"""What bench's self-test says of a cell: the nearest load tested, and whether the cell went beyond."""

import math
from dataclasses import dataclass

from harness.contracts import SelfTest, SelfTestStep
from reports.data.cells import Cell
from reports.data.run import Run
from reports.measures.values import measured_of


@dataclass(frozen=True)
class Reached:
    """The load of one of a cell's load processes in the self-test's terms: streams in flight on average,
    chunks per second of each."""

    streams: float
    chunks_per_s: float

    @property
    def total_per_s(self) -> float:
        return self.streams * self.chunks_per_s


def reached(run: Run, cell: Cell) -> Reached | None:
    """Return what each load process of a cell played. None if it has no window or streamed nothing."""
    found = measured_of(run).get(cell.number)
    if found is None or found.steadiness is None or found.chunk_rate_per_s is None:
        return None
    workers = cell.summary.workers if cell.summary else ()
    return Reached(found.steadiness.in_flight.mean / max(len(workers), 1), found.chunk_rate_per_s)


def known_steps(selftest: SelfTest) -> list[SelfTestStep]:
    """Return the steps that have an error of TTFT: those in which a request could be paired."""
    return [step for step in selftest.steps if step.ttft_error_s is not None]


def ttft_error_s(step: SelfTestStep) -> tuple[float, float]:
    """Return the median and p99 of a known step."""
    assert step.ttft_error_s is not None
    return step.ttft_error_s


def nearest_step(selftest: SelfTest, load: Reached) -> SelfTestStep:
    """Return the known step whose streams and rate are nearest by their ratios."""

    def distance(step: SelfTestStep) -> float:
        streams = math.log(step.streams / max(load.streams, 1.0))
        return math.hypot(streams, math.log(step.chunks_per_s / load.chunks_per_s))

    return min(known_steps(selftest), key=distance)


def named(step: SelfTestStep) -> str:
    return f"{step.streams:,} stream{'' if step.streams == 1 else 's'} x {step.chunks_per_s:,.0f} chunks/s"


def quoted(step: SelfTestStep) -> str:
    """Return bench's own error at a step, in a sentence."""
    median_s, p99_s = ttft_error_s(step)
    return (
        f"at the nearest load tested ({named(step)}) bench's own TTFT error was p50 {ms(median_s)} ms, "
        f"p99 {ms(p99_s)} ms"
    )


def ms(seconds: float) -> str:
    """Return milliseconds with two digits that count: 0.031, 0.24, 12."""
    return f"{seconds * 1e3:.2g}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


def is_beyond(selftest: SelfTest, load: Reached) -> bool:
    """Return whether a load has more streams than any step, or more chunks per second in all than the largest
    within 1 ms, or than any step."""
    steps = known_steps(selftest)
    streams, chunks_per_s = selftest.largest or (0, 0.0)
    most_per_s = min(streams * chunks_per_s, max(step.reached_chunks_per_s for step in steps))
    return load.streams > max(step.streams for step in steps) or load.total_per_s > most_per_s
