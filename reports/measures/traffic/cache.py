"""What a prefix cache served, three times: ideally, as the server reports it, and as the time to first token
says.

The last can be told at one user only: nobody else's work is in the time.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from reports.data import Cell, Group, Run, floats, once, pooled, sent_in_window, taken
from reports.stats.prefill import Inferred, Line, inferred, line_of

# Numbers that are apart by more than this share of the input contradict each other.
DISAGREE_SHARE = 0.1
# A request of which no more than this could be served is new: its beginning is the chat template's, or a few
# words that many prompts begin with.
NEW_TOKENS, NEW_SHARE = 64, 0.05
# Less than this share of requests that are not new is not worth a topic.
_LEAST_SHARE = 0.05
# Turns and prefixes that are shown; later ones are rarer.
MOST_PARTS = 8
_QUEUES = "several users: their waiting is in the time"
_COLUMNS = ["turn", "group", "input_tokens", "ideal_cached_tokens", "cached_tokens", "ttft_s"]
_NOTHING = pd.DataFrame(columns=_COLUMNS, dtype=float)


@dataclass(frozen=True)
class Served:
    """The mean input tokens of ok requests, and how many of them a cache served: `ideal` if it kept all that
    was sent before, as `reported` (None: not for all of them), and `inferred`, or `why` not. `part`: which of
    a group's requests (`turn 2`); empty for all. `on_page`: by the share on the server's page of metrics, of
    all requests only; where usage is silent it is what is `reported`. `ttft_s`: the median.
    """

    group: Group
    part: str
    requests: int
    input_tokens: float
    ideal: float
    reported: float | None
    on_page: float | None
    inferred: Inferred | None
    why: str
    ttft_s: float | None

    @property
    def saved(self) -> float | None:
        """Return the tokens of all requests that were not read again, as reported."""
        return None if self.reported is None else self.reported * self.requests

    @property
    def of_ideal(self) -> float | None:
        """Return the share of what could be served that was, as reported."""
        return self.reported / self.ideal if self.reported is not None and self.ideal else None

    def is_much(self, tokens: float) -> bool:
        """Return whether numbers that are this far apart contradict each other."""
        return tokens > DISAGREE_SHARE * self.input_tokens


@once
def served_of(run: Run) -> list[Served]:
    """Return what was served of each group's requests that repeat something: of all, then of each part."""
    return [each for group in run.groups for each in _served(run, group)]


def metrics_share(run: Run, group: Group) -> float | None:
    """Return the share of prompt tokens that the server's page of metrics says were hits."""
    return pooled(run, group, "prefix_hit_tokens", "prefix_query_tokens")


def _served(run: Run, group: Group) -> Iterator[Served]:
    found = [sent_in_window(_requests(run, cell)) for cell in group.counted if _has_ideal(cell)]
    own = pd.concat(found) if found else _NOTHING
    is_new = _is_new(own, "ideal_cached_tokens") & _is_new(own, "cached_tokens")
    if (~is_new).sum() <= _LEAST_SHARE * len(own):
        return
    new = None if (group.cells[0].at_once or 2) > 1 else new_prompts(run, group.deployment)
    yield _mean(group, "", own, new, metrics_share(run, group))
    has_prefixes = group.cells[0].planned.scenario.name == "shared_prefix"
    for by, word in (("group", "prefix"), ("turn", "turn")) if has_prefixes else (("turn", "turn"),):
        parts = list(own.groupby(by))
        for number, each in parts[:MOST_PARTS] if len(parts) > 1 else ():
            yield _mean(group, f"{word} {int(cast(int, number)) + 1}", each, new)


def _mean(
    group: Group, part: str, own: pd.DataFrame, new: "NewPrompts | None", page_share: float | None = None
) -> Served:
    tokens, ideal, reported, ttft_s = (floats(own[name]) for name in _COLUMNS[2:])
    is_reported = not np.isnan(reported).any()
    timed = ~np.isnan(ttft_s)
    line, told = (_QUEUES, None) if new is None else (new.line, None)
    if new is not None and isinstance(line, Line) and timed.any():
        expected = reported if is_reported else ideal
        told = inferred(line, tokens[timed], ttft_s[timed], expected[timed], new.known)
    on_page = None if page_share is None else page_share * float(tokens.mean())
    return Served(
        group,
        part,
        len(own),
        float(tokens.mean()),
        float(ideal.mean()),
        float(reported.mean()) if is_reported else on_page,
        on_page,
        told,
        line if isinstance(line, str) else "",
        float(np.median(ttft_s[timed])) if timed.any() else None,
    )


# --- requests --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NewPrompts:
    """What a deployment's new prompts say: the line of their times, or why there is none. `known`: the mean
    of the tokens that even of them were sent before."""

    line: Line | str
    known: float


@once
def new_prompts(run: Run, deployment: str) -> NewPrompts:
    """Return what the new prompts of one user's cells say, over all starts, warm-up included."""
    cells = [cell for cell in run.planned_cells if cell.label == deployment and cell.at_once == 1]
    known = [_requests(run, cell) for cell in cells if cell.counts and _has_ideal(cell)]
    own = pd.concat(known) if known else _NOTHING
    tokens, ideal, ttft_s = (floats(own[name]) for name in ("input_tokens", "ideal_cached_tokens", "ttft_s"))
    is_new = _is_new(own, "ideal_cached_tokens") & ~np.isnan(ttft_s)
    known_tokens = float(ideal[is_new].mean()) if is_new.any() else 0.0
    return NewPrompts(line_of(tokens[is_new], ttft_s[is_new]), known_tokens)


def _is_new(own: pd.DataFrame, column: str) -> np.ndarray:
    """Return of which requests no more is known than what many prompts begin with; also where that is not
    said."""
    most = np.maximum(NEW_TOKENS, NEW_SHARE * floats(own["input_tokens"]))
    return ~np.asarray(floats(own[column]) > most)


def _has_ideal(cell: Cell) -> bool:
    return bool(cell.record and cell.record.ideal_by)


def _requests(run: Run, cell: Cell) -> pd.DataFrame:
    """Return a cell's ok requests of which the input and the ideal are known, warm-up included."""
    found = run.requests_with(cell.number, "group", "ideal_cached_tokens")
    is_known = (found["outcome"] == "ok") & found[["input_tokens", "ideal_cached_tokens"]].notna().all(axis=1)
    return taken(found[[*_COLUMNS, "in_window", "stays"]], is_known.to_numpy(dtype=bool))


# --- in words --------------------------------------------------------------------------------------


def doubts(served: Iterable[Served]) -> list[str]:
    """Say of which parts the three numbers contradict each other."""
    return list(filter(None, map(_doubt, served)))


def _doubt(each: Served) -> str | None:
    reported, told, on_page = each.reported, each.inferred, each.on_page
    if reported is None:
        return None
    if each.is_much(reported - each.ideal):
        return f"{_reported(each)}, and {each.ideal:,.0f} had been sent before"
    # By so much beyond the interval, which does not know how a machine's speed changes from cell to cell.
    if told and each.is_much(max(told.low - reported, reported - told.high)):
        return f"{_reported(each)}, and {_by_ttft(told)}"
    # The page also counts what is under way at a window's ends: there have to be many requests beside those.
    at_ends = 2 * (each.group.cells[0].at_once or each.requests)
    is_known = on_page is not None and at_ends <= DISAGREE_SHARE * each.requests
    if on_page is not None and is_known and each.is_much(abs(reported - on_page)):
        return f"{_reported(each)}, and by its page of metrics it is {on_page:,.0f}"
    return None


def confirmation(each: Served) -> str:
    """Say whether the times confirm what is reported, where nothing contradicts it: all of the interval is
    near it. Nothing where they or it are not known."""
    told = each.inferred
    if each.reported is None or told is None:
        return ""
    is_wide = each.is_much(max(each.reported - told.low, told.high - each.reported))
    judged = "too wide to tell" if is_wide else f"the same within {100 * DISAGREE_SHARE:.0f} % of the input"
    return f"{_reported(each)}, and {_by_ttft(told)}: {judged}"


def _reported(each: Served) -> str:
    tokens = f"{each.reported or 0:,.0f} of {each.input_tokens:,.0f} tokens"
    return f"{each.part or 'all requests'}: it reports {tokens} as cached"


def _by_ttft(told: Inferred) -> str:
    return f"by TTFT it is {told.tokens:,.0f} [{told.low:,.0f}, {told.high:,.0f}]"
