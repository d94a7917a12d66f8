"""bench, its load processes, watchdogs and servers, killed and signalled: what was measured is kept."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM

import pytest
from bench_command import begun, ended, made, quick, side_by_side
from blows import SEED, Blow, kill, kind_of, send, stop_and_continue, struck
from waiting import wait_until

STOPPED_S = 1.5
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
    assert strike(tmp_path, KILLS, blows=20, runs=4).count(-SIGKILL) == 10


@pytest.mark.faults
def test_20_signals_lose_nothing(tmp_path: Path) -> None:
    codes = strike(tmp_path, SIGNALS, blows=20, runs=4)
    # Few of them come before bench heeds them, or when only the report is left.
    assert sum(code in {128 + SIGINT, 128 + SIGTERM, 128 + SIGHUP, 128 + SIGQUIT} for code in codes) >= 8


@pytest.mark.faults
def test_a_load_process_that_was_stopped_makes_its_cell_suspect(tmp_path: Path) -> None:
    place = made(tmp_path / "p")
    with begun(place, "run", *quick("load.duration=5s"), "--output", "run") as process:
        wait_until(lambda: place.rows_so_far(1) >= 2, 30)
        (load,) = [each for each in place.processes() if kind_of(each) == "load"]
        load.suspend()
        time.sleep(STOPPED_S)  # what is tried, and no condition
        load.resume()
        done = ended(process)
    assert done.returncode == 0, done.stderr
    (cell,) = place.cells().values()
    assert (cell["status"], cell["validity"]) == ("completed", "suspect")
    (reason,) = [each for each in cell["reasons"] if "bench itself stood still for" in each]
    assert reason in place.report()


@pytest.mark.faults_long
def test_100_kills_lose_nothing(tmp_path: Path) -> None:
    assert strike(tmp_path, KILLS, blows=100, runs=4).count(-SIGKILL) == 50
