"""Every scenario is played to the end against bench's own server."""

from pathlib import Path

import pytest
from bench_command import Place, attached, bench, made, quick
from reference_serving import FAST, serving

from serving_bench.harness.store import store
from serving_bench.scenarios import SCENARIOS

# They say themselves when they begin, or need a file.
APART = ("burst", "file", "trace")
TOGETHER = [name for name in SCENARIOS if name not in APART]


def outcomes(place: Place) -> dict[str, set[str]]:
    """What became of the requests of each scenario."""
    found: dict[str, set[str]] = {}
    for number, cell in place.cells().items():
        assert cell["status"] == "completed", cell
        rows = store.read_requests(store.cell_dir(place.run_dir, number)).to_pylist()
        found.setdefault(cell["scenario"]["name"], set()).update(row["outcome"] for row in rows)
    return found


@pytest.mark.parametrize("half", [0, 1])
def test_every_scenario_is_answered(tmp_path: Path, half: int) -> None:
    place, names = made(tmp_path / "here"), TOGETHER[half::2]
    done = bench(
        place,
        "run",
        *quick(f"scenario={','.join(names)}", "load.concurrency=2"),
        "--output",
        "run",
        "--quiet",
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = outcomes(place)
    assert found.keys() == set(names)
    assert all(each <= {"ok", "left"} and "ok" in each for each in found.values()), found
    assert all(("left" in each) <= (name == "code_completion") for name, each in found.items())


def test_a_burst_and_a_batch_are_played_whole(tmp_path: Path) -> None:
    own = ("load.concurrency", "load.duration", "load.warmup", "load.min_requests")
    words = [word for word in quick() if not word.startswith(own)]
    burst = [
        "scenario=burst",
        "scenario.rate=4",
        "scenario.quiet=1s",
        "scenario.burst=5",
        "scenario.after=1s",
    ]
    batch = ["scenario=offline_batch", "load.arrival=batch", "load.conversations=7"]
    for name, given, requests in (("burst", burst, 13), ("batch", batch, 7)):
        place = made(tmp_path / name)
        done = bench(place, "run", *words, *given, "--output", "run", "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
        [(number, cell)] = place.cells().items()
        assert cell["summary"]["conversations_begun"] == requests
        rows = store.read_requests(store.cell_dir(place.run_dir, number)).to_pylist()
        assert [row["outcome"] for row in rows] == ["ok"] * requests
        assert {row["group"] for row in rows} == ({0, 1, 2} if name == "burst" else {None})


def test_each_request_reaches_the_adapter_of_its_group(tmp_path: Path) -> None:
    """By the bytes of the answers, in which the server names the model that it was asked for."""
    place = made(tmp_path / "here")
    words = ("scenario=lora_mix", "scenario.adapters=3", "scenario.zipf=0", "load.keep_bytes=true")
    done = bench(place, "run", *quick(*words), "--output", "run", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    [(number, cell)] = place.cells().items()
    names = [each["name"] for each in cell["adapters"]]
    assert names == ["random-0", "random-1", "random-2"]
    rows = store.read_requests(store.cell_dir(place.run_dir, number)).to_pylist()
    assert {row["group"] for row in rows} == {0, 1, 2}
    assert all(f'"model":"{names[row["group"]]}"' in row["raw_response"] for row in rows)


def test_an_adapter_that_a_running_server_does_not_have_is_an_http_error(tmp_path: Path) -> None:
    place = made(tmp_path / "here")
    with serving(*FAST, "--model=m", "--adapters=sql") as server:
        words = ("model=m", "scenario=lora_mix", "scenario.adapters=sql:chat", "scenario.zipf=0")
        keys = attached(f"http://127.0.0.1:{server.port}/v1", *words, engine="reference")
        bench(place, "run", *keys, "--output", "run", "--quiet")
    [number] = place.cells()
    rows = store.read_requests(store.cell_dir(place.run_dir, number)).to_pylist()
    assert {(row["group"], row["outcome"]) for row in rows} == {(0, "ok"), (1, "http_error")}
    assert all("chat does not exist" in row["error"] for row in rows if row["group"])


def test_what_an_agent_sends_at_once_has_rows_and_room_of_its_own(tmp_path: Path) -> None:
    place = made(tmp_path / "here")
    words = [word for word in quick("load.warmup=0s", "load.concurrency=2") if "duration" not in word]
    agents = ["scenario=agent_loop", "scenario.steps=4", "scenario.parallel=3", "load.conversations=3"]
    done = bench(place, "run", *words, *agents, "--output", "run", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    [number] = place.cells()
    rows = store.read_requests(store.cell_dir(place.run_dir, number)).to_pylist()
    assert {row["outcome"] for row in rows} == {"ok"}
    assert sorted((row["conversation"], row["turn"], row["part"]) for row in rows) == [
        (task, *step) for task in range(3) for step in ((0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0))
    ]
    starts = store.read_starts(place.run_dir)
    assert {start.deployment.terms.concurrent_sequences for start in starts} == {6}
