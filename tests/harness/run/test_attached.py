"""Servers that run already: measured and left running, their key told to nobody; and who gets no key."""

import json
import socket
from collections.abc import Iterator

import psutil
import pytest
from bench_command import Place, attached, begun, bench, ended, made, quick, told
from fake_http import FakeHttp, chat, fake_http, page
from reference_serving import serving
from waiting import wait_until

from serving_bench.harness.store import store


@pytest.fixture
def running() -> Iterator[FakeHttp]:
    """A server that streams three words."""
    words = chat("a ", "b ", "c ", prompt_tokens=5, completion_tokens=3)
    with fake_http({"/v1/models": page({"data": [{"id": "tiny"}]}), "/v1/chat/completions": words}) as server:
        yield server


def run_at(base_url: str, *words: str) -> list[str]:
    return ["run", *attached(base_url, *words), "--output", "run"]


def test_a_running_server_is_measured_and_left_running(tmp_path):
    place = made(tmp_path / "p")
    with serving("--ttft-s=0.02", "--itl-s=0.002") as server:
        done = bench(place, *run_at(f"http://127.0.0.1:{server.port}/v1", "model=reference", "repeats=2"))
        assert server.process.poll() is None
    assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in place.cells().values()] == ["completed", "completed"]
    for start in place.starts():
        assert start["attached"]
        assert (start["pid"], start["spawned_ns"], start["exit_code"]) == (None, None, None)
    rows = store.read_requests(store.cell_dir(place.run_dir, 1)).to_pylist()
    assert all(row["output_tokens"] == len(row["chunk_ns"]) for row in rows)


@pytest.mark.parametrize("key", ["", "sk-a-secret-of-this-test"])
def test_a_server_that_clients_left_is_watched_once_and_not_with_a_key(tmp_path, key):
    """The reference ends an answer that nobody reads. With a key each token may cost money."""
    place = made(tmp_path / "p")
    words = (
        "model=reference",
        "repeats=2",
        "load.timeout=250ms",
        "load.max_failed=100%",
        "scenario.output_tokens=24",
    )
    with serving("--ttft-s=0.02", "--itl-s=0.02") as server:
        bench(place, *run_at(f"http://127.0.0.1:{server.port}/v1", *words), OPENAI_API_KEY=key)
    for cell in (1, 2):
        rows = store.read_requests(store.cell_dir(place.run_dir, cell)).to_pylist()
        assert "timeout" in {row["outcome"] for row in rows}
    assert [start["busy_after_leaving_s"] for start in place.starts()] == [None if key else 0.0, None]


def test_the_key_is_sent_and_appears_in_no_file_and_no_command_line(tmp_path, running):
    place, key = made(tmp_path / "p"), "sk-a-secret-of-this-test"
    words = run_at(running.base_url, "model=tiny", "scenario.think_time=20ms")
    with begun(place, *words, OPENAI_API_KEY=key) as process:
        wait_until(lambda: place.rows_so_far(1), 30)
        command_lines = [word for each in place.processes() for word in _command_line(each)]
        during = _holding(place, key)
        done = ended(process)
    assert done.returncode == 0, done.stderr
    assert {each.key for each in running.requests} == {f"Bearer {key}"}, (
        "every request bears it, those of the load included"
    )
    assert any("serving_bench.harness.load.worker" in word for word in command_lines)
    assert not [word for word in command_lines if key in word]
    assert during == _holding(place, key) == []
    assert key not in done.stdout + done.stderr


def test_a_server_that_bench_starts_gets_no_key(tmp_path):
    """Neither in a request, whose job names no variable, nor in its environment."""
    place, key = made(tmp_path / "p"), "sk-a-secret-of-this-test"
    secrets = {"OPENAI_API_KEY": key, "HF_TOKEN": key, "DATABASE": "postgres://me:hunter2@db/x", "MINE": key}
    words = (*quick("load.duration=3s"), "--output", "run")
    with begun(place, "run", *words, **secrets, VLLM_LOGGING_LEVEL="INFO") as process:
        wait_until(lambda: place.rows_so_far(1), 30)
        job = json.loads((place.run_dir / "cells" / "001" / "job.json").read_text())
        server = psutil.Process(place.starts()[0]["pid"])
        seen = [server.environ(), server.parent().environ()]  # the server's and its watchdog's
        done = ended(process)
    assert done.returncode == 0, done.stderr
    assert [secrets.keys() & each.keys() for each in seen] == [set(), set()]
    assert place.starts()[0]["environment"]["VLLM_LOGGING_LEVEL"] == "INFO"
    assert seen[0]["BENCH_CACHE_DIR"] == str(place.cache), "all else is passed on"
    assert job["api_key_env"] == ""


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _holding(place: Place, key: str) -> list[str]:
    found = [path for path in place.path.rglob("*") if path.is_file()]
    return [str(path) for path in found if key.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("model", "port", "said"),
    [("other", None, "it serves reference"), ("reference", 1, "no server answers there")],
)
def test_a_running_server_that_cannot_be_measured_is_one_line(tmp_path, model, port, said):
    place = made(tmp_path / "p")
    with serving() as server:
        done = told(place, *run_at(f"http://127.0.0.1:{port or server.port}/v1", f"model={model}"))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not place.run_dir.exists()


def test_a_running_server_has_the_time_that_the_user_gives_it_to_answer(tmp_path):
    place = made(tmp_path / "p")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/v1"
        done = told(place, *run_at(url, "model=reference", "engine.start_timeout=500ms"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"engine.base_url={url}: no server answers there: no answer within 0.5 s\n"
