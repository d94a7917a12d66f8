"""Races of real servers: who leaves, how it ends, what goes on, and what is refused."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from bench_command import Place, begun, bench, ended, quick, side_by_side, told
from waiting import wait_until

Ended = tuple[Place, CompletedProcess[str]]
Runs = dict[str, Future[Ended]]
SHORT = (
    "load.warmup=0.1s", "load.duration=0.5s", "reference.ttft=5ms", "scenario.think_time=0s", "quality=off"
)  # fmt: skip
FAST, SLOW, SLOWEST = (f"reference itl={itl}ms" for itl in ("2", "6", "20"))


def words(*more: str) -> list[str]:
    return quick("repeats=3..8", *SHORT, *more, "--output", "run")


def decided(place: Place) -> Ended:
    return place, bench(place, "run", *words("reference.itl=2ms,6ms,20ms"), "--json")


def interrupted(place: Place) -> Ended:
    """Interrupted in its second repeat, and resumed."""
    with begun(place, "run", *words("reference.itl=2ms,6ms,20ms")) as process:
        wait_until(lambda: process.poll() is not None or len(place.starts()) >= 5, 60)
        process.send_signal(signal.SIGINT)
        done = ended(process)
    assert done.returncode == 130, done.stderr
    assert place.run()["plan"]["race"]["looks"] == [1]
    return place, bench(place, "run", "--resume", "run", "--json")


STORIES = {"decided": decided, "interrupted": interrupted}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with side_by_side(tmp_path_factory.mktemp("races"), STORIES) as runs:
        yield runs


def answer_of(done: CompletedProcess[str]) -> dict[str, Any]:
    [answer] = json.loads(done.stdout)["answers"]
    return answer


def repeats_of(place: Place) -> dict[str, set[int]]:
    cells = place.cells().values()
    return {
        label: {c["repeat"] for c in cells if c["deployment"] == label} for label in (FAST, SLOW, SLOWEST)
    }


@pytest.mark.parametrize("story", ["decided", "interrupted"])
def test_a_race_ends_once_the_leader_has_beaten_all_others(runs: Runs, story: str) -> None:
    place, done = runs[story].result()
    assert done.returncode == 0, done.stderr
    answer, race = answer_of(done), place.run()["plan"]["race"]
    assert answer["kind"] == "named"
    assert answer["rows"][0]["deployment"] == FAST
    assert answer["confidence"] == pytest.approx(0.96)
    assert {each["behind"] for each in answer["left"].values()} == {FAST}
    assert (race["going"], race["looks"]) == ([], list(range(1, len(race["looks"]) + 1)))
    assert f"{SLOWEST} is started no more: behind {FAST} after " in done.stderr
    after = {label: each["after"] for label, each in answer["left"].items()}
    assert repeats_of(place) == {
        FAST: set(range(len(race["looks"]))),
        **{label: set(range(k)) for label, k in after.items()},
    }
    assert str(place.run()["stopped_because"]).startswith("the race was decided after ")
    assert "Who stayed in, repeat by repeat" in place.report()


def test_a_decided_race_measures_no_more_and_says_so(runs: Runs) -> None:
    place, _ = runs["decided"].result()
    starts = len(place.starts())
    done = told(place, "run", "--resume", "run")
    assert done.returncode == 0, done.stderr
    assert len(place.starts()) == starts


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("repeats=4", "repeats=4: this race may have 8; give more, or none"),
        ("repeats=5..20", "repeats=5..20: this race has 3 at least; give only the most, repeats=N"),
        ("repeats=5..3", "repeats=5..3: the most must be above the least"),
    ],
)
def test_a_race_is_resumed_with_no_fewer_repeats(runs: Runs, asked: str, said: str) -> None:
    done = told(runs["decided"].result()[0], "run", "--resume", "run", asked)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr


def test_compare_and_gate_mark_values_of_a_race(runs: Runs) -> None:
    (place, _), (other, _) = runs["decided"].result(), runs["interrupted"].result()
    for command in ("compare", "gate"):
        done = told(place, command, "run", str(other.run_dir))
        said = " ".join(done.stdout.split())
        assert "leads in it are on average too large. Use repeats=N on both sides." in said, done.stderr


def test_a_rerun_races_anew_with_all_deployments(runs: Runs) -> None:
    place, _ = runs["decided"].result()
    done = told(place, "rerun", "run", "--plan")
    assert done.returncode == 0, done.stderr
    assert "9 starts, 9 cells" in done.stdout + done.stderr


def test_a_race_is_not_merged(runs: Runs, tmp_path: Path) -> None:
    done = told(runs["decided"].result()[0], "merge", "run", "--output", tmp_path / "all")
    assert done.returncode == 2
    assert "is a race, which decides on its repeats itself; merge runs with repeats=N" in done.stderr


@pytest.mark.parametrize(
    ("key", "option", "said"),
    [
        ([], ["--only-repeat", "1"], "3..8: --only-repeat measures one of a fixed number; give repeats=N"),
        (["race.keep=reference x"], [], "race.keep=reference x: is no deployment of this plan"),
        (["compare.baseline=x"], [], "compare.baseline=x: is no deployment of this plan"),
    ],
)
def test_what_cannot_race_is_refused(runs: Runs, key: list[str], option: list[str], said: str) -> None:
    plain = quick("repeats=3..8", *SHORT, "reference.itl=2ms,6ms", *key)
    done = told(runs["decided"].result()[0], "run", *plain, *option, "--output", "no")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert said in done.stderr
