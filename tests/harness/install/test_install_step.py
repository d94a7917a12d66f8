"""One command of an install: what people see, what the log keeps, and that nothing outlives it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from progress_lines import KeptLines
from waiting import wait_until

from serving_bench.harness.errors import MissingError
from serving_bench.harness.install import steps
from serving_bench.harness.install.steps import run_step


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-c", code]


def test_lines_of_both_outputs_are_kept_and_those_for_people_passed_on(tmp_path: Path) -> None:
    lines = KeptLines()
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr)"
    run_step(python(code), "trying", "failed", lines, log=tmp_path / "log", shown="(?!two)")
    assert lines == ["one"]
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_quiet_command_is_said_to_be_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "QUIET_S", 0.05)
    seen = tmp_path / "seen"

    class Seen(KeptLines):
        def line(self, text: str) -> None:
            super().line(text)
            seen.touch()  # the command ends once its silence has been noticed

    lines = Seen()
    code = f"import os, time\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)"
    run_step(python(code), "compiling", "failed", lines)
    assert lines[0] == "compiling (0 min 0 s so far)"


def test_a_command_gets_the_secrets_of_installers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-an-api")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_hub")
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:of-an-index@127.0.0.1/simple")
    lines = KeptLines()
    run_step(python("import os\nfor each in os.environ.items(): print(*each)"), "listing", "failed", lines)
    said = "\n".join(lines)
    assert "of-an-index" in said
    assert "PATH" in said
    assert "of-an-api" not in said
    assert "hf_of_the_hub" not in said


def test_a_failure_gives_the_end_of_the_output_the_log_and_advice(tmp_path: Path) -> None:
    failing = python("print(*range(99), 'winner: \\x1b[2J', sep='\\n'); raise SystemExit(3)")
    with pytest.raises(MissingError) as caught:
        run_step(failing, "trying", "it failed", KeptLines(), log=tmp_path / "log", advice=["try 99"])
    head, *tail = str(caught.value).splitlines()
    assert head == f"it failed (exit code 3); the end of its output; the whole output: {tmp_path / 'log'}:"
    assert tail == [*(f"  {number}" for number in range(85, 99)), "  winner:  [2J", "try 99"]


def test_a_program_that_is_not_there_fails_in_one_way(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"^it failed \(exit code 127\)"):
        run_step([str(tmp_path / "absent")], "trying", "it failed", KeptLines())


TREE = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"


def test_an_interrupt_ends_all_that_the_command_started() -> None:
    class Interrupting(KeptLines):
        def line(self, text: str) -> None:
            super().line(text)
            raise KeyboardInterrupt

    pids = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        run_step(python(TREE), "compiling", "failed", pids)
    assert not psutil.pid_exists(int(pids[0]))


def test_kill_9_of_bench_ends_all_that_the_command_started() -> None:
    code = (
        "from serving_bench.harness.cli.progress import Show\n"
        "from serving_bench.harness.install.steps import run_step\n"
        f"run_step({python(TREE)!r}, 'compiling', 'failed', Show(quiet=False))"
    )
    bench = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert bench.stderr
    with bench.stderr:
        pid = int(bench.stderr.readline())
        assert psutil.pid_exists(pid)
        os.kill(bench.pid, signal.SIGKILL)
        bench.wait()
        wait_until(lambda: not psutil.pid_exists(pid), 15)
