"""bench, its load processes, watchdogs and servers, killed and signalled: what was measured is kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM

import pytest
from bench_command import side_by_side
from blows import SEED, Blow, kill, send, stop_and_continue, struck

KILLS = tuple(map(kill, ("bench", "load", "bench", "watchdog", "bench", "server")))
SIGNALS = (send(SIGINT), send(SIGTERM), send(SIGHUP), send(SIGQUIT), send(SIGINT, SIGINT), stop_and_continue)


def strike(root: Path, kinds: Sequence[Blow], blows: int, runs: int) -> None:
    """Share out so many blows, of all kinds in turn, among runs that are measured side by side."""
    drawn = [kinds[number % len(kinds)] for number in range(blows)]
    stories = {
        f"run{number}": partial(struck, blows=drawn[number::runs], seed=SEED + number)
        for number in range(runs)
    }
    with side_by_side(root, stories) as begun:
        for story in begun.values():
            story.result()


def test_a_terminal_that_is_closed_loses_nothing(tmp_path: Path) -> None:
    strike(tmp_path, (SIGNALS[2],), blows=1, runs=1)


@pytest.mark.faults
def test_20_kills_lose_nothing(tmp_path: Path) -> None:
    strike(tmp_path, KILLS, blows=20, runs=4)


@pytest.mark.faults
def test_20_signals_lose_nothing(tmp_path: Path) -> None:
    strike(tmp_path, SIGNALS, blows=20, runs=4)


@pytest.mark.faults_long
def test_100_kills_lose_nothing(tmp_path: Path) -> None:
    strike(tmp_path, KILLS, blows=100, runs=4)
