"""bench, its load processes, watchdogs and servers, killed and signalled: what was measured is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM

import pytest
from bench_command import side_by_side
from blows import SEED, Blow, kill, send, stop_and_continue, struck

KILLS = tuple(map(kill, ("bench", "load", "bench", "watchdog", "bench", "server")))
SIGNALS = (send(SIGINT), send(SIGTERM), send(SIGHUP), send(SIGQUIT), send(SIGINT, SIGINT), stop_and_continue)


def strike(root: Path, kinds: Sequence[Blow], blows: int, runs: int) -> list[int]:
    """Share out so many blows, of all kinds in turn, among runs that are measured side by side.

    Returns bench's exit codes.
    """
    drawn = [kinds[number % len(kinds)] for number in range(blows)]
    stories = {
        f"run{number}": partial(struck, blows=drawn[number::runs], seed=SEED + number)
        for number in range(runs)
    }
    with side_by_side(root, stories) as begun:
        return [code for story in begun.values() for code in story.result()]


@pytest.mark.faults
def test_20_kills_lose_nothing(tmp_path: Path) -> None:
    codes = strike(tmp_path, KILLS, blows=20, runs=4)
    assert codes.count(-SIGKILL) == 10


@pytest.mark.faults
def test_20_signals_lose_nothing(tmp_path: Path) -> None:
    codes = strike(tmp_path, SIGNALS, blows=20, runs=4)
    # Few of them come before bench heeds them, or when only the report is left.
    assert sum(code in {128 + SIGINT, 128 + SIGTERM, 128 + SIGHUP, 128 + SIGQUIT} for code in codes) >= 8


@pytest.mark.faults_long
def test_100_kills_lose_nothing(tmp_path: Path) -> None:
    codes = strike(tmp_path, KILLS, blows=100, runs=4)
    assert codes.count(-SIGKILL) == 50
