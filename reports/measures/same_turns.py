"""Token counts of the turns that several deployments answered: the fast ones play more, and those would be no
comparison. Arrays, since a group may have a hundred thousand. Judges nothing.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reports.data.cells import Group
from reports.data.run import Run

_TURN_BITS = 16  # turn is an int16


@dataclass(frozen=True)
class Turns:
    """A token count by the cell's seed, conversation and turn: what is the same request for every deployment.
    By seed: sorted keys of conversation and turn, and the count of each."""

    by_seed: Mapping[int, tuple[np.ndarray, np.ndarray]]

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def tokens(self) -> np.ndarray:
        """All counts, in the order of seed, conversation, turn."""
        return np.concatenate([np.empty(0), *(self.by_seed[seed][1] for seed in sorted(self.by_seed))])

    @cached_property
    def turn(self) -> np.ndarray:
        """The turn of each, from 0."""
        keys = [self.by_seed[seed][0] for seed in sorted(self.by_seed)]
        return np.concatenate([np.empty(0, dtype=np.int64), *keys]) & ((1 << _TURN_BITS) - 1)

    @property
    def mean(self) -> float | None:
        """None of none."""
        return float(self.tokens.mean()) if len(self) else None


def turns_of(run: Run, group: Group, column: str) -> Turns:
    """A token count of a group's ok requests that have it; of windows that were tried again, the last."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for cell in group.counted:
        rows = run.cell_requests(cell.number)
        tokens = rows[column].to_numpy(dtype=float, na_value=np.nan)
        kept = (rows["outcome"] == "ok").to_numpy(dtype=bool) & ~np.isnan(tokens)
        conversation, turn = (rows[name].to_numpy(dtype=np.int64) for name in ("conversation", "turn"))
        keys = (conversation << _TURN_BITS) + turn
        found.setdefault(cell.planned.seed, []).append((keys[kept], tokens[kept]))
    return Turns({seed: _last_of_each(parts) for seed, parts in found.items()})


def _last_of_each(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    keys, tokens = (np.concatenate([part[at] for part in parts])[::-1] for at in (0, 1))
    unique, first = np.unique(keys, return_index=True)
    return unique, tokens[first]


def shared(found: Sequence[Turns]) -> list[Turns]:
    """Each with the turns that all of them have, so in one order."""
    if not found:
        return []
    seeds = set.intersection(*(set(turns.by_seed) for turns in found))
    common = {
        seed: functools.reduce(_intersection, (turns.by_seed[seed][0] for turns in found)) for seed in seeds
    }
    return [
        Turns({seed: (keys, _at(*turns.by_seed[seed], keys)) for seed, keys in common.items()})
        for turns in found
    ]


def _intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.intersect1d(a, b, assume_unique=True)


def _at(keys: np.ndarray, tokens: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.asarray(tokens[np.searchsorted(keys, wanted)])


def same_turns(run: Run, groups: Iterable[Group], column: str) -> dict[str, Turns]:
    """Per deployment with values, a count of the turns that all of those answered."""
    found = {group.deployment: turns_of(run, group, column) for group in groups}
    found = {name: turns for name, turns in found.items() if len(turns)}
    return dict(zip(found, shared(list(found.values())), strict=True))
