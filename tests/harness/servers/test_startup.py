"""The steps of a start, read from a log while a real process writes it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from waiting import wait_until

from harness.contracts import Stage
from harness.servers.startup import Stages, watched_stages

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
        assert not stages.is_complete
        go_on()
        wait_until(lambda: stages.is_complete)
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
