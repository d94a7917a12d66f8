"""Reasons to distrust the client and the machine: lags, time stamps, bench's own error, and other programs.

bench's own error in a cell is the one that its self-test found at the nearest load.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from serving_bench.harness.contracts import Fact, SelfTest, SelfTestStep, because
from serving_bench.reports.checks.finding import (
    BY_OBJECTIVES,
    FROM_SENDING,
    SPEED,
    Case,
    cell_name,
    check,
    of_cells,
)
from serving_bench.reports.data import Cell, Run, gathered, once
from serving_bench.reports.measures import LATENCIES, disturbances_of, measured_of, number, plural, values_of

# People act on a difference of a tenth of the median TTFT, and feel one of 10 ms however slow the server is.
# A timer counts as late from 5 ms on.
ERROR_SHARE = 0.1
LATE_SEND_S = 0.010
LATE_LOOP_S = 0.005


# --- what the self-test says -----------------------------------------------------------------------


@dataclass(frozen=True)
class Tested:
    """The load of each load process in a cell, and the nearest step of the self-test."""

    streams: float  # in flight, mean
    chunks_per_s: float  # of each stream
    step: SelfTestStep
    error_s: tuple[float, float]  # bench's own TTFT error in that step: median, p99
    is_beyond: bool  # more than the self-test tried, or saw with a p99 error under 1 ms

    @property
    def at(self) -> str:
        """The step's name: `64 streams x 100 chunks/s`."""
        return f"{plural(self.step.streams, 'stream')} x {self.step.chunks_per_s:,.0f} chunks/s"


def tested(run: Run, cell: Cell) -> Tested | None:
    """Return what the self-test says of a cell's load; None without a self-test, a window or a stream."""
    selftest = measured_of(run).get(cell.number)
    if run.selftest is None or selftest is None or not selftest.steadiness or not selftest.chunk_rate_per_s:
        return None
    workers = len(cell.summary.workers) if cell.summary else 0
    streams = float(selftest.steadiness.in_flight.mean()) / max(workers, 1)
    return nearest(run.selftest, streams, selftest.chunk_rate_per_s)


@once
def nearest_of(run: Run) -> dict[tuple[str, str, str], Tested]:
    """Return by group key what the self-test says of the cell that streamed most."""
    cells = (cell for group in run.groups for cell in group.counted)
    tested_by_case = gathered((cell.key, result) for cell in cells if (result := tested(run, cell)))
    return {
        key: max(results, key=lambda each: each.streams * each.chunks_per_s)
        for key, results in tested_by_case.items()
    }


def nearest(selftest: SelfTest, streams: float, chunks_per_s: float) -> Tested | None:
    """Return the step whose streams and rate are nearest to these by ratio; None if no step has a TTFT error,
    since no request could be paired."""
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
    """Return milliseconds with two significant digits: 0.031, 0.24, 12."""
    return f"{seconds * 1e3:.2g}" if seconds < 0.1 else f"{seconds * 1e3:,.0f}"


# --- the checks ------------------------------------------------------------------------------------


@check(
    "bench's own error is a part of TTFT",
    f"Its p99 is more than {100 * ERROR_SHARE:.0f} % of the median TTFT, so differences that small say "
    "nothing about the server: {}.",
    "Use load.workers=2 with free cores for them.",
    ("ttft_s", "itl_s", *BY_OBJECTIVES),
    marks=True,
    can_look=nearest_of,
)
@of_cells
def error_not_small(run: Run, cell: Cell) -> str | None:
    ttft_s, selftest = values_of(run)[cell.number]["ttft_s.p50"].value, tested(run, cell)
    if ttft_s is None or selftest is None or selftest.error_s[1] <= ERROR_SHARE * ttft_s:
        return None
    at = f"{selftest.at}, n = {selftest.step.requests:,} requests"
    return f"TTFT p50 {number(ttft_s * 1e3)} ms, error p99 {ms(selftest.error_s[1])} ms ({at})"


@check(
    "The client was late",
    "Its delay is a part of TTFT and E2E: {}.",
    "Use load.workers=2 with free cores for them, fewer users, or a lower load.rate.",
    (*FROM_SENDING, "itl_s"),
    marks=True,
)
@of_cells
def client_late(run: Run, cell: Cell) -> str | None:
    lags_s, ttfts_s = (run.observations(cell.number, name) for name in ("send_lag_s", "ttft_s"))
    loop_s = cell.summary.loop_lag_s[1] if cell.summary and cell.summary.loop_lag_s else 0.0
    if not len(ttfts_s):
        return None
    ttft_s = float(np.median(ttfts_s))
    causes = []
    if loop_s > max(LATE_LOOP_S, ERROR_SHARE * ttft_s):
        causes.append(f"a timer {number(loop_s * 1e3)} ms late at p99")
    lag_s = np.percentile(lags_s, 99) if cell.load.kind != "closed" and len(lags_s) else 0.0
    if lag_s > min(LATE_SEND_S, ERROR_SHARE * ttft_s):
        causes.append(f"requests left up to {number(lags_s.max() * 1e3)} ms late (n = {len(lags_s):,})")
    return f"{', '.join(causes)}, at a median TTFT of {number(ttft_s * 1e3)} ms" if causes else None


@check(
    "The load was lower than asked for",
    "Conversations that were due before the window's end never began: {}.",
    "Use load.workers=2 with free cores for them, a higher limit of open files, or a lower load.rate.",
    (),
    marks=True,
)
@of_cells
def conversations_never_began(run: Run, cell: Cell) -> str | None:
    # A closed loop has no due times.
    left_out = cell.summary.left_out if cell.summary and cell.load.kind != "closed" else 0
    return plural(left_out, "conversation") if left_out else None


@check(
    "The load was beyond bench's self-test",
    "The self-test tried less, or had a p99 error of TTFT of 1 ms or more at such a load: {}.",
    "Use load.workers=2 or free cores for the client; bench selftest shows how far it reaches.",
    (*LATENCIES, *BY_OBJECTIVES),
    can_look=nearest_of,
)
@of_cells
def beyond_selftest(run: Run, cell: Cell) -> str | None:
    selftest = tested(run, cell)
    if selftest is None or not selftest.is_beyond:
        return None
    median, p99 = map(ms, selftest.error_s)
    return (
        f"{plural(round(selftest.streams), 'stream')} x {selftest.chunks_per_s:,.0f} chunks/s; at the "
        f"nearest load tested ({selftest.at}) bench's own TTFT error was p50 {median} ms, p99 {p99} ms"
    )


@check(
    "Arrivals are stamped after reading",
    "The kernel gave no receive time for at least one read, so a busy client adds its own lag: {}.",
    "Run the client on Linux, which gives receive times, also with TLS.",
    (*LATENCIES, *BY_OBJECTIVES),
)
@of_cells
def stamps_not_kernel(run: Run, cell: Cell) -> str | None:
    source = cell.summary.stamp_source if cell.summary else None
    return source if source != "kernel" else None


@check(
    "The machine was busy or not fit",
    "{}.",
    "Stop other programs, cool the device or free memory; guard=strict refuses a machine that is not fit.",
    (*SPEED, "memory_peak_bytes"),
    can_look=lambda run: any(cell.record and cell.record.guard_mode for cell in run.planned_cells),
)
def machine_unfit(run: Run) -> Iterator[Case]:
    are_named = False
    for cell in run.planned_cells:
        guarded = cell.record.guard if cell.record else ()
        in_window = {each.kind for each in guarded if each.when == "during"}
        signs = [each for each in guarded if each.when == "during" or each.kind not in in_window]
        # Name the busiest programs of one cell only; Trust has those of the others.
        facts = [_unnamed(each.fact) if are_named else each.fact for each in signs]
        are_named = are_named or any(fact.kind == "foreign_load_by" for fact in facts)
        if signs:
            seen = (f"{fact} ({each.when})" for fact, each in zip(facts, signs, strict=True))
            yield Case(cell_name(cell), ", ".join(seen), [cell], (cell.label,))


@check(
    "One deployment was disturbed far more often",
    "Something from outside was seen in {}, far more often than with the others. It may be the deployment's "
    "own doing, so these starts count.",
    "See in Trust what it was. If it is not its own doing, measure again once that is gone.",
    (*SPEED, "memory_peak_bytes"),
)
def one_disturbed(run: Run) -> Iterator[Case]:
    for label, (hit, starts) in disturbances_of(run).at_one.items():
        yield Case("", f"{hit} of {plural(starts, 'start')} of {label}", of=(label,))


def _unnamed(fact: Fact) -> Fact:
    """Return a fact without the names of programs."""
    is_named = fact.kind == "foreign_load_by"
    return because("foreign_load", percent=fact.values["percent"]) if is_named else fact


@check(
    "Client and server share the cores",
    "The servers ran on the processor that also ran the load, so each slows the other.",
    "Run the client on another machine (engine.base_url), or read the figures as those of this setup.",
)
def cores_shared(run: Run) -> Iterator[Case]:
    if any(record.memory_kind == "host" and not record.attached for record in run.start_records):
        yield Case("", "")
