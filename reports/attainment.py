"""How many requests met each objective, how sure that is, and what a load's windows together come to.

Failed requests meet no objective. An objective on a latency that a good request does not have, as TPOT of an
answer of one token, does not apply to it: such a request is none of that objective's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import ndtri

from harness import store
from harness.contracts import Load, LoadSummary, Objective
from harness.store import CellRecord
from reports import tables
from reports.intervals import CONFIDENCE
from reports.steadiness import Series, Steadiness, edges_of, occupancy

Verdict = Literal["kept", "broken", "unclear"]
# Until requests in flight begin to leave, an open loop only fills up. Answers take up to so many times the
# shortest one (lengths from half to one and a half of their mean).
_LONGEST_TO_SHORTEST = 3.0


def wilson(met: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of a share, which holds also near 0 and 1 and for few observations.

    Wilson (1927), Probable inference, the law of succession, and statistical inference, J. Am. Stat. Assoc.
    22: (p + z^2/2n +- z sqrt(p (1-p) / n + z^2/4n^2)) / (1 + z^2/n). Requests of one window are not quite
    independent, so it is somewhat too narrow. Raises ValueError for n = 0.
    """
    if n < 1:
        raise ValueError("a share needs observations")
    z, share = float(ndtri(0.5 + confidence / 2)), met / n
    middle = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((middle + sign * half) / (1 + z**2 / n) for sign in (-1, 1))
    # Exact at the ends, where rounding would put them beyond.
    return (0.0 if met == 0 else low), (1.0 if met == n else high)


@dataclass(frozen=True)
class Attainment:
    """How many of the requests that an objective applies to met it."""

    objective: Objective
    met: int
    n: int

    @property
    def share(self) -> float | None:
        return self.met / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.met, self.n) if self.n else (0.0, 1.0)

    @property
    def verdict(self) -> Verdict:
        """Kept where all of the interval is at the asked share or above it, broken where all is below."""
        low, high = self.interval
        if low >= self.objective.share:
            return "kept"
        return "broken" if high < self.objective.share else "unclear"

    @property
    def meets(self) -> bool:
        """Whether the share as it stands is the asked one or more."""
        return self.n > 0 and self.met / self.n >= self.objective.share


def is_ok(sent: pd.DataFrame) -> np.ndarray:
    return np.asarray(sent["outcome"].to_numpy() == "ok", dtype=bool)


def _meets(sent: pd.DataFrame, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """For each request whether the objective applies to it, and whether it meets it."""
    ok = is_ok(sent)
    if objective.limit_s is None:
        return np.ones(len(sent), dtype=bool), ok
    taken_s = sent[objective.metric].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    has_none = ok & np.isnan(taken_s)
    with np.errstate(invalid="ignore"):
        return ~has_none, ok & (taken_s <= objective.limit_s)


def attainments(windows: Sequence[pd.DataFrame], slo: Sequence[Objective]) -> tuple[Attainment, ...]:
    """Each objective over the requests that were sent in these windows, taken together."""
    counted = [[_meets(sent, objective) for sent in windows] for objective in slo]
    return tuple(
        Attainment(
            objective,
            sum(int((applies & meets).sum()) for applies, meets in each),
            sum(int(applies.sum()) for applies, _ in each),
        )
        for objective, each in zip(slo, counted, strict=True)
    )


def met_all(sent: pd.DataFrame, slo: Sequence[Objective]) -> np.ndarray:
    """For each request whether it is ok and meets every objective that applies to it."""
    met = is_ok(sent)
    for objective in slo:
        applies, meets = _meets(sent, objective)
        met &= ~applies | meets
    return met


# --- a load's windows ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """One cell: the requests that were sent in its window. `too_high`: why it tells at once that the load is
    too high, whatever its requests met; None where it does not. `is_disturbed`: the guard found the machine
    unfit during it, which makes requests slower and never faster."""

    sent: pd.DataFrame
    too_high: str | None = None
    is_disturbed: bool = False


@dataclass(frozen=True)
class Judged:
    """What all windows at one load together come to. `problem`: why nothing can be said; None where
    something can. `too_high`: the reason of a verdict that needs no share. `is_disturbed`: no window was left
    alone, so that they may show that a load is kept, not that it is broken."""

    attained: tuple[Attainment, ...]
    windows: int
    too_high: str | None = None
    problem: str | None = None
    is_disturbed: bool = False

    @property
    def verdict(self) -> Verdict:
        """Broken where any objective is, kept where all are."""
        found = {each.verdict for each in self.attained}
        if self.too_high or "broken" in found:
            return "unclear" if self.is_disturbed else "broken"
        return "kept" if found == {"kept"} else "unclear"

    @property
    def meets(self) -> bool:
        return not self.too_high and all(each.meets for each in self.attained)

    @property
    def words(self) -> str:
        """`ttft_s.p95 97.5 % of 120 [92.9 %, 99.2 %]`, each objective in turn."""
        said = [_words(each) for each in self.attained]
        disturbed = ["on a machine that was not fit"] if self.is_disturbed else []
        return ", ".join([*said, *([self.too_high] if self.too_high else []), *disturbed])


def _words(each: Attainment) -> str:
    if each.share is None:
        return f"{each.objective.name}: no request has it"
    low, high = each.interval
    return f"{each.objective.name} {100 * each.share:.1f} % of {each.n:,} [{100 * low:.1f}, {100 * high:.1f}]"


def judged(windows: Sequence[Window], slo: Sequence[Objective]) -> Judged:
    """The verdict on the windows of one load, pooled: of those that were not disturbed, if there are any."""
    calm = [window for window in windows if not window.is_disturbed]
    used = calm or windows
    attained = attainments([window.sent for window in used], slo)
    too_high = next((window.too_high for window in used if window.too_high), None)
    without = [each.objective for each in attained if not each.n]
    problem = _problem(without[0], sum(len(window.sent) for window in used)) if without else None
    return Judged(
        attained,
        len(windows),
        too_high,
        None if too_high else problem,
        is_disturbed=bool(windows and not calm),
    )


def _problem(objective: Objective, sent: int) -> str:
    if not sent:
        return "no request was sent in the window; give a longer load.duration, such as 60s"
    if objective.metric == "tpot_s":
        return (
            "no request has a time per output token: the server gives no token counts, or its answers have "
            "one token; give load.tokenizer, or leave slo.tpot_s out"
        )
    return f"no request has a value of {objective.metric}"


def window_of(record: CellRecord, requests: pd.DataFrame) -> Window:
    """A cell's window from all of its requests."""
    sent = requests[requests["in_window"].fillna(False).astype(bool)]
    return Window(
        sent, _too_high(record, requests), any(finding.when == "during" for finding in record.guard)
    )


def _too_high(record: CellRecord, requests: pd.DataFrame) -> str | None:
    summary = record.summary
    if summary is None:
        return None
    if summary.ended_by == "failures":
        return "ended early, since too many requests failed"
    if record.load.kind == "open" and is_growing(requests, record.load, summary):
        return "the queue only grew"
    return None


def is_growing(requests: pd.DataFrame, load: Load, summary: LoadSummary) -> bool:
    """Whether requests in flight only became more, other than by an open loop's filling up at its beginning.

    That is over once the longest of the first requests leave, which has to be by the window's middle third;
    else, and after a ramp, nothing is said.
    """
    begin_ns, end_ns = summary.window_start_ns, summary.window_end_ns
    if end_ns <= begin_ns:
        return False
    sent = requests[requests["sent_ns"].notna() & requests["end_ns"].notna()]
    sent_ns, left_ns = (sent[name].to_numpy(dtype=float) for name in ("sent_ns", "end_ns"))
    ok = is_ok(sent)
    if not ok.any():
        return False
    shortest_s = float((left_ns - sent_ns)[ok].min()) / 1e9
    settled_s = (begin_ns - summary.started_ns + (end_ns - begin_ns) / 3) / 1e9
    if _LONGEST_TO_SHORTEST * shortest_s > settled_s or load.ramp_up_s:
        return False
    in_flight = occupancy(sent_ns, left_ns, edges_of(begin_ns, end_ns))
    return Steadiness(in_flight, None, Series(np.zeros_like(in_flight.parts)), 0).is_growing


def trial(run_dir: Path, numbers: Sequence[int], slo: Sequence[Objective]) -> Judged:
    """The windows of these cells of one load, read from their own files alone; of those that count and those
    that failed with requests. A cell that is invalid says nothing."""
    records = [record for record in store.read_cells(run_dir) if record.number in numbers]
    windows = []
    for record in records:
        if record.validity != "invalid":
            origin = "sent_ns" if record.load.kind == "closed" else "scheduled_ns"
            windows.append(window_of(record, tables.requests_frame(run_dir, {record.number: origin})))
    found = judged(windows, slo)
    if not found.problem:
        return found
    errors = [record.error or "; ".join(record.reasons) for record in records]
    return Judged(found.attained, len(numbers), problem=next(filter(None, errors), found.problem))
