"""The same request on two deployments: how much later its tokens came, and whether the answers agree.

A request is the same where repeat, conversation and turn are: `conversation` counts the conversations of a
cell's seed, whoever plays them and in however many processes, and the seed is the same for every deployment.
Requests of one start are not independent, so nothing here is a verdict. Draws nothing.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports.data.cells import Cell, Group
from reports.data.run import Run
from reports.data.tables import common_shares, read_answers
from reports.measures.equal_work import work_of
from reports.measures.metrics import is_supported
from reports.measures.over_starts import withheld

DELTAS = ("ttft_s", "tpot_s", "e2e_s")
LEVELS = (5, 25, 50, 75, 95)
_TURN_BITS = 16  # turn is an int16


@dataclass(frozen=True)
class Deltas:
    """a - b of a latency over `n` pairs, in seconds: the values at LEVELS, None where so few pairs do not
    support one, and the share of pairs in which a took less. `why_none`: why there is none."""

    n: int
    levels: tuple[float | None, ...] = (None,) * len(LEVELS)
    faster_share: float | None = None
    why_none: str | None = None

    def at(self, level: int) -> float | None:
        return self.levels[LEVELS.index(level)]


@dataclass(frozen=True)
class Agreement:
    """Of `n` pairs of answers: how many are alike in every character, reasoning included; of the others, the
    median share of the longer one's characters before the first that differs (None where all agree)."""

    n: int
    agree: int
    common_share: float | None

    @property
    def agree_share(self) -> float | None:
        return self.agree / self.n if self.n else None


@dataclass(frozen=True)
class TurnPairs:
    """The pairs of one turn, from 0."""

    turn: int
    ttft_s: Deltas
    agreement: Agreement


@dataclass(frozen=True)
class Paired:
    """Two groups of one scenario and load, `a` against the baseline `b`: `n` pairs over `blocks` repeats.
    `why_none`: why their requests are not the same."""

    a: Group
    b: Group
    n: int
    blocks: int
    deltas: dict[str, Deltas]
    agreement: Agreement
    by_turn: tuple[TurnPairs, ...]
    why_none: str | None = None


def paired(run: Run, groups: Sequence[Group], baseline: Group) -> list[Paired]:
    """Each of the groups against the baseline, all of one scenario and load. Has the texts of three cells at
    a time in memory; reads each cell's once."""
    others = [group for group in groups if group is not baseline]
    alike = [group for group in others if _why_unlike(run, group, baseline) is None]
    found: dict[str, list[_Block]] = {group.deployment: [] for group in others}
    for cell in baseline.counted:
        partners = [(group, partner) for group in alike if (partner := _partner(group, cell))]
        if not partners:
            continue
        sides = _sides(run, [cell, *(partner for _, partner in partners)])
        own = next(sides)
        for group, _ in partners:
            found[group.deployment].append(_block(next(sides), own))
    return [_paired(run, group, baseline, found[group.deployment]) for group in others]


def _sides(run: Run, cells: Sequence[Cell]) -> Iterator["_Side"]:
    """Of one cell after the other; the next one is read while one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(_Side.of, run, cells[0])
        for cell in cells[1:]:
            side, following = following.result(), pool.submit(_Side.of, run, cell)
            yield side
        yield following.result()


def _partner(group: Group, cell: Cell) -> Cell | None:
    """The group's cell of the same repeat and seed: of the same conversations."""
    same = (c for c in group.counted if c.planned.repeat == cell.planned.repeat)
    return next((c for c in same if c.planned.seed == cell.planned.seed), None)


def _why_unlike(run: Run, a: Group, b: Group) -> str | None:
    if work_of(run).prompt_class(a.deployment) != work_of(run).prompt_class(b.deployment):
        return "their prompts are not the same"
    return None


# --- one block -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """A cell's ok requests of the window in the stored order, with their keys (conversation and turn) and
    their texts."""

    keys: np.ndarray
    frame: pd.DataFrame
    answers: Any

    @classmethod
    def of(cls, run: Run, cell: Cell) -> "_Side":
        frame = run.ok_requests(cell.number, "conversation", "turn", *DELTAS, "output_tokens")
        conversation, turn = (frame[name].to_numpy(dtype=np.int64) for name in ("conversation", "turn"))
        return cls((conversation << _TURN_BITS) + turn, frame, read_answers(run.path, cell.number))


@dataclass(frozen=True)
class _Block:
    """A repeat's pairs: the turn of each, deltas of each latency (NaN where one has none), and the share of
    leading characters that the answers have in common."""

    turn: np.ndarray
    deltas: dict[str, np.ndarray]
    common: np.ndarray


def _block(a: _Side, b: _Side) -> _Block:
    keys, at_a, at_b = np.intersect1d(a.keys, b.keys, return_indices=True)
    rows_a, rows_b = a.frame.iloc[at_a], b.frame.iloc[at_b]
    deltas = {name: _numbers(rows_a, name) - _numbers(rows_b, name) for name in DELTAS}
    # A longer answer takes longer: that is no difference between the servers.
    is_as_long = _numbers(rows_a, "output_tokens") == _numbers(rows_b, "output_tokens")
    deltas["e2e_s"] = np.where(is_as_long, deltas["e2e_s"], np.nan)
    common = common_shares(a.answers, at_a, b.answers, at_b)
    return _Block(keys & ((1 << _TURN_BITS) - 1), deltas, common)


def _numbers(rows: pd.DataFrame, name: str) -> np.ndarray:
    return np.asarray(rows[name].astype("Float64").to_numpy(dtype=float, na_value=np.nan))


# --- several blocks --------------------------------------------------------------------------------


def _paired(run: Run, a: Group, b: Group, blocks: Sequence[_Block]) -> Paired:
    why = _why_unlike(run, a, b)
    if why or not blocks:
        return Paired(a, b, 0, 0, {}, Agreement(0, 0, None), (), why or "no repeat has both")
    turn, common = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("turn", "common"))
    of_all = {name: np.concatenate([block.deltas[name] for block in blocks]) for name in DELTAS}
    deltas = {}
    for name, values in of_all.items():
        held = withheld(run, a.key, name) or withheld(run, b.key, name)
        deltas[name] = Deltas(0, why_none=held) if held else _deltas(values)
    return Paired(
        a,
        b,
        len(turn),
        sum(len(block.turn) > 0 for block in blocks),
        deltas,
        _agreement(common),
        tuple(
            TurnPairs(int(each), _deltas(of_all["ttft_s"][turn == each]), _agreement(common[turn == each]))
            for each in np.unique(turn)
        ),
    )


def _deltas(values: np.ndarray) -> Deltas:
    known = values[~np.isnan(values)]
    n = len(known)
    if not n:
        return Deltas(0, why_none="no pair has it")
    # A low level needs as many pairs as the high one that mirrors it.
    levels = [
        float(np.percentile(known, level)) if is_supported(max(level, 100 - level), n) else None
        for level in LEVELS
    ]
    return Deltas(n, tuple(levels), float((known < 0).mean()))


def _agreement(common: np.ndarray) -> Agreement:
    differ = common[common < 1]
    share = float(np.median(differ)) if len(differ) else None
    return Agreement(len(common), len(common) - len(differ), share)
