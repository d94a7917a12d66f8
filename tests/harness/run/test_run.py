"""A run whose servers fail: each failure is recorded with its reason, and the rest is measured."""

import os
import re
import shutil
import signal
import socket
from collections import defaultdict
from dataclasses import dataclass
from errno import EDQUOT
from subprocess import CompletedProcess

import msgspec
import psutil
import pytest
from begun_run import Silent
from bench_command import Place, begun, bench, ended, quick, side_by_side
from make_run import S, row, run_record
from reference_serving import serving
from tiny_tokenizer import train
from waiting import wait_until

from serving_bench.harness.contracts import AttachSpec
from serving_bench.harness.describe.ideal import SentTexts
from serving_bench.harness.errors import CellError, Interrupted
from serving_bench.harness.plan import plan
from serving_bench.harness.run import session
from serving_bench.harness.run.cell import _job, run_cell
from serving_bench.harness.run.ideal import ideals_of
from serving_bench.harness.run.run import run_starts
from serving_bench.harness.run.start import Serving
from serving_bench.harness.run.watch import Site
from serving_bench.harness.sampling.guard import Guard
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store

CRASHES, MUTE, DIES, GOOD = "exit@0", "no_generation", "exit@1/11", "null"
FAULTS = (CRASHES, MUTE, DIES, GOOD)


def failing_run(place: Place) -> tuple[Place, CompletedProcess[str]]:
    """Four deployments, each with two cells."""
    words = quick(f"reference.fault={','.join(FAULTS)}", "load.concurrency=1,2", "engine.start_timeout=3s")
    return place, bench(place, "run", *words, "--output", "run")


@dataclass(frozen=True)
class Killed:
    """`before` is a copy of the run's directory as it was when bench had ended, `place` is resumed."""

    done: CompletedProcess[str]
    before: Place
    resumed: CompletedProcess[str]
    place: Place


def killed_run(place: Place) -> Killed:
    """Two starts of one cell; the first server is killed from outside while its cell runs."""
    words = quick("load.concurrency=2", "repeats=2", "load.duration=3s")
    with begun(place, "run", *words, "--output", "run") as process:
        wait_until(lambda: place.rows_so_far(1) >= 4, 40)
        os.kill(place.starts()[0]["pid"], signal.SIGKILL)
        done = ended(process)
    before = Place(place.path / "before")
    shutil.copytree(place.run_dir, before.run_dir)
    return Killed(done, before, bench(place, "run", "--resume", "run"), place)


def load_killed_run(place: Place) -> tuple[Place, CompletedProcess[str]]:
    """One start of two cells; the load process of the first is killed from outside. The server counts its
    tokens, beside a tokenizer that knows no word."""
    path = train(["a b"], place.path / "tokenizer.json")
    words = quick("load.concurrency=1,2", "load.duration=2s", f"load.tokenizer={path}")
    with begun(place, "run", *words, "--output", "run") as process:
        wait_until(lambda: place.rows_so_far(1) >= 3, 40)
        [worker] = [each for each in place.processes() if is_load(each)]
        worker.kill()
        return place, ended(process)


def is_load(process: psutil.Process) -> bool:
    return process.cmdline()[1:4] == ["-P", "-m", "serving_bench.harness.load.worker"]


def failed_share_run(place: Place) -> tuple[Place, CompletedProcess[str]]:
    """A server that answers 500 to every third request, and a load that bears a tenth of that."""
    words = quick(
        "reference.fault=http@500/3", "load.max_failed=10%", "load.concurrency=4", "load.duration=20s"
    )
    return place, bench(place, "run", *words, "--output", "run")


STORIES = {
    "failing": failing_run,
    "killed": killed_run,
    "load": load_killed_run,
    "failed share": failed_share_run,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with side_by_side(tmp_path_factory.mktemp("run"), STORIES) as runs:
        yield runs


@pytest.fixture
def place(runs) -> Place:
    return runs["failing"].result()[0]


@pytest.fixture
def failing(runs) -> CompletedProcess[str]:
    return runs["failing"].result()[1]


@pytest.fixture
def killed(runs) -> Killed:
    return runs["killed"].result()


def start_with(place: Place, fault: str) -> dict:
    [found] = [start for start in place.starts() if start["deployment"]["label"].endswith(f"fault={fault}")]
    return found


def cells_with(place: Place, fault: str) -> list[dict]:
    cells = sorted(place.cells().items())
    return [cell for _, cell in cells if cell["deployment"].endswith(f"fault={fault}")]


def test_failures_end_with_1_and_a_report_that_names_them(failing, place):
    assert (failing.returncode, failing.stdout) == (1, "run/report.html\n")
    assert "Traceback" not in failing.stderr
    assert place.run()["status"] == "completed"
    assert len(place.cells()) == 8
    assert "exited with code 3" in place.report()
    assert "engine.start_timeout=3s" in place.report()


def test_crash_before_ready_fails_all_cells_with_code_and_log(failing, place):
    start = start_with(place, CRASHES)
    assert (start["status"], start["exit_code"], start["ready_ns"]) == ("failed", 3, None)
    assert "exited with code 3" in start["error"]
    assert "before it was ready" in start["error"]
    assert "listening on http://127.0.0.1:" in start["log_tail"]
    assert start["stopped_ns"] > start["spawned_ns"]
    cells = cells_with(place, CRASHES)
    assert [(cell["status"], cell["error"]) for cell in cells] == [("failed", start["error"])] * 2
    assert start["error"] in failing.stderr


def test_server_that_never_generates_fails_after_the_start_timeout(failing, place):
    start = start_with(place, MUTE)
    assert "was not ready within engine.start_timeout=3s" in start["error"]
    assert "a generation answered 500" in start["error"]
    assert 3 <= (start["stopped_ns"] - start["spawned_ns"]) / 1e9 < 20
    assert [cell["status"] for cell in cells_with(place, MUTE)] == ["failed", "failed"]


def test_server_that_exits_in_a_cell_fails_it_and_what_was_to_follow(failing, place):
    start = start_with(place, DIES)
    assert (start["status"], start["exit_code"]) == ("failed", 3)
    assert start["ready_ns"] is not None
    in_flight, after = cells_with(place, DIES)
    assert "exited with code 3" in in_flight["error"]
    assert "exited with code 3" in after["error"]
    rows = store.read_requests(store.cell_dir(place.run_dir, in_flight["number"])).to_pylist()
    assert [row["outcome"] for row in rows[:2]] == ["ok", "ok"], "what was measured before is kept"
    assert "ok" not in [row["outcome"] for row in rows[2:]]
    assert rows[2]["outcome"] in ("reset", "protocol_error")


def test_the_others_are_measured(failing, place):
    assert start_with(place, GOOD)["status"] == "completed"
    for cell in cells_with(place, GOOD):
        assert (cell["status"], cell["error"]) == ("completed", None)
        assert cell["summary"]["requests"] > 2


def test_a_failing_run_leaves_nothing_behind(failing, place):
    place.wait_until_empty()
    assert not list(place.run_dir.glob("cells/*/rows.jsonl"))


def test_server_killed_in_a_cell_fails_that_cell_and_the_next_start_is_measured(killed):
    assert killed.done.returncode == 1, killed.done.stderr
    cells = killed.before.cells()
    assert [cells[number]["status"] for number in (1, 2)] == ["failed", "completed"]
    assert "was killed by signal 9 (SIGKILL)" in cells[1]["error"]
    rows = store.read_requests(store.cell_dir(killed.before.run_dir, 1))
    assert rows.num_rows >= 4, "what was measured before is kept"
    first, second = killed.before.starts()
    assert (first["status"], second["status"]) == ("failed", "completed")
    assert "SIGKILL" in first["error"]
    assert first["exit_code"] is None
    assert "SIGKILL" in killed.before.report()


def test_resume_measures_the_failed_cell_only(killed):
    assert killed.resumed.returncode == 0, killed.resumed.stderr
    place = killed.place
    for kept in ("cells/002", "starts/01-reference", "starts/02-reference"):
        before = {path.name: path.stat().st_mtime_ns for path in (killed.before.run_dir / kept).iterdir()}
        assert {path.name: path.stat().st_mtime_ns for path in (place.run_dir / kept).iterdir()} == before
    assert [start["status"] for start in place.starts()] == ["failed", "completed", "completed"]
    assert [cell["status"] for cell in place.cells().values()] == ["completed"] * 2
    assert (place.run_dir / "cells" / "001.attempt1" / "cell.json").exists()
    assert place.cells()[1]["start"] == place.starts()[2]["name"]
    assert place.run()["status"] == "completed"
    place.wait_until_empty()


def test_load_process_killed_in_a_cell_fails_that_cell_only(runs):
    place, done = runs["load"].result()
    assert done.returncode == 1
    first, second = (place.cells()[number] for number in (1, 2))
    assert first["status"] == "failed"
    assert "the load process ended with code -9" in first["error"]
    assert (second["status"], place.starts()[0]["status"]) == ("completed", "completed")
    assert store.read_requests(store.cell_dir(place.run_dir, 1)).num_rows >= 3
    assert "the load process ended with code -9" in place.report()
    place.wait_until_empty()


def test_in_a_pipe_there_are_lines_alone_with_each_cells_figures(runs):
    _, done = runs["load"].result()
    assert (done.returncode, done.stdout) == (1, "run/report.html\n")
    assert "\x1b" not in done.stderr
    assert not re.search("^(run|lately|phase) ", done.stderr, re.MULTILINE)
    figures = r"completed, \d+ requests, [\d,.]+ tokens/s"
    assert re.search(rf"cell 002 reference, \d users?: {figures}", done.stderr)


def test_tokens_are_counted_beside_the_server_and_the_report_tells_the_difference(runs):
    place, _ = runs["load"].result()
    [row, *_] = store.read_requests(store.cell_dir(place.run_dir, 2)).to_pylist()
    assert (row["token_source"], row["output_tokens"] > 0) == ("server", True)
    assert row["tokenizer_tokens"] > 2 * row["output_tokens"], "a byte each, nearly"
    assert "Server and tokenizer count differently" in place.report()


def test_a_load_with_too_many_failures_ends_and_keeps_what_it_measured(runs):
    place, done = runs["failed share"].result()
    assert done.returncode == 1
    cell = place.cells()[1]
    assert (cell["status"], cell["summary"]["ended_by"]) == ("failed", "failures")
    assert "requests failed than load.max_failed=10% allows; commonest: http_error: " in cell["error"]
    rows = store.read_requests(store.cell_dir(place.run_dir, 1)).to_pylist()
    assert {"ok", "http_error"} <= {row["outcome"] for row in rows}
    assert (cell["summary"]["window_end_ns"] - cell["summary"]["window_start_ns"]) / 1e9 < 15


class InterruptedAfterTheLoad:
    """Stands where a start's Watch does; the signal comes when the load has ended and nothing is stored."""

    def mark(self, name: str, t_ns: int | None = None) -> None:
        if name.endswith("window"):
            raise Interrupted(signal.SIGINT)

    def seen(self, since_ns: int, until_ns: int) -> None:
        """The guard is off and does not ask."""


def test_an_interrupt_while_a_cell_is_stored_keeps_it(tmp_path):
    words = quick("load.duration=300ms", "load.warmup=0s", "scenario.think_time=0s")
    [start] = plan.make(config.settings(overrides.parse(words))).starts
    site = Site(tmp_path, tmp_path, (), Guard("off", 0, Silent()), Silent())
    with serving("--ttft-s=0.01", "--itl-s=0.001") as server:
        spec = AttachSpec(f"http://127.0.0.1:{server.port}/v1", "reference")
        with pytest.raises(Interrupted):
            run_cell(Serving(start, spec, None, InterruptedAfterTheLoad(), None), start.cells[0], site)
    [cell] = store.read_cells(tmp_path)
    assert cell.status == "completed"
    assert store.read_requests(store.cell_dir(tmp_path, cell.number)).num_rows == cell.summary.requests > 0


def test_a_full_quota_says_as_a_full_disk_does_how_much_room_is_needed(tmp_path):
    whole = plan.make(config.settings(overrides.parse(quick())))
    record = run_record(whole)
    store.write_record(tmp_path / "run.json", record)

    def starts():
        raise OSError(EDQUOT, os.strerror(EDQUOT))
        yield

    site = Site(tmp_path, tmp_path, (), Guard("off", 0, Silent()), Silent())
    with pytest.raises(CellError, match=r"stored: Disk quota exceeded; about [0-9.]+ [kMG]i?B are"):
        session.measure(store.Kept(tmp_path / "run.json", record), starts(), site)
    assert store.read_run(tmp_path).status == "interrupted"


class InterruptedAtTheThird(defaultdict[str | None, SentTexts]):
    """What a start was sent; the signal comes while a cell's third request is replayed."""

    def __init__(self) -> None:
        super().__init__(SentTexts)
        self.asked = 0

    def __getitem__(self, adapter: str | None) -> SentTexts:
        self.asked += 1
        if self.asked == 3:
            raise Interrupted(signal.SIGINT)
        return super().__getitem__(adapter)


def test_a_cell_whose_replay_was_interrupted_does_not_know_its_own_prompts(tmp_path):
    # However slow the machine is, three are sent.
    enough = ("load.min_requests=3", "load.steps=100")
    words = quick("load.duration=300ms", "load.warmup=0s", "scenario.think_time=0s", *enough)
    [start] = plan.make(config.settings(overrides.parse(words))).starts
    site, sent = Site(tmp_path, tmp_path, (), Guard("off", 0, Silent()), Silent()), InterruptedAtTheThird()
    with serving("--ttft-s=0.01", "--itl-s=0.001") as server:
        spec = AttachSpec(f"http://127.0.0.1:{server.port}/v1", "reference")
        with pytest.raises(Interrupted):
            run_cell(Serving(start, spec, None, Silent(), None, sent=sent), start.cells[0], site)
    [cell] = store.read_cells(tmp_path)
    rows = store.read_requests(store.cell_dir(tmp_path, cell.number)).to_pylist()
    assert (cell.status, cell.ideal_by, sent.asked) == ("completed", {}, 3)
    assert {row["ideal_cached_tokens"] for row in rows} == {None}


def test_a_cells_texts_are_counted_once_for_a_while_and_never_by_a_server_of_others(tmp_path, monkeypatch):
    chats, rows, asked = tmp_path / "chats.jsonl", tmp_path / "rows.jsonl", list[str]()
    chats.write_text(3 * '{"prompt": "one two", "max_tokens": 2}\n')
    sent = (row(0, k * S, request_id=str(k), conversation=k, turn=0, input_tokens=20) for k in range(3))
    rows.write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in sent))

    class Words:
        def count(self, texts):
            asked.extend(texts)
            return [len(text.split()) for text in texts]

    with socket.create_server(("127.0.0.1", 0)) as of_others:
        url = f"http://127.0.0.1:{of_others.getsockname()[1]}/v1"
        words = ["engine=llama_cpp", f"engine.base_url={url}", "model=m", "scenario=file"]
        settings = config.settings(overrides.parse([*words, f"scenario.path={chats}"]))
        [start, *_] = plan.make(settings).starts
        up = Serving(start, AttachSpec(url, "m"), None, Silent(), None)
        job = _job(up, start.cells[0], tmp_path)
        by_tokenizer, by_characters = {"tokens": 3}, {"tokens": 1, "characters": 2}
        assert ideals_of(up, job, Words())[1] == by_tokenizer
        assert asked == ["one two"]
        up.sent.clear()
        assert ideals_of(up, job, None)[1] == by_characters
        up.sent.clear()
        monkeypatch.setattr("serving_bench.harness.run.ideal.COUNTING_S", 0)
        assert ideals_of(up, job, Words())[1] == by_characters
        of_others.setblocking(False)
        with pytest.raises(BlockingIOError):
            of_others.accept()
    assert asked == ["one two"]


class Waits(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def waits(self, what: str, unfit: str) -> None:
        self.lines.append(f"{what}: {unfit}")


def test_a_start_that_waits_for_the_machine_says_so(tmp_path, monkeypatch):
    observer = Waits()
    guard = Guard("mark", 0.1, observer)
    # All of the memory would have to be free.
    monkeypatch.setattr("serving_bench.harness.sampling.guard.FREE_SHARE", 1.0)
    words = ("engine=reference", "repeats=1")
    whole = plan.make(config.settings(overrides.parse(words)))
    run_starts(whole.starts, Site(tmp_path, tmp_path, (), guard, observer, next_cell=lambda *_: None))
    [said] = observer.lines
    assert said.startswith("01-reference: up to ")
