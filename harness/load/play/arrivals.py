"""Compute when a cell's conversations begin and its users come and go, in seconds from its start. Pure."""

from collections.abc import Iterator
from itertools import accumulate, count, repeat
from math import inf, sqrt
from random import Random
from typing import NamedTuple

from serving_bench.harness.contracts import STEPS, Conversation, Load
from serving_bench.harness.errors import UserError

# Users that begin together are spread over at most this many seconds, so that they do not run in step.
STAGGER_S = 1.0
# After a trace has ended, the window goes on for the mean gap of its arrivals, but at least for this long.
LAST_GAP_S = 0.1


class Phases(NamedTuple):
    """When each part of a cell ends, in seconds from its start; infinite if no duration bounds the window."""

    ramp_up_end_s: float
    window_start_s: float
    window_end_s: float
    end_s: float


def ns(seconds: float) -> int:
    return int(seconds * 1e9)


def phases(load: Load) -> Phases:
    window_start_s = load.ramp_up_s + load.warmup_s
    window_end_s = inf if load.duration_s is None else window_start_s + load.duration_s
    return Phases(load.ramp_up_s, window_start_s, window_end_s, window_end_s + load.ramp_down_s)


def longest_s(load: Load, steps_to_first: int = 0) -> float:
    """Return the longest time from a cell's start to the last send; infinity if nothing bounds it."""
    if load.duration_s is None:
        return inf
    window_s = max(load.steps or STEPS, steps_to_first) * load.duration_s
    return load.ramp_up_s + load.warmup_s + window_s + max(load.ramp_down_s, grace_s(load, window_s))


def grace_s(load: Load, window_s: float) -> float:
    """Return how long conversations that began may go on after the window.

    That is load.grace, else the window's length or load.timeout, whichever is longer.
    """
    return max(window_s, load.timeout_s) if load.grace_s is None else load.grace_s


class Beginning(NamedTuple):
    """One conversation to play; with conversation=None, the end of the load.

    `at`: in an open loop the point of its arrival, in a trace the seconds from the start. `due_ns` follows
    from it. Both are None in a closed loop.
    """

    number: int
    conversation: Conversation | None
    at: float | None = None
    due_ns: int | None = None


def planned(load: Load, seed: int, conversations: Iterator[Conversation], worker: int) -> Iterator[Beginning]:
    """Yield a worker's share of a cell's beginnings in order, then the end if the conversations run out."""
    if load.kind == "trace":
        places = _traced(load, conversations)
    elif load.kind == "batch":
        places = ((0.0, next(conversations, None)) for _ in count())
    else:
        # Drawn with an rng of their own, so that arrivals and conversations do not change each other.
        drawn = points(load, Random(f"{seed} arrivals"))
        places = ((point, next(conversations, None)) for point in drawn)
    window_start_s = phases(load).window_start_s
    begun_count = 0
    for number, (at, conversation) in enumerate(places):
        if load.conversations is not None and due_s(load, at) >= window_start_s:
            if begun_count == load.conversations:
                conversation = None
            begun_count += 1
        if conversation is None:
            yield Beginning(number, None, at)
            return
        if number % load.workers == worker:
            yield Beginning(number, conversation, at)


def _traced(load: Load, conversations: Iterator[Conversation]) -> Iterator[tuple[float, Conversation | None]]:
    last_s, gaps = 0.0, 0
    for place, conversation in enumerate(conversations):
        if conversation.arrival_s is None:
            raise UserError("load.arrival=trace: the scenario has no arrival times; use scenario=trace")
        last_s, gaps = conversation.arrival_s / load.speedup, place
        yield last_s, conversation
    yield last_s + max(LAST_GAP_S, last_s / gaps if gaps else 0.0), None


def due_s(load: Load, at: float, window_end_s: float = inf) -> float:
    """Return the seconds from the cell's start that a beginning's `at` stands for."""
    return at if load.kind in ("trace", "batch") else instant_s(load, at, window_end_s)


class Stretch(NamedTuple):
    """A stretch of time in which the rate, in arrivals per second, changes linearly."""

    length_s: float
    from_per_s: float
    to_per_s: float

    @property
    def arrivals(self) -> float:
        mean_per_s = (self.from_per_s + self.to_per_s) / 2
        return self.length_s * mean_per_s if mean_per_s else 0.0

    def after_s(self, arrivals: float) -> float:
        """Return when `arrivals` are expected, in seconds from the stretch's start.

        It solves from * x + (to - from) * x^2 / (2 * length) = arrivals for x.
        """
        slope = (self.to_per_s - self.from_per_s) / self.length_s
        # This form of the root loses no digits, and also holds for a constant rate.
        root = self.from_per_s + sqrt(max(0.0, self.from_per_s**2 + 2 * slope * arrivals))
        return 2 * arrivals / root if arrivals else 0.0


def stretches(load: Load, window_end_s: float) -> Iterator[Stretch]:
    """Yield the rate over a cell of an open loop. If the window has no end yet, the last stretch has none."""
    rate, steps = load.rate_per_s or 0.0, load.ramp_steps
    up, down = [(0.0, rate)], [(rate, 0.0)]
    if load.ramp == "steps":
        levels = [rate * step / steps for step in range(steps + 1)]
        up = [(level, level) for level in levels[1:]]
        down = [(level, level) for level in reversed(levels[:-1])]
    if load.ramp_up_s:
        yield from (Stretch(load.ramp_up_s / len(up), *rates) for rates in up)
    yield Stretch(window_end_s - load.ramp_up_s, rate, rate)
    if load.ramp_down_s:
        yield from (Stretch(load.ramp_down_s / len(down), *rates) for rates in down)


def points(load: Load, rng: Random) -> Iterator[float]:
    """Yield the points of an open loop's arrivals: a renewal process of rate 1, without end.

    The k-th point u becomes the instant at which the rate's integral is u (`instant_s`), so a ramp keeps the
    kind of spacing. Source: Gerhardt and Nelson, Transforming renewal processes for simulation of
    nonstationary arrival processes, INFORMS Journal on Computing 21 (2009), the inversion method.
    """
    return accumulate(_gaps(load, rng))


def instant_s(load: Load, point: float, window_end_s: float = inf) -> float:
    """Return when `point` arrivals are expected, in seconds from the cell's start; infinity for never."""
    begin_s = before = 0.0
    for stretch in stretches(load, window_end_s):
        if point - before < stretch.arrivals:
            return begin_s + stretch.after_s(point - before)
        before += stretch.arrivals
        begin_s += stretch.length_s
    return inf


def _gaps(load: Load, rng: Random) -> Iterator[float]:
    """Yield gaps of mean 1; gamma's coefficient of variation is burstiness ** -0.5 (vLLM, serve.py)."""
    if load.arrival == "constant":
        yield 0.0
        yield from repeat(1.0)
    shape = load.burstiness if load.arrival == "gamma" else 1.0
    while True:
        yield rng.expovariate(1.0) if shape == 1.0 else rng.gammavariate(shape, 1.0 / shape)


def user_begins_s(load: Load, user: int) -> float:
    """Return when a closed loop's user begins, in seconds from the cell's start.

    Users that would begin together are spread over up to STAGGER_S.
    """
    users = load.concurrency or 1
    if not load.ramp_up_s:
        return min(load.warmup_s, STAGGER_S) * (user / users)
    if load.ramp == "linear":
        return load.ramp_up_s * user / users
    step, place = divmod(user * load.ramp_steps, users)
    length_s = load.ramp_up_s / load.ramp_steps
    return step * length_s + place / users * min(STAGGER_S, length_s / 4)


def user_ramps_down_s(load: Load, user: int) -> float:
    """Return how long after the window's end a closed loop's user stops beginning requests."""
    users = load.concurrency or 1
    if load.ramp == "linear":
        return load.ramp_down_s * (user + 1) / users
    return load.ramp_down_s * (user * load.ramp_steps // users) / load.ramp_steps


def share(items: int, workers: int, worker: int) -> int:
    """Return how many of `items` one of several workers gets, if each takes every `workers`-th."""
    return len(range(worker, items, workers))
