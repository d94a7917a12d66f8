"""Types and sums for the progress of a load, which a person sees once a second. No report reads it. Pure."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from serving_bench.harness.contracts import Load, RequestRow
from serving_bench.harness.contracts.timing import (
    LEAST_FOR_LIVE_P95,
    LEAST_FOR_MEDIAN,
    origin_of,
    percentile,
    ttft_ns,
)

# How far back `Recent.stretch` looks: STRETCH_S, or further if fewer than ENOUGH requests ended in them.
KEPT = 512
STRETCH_S, LONGEST_S = 10.0, 60.0
# The first of them only begins the stretch; those after it are enough for all that is shown.
ENOUGH = LEAST_FOR_LIVE_P95 + 1


@dataclass(frozen=True)
class Stretch:
    """The requests of one load process that ended well in the last `length_s`."""

    length_s: float = 0.0
    requests: int = 0
    tokens: int | None = 0
    chunks: int = 0
    ttft_us: tuple[int, ...] = ()


@dataclass(frozen=True)
class Glance:
    """The requests that ended well lately, of all load processes. `ttft_n` of them had content.

    All tokens of a request count when it ends. None: not known, or too few requests.
    """

    length_s: float
    requests: int
    tokens_per_s: float | None
    chunks_per_s: float | None
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    ttft_n: int = 0


@dataclass(frozen=True)
class Progress:
    """The progress of one load process or, with `recent`, of all those of a cell together.

    `requests` ended well, `failed` did not. `loop_lag_s`: the p99 of how late its own loop was. `stretch`:
    one process's part of `recent`.
    """

    t_s: float = 0.0
    requests: int = 0
    failed: int = 0
    in_flight: int = 0
    phase: str = "ready"
    failures: Mapping[str, int] = field(default_factory=dict)
    recent: Glance | None = None
    loop_lag_s: float | None = None
    stretch: Stretch = Stretch()


class Recent:
    """The last KEPT requests that ended well. Its size is constant."""

    def __init__(self, load: Load) -> None:
        self._origin = origin_of(load)
        # End, time to first token (-1: no content), output tokens (-1: not told), content chunks.
        self._kept: deque[tuple[int, int, int, int]] = deque(maxlen=KEPT)

    def add(self, row: RequestRow) -> None:
        ttft = ttft_ns(row, self._origin)
        tokens = -1 if row.output_tokens is None else row.output_tokens
        self._kept.append((row.end_ns, -1 if ttft is None else ttft, tokens, len(row.chunk_ns)))

    def stretch(self, began_ns: int, now_ns: int) -> Stretch:
        """Return the requests that ended lately, of a load that began at `began_ns`."""
        kept = sorted(self._kept, reverse=True)
        since_ns = now_ns - int(STRETCH_S * 1e9)
        if len(kept) >= ENOUGH and kept[ENOUGH - 1][0] < since_ns:
            since_ns = kept[ENOUGH - 1][0]  # those after it: an end belongs to the time before it
        elif len(kept) < ENOUGH:
            since_ns = began_ns
        if len(kept) == KEPT:
            since_ns = max(since_ns, kept[-1][0])
        since_ns = max(since_ns, began_ns, now_ns - int(LONGEST_S * 1e9))
        fresh = [each for each in kept if each[0] > since_ns]
        tokens = [each[2] for each in fresh]
        return Stretch(
            length_s=(now_ns - since_ns) / 1e9,
            requests=len(fresh),
            tokens=None if -1 in tokens else sum(tokens),
            chunks=sum(each[3] for each in fresh),
            ttft_us=tuple(each[1] // 1000 for each in fresh if each[1] >= 0),
        )


def glance(stretches: Iterable[Stretch]) -> Glance:
    """Return all load processes together: their rates added, their times to first token in one list."""
    moving = [each for each in stretches if each.length_s > 0]
    requests = sum(each.requests for each in moving)
    tokens = [each.tokens / each.length_s for each in moving if each.tokens is not None]
    ttft_us = sorted(us for each in moving for us in each.ttft_us)
    return Glance(
        length_s=max((each.length_s for each in moving), default=0.0),
        requests=requests,
        tokens_per_s=sum(tokens) if requests and len(tokens) == len(moving) else None,
        chunks_per_s=sum(each.chunks / each.length_s for each in moving) if requests else None,
        ttft_p50_s=_percentile_s(ttft_us, 0.50, LEAST_FOR_MEDIAN),
        ttft_p95_s=_percentile_s(ttft_us, 0.95, LEAST_FOR_LIVE_P95),
        ttft_n=len(ttft_us),
    )


def _percentile_s(ordered_us: Sequence[int], share: float, least: int) -> float | None:
    return percentile(ordered_us, share) / 1e6 if len(ordered_us) >= least else None


def together(running: Sequence[Progress], ended: Sequence[Progress] = ()) -> Progress:
    """Return the progress of all processes together: sums of their requests, and the phase of the slowest."""
    pulses = (*running, *ended)
    return Progress(
        t_s=max((pulse.t_s for pulse in pulses), default=0.0),
        requests=sum(pulse.requests for pulse in pulses),
        failed=sum(pulse.failed for pulse in pulses),
        in_flight=sum(pulse.in_flight for pulse in running),
        phase=min(running or ended, key=lambda pulse: pulse.t_s, default=Progress()).phase,
        failures=dict(sum((Counter(pulse.failures) for pulse in pulses), Counter[str]())),
        recent=glance(pulse.stretch for pulse in running),
        loop_lag_s=max((pulse.loop_lag_s for pulse in running if pulse.loop_lag_s is not None), default=None),
    )
