"""Whatever a running server says of itself, its run can be read by every command."""

import json
from pathlib import Path

import pytest
from bench_command import Place, attached, bench, made, told
from captured import Replay, captured, replaying
from fake_http import fake_http
from odd_facts import ODD, PAGES, all_odd, odd, odd_run
from places import TESTS

from serving_bench.harness.store import store

# Each reads a run that holds what odd pages said.
READING = (
    ("report", "run"),
    ("report", "run", "--format", "json", "--output", "numbers.json"),
    ("compare", "other", "run", "--json"),
    ("gate", "run", "other"),
    ("view", "."),
)


def measured(place: Place, engine: str) -> None:
    """Measure at each odd value in each place of a page, and at pages that are one odd value."""
    page = PAGES[engine]
    pages = [page, *(all_odd(page, turn) for turn in range(len(ODD))), *ODD[:3]]
    odd_run(place.run_dir, engine, pages)
    starts = store.read_starts(place.run_dir)
    assert len(starts) == len(pages)
    assert starts[0].resolved


@pytest.mark.faults
@pytest.mark.parametrize("engine", PAGES)
def test_what_a_server_says_can_be_read_by_every_command(engine: str, tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    measured(place, engine)
    odd_run(place.path / "other", engine, [PAGES[engine]])
    typed = (f"{key}={place.run()['settings'][key]}" for key in ("engine.base_url", "model"))
    for words in (*READING, ("run", "--resume", "run", *typed)):
        done = told(place, *words)
        assert done.returncode in (0, 3), (words, done.stderr)
        assert "damaged" not in done.stdout + done.stderr
    assert "\x1b" not in place.report()


def test_a_run_at_an_odd_server_ends_well_and_is_read_again(tmp_path: Path) -> None:
    place = made(tmp_path / "place")
    with fake_http(odd(all_odd(PAGES["sglang"], 0))) as server:
        keys = attached(server.base_url, "model=m", engine="sglang")
        done = bench(place, "run", *keys, "--output", "run")
    assert done.returncode == 0, done.stderr
    report = place.path / done.stdout.strip()
    report.unlink()
    again = told(place, "report", "run")
    assert (again.returncode, again.stderr) == (0, "")
    assert report.is_file()


@pytest.mark.faults
def test_a_run_goes_on_and_resumes_whatever_shape_the_server_s_page_has(tmp_path: Path) -> None:
    place, folder = made(tmp_path / "place"), TESTS / "data/tgi/v3"
    answers = {"/v1/models": "models", "/info": "info", "/v1/chat/completions": "chat-stream"}
    info = {**captured(folder / "info.http").value, "max_total_tokens": {"tokens": 4096}}
    with replaying(Replay(folder, answers, changed={"/info": json.dumps(info).encode()})) as replay:
        words = ("load.concurrency=1,2", "load.duration=1s", "model=tgi")
        keys = attached(replay.base_url, *words, engine="tgi")
        done = bench(place, "run", *keys, "--output", place.run_dir)
        assert done.returncode == 0, done.stderr
        assert "tgi: the server says context_length={'tokens': 4096}: left out" in done.stderr
        (place.run_dir / "cells" / "001" / "cell.json").unlink()
        resumed = bench(place, "run", "--resume", place.run_dir)
    assert resumed.returncode == 0, resumed.stderr
    known = {"engine_version", "max_input_tokens", "max_concurrent_requests"}
    assert [start["resolved"].keys() for start in place.starts()] == [known, known]
    assert [cell["status"] for cell in place.cells().values()] == ["completed", "completed"]
