"""What bench's self-test says of a cell: the nearest load tested, and whether the cell went beyond."""

import math
from dataclasses import dataclass

from harness.contracts import SelfTest, SelfTestStep
from reports.data.cells import Cell, gathered
from reports.data.run import Run, once
from reports.measures.values import measured_of


@dataclass(frozen=True)
class Tested:
    """What each load process of a cell played (streams in flight on average, chunks per second of each), and
    the self-test's step that is nearest to it, with bench's own TTFT error there (median, p99). `is_beyond`:
    more was played than the self-test tried, or saw with a p99 error under 1 ms."""

    streams: float
    chunks_per_s: float
    step: SelfTestStep
    error_s: tuple[float, float]
    is_beyond: bool

    @property
    def at(self) -> str:
        """Return the step's name: `64 streams x 100 chunks/s`."""
        streams = self.step.streams
        return f"{streams:,} stream{'' if streams == 1 else 's'} x {self.step.chunks_per_s:,.0f} chunks/s"


def tested(run: Run, cell: Cell) -> Tested | None:
    """Return what the self-test says of a cell's load. None without one, without a window or a stream."""
    found = measured_of(run).get(cell.number)
    if run.selftest is None or found is None or not found.steadiness or not found.chunk_rate_per_s:
        return None
    streams = found.steadiness.in_flight.mean / max(len(cell.summary.workers if cell.summary else ()), 1)
    return nearest(run.selftest, streams, found.chunk_rate_per_s)


@once
def nearest_of(run: Run) -> dict[tuple[str, str, str], Tested]:
    """Return by each group's key what the self-test says of the start that streamed most."""
    cells = (cell for group in run.groups for cell in group.counted)
    known = gathered((cell.key, found) for cell in cells if (found := tested(run, cell)))
    return {key: max(own, key=lambda each: each.streams * each.chunks_per_s) for key, own in known.items()}


def nearest(selftest: SelfTest, streams: float, chunks_per_s: float) -> Tested | None:
    """Return the step whose streams and rate are nearest to these by their ratios; None if none has an error
    of TTFT, since no request could be paired."""
    steps = [(step, step.ttft_error_s) for step in selftest.steps if step.ttft_error_s is not None]
    if not steps:
        return None

    at_once = max(streams, 1.0)
    step, error_s = min(
        steps,
        key=lambda pair: math.hypot(
            math.log(pair[0].streams / at_once), math.log(pair[0].chunks_per_s / chunks_per_s)
        ),
    )
    good, rate = selftest.largest or (0, 0.0)
    most_per_s = min(good * rate, max(each.reached_chunks_per_s for each, _ in steps))
    is_beyond = streams > max(each.streams for each, _ in steps) or streams * chunks_per_s > most_per_s
    return Tested(streams, chunks_per_s, step, error_s, is_beyond)


def ms(seconds: float) -> str:
    """Return milliseconds with two digits that count: 0.031, 0.24, 12."""
    return f"{seconds * 1e3:.2g}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"
