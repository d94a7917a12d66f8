"""Programs that make weights, run as `bench prepare` runs them."""

from __future__ import annotations

import re
import sys

import pytest

from engines.model.weights.child import Program, ProgramError
from harness.install import install_step
from harness.install.install_step import run_supervised


def program(code: str, **environment: str) -> Program:
    return Program([sys.executable, "-c", code], "m: making x", "x could not be made", environment)


def test_lines_of_both_streams_are_passed_on_and_the_last_is_the_result() -> None:
    code = "import os, sys; print('a', flush=True); print(os.environ['GIVEN'], file=sys.stderr)"
    lines: list[str] = []
    assert program(code, GIVEN="b").run(run_supervised, lines.append) == "b"
    assert lines == ["a", "b"]


def test_silent_program_is_said_to_be_at_work_and_that_is_none_of_its_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(install_step, "QUIET_S", 0.05)
    lines: list[str] = []
    quiet: list[str] = []
    code = "import time; time.sleep(0.5); print('done', flush=True); time.sleep(0.3)"
    assert program(code).run(run_supervised, lines.append, quiet.append) == "done"
    assert lines == ["done"]
    assert quiet
    assert all(re.fullmatch(r"m: making x \(0 min \d+ s so far\)", line) for line in quiet)


def test_failure_has_the_exit_code_and_the_end_of_the_output() -> None:
    code = "import sys; [print(n) for n in range(30)]; sys.exit(3)"
    with pytest.raises(ProgramError) as caught:
        program(code).run(run_supervised, lambda line: None)
    assert (caught.value.exit_code_of_program, caught.value.last_line) == (3, "29")
    said = str(caught.value).splitlines()
    assert said[0] == "x could not be made (exit code 3); the end of its output:"
    assert said[1:] == [str(number) for number in range(20, 30)]
