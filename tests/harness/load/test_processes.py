"""The load process of a cell: what it says, and how its failures are told."""

import json

import psutil
import pytest
from reference_serving import serving

from serving_bench.harness.contracts import Load, LoadJob
from serving_bench.harness.errors import LoadError, ServerError
from serving_bench.harness.load.processes import running_load
from serving_bench.harness.load.pulse import Progress
from serving_bench.harness.load.records import read_summary
from serving_bench.harness.store import request_table

CHAT = {"turns": 1, "output_tokens": 4, "think_time_s": 0.0}


def job(directory, port: int, **changes) -> LoadJob:
    fields = {
        "cell": "001", "base_url": f"http://127.0.0.1:{port}/v1", "model": "reference",
        "api_key_env": "OPENAI_API_KEY", "engine": "reference", "engine_options": {}, "fairness": "matched",
        "scenario": "chat_multi_turn", "scenario_options": CHAT,
        "load": Load(concurrency=1, warmup_s=0.1, duration_s=0.3), "seed": 1,
        "directory": str(directory),
    }  # fmt: skip
    return LoadJob(**(fields | changes))


@pytest.fixture(scope="module")
def port():
    with serving("--ttft-s=0.005", "--itl-s=0.001") as server:
        yield server.port


def play(tmp_path, made: LoadJob, check=lambda: None, hear=lambda progress: None):
    with running_load(made, tmp_path / "running") as pulses:
        for pulse in pulses:
            check()
            if pulse:
                hear(pulse)
    return read_summary(made)


def test_a_load_reports_progress_and_leaves_rows_and_summary(tmp_path, port):
    heard: list[Progress] = []
    made = job(tmp_path, port, load=Load(concurrency=1, warmup_s=0.1, duration_s=1.5))
    summary = play(tmp_path, made, hear=heard.append)
    rows = request_table.read_rows(tmp_path / "rows.jsonl")
    assert summary.requests == len(rows) > 2
    assert {row.outcome for row in rows} == {"ok"}
    assert heard
    assert all(progress.failed == 0 for progress in heard)
    assert read_summary(made) == summary
    assert list((tmp_path / "running").iterdir()) == []


def test_a_load_process_that_crashes_is_told_with_the_end_of_its_log(tmp_path, port):
    with pytest.raises(LoadError) as caught:
        play(tmp_path, job(tmp_path, port, scenario_options={"turns": "many"}))
    assert (tmp_path / "load.log").read_text().splitlines()[-1][:300] in str(caught.value)
    assert "turns" in str(caught.value)
    assert "ended with code 1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_load_process_that_does_not_know_its_scenario_says_so(tmp_path, port):
    with pytest.raises(LoadError, match="no scenario nonesuch"):
        play(tmp_path, job(tmp_path, port, scenario="nonesuch"))


def test_a_check_that_raises_ends_the_load_and_keeps_its_rows(tmp_path, port):
    made = job(tmp_path, port, load=Load(concurrency=1, warmup_s=0.1, duration_s=60))

    def check() -> None:
        if request_table.read_rows(tmp_path / "rows.jsonl"):
            raise ServerError("the server died")

    with pytest.raises(ServerError, match="the server died"):
        play(tmp_path, made, check)
    summary = read_summary(made)
    assert summary is not None
    assert summary.ended_by == "interrupted"
    assert request_table.read_rows(tmp_path / "rows.jsonl")


def test_what_a_killed_load_process_had_begun_is_lost(tmp_path):
    with serving("--ttft-s=0.005", "--itl-s=60") as slow:
        made = job(tmp_path, slow.port, load=Load(concurrency=3, warmup_s=0.0, duration_s=60))
        begun = tmp_path / "begun.jsonl"

        def kill_once_all_have_begun() -> None:
            if begun.exists() and len(begun.read_bytes().splitlines()) == 3:
                for child in psutil.Process().children(recursive=True):
                    if "serving_bench.harness.load.worker" in child.cmdline()[1:4]:
                        child.kill()

        with pytest.raises(LoadError, match="ended with code -9"):
            play(tmp_path, made, kill_once_all_have_begun)
    rows = request_table.read_rows(tmp_path / "rows.jsonl")
    assert [(row.outcome, row.error) for row in rows] == [("lost", "load worker 0 was lost")] * 3
    assert {row.user for row in rows} == {0, 1, 2}


def test_lost_requests_that_cannot_be_written_do_not_hide_why_the_load_ended(tmp_path, port, caplog):
    made = job(tmp_path, port, load=Load(concurrency=1, warmup_s=0.1, duration_s=60))

    def die() -> None:
        """Kill the load process, and put a device that is always full in its rows' place."""
        if request_table.read_rows(tmp_path / "rows.jsonl"):
            for child in psutil.Process().children(recursive=True):
                if "serving_bench.harness.load.worker" in child.cmdline()[1:4]:
                    child.kill()
            begun = (tmp_path / "begun.jsonl").read_bytes().splitlines(keepends=True)[-1]
            (tmp_path / "begun.jsonl").write_bytes(begun.replace(b'"00000001-', b'"00000009-'))
            (tmp_path / "rows.jsonl").unlink()
            (tmp_path / "rows.jsonl").symlink_to("/dev/full")

    with pytest.raises(LoadError, match="ended with code -9"):
        play(tmp_path, made, die)
    assert [message for message in caplog.messages if "No space left" in message] == [
        f"{made.rows_path}: which requests were lost could not be written: [Errno 28] No space left on device"
    ]


def test_a_summary_that_was_cut_short_is_none(tmp_path, port):
    (tmp_path / "summary.json").write_bytes(b'{"started_ns": 1')
    assert read_summary(job(tmp_path, port)) is None


def test_an_early_end_without_a_summary_is_none(tmp_path, port):
    assert read_summary(job(tmp_path, port)) is None


def test_the_job_on_disk_holds_no_key(tmp_path, port, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-this-test")
    play(tmp_path, job(tmp_path, port))
    assert json.loads((tmp_path / "job.json").read_text())["api_key_env"] == "OPENAI_API_KEY"
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"sk-secret" in path.read_bytes()]
