"""The steps of a start, read from a log while a real process writes it; its end, and remedies."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from waiting import wait_until

from harness.contracts import Hint, Stage
from harness.servers.server import Stages, log_tail, remedies, telling_line, watched_stages

OUT_OF_MEMORY = Hint(r"CUDA out of memory|OutOfMemoryError", "lower vllm.gpu_memory_utilization")
STAGES = (Stage("weights_loaded", r"loaded in [\d.]+ s"), Stage("engine_ready", r"^graphs captured"))
WRITER = r"""
import sys
def say(text):
    sys.stdout.write(text); sys.stdout.flush(); sys.stdin.readline()
say("booting\n")
say("\x1b[32mweights loa")
say("ded in 1.5 s\x1b[0m\n")
say("Capturing:  50%\rgraphs captured\r")
"""


def test_each_stage_has_the_instant_of_its_line(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    begun_ns = time.monotonic_ns()
    with (
        log.open("wb") as out,
        subprocess.Popen([sys.executable, "-c", WRITER], stdout=out, stdin=subprocess.PIPE) as writer,
        watched_stages(log, STAGES) as stages,
    ):
        assert writer.stdin

        def go_on() -> None:
            assert writer.stdin
            writer.stdin.write(b"\n")
            writer.stdin.flush()

        wait_until(lambda: stages.reached)
        assert list(stages.reached) == ["process_up"]
        go_on()
        wait_until(lambda: log.read_bytes().endswith(b"loa"))
        assert list(stages.reached) == ["process_up"]  # half a line says nothing yet
        go_on()
        wait_until(lambda: "weights_loaded" in stages.reached)
        assert len(stages.reached) < 3
        go_on()
        wait_until(lambda: len(stages.reached) == 3)
        go_on()
    up, loaded, ready = (stages.reached[name] for name in ("process_up", "weights_loaded", "engine_ready"))
    assert begun_ns < up < loaded < ready < time.monotonic_ns()


def test_a_stage_keeps_the_instant_of_its_first_line(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("loaded in 1 s\n")
    stages = Stages(log, STAGES)
    stages.look()
    first_ns = stages.reached["weights_loaded"]
    with log.open("a") as out:
        out.write("loaded in 2 s\n")
    stages.look()
    assert stages.reached["weights_loaded"] == first_ns


def test_what_never_happened_is_left_out(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with watched_stages(log, STAGES) as stages:
        assert stages.reached == {}
        log.write_text("Traceback: something else\n")
    assert list(stages.reached) == ["process_up"]


def test_a_slow_callback_delays_no_later_stage_and_no_look(tmp_path: Path) -> None:
    log, release, told = tmp_path / "server.log", threading.Event(), list[str]()

    def slow(name: str) -> None:
        told.append(name)
        release.wait(30)

    with watched_stages(log, STAGES, slow) as stages:
        log.write_text("booting\n")
        wait_until(lambda: told)
        written_ns = time.monotonic_ns()
        with log.open("a") as out:
            out.write("loaded in 1 s\n")
        wait_until(lambda: "weights_loaded" in stages.reached)
        with log.open("a") as out:
            out.write("graphs captured\n")
        stages.look()
        assert len(stages.reached) == 3
        assert stages.reached["engine_ready"] - written_ns < 1e9
        assert told == ["process_up"]
        release.set()
    assert told == ["process_up", "weights_loaded", "engine_ready"]


def test_a_log_tail_takes_any_bytes_and_only_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        b"first\n" + b"x" * 300_000 + b"\n\xff\xfe bad\nprogress 1\rprogress 2\n\x1b[1;32mdone\x1b[0m\n"
    )
    tail = log_tail(path, lines=4)
    assert tail == "\ufffd\ufffd bad\nprogress 1\nprogress 2\ndone"
    assert "first" not in log_tail(path, lines=1000)


def test_a_log_that_does_not_exist_has_an_empty_tail(tmp_path: Path) -> None:
    assert log_tail(tmp_path / "absent") == ""


def test_each_remedy_is_named_once_and_only_where_its_pattern_is_found(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("OutOfMemoryError\nCUDA out of memory\n")
    hints = [
        OUT_OF_MEMORY,
        OUT_OF_MEMORY,
        Hint("libcuda", "install CUDA"),
        Hint("^CUDA.*memory$", "free some"),
    ]
    assert remedies(tmp_path / "log", hints) == ["lower vllm.gpu_memory_utilization", "free some"]


SHARD = Hint(r"^Error: Shard", "see before that", is_effect=True)


def test_the_line_that_is_quoted_is_the_last_that_names_an_error_and_not_its_effect() -> None:
    tail = "ValueError: a window of 512\nINFO stopping\nError: ShardFailed\nINFO stopped"
    assert telling_line(tail) == "Error: ShardFailed"
    assert telling_line(tail, [OUT_OF_MEMORY, SHARD]) == "ValueError: a window of 512"


def test_an_effect_is_quoted_where_nothing_before_it_names_an_error() -> None:
    assert telling_line("INFO stopping\nError: ShardFailed\nINFO stopped", [SHARD]) == "Error: ShardFailed"
    assert telling_line("INFO stopping\nINFO stopped", [SHARD]) == "INFO stopped"
    assert telling_line("", [SHARD]) == "(empty)"
