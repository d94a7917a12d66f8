"""The steps of a start, read from a log while a real process writes it; its end, and remedies."""

import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from held_ports import held_port
from waiting import wait_until

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Hint, Said, Stage
from serving_bench.harness.servers.log import head_and_end
from serving_bench.harness.servers.scrape import read_said
from serving_bench.harness.servers.server import Stages, log_tail, remedies, telling_line, watched_stages

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


class Starting:
    def reached(self, stage: str) -> None:
        pass

    def waits(self, age_s: float, problem: str) -> None:
        pass


def test_each_stage_has_the_instant_of_its_line(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    begun_ns = time.monotonic_ns()
    with (
        log.open("wb") as out,
        subprocess.Popen([sys.executable, "-c", WRITER], stdout=out, stdin=subprocess.PIPE) as writer,
        watched_stages(log, STAGES, Starting()) as stages,
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
    with watched_stages(log, STAGES, Starting()) as stages:
        assert stages.reached == {}
        log.write_text("Traceback: something else\n")
    assert list(stages.reached) == ["process_up"]


def test_a_slow_callback_delays_no_later_stage_and_no_look(tmp_path: Path) -> None:
    log, release, told = tmp_path / "server.log", threading.Event(), list[str]()

    class Slow(Starting):
        def reached(self, stage: str) -> None:
            told.append(stage)
            release.wait(30)

    with watched_stages(log, STAGES, Slow()) as stages:
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
    assert log_tail(path, lines=4) == "\ufffd\ufffd bad\nprogress 1\nprogress 2\ndone"
    assert "first" not in log_tail(path, lines=1000)


def test_nothing_in_a_log_tail_moves_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        b"\x1b]52;c;ZXZpbA==\x07clip\x1b]0;title\x1b\\ped\n\x1b[2Jclear\n"
        b"\tb\b\x07\x1bc\xc2\x9b2J\nopen \x1b]52;c;x\n"
    )
    assert log_tail(path) == "clipped\nclear\n\tb   c 2J\nopen  ]52;c;x"


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


# --- logs without end -------------------------------------------------------------------------------

HUGE_BYTES, MOST_MEMORY_BYTES = 512 << 20, 100 << 20


@contextmanager
def bounded_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY_BYTES
    finally:
        tracemalloc.stop()


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A log of one endless line between what a server says as it starts and its last words."""
    log = tmp_path / "server.log"
    log.write_bytes(b"weights loaded in 1 s\r\n")
    os.truncate(log, HUGE_BYTES)
    with log.open("ab") as file:
        file.write(b"\nthe last words\n")
    return log


def test_of_an_endless_log_the_beginning_and_the_end_are_read(huge: Path, caplog: pytest.LogCaptureFixture):
    given = list[str]()

    def said(log: str, pages: object) -> Said:
        given.append(log)
        return Said()

    engine = replace(ENGINES["reference"], pages=(), said=said)
    with bounded_memory(), held_port() as port:
        read_said(engine, f"http://127.0.0.1:{port}/v1", huge, None)
    assert given[0].startswith("weights loaded in 1 s\n\0")
    assert given[0].endswith("\0\nthe last words\n")
    assert caplog.messages == [f"{huge}: 496 MiB in its middle are not read"]


def test_a_log_is_looked_through_in_parts(huge: Path) -> None:
    stages = Stages(huge, (*STAGES, Stage("done", "^the last words$")))
    with bounded_memory():
        stages.look()
        assert list(stages.reached) == ["process_up", "weights_loaded"]
        while "done" not in stages.reached:
            before = stages._offset
            stages.look()
            assert before < stages._offset, "it does not go on"


def test_the_end_of_an_endless_log_is_told(huge: Path) -> None:
    with bounded_memory():
        assert log_tail(huge).endswith("\nthe last words")
        assert remedies(huge, [Hint("last words", "speak on")]) == ["speak on"]


def test_a_log_is_whole_up_to_twice_what_is_read_of_its_ends(tmp_path: Path) -> None:
    line = b"x" * 1023 + b"\n"
    (tmp_path / "log").write_bytes(line * 16_384)
    text, left_out = head_and_end(tmp_path / "log")
    assert (text.encode(), left_out) == (line * 16_384, 0)
    (tmp_path / "log").write_bytes(line * 16_385)
    text, left_out = head_and_end(tmp_path / "log")
    assert (text.count("[...]"), left_out) == (1, 1024)


def test_of_a_line_without_end_the_beginning_is_read_in_no_time(tmp_path: Path) -> None:
    """A pattern may take the square of a line's length; so may what cuts it."""
    (tmp_path / "log").write_bytes((b"a" * 16_384 + b"\r\n") * 255 + b"b" * (4 << 20) + b"\rc\n")
    begun_s = time.process_time()
    text, _ = head_and_end(tmp_path / "log")
    assert time.process_time() - begun_s < 5
    assert text == ("a" * 16_384 + "\n") * 255 + "b" * 16_384 + "\nc\n"
