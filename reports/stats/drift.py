"""Whether a latency rose or fell over a window, beside what the turns of the conversations make of it. Pure.

Later turns have longer prompts, and users that began together are in the same turn together: each request is
compared with the median of its own turn.
"""

from dataclasses import dataclass

import numpy as np

from reports.stats.steadiness import rank_correlation

# Twelve parts of five requests, in the order of their sending; requests that were in flight together share
# what happened to them, and a part's median is one observation.
PARTS = 12
REQUESTS_NEEDED = 60
TURN_NEEDED = 5
# A difference that people act on, seen clearly: of windows without a drift fewer than one in two hundred has
# all three (tests/reports/stats/test_reports_drift.py).
DRIFT_SHARE = 0.1
DRIFT_ERRORS = 3.0
DRIFT_RANK = 0.8


@dataclass(frozen=True)
class Drift:
    """`share`: by how much the last third lies above the first (0.2: 20 % above), over n requests."""

    share: float
    n: int


def drift(at: np.ndarray, seconds: np.ndarray, turn: np.ndarray) -> Drift | None:
    """Of latencies with their instants and turns: how far the last third lies from the first, None where it
    is no drift: too small, within what the parts vary, or not nearly always one way (Spearman)."""
    rest, instants = _without_turns(at, seconds, turn)
    if len(rest) < REQUESTS_NEEDED:
        return None
    ordered = rest[np.argsort(instants, kind="stable")]
    parts = np.array([np.median(part) for part in np.array_split(ordered, PARTS)])
    thirds = np.split(parts, 3)
    change = float(thirds[2].mean() - thirds[0].mean())
    error = float(np.sqrt(2 * np.mean([third.var(ddof=1) for third in thirds]) / (PARTS / 3)))
    is_clear = abs(change) > DRIFT_ERRORS * error and abs(rank_correlation(parts)) >= DRIFT_RANK
    share = float(np.expm1(change))
    return Drift(share, len(rest)) if is_clear and abs(change) > np.log1p(DRIFT_SHARE) else None


def _without_turns(at: np.ndarray, seconds: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms less their turn's median, and their instants; without turns that few requests have."""
    logs = np.log(np.where(seconds > 0, seconds, np.nan))
    rest = np.full(len(logs), np.nan)
    for each in np.unique(turn):
        is_own = (turn == each) & ~np.isnan(logs)
        if is_own.sum() >= TURN_NEEDED:
            rest[is_own] = logs[is_own] - np.median(logs[is_own])
    is_known = ~np.isnan(rest)
    return rest[is_known], at[is_known]
