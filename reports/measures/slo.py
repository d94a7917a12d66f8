"""Count the requests that met each objective, and judge whether a load keeps the SLO.

Failed requests meet no objective. If an ok request does not have a latency (such as TPOT of an answer of one
token), an objective on it does not apply to the request.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import ndtri

from serving_bench.harness.contracts import Fact, Objective, because, timing
from serving_bench.harness.store.store import CellRecord, read_cells
from serving_bench.reports.data import Cell, Run, floats, gathered, requests_frame, sent_in_window
from serving_bench.reports.measures.equal_work import disturbances_of
from serving_bench.reports.measures.metrics import Value
from serving_bench.reports.stats.intervals import CONFIDENCE, of_values
from serving_bench.reports.stats.steadiness import only_grew

Verdict = Literal["kept", "broken", "unclear"]


def wilson(met: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the score interval of a share of n > 0. It also holds near 0 and 1 and for few observations.

    It takes requests as independent, which those of one start are not quite, and those of several even less.
    Source: Wilson (1927), J. Am. Stat. Assoc. 22:209.
    """
    z = float(ndtri(0.5 + confidence / 2))
    share, twice = met / n, 2 * (n + z**2)
    middle = (2 * n * share + z**2) / twice
    half = z / twice * math.sqrt(4 * n * share * (1 - share) + z**2)
    return middle - half if met else 0.0, middle + half if met < n else 1.0


@dataclass(frozen=True)
class Attainment:
    """How many requests met an objective, of those that it applies to.

    `starts`: (met, n) of each server start if there are several. `confidence`: that of the interval.
    """

    objective: Objective
    met: int
    n: int
    starts: tuple[tuple[int, int], ...] = ()
    confidence: float = CONFIDENCE

    @property
    def share(self) -> float | None:
        return self.met / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval over all requests. With several starts it is widened to include the t interval of
        their shares: a start is one draw, however many requests it has."""
        if not self.n:
            return 0.0, 1.0
        low, high = wilson(self.met, self.n, self.confidence)
        shares = [met / n for met, n in self.starts if n]
        if len(shares) < 2:
            return low, high
        least, most = of_values(shares, is_log=False).interval(self.confidence)
        return max(0.0, min(low, least)), min(1.0, max(high, most))

    @property
    def verdict(self) -> Verdict:
        """Kept if all of the interval is at or above the asked share, broken if all of it is below."""
        low, high, wanted = *self.interval, self.objective.share
        return "kept" if low >= wanted else "broken" if high < wanted else "unclear"

    @property
    def meets(self) -> bool:
        """Whether the measured share is at least the asked one."""
        return self.share is not None and self.share >= self.objective.share


def met_all(sent: pd.DataFrame, slo: Sequence[Objective]) -> np.ndarray:
    """Return a mask of the requests that are ok and meet every objective that applies to them."""
    each = (_meets(sent, objective) for objective in slo)
    is_ok = (sent["outcome"] == "ok").to_numpy(dtype=bool)
    return np.asarray(np.all([is_ok, *(meets | ~applies for applies, meets in each)], axis=0))


def _meets(sent: pd.DataFrame, objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Return two masks: the requests that the objective applies to, and those that meet it."""
    ok = (sent["outcome"] == "ok").to_numpy(dtype=bool)
    if objective.limit_s is None:
        return np.ones(len(sent), dtype=bool), ok
    taken_s = floats(sent[objective.metric])
    return ~(ok & np.isnan(taken_s)), ok & (taken_s <= objective.limit_s)


# --- a load's windows ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """The requests that were sent in one cell's window.

    `too_high`: why the load is too high, whatever the requests met. `is_disturbed`: something
    from outside came into the window, which can only make requests slower. `start`: the server start's name.
    """

    sent: pd.DataFrame
    too_high: Fact | None = None
    is_disturbed: bool = False
    start: str = ""


@dataclass(frozen=True)
class Judged:
    """What all windows at one load together say.

    `problem`: why nothing can be said. `too_high`: why the load is too high, whatever the shares.
    `is_disturbed`: all windows were disturbed, so they can show that a load is kept, not that it is broken.
    """

    attained: tuple[Attainment, ...]
    too_high: Fact | None = None
    problem: Fact | None = None
    is_disturbed: bool = False

    @property
    def verdict(self) -> Verdict:
        """Broken if any objective is, kept if all are. Broken on a disturbed machine is unclear."""
        verdicts = {each.verdict for each in self.attained}
        if self.too_high or "broken" in verdicts:
            return "unclear" if self.is_disturbed else "broken"
        return "kept" if verdicts == {"kept"} else "unclear"

    @property
    def meets(self) -> bool:
        return not self.too_high and all(each.meets for each in self.attained)

    @property
    def words(self) -> str:
        """`ttft_s.p95 97.5 % of 120 [92.9, 99.2]` for each objective."""
        disturbed = "on a machine that others disturbed" if self.is_disturbed else ""
        return ", ".join(filter(None, (*map(_words, self.attained), str(self.too_high or ""), disturbed)))


def _words(each: Attainment) -> str:
    if each.share is None:
        return f"{each.objective.name}: no request has it"
    low, high = (100 * end for end in each.interval)
    return f"{each.objective.name} {100 * each.share:.1f} % of {each.n:,} [{low:.1f}, {high:.1f}]"


def judged(windows: Sequence[Window], slo: Sequence[Objective], confidence: float = CONFIDENCE) -> Judged:
    """Judge the windows of one load together. Disturbed ones are left out if there are others."""
    calm = [window for window in windows if not window.is_disturbed]
    used = calm or windows
    attained = tuple(_attained(used, objective, confidence) for objective in slo)
    too_high = next((window.too_high for window in used if window.too_high), None)
    without = next((each.objective.metric for each in attained if not each.n), None)
    problem = None
    if without is not None and not too_high:
        problem = because("objective_without_value", metric=without)
        if not any(len(window.sent) for window in used):
            problem = because("objective_without_request")
        elif without == "tpot_s":
            problem = because("objective_without_tpot")
    return Judged(attained, too_high, problem, is_disturbed=bool(windows and not calm))


def _attained(windows: Sequence[Window], objective: Objective, confidence: float) -> Attainment:
    by_start = gathered((window.start, _meets(window.sent, objective)) for window in windows)
    starts = tuple(
        (sum(int(meets.sum()) for _, meets in of_start), sum(int(applies.sum()) for applies, _ in of_start))
        for of_start in by_start.values()
    )
    met, n = (sum(pair[end] for pair in starts) for end in (0, 1))
    return Attainment(objective, met, n, starts if len(starts) > 1 else (), confidence)


def _window(record: CellRecord | None, requests: pd.DataFrame, *, is_disturbed: bool) -> Window | None:
    """Return a cell's window, given all of the cell's requests.

    None if the cell is invalid or was interrupted, so that it says nothing about its load. A cell that failed
    because its requests did still does.
    """
    if record is None or record.validity == "invalid" or record.status == "interrupted":
        return None
    sent = sent_in_window(requests)
    summary, too_high = record.summary, None
    if summary is not None and summary.ended_by == "failures":
        too_high = because("ended_by_failures")
    elif summary is not None and record.load.kind == "open" and only_grew(requests, record.load, summary):
        too_high = because("queue_grew")
    return Window(sent, too_high, is_disturbed, record.start)


def trial(run_dir: Path, numbers: Sequence[int], slo: Sequence[Objective]) -> Judged:
    """Judge the windows of these cells of one load. Reads only their own files."""
    records = [record for record in read_cells(run_dir) if record.number in numbers]
    windows = [
        _window(
            each,
            requests_frame(run_dir, {each.number: timing.origin_of(each.load)}),
            is_disturbed=each.is_disturbed,
        )
        for each in records
    ]
    judgement = judged([window for window in windows if window], slo)
    errors = [record.why for record in records if record.why]
    return Judged((), problem=next(iter(errors), judgement.problem)) if judgement.problem else judgement


def judged_cells(run: Run, cells: Sequence[Cell], confidence: float = CONFIDENCE) -> Judged | None:
    """Judge the windows of these cells of one load together; None if nothing can be said."""
    hit = disturbances_of(run).cells
    windows = [
        _window(cell.record, run.cell_requests(cell.number), is_disturbed=cell.number in hit)
        for cell in cells
    ]
    judgement = judged([window for window in windows if window], run.record.slo, confidence)
    return judgement if any(windows) and not judgement.problem else None


def slo_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return goodput_per_s and slo_share of a cell; nothing if the run has no objectives."""
    if not run.record.slo:
        return {}
    sent = sent_in_window(run.cell_requests(cell.number))
    met, n = int(met_all(sent, run.record.slo).sum()), len(sent)
    return {
        "goodput_per_s": Value(met / cell.window_s if cell.window_s else None, n),
        "slo_share": Value(met / n if n else None, n),
    }
