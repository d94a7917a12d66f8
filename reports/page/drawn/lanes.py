"""What a timeline of one cell draws: some of its requests on lanes, and what its server had meanwhile.

Times are in milliseconds since the cell's window began. A stretch has every request of its lanes that touches
it, so that a lane is never empty because something was left out. Draws nothing.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from reports.data.cells import Cell
from reports.data.run import Run
from reports.data.starts import Memory
from reports.page.drawn.thinned import downsample

LANES_AT_MOST = 64
# A lane has about so many requests in a stretch: fewer lanes rather than a stretch of less than one request.
_PER_LANE = 5
_BISECTIONS = 40
_SHORTEST_MS = 50.0


@dataclass(frozen=True)
class Lanes:
    """`requests`, a row each, in the order in which they were due: number (its place among all of the cell's,
    from 1), lane (from 0), begin, sent, first, end (ms; NaN where it did not come so far), conversation,
    turn, input_tokens, cached_tokens, output_tokens, outcome. `total`: of the whole cell. `users`: by lane,
    where a lane is a user. `all_lanes`: the users of the cell, else the lanes that the stretch would need.
    `slowest`: the number of the request with the slowest first token of the window, in whose middle the
    stretch lies, and its TTFT; None where none had a token."""

    cell: Cell
    requests: pd.DataFrame
    begin_ms: float
    end_ms: float
    total: int
    all_lanes: int
    users: tuple[int, ...] = ()
    slowest: int | None = None
    slowest_s: float | None = None

    @property
    def lanes(self) -> int:
        return int(self.requests["lane"].max()) + 1

    @property
    def is_whole(self) -> bool:
        return len(self.requests) == self.total


@dataclass(frozen=True)
class Course:
    """Values against time: ms, and what they are then."""

    x_ms: np.ndarray = field(default_factory=lambda: np.empty(0))
    y: np.ndarray = field(default_factory=lambda: np.empty(0))


def lanes_of(run: Run, cell: Cell, at_most: int) -> Lanes | None:
    """The stretch of a cell around its slowest first token with at most so many requests; all of it where it
    has no more. None where the cell has no window or no request."""
    frame = run.cell_requests(cell.number)
    if cell.window_s is None or frame.empty:
        return None
    spans = _spans(cell, frame)
    centre = _slowest(spans)
    most_lanes = LANES_AT_MOST if len(spans) <= at_most else min(max(at_most // _PER_LANE, 1), LANES_AT_MOST)
    by_user = cell.load.kind == "closed" and _is_one_at_a_time(spans)
    kept = _kept_lanes(spans, "user", centre, most_lanes) if by_user else spans
    chosen, begin_ms, end_ms = _stretch(kept, centre, at_most)
    if by_user:
        all_lanes = spans["user"].nunique()
        users = tuple(sorted({int(user) for user in chosen["user"]}))
        chosen = chosen.assign(lane=np.searchsorted(users, chosen["user"]))
    else:
        users, packed = (), chosen.assign(lane=_packed(chosen))
        all_lanes = packed["lane"].nunique()
        chosen = _kept_lanes(packed, "lane", centre, most_lanes)
        chosen = chosen.assign(lane=chosen["lane"] - chosen["lane"].min())
    return Lanes(
        cell=cell,
        requests=chosen,
        begin_ms=begin_ms,
        end_ms=end_ms,
        total=len(spans),
        all_lanes=all_lanes,
        users=users,
        slowest=None if centre is None else int(spans["number"][centre]),
        slowest_s=None if centre is None else float(spans["ttft_s"][centre]),
    )


def _spans(cell: Cell, frame: pd.DataFrame) -> pd.DataFrame:
    """All requests in the order in which they were due."""
    assert cell.summary is not None
    zero_ns = cell.summary.window_start_ns

    def ms(name: str) -> np.ndarray:
        return (frame[name].to_numpy(dtype=float, na_value=np.nan) - zero_ns) / 1e6

    begin, sent, end = ms("scheduled_ns"), ms("sent_ns"), ms("end_ns")
    spans = pd.DataFrame(
        {
            "begin": np.fmin(begin, sent),
            "sent": sent,
            "first": ms("first_content_ns"),
            "end": np.fmax(end, np.fmax(begin, sent)),
            "ttft_s": frame["ttft_s"].to_numpy(dtype=float, na_value=np.nan),
            "in_window": frame["in_window"].fillna(False).to_numpy(dtype=bool),
        }
    )
    for name in ("user", "conversation", "turn", "input_tokens", "cached_tokens", "output_tokens", "outcome"):
        spans[name] = frame[name].to_numpy()
    spans = spans.sort_values("begin", kind="stable", ignore_index=True)
    return spans.assign(number=np.arange(1, len(spans) + 1))


def _slowest(spans: pd.DataFrame) -> int | None:
    """The row of the ok request of the window that waited longest for its first token."""
    waits = spans["ttft_s"].where(spans["in_window"] & (spans["outcome"] == "ok"))
    return int(np.nanargmax(waits.to_numpy(dtype=float))) if waits.notna().any() else None


def _is_one_at_a_time(spans: pd.DataFrame) -> bool:
    """Whether no user has two requests at once, by a microsecond."""
    each = spans.sort_values(["user", "begin"], kind="stable")
    same = each["user"].to_numpy()[1:] == each["user"].to_numpy()[:-1]
    overlaps = each["begin"].to_numpy()[1:] < each["end"].to_numpy()[:-1] - 1e-3
    return not bool((same & overlaps).any())


def _kept_lanes(spans: pd.DataFrame, by: str, centre: int | None, at_most: int) -> pd.DataFrame:
    """Those of so many lanes that lie next to each other, the centre's among them."""
    lanes = np.unique(spans[by].to_numpy(dtype=int))
    if len(lanes) <= at_most:
        return spans
    at = 0 if centre is None else int(np.searchsorted(lanes, int(spans[by][centre])))
    first = min(max(at - at_most // 2, 0), len(lanes) - at_most)
    return spans[spans[by].isin(lanes[first : first + at_most])]


def _stretch(spans: pd.DataFrame, centre: int | None, at_most: int) -> tuple[pd.DataFrame, float, float]:
    """The longest stretch around the centre's wait (else the window's begin) that at most so many requests
    touch, by bisection, and its ends. Where more than that are under way at once, those due nearest to it."""
    begin, end = spans["begin"].to_numpy(), spans["end"].to_numpy()
    first, last = float(begin.min()), float(end.max())
    at_ms = 0.0 if centre is None else float(spans["begin"][centre])
    until_ms = 0.0 if centre is None else float(spans["first"][centre])
    middle_ms = (at_ms + until_ms) / 2

    def touching(half_ms: float) -> np.ndarray:
        return np.asarray((begin <= middle_ms + half_ms) & (end >= middle_ms - half_ms))

    low, high = 0.0, max(last - middle_ms, middle_ms - first, 1.0)
    if touching(high).sum() > at_most:
        for _ in range(_BISECTIONS):
            half = (low + high) / 2
            low, high = (half, high) if touching(half).sum() <= at_most else (low, half)
        high = max(low, (until_ms - at_ms) / 2, _SHORTEST_MS)
    chosen = spans[touching(high)]
    if len(chosen) > at_most:
        nearest = (chosen["begin"] - at_ms).abs().nsmallest(at_most).index
        chosen = chosen[chosen.index.isin(nearest)]
    return chosen, max(middle_ms - high, first), min(middle_ms + high, last)


def _packed(spans: pd.DataFrame) -> list[int]:
    """For each request the lowest lane that is free when it begins; they come in that order."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    lanes = []
    for begin, end in zip(spans["begin"], spans["end"], strict=True):
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, lane))
        lanes.append(lane)
    return lanes


# --- beside them -----------------------------------------------------------------------------------


def in_flight(run: Run, lanes: Lanes, points: int) -> Course:
    """Requests that were sent and had not ended, of the whole cell, at so many instants of the stretch."""
    assert lanes.cell.summary is not None
    frame = run.cell_requests(lanes.cell.number).dropna(subset="sent_ns")
    zero_ns = lanes.cell.summary.window_start_ns
    sent, end = (
        np.sort((frame[name].to_numpy(dtype=float) - zero_ns) / 1e6) for name in ("sent_ns", "end_ns")
    )
    x = np.linspace(lanes.begin_ms, lanes.end_ms, points)
    return Course(x, np.searchsorted(sent, x, "right") - np.searchsorted(end, x, "right"))


def told(run: Run, lanes: Lanes, samples: pd.DataFrame, term: str, points: int) -> Course:
    """What the server said of itself (`running`, `waiting`) in the stretch; empty where it did not."""
    known = samples[["t_ns", term]].dropna()
    return _cut(lanes, known["t_ns"].to_numpy(dtype=float), known[term].to_numpy(dtype=float), points)


def memory_course(lanes: Lanes, memory: Memory, points: int) -> Course:
    """The server's memory in the stretch, in bytes."""
    return _cut(lanes, memory.t_ns, memory.size_bytes, points)


def _cut(lanes: Lanes, t_ns: np.ndarray, values: np.ndarray, points: int) -> Course:
    """The samples of the stretch and one on either side; empty with fewer than two, which make no line."""
    assert lanes.cell.summary is not None
    x = (t_ns - lanes.cell.summary.window_start_ns) / 1e6
    first = max(int(np.searchsorted(x, lanes.begin_ms)) - 1, 0)
    last = int(np.searchsorted(x, lanes.end_ms, "right")) + 1
    if len(x[first:last]) < 2:
        return Course()
    return Course(*downsample(x[first:last], values[first:last], points))
