"""The whole path on the reference engine, whose send times are known: bench measured what happened."""

from __future__ import annotations

import json
import signal
import socket
import statistics
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import psutil
import pytest
from bench_command import Place, begun, bench, ended, made, quick, side_by_side
from reference_serving import serving
from waiting import wait_until

from engines.reference.engine import END, read_sends
from harness.store import checksums, store
from reports import open_run
from reports.data.samples import grown_in_cell

MS = 1_000_000
ASKED = ["reference label=a", "reference label=b"]


def clean_run(place: Place) -> Place:
    """Two equal deployments, each started twice, at two loads; beside folders called as our packages are."""
    for name in ("scenarios", "engines", "harness"):
        (place.path / name).mkdir()
    done = bench(
        place, "run", *quick("reference.label=a,b", "load.concurrency=1,4", "repeats=2"),
        "scenario.think_time=50ms", "--output", "run", "--quiet",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "run/report.html\n", "stdout holds the report's path and nothing else"
    return place


def requests_of(place: Place, cell: int) -> list[dict[str, Any]]:
    return store.read_requests(store.cell_dir(place.run_dir, cell)).to_pylist()


def test_deployments_are_interleaved(clean):
    run, starts = store.read_run(clean.run_dir), store.read_starts(clean.run_dir)
    assert run.status == "completed"
    assert run.ended_at is not None
    labels = [start.deployment.label for start in run.plan.starts]
    assert labels[:2] == labels[:1:-1], "the second block is the first turned round"
    assert sorted(labels[:2]) == list(run.plan.labels) == ASKED
    assert [(start.deployment.label, start.status) for start in starts] == [(n, "completed") for n in labels]
    spawned = [start.spawned_ns for start in starts]
    assert spawned == sorted(spawned)
    assert all(a.stopped_ns < b.spawned_ns for a, b in pairwise(starts)), "one server at a time"


def test_all_files_are_there_and_none_too_many(clean):
    names = {path.name for path in clean.run_dir.glob("cells/001/*")}
    assert names == {"cell.json", "requests.parquet", "load.log"}
    names = {path.name for path in clean.run_dir.glob("starts/01-*/*")}
    assert names == {"start.json", "server.log", "host.parquet", "server.parquet", "sends.bin"}
    names = {path.name for path in clean.run_dir.iterdir()}
    assert names == {".lock", "run.json", "starts", "cells", "headline.json", "report.html", "SHA256SUMS"}
    assert len(list(clean.run_dir.glob("cells/*/requests.parquet"))) == 8
    assert "reference label=b" in clean.report()


def test_starts_record_their_life_and_memory(clean):
    for start in store.read_starts(clean.run_dir):
        assert start.launch_s is not None
        assert 0 < start.launch_s < 30
        assert start.exit_code == 0
        names = [phase.name for phase in start.phases]
        first = 1 + 2 * (start.index - 1)
        cells = [
            f"cell {n:03d} {part}"
            for n in (first, first + 1)
            for part in ("reset", "warm-up", "window", "drain", "end")
        ]
        assert names == ["spawned", "process_up", "ready", *cells, "stopping"]
        assert start.resolved["concurrent_sequences"] == 4
        samples = store.read_samples(clean.run_dir / "starts" / start.name / "host.parquet")
        assert samples is not None
        assert samples.num_rows > 10


def test_window_is_the_rule_written_in_the_record(clean):
    for cell in store.read_cells(clean.run_dir):
        assert (cell.status, cell.validity) == ("completed", "valid"), cell
        assert cell.summary is not None
        window_s = (cell.summary.window_end_ns - cell.summary.window_start_ns) / 1e9
        assert window_s == pytest.approx(round(window_s), abs=0.3), "whole steps of load.duration"
        assert 1 <= round(window_s) <= 4
        rows = requests_of(clean, cell.number)
        within = [cell.summary.window_start_ns <= row["sent_ns"] < cell.summary.window_end_ns for row in rows]
        assert [row["in_window"] for row in rows] == within
        assert True in within
        assert {row["outcome"] for row in rows} == {"ok"}
        assert len({row["user"] for row in rows}) == cell.load.concurrency


def test_all_deployments_saw_the_same_conversations(clean):
    """Turn by turn: what is alike in all starts of a load and repeat is the text, not only its length."""
    by_seed: dict[int, list[dict[tuple[int, int], tuple[Any, ...]]]] = {}
    for cell in store.read_cells(clean.run_dir):
        turns = {
            (row["conversation"], row["turn"]): (row["input_tokens"], row["max_tokens"], row["output_text"])
            for row in requests_of(clean, cell.number)
        }
        by_seed.setdefault(cell.seed, []).append(turns)
    assert [len(pair) for pair in by_seed.values()] == [2, 2, 2, 2]
    for one, other in by_seed.values():
        both = one.keys() & other.keys()
        assert len(both) > 3
        assert {turn: one[turn] for turn in both} == {turn: other[turn] for turn in both}


def test_measured_times_are_the_servers_own(clean):
    first_lags_ms, itl_errors_ms = [], []
    for start in store.read_starts(clean.run_dir):
        sent: dict[str, list[int]] = {}
        sends = read_sends(clean.run_dir / "starts" / start.name / "sends.bin")
        for send in (each for each in sends if each.chunk < END):
            sent.setdefault(send.request_id, []).append(send.sent_ns)
            assert send.chunk == len(sent[send.request_id]) - 1
        for cell in (cell for cell in store.read_cells(clean.run_dir) if cell.start == start.name):
            assert cell.summary is not None
            slack_ns = cell.summary.clock_uncertainty_ns or 0
            for row in requests_of(clean, cell.number):
                ours, theirs = row["chunk_ns"], sent[row["request_id"]]
                assert len(ours) == len(theirs) == row["output_tokens"]
                assert row["first_content_ns"] == ours[0]
                assert all(a >= s - slack_ns for a, s in zip(ours, theirs, strict=True)), "before it was sent"
                assert row["sent_ns"] < theirs[0]
                first_lags_ms.append((ours[0] - theirs[0]) / MS)
                gaps = zip(pairwise(ours), pairwise(theirs), strict=True)
                itl_errors_ms += [abs((b - a) - (d - c)) / MS for (a, b), (c, d) in gaps]
    assert len(first_lags_ms) > 40
    assert statistics.median(first_lags_ms) < 5
    assert statistics.median(itl_errors_ms) < 5


def test_servers_counters_are_what_its_answers_say(clean):
    run = open_run(clean.run_dir)
    for cell in run.planned_cells:
        requests = run.cell_requests(cell.number)
        assert grown_in_cell(run, cell, "generated_tokens") == requests["output_tokens"].sum() > 0
        assert grown_in_cell(run, cell, "prompt_tokens") == requests["input_tokens"].sum() > 0
    for start in run.start_records:
        assert not [what for what in start.memory_notes if what.startswith("server ")]
        assert start.sampler["server_samples"] >= 2
    assert "What servers and their machine told" in clean.report()


def test_nothing_of_a_run_remains(clean):
    clean.wait_until_empty()
    assert not clean.processes()


def own_prompts(place: Place) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 3},
        {"prompt": "four"},
    ]
    (place.path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = quick("load.warmup=0s", "load.conversations=4", "scenario.output_tokens=2")
    words += ["scenario=file", "scenario.path=chats.jsonl"]
    done = bench(place, "run", *words, "--output", "run")
    assert done.returncode == 0, done.stderr
    asked = [(row["conversation"], row["max_tokens"], row["output_tokens"]) for row in requests_of(place, 1)]
    assert asked == [(0, 3, 3), (1, 2, 2), (2, 3, 3), (3, 2, 2)]
    assert place.cells()[1]["summary"]["ended_by"] == "conversations"


def lose_the_folder(place: Place) -> None:
    with begun(place, "run", *quick("load.duration=2s"), "--output", "run") as process:
        wait_until(lambda: place.rows_so_far(1) >= 1, 30)
        place.run_dir.rename(place.path / "moved")
        place.run_dir.write_text("nothing can be stored below a file")
        done = ended(process)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("run: what was measured last could not be stored: ")
    assert last.endswith("; once it can be, `bench run --resume run` measures it again")
    place.wait_until_empty()


def test_a_cell_that_cannot_be_stored_is_said_to_be_lost(stories):
    stories["lost"].result()


def interrupt_the_report(place: Place) -> None:
    with begun(place, "run", *quick(), "--output", "run") as process:
        assert process.stderr
        while "writing the report" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 0, said
    assert "finishing the report" in said
    assert place.report().endswith("</html>")


def test_ctrl_c_while_the_report_is_written_is_answered(stories):
    stories["reported"].result()


def test_own_prompts_from_a_file(stories):
    stories["file"].result()


def kill_and_resume(place: Place) -> None:
    words = quick("load.concurrency=1,2", "load.duration=2s")
    with begun(place, "run", *words, "--output", "run") as process:
        wait_until(lambda: place.rows_so_far(2) >= 4, 30)
        process.kill()
        process.wait()
        wait_until(lambda: not place.processes(), 15)
    assert place.run()["status"] == "running"
    assert list(place.cells()) == [1]

    done = bench(place, "report", "run")
    assert done.returncode == 0, done.stderr
    assert place.report().count(">in flight<") == 1

    kept = place.run_dir / "cells" / "001"
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    done = bench(place, "run", "--resume", "run")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    assert (place.run_dir / "cells" / "002.attempt1" / "rows.jsonl").exists()
    cells = place.cells()
    assert [cells[number]["status"] for number in (1, 2)] == ["completed", "completed"]
    assert cells[1]["start"] != cells[2]["start"], "measured on a new start"
    assert place.run()["status"] == "completed"
    assert "This run was cut short" not in place.report()
    assert not checksums.findings(place.run_dir)
    place.wait_until_empty()

    again = bench(place, "run", "--resume", "run")
    assert (again.returncode, again.stdout) == (0, "run/report.html\n")
    assert "nothing to measure" in again.stderr
    assert len(place.starts()) == 2


def test_kill_of_bench_leaves_nothing_and_loses_the_cell_in_flight_only(stories):
    stories["kill"].result()


# --- servers that run already ---------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """Streams three words, and notes the key of each request."""

    protocol_version = "HTTP/1.1"
    keys: set[str | None]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer("application/json", json.dumps({"data": [{"id": "tiny"}]}))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        deltas = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("a ", "b ", "c ")]
        usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 3}}
        events = [*map(json.dumps, [*deltas, usage]), "[DONE]"]
        self.answer("text/event-stream", "".join(f"data: {event}\n\n" for event in events))

    def answer(self, kind: str, text: str) -> None:
        self.keys.add(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def noting() -> Iterator[tuple[str, set[str | None]]]:
    """The base URL of a server, and the Authorization headers that it has seen."""
    keys: set[str | None] = set()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Noting", (Answers,), {"keys": keys})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1", keys
        server.shutdown()
        thread.join()


def attached(base_url: str, *words: str) -> list[str]:
    own = [word for word in quick(*words) if not word.startswith(("engine=", "reference."))]
    return ["run", "engine=openai", f"engine.base_url={base_url}", *own, "--output", "run"]


def attach_and_measure(place: Place) -> None:
    with serving("--ttft-s=0.02", "--itl-s=0.002") as server:
        done = bench(place, *attached(f"http://127.0.0.1:{server.port}/v1", "model=reference", "repeats=2"))
        assert server.process.poll() is None
    assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in place.cells().values()] == ["completed", "completed"]
    for start in place.starts():
        assert start["attached"]
        assert (start["pid"], start["spawned_ns"], start["exit_code"]) == (None, None, None)
    assert all(row["output_tokens"] == len(row["chunk_ns"]) for row in requests_of(place, 1))


def test_a_running_server_is_measured_and_left_running(stories):
    stories["attach"].result()


STORIES = {
    "clean": clean_run,
    "file": own_prompts,
    "kill": kill_and_resume,
    "attach": attach_and_measure,
    "lost": lose_the_folder,
    "reported": interrupt_the_report,
}


@pytest.fixture(scope="module")
def stories(tmp_path_factory) -> Iterator[dict[str, Future[Any]]]:
    with side_by_side(tmp_path_factory.mktemp("story"), STORIES) as begun_now:
        yield begun_now


@pytest.fixture
def clean(stories) -> Place:
    return stories["clean"].result()


def test_the_key_is_sent_and_appears_in_no_file_and_no_command_line(tmp_path, noting):
    place, key = made(tmp_path / "p"), "sk-a-secret-of-this-test"
    base_url, keys = noting
    words = attached(base_url, "model=tiny", "scenario.think_time=20ms")
    with begun(place, *words, OPENAI_API_KEY=key) as process:
        wait_until(lambda: place.rows_so_far(1), 30)
        command_lines = [word for each in place.processes() for word in _command_line(each)]
        during = _holding(place, key)
        done = ended(process)
    assert done.returncode == 0, done.stderr
    assert keys == {f"Bearer {key}"}, "every request bears it, those of the load included"
    assert any("harness.load.worker" in word for word in command_lines)
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
        done = bench(place, *attached(f"http://127.0.0.1:{port or server.port}/v1", f"model={model}"))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not place.run_dir.exists()


def test_a_running_server_has_the_time_that_the_user_gives_it_to_answer(tmp_path):
    place = made(tmp_path / "p")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/v1"
        done = bench(place, *attached(url, "model=reference", "engine.start_timeout=500ms"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"engine.base_url={url}: no server answers there: no answer within 0.5 s\n"
