"""Compare three numbers of what a prefix cache served: the ideal, the server's report, and TTFT's evidence.

The last is only known at one user, since with more the time includes the others' work.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from serving_bench.harness.contracts import Fact, because
from serving_bench.reports.data import Cell, Group, Run, floats, once, pooled, sent_in_window, taken
from serving_bench.reports.stats.prefill import Inferred, Line, inferred, line_of

# Two numbers contradict each other if they differ by more than this share of the input.
DISAGREE_SHARE = 0.1
# A request is new if no more than this could be served: its beginning is the chat template's, or a few words
# that many prompts begin with.
NEW_TOKENS, NEW_SHARE = 64, 0.05
# The topic is shown if more than this share of the requests is not new.
_LEAST_SHARE = 0.05
# How many turns and prefixes are shown; later ones are rarer.
MOST_PARTS = 8
_COLUMNS = ["turn", "group", "input_tokens", "ideal_cached_tokens", "cached_tokens", "ttft_s"]
_NOTHING = pd.DataFrame(columns=_COLUMNS, dtype=float)


@dataclass(frozen=True)
class Served:
    """How many input tokens of ok requests a prefix cache served, as means per request."""

    group: Group
    part: str  # which of the group's requests (`turn 2`); empty for all
    requests: int
    input_tokens: float
    ideal: float  # if the cache kept all that was sent before
    reported: float | None  # in usage, otherwise `on_page`; None if not known for all requests
    on_page: float | None  # by the hit share of the server's metrics page; only for all requests
    inferred: Inferred | None  # from TTFT
    why: Fact | None  # why nothing is inferred
    ttft_s: float | None  # median

    @property
    def saved(self) -> float | None:
        """The tokens of all requests that were not read again, as reported."""
        return None if self.reported is None else self.reported * self.requests

    @property
    def of_ideal(self) -> float | None:
        """The share of the ideal that was served, as reported."""
        return self.reported / self.ideal if self.reported is not None and self.ideal else None

    def is_much(self, tokens: float) -> bool:
        """Return whether numbers that differ by this contradict each other."""
        return tokens > DISAGREE_SHARE * self.input_tokens


@once
def served_of(run: Run) -> list[Served]:
    """Return what was served in each group whose requests repeat something: of all, then of each part."""
    return [each for group in run.groups for each in _served(run, group)]


def metrics_share(run: Run, group: Group) -> float | None:
    """Return the share of prompt tokens that were hits by the server's metrics page."""
    return pooled(run, group, "prefix_hit_tokens", "prefix_query_tokens")


def _served(run: Run, group: Group) -> Iterator[Served]:
    frames = [sent_in_window(_requests(run, cell)) for cell in group.counted if _has_ideal(cell)]
    requests = pd.concat(frames) if frames else _NOTHING
    is_new = _is_new(requests, "ideal_cached_tokens") & _is_new(requests, "cached_tokens")
    if (~is_new).sum() <= _LEAST_SHARE * len(requests):
        return
    new = None if (group.cells[0].at_once or 2) > 1 else new_prompts(run, group.deployment)
    yield _mean(group, "", requests, new, metrics_share(run, group))
    has_prefixes = group.cells[0].planned.scenario.name == "shared_prefix"
    for by, word in (("group", "prefix"), ("turn", "turn")) if has_prefixes else (("turn", "turn"),):
        parts = list(requests.groupby(by))
        for number, each in parts[:MOST_PARTS] if len(parts) > 1 else ():
            yield _mean(group, f"{word} {int(cast(int, number)) + 1}", each, new)


def _mean(
    group: Group, part: str, requests: pd.DataFrame, new: "NewPrompts | None", page_share: float | None = None
) -> Served:
    tokens, ideal, reported, ttft_s = (floats(requests[name]) for name in _COLUMNS[2:])
    is_reported = not np.isnan(reported).any()
    timed = ~np.isnan(ttft_s)
    line, estimate = (because("time_includes_waiting"), None) if new is None else (new.line, None)
    if new is not None and isinstance(line, Line) and timed.any():
        expected = reported if is_reported else ideal
        estimate = inferred(line, tokens[timed], ttft_s[timed], expected[timed], new.known)
    on_page = None if page_share is None else page_share * float(tokens.mean())
    return Served(
        group,
        part,
        len(requests),
        float(tokens.mean()),
        float(ideal.mean()),
        float(reported.mean()) if is_reported else on_page,
        on_page,
        estimate,
        line if isinstance(line, Fact) else None,
        float(np.median(ttft_s[timed])) if timed.any() else None,
    )


# --- requests --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewPrompts:
    """What a deployment's new prompts say. `line`: their times, or why there is no line. `known`: how many of
    their tokens had been sent before after all (mean)."""

    line: Line | Fact
    known: float


@once
def new_prompts(run: Run, deployment: str) -> NewPrompts:
    """Return what the new prompts of cells with one user say, over all starts, including the warm-up."""
    cells = [cell for cell in run.planned_cells if cell.label == deployment and cell.at_once == 1]
    frames = [_requests(run, cell) for cell in cells if cell.counts and _has_ideal(cell)]
    requests = pd.concat(frames) if frames else _NOTHING
    tokens, ideal, ttft_s = (
        floats(requests[name]) for name in ("input_tokens", "ideal_cached_tokens", "ttft_s")
    )
    is_new = _is_new(requests, "ideal_cached_tokens") & ~np.isnan(ttft_s)
    known_tokens = float(ideal[is_new].mean()) if is_new.any() else 0.0
    return NewPrompts(line_of(tokens[is_new], ttft_s[is_new]), known_tokens)


def _is_new(requests: pd.DataFrame, column: str) -> np.ndarray:
    """Return a mask of the requests of which no more than NEW_TOKENS or NEW_SHARE was served; also True where
    unknown."""
    most = np.maximum(NEW_TOKENS, NEW_SHARE * floats(requests["input_tokens"]))
    return ~np.asarray(floats(requests[column]) > most)


def _has_ideal(cell: Cell) -> bool:
    return bool(cell.record and cell.record.ideal_by)


def _requests(run: Run, cell: Cell) -> pd.DataFrame:
    """Return a cell's ok requests with known input and ideal tokens, including the warm-up."""
    requests = run.requests_with(cell.number, "group", "ideal_cached_tokens")
    is_known = (requests["outcome"] == "ok") & requests[["input_tokens", "ideal_cached_tokens"]].notna().all(
        axis=1
    )
    return taken(requests[[*_COLUMNS, "in_window", "stays"]], is_known.to_numpy(dtype=bool))


# --- in words --------------------------------------------------------------------------------------


def doubts(served: Iterable[Served]) -> list[str]:
    """Return a clause for each part whose numbers contradict each other."""
    return list(filter(None, map(_doubt, served)))


def _doubt(each: Served) -> str | None:
    reported, estimate, on_page = each.reported, each.inferred, each.on_page
    if reported is None:
        return None
    if each.is_much(reported - each.ideal):
        return f"{_reported(each)}, but only {each.ideal:,.0f} had been sent before"
    # Beyond the interval by that much, since it does not include how a machine's speed changes between cells.
    if estimate and each.is_much(max(estimate.low - reported, reported - estimate.high)):
        return f"{_reported(each)}, but {_by_ttft(estimate)}"
    # The page also counts requests in flight at the window's ends, so these have to be few among all.
    at_ends = 2 * (each.group.cells[0].at_once or each.requests)
    is_known = on_page is not None and at_ends <= DISAGREE_SHARE * each.requests
    if on_page is not None and is_known and each.is_much(abs(reported - on_page)):
        return f"{_reported(each)}, but its metrics page says {on_page:,.0f}"
    return None


def confirmation(each: Served) -> str:
    """Return whether the times confirm what is reported, as a clause: they do if all of the interval is near
    it. Empty if the times or the report are not known."""
    estimate = each.inferred
    if each.reported is None or estimate is None:
        return ""
    is_wide = each.is_much(max(each.reported - estimate.low, estimate.high - each.reported))
    judged = "too wide to tell" if is_wide else f"the same within {100 * DISAGREE_SHARE:.0f} % of the input"
    return f"{_reported(each)}, and {_by_ttft(estimate)}: {judged}"


def _reported(each: Served) -> str:
    tokens = f"{each.reported or 0:,.0f} of {each.input_tokens:,.0f} tokens"
    return f"{each.part or 'all requests'}: it reports {tokens} as cached"


def _by_ttft(estimate: Inferred) -> str:
    return f"by TTFT it is {estimate.tokens:,.0f} [{estimate.low:,.0f}, {estimate.high:,.0f}]"
