"""Runs the installed `bench` command in tests, with short settings and a cache of its own."""

import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import psutil
import pytest
from waiting import patient, wait_until

from serving_bench.harness.cli.app import main
from serving_bench.harness.cli.terminal import UNBOUNDED_COLUMNS, out
from serving_bench.harness.contracts.sentences import Fact, read

BENCH = Path(sys.executable).with_name("bench")
PRELOADED = Path(__file__).with_name("preloaded_bench.py")
READ_AT_START = ("COLUMNS", "LD_", "PYTHON")
LOCK = threading.Lock()
LIMIT_S = 90.0
# Variables of whoever runs the tests that bench does not get.
KEPT_BACK = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "COLUMNS")
QUICK = (
    "engine=reference", "load.concurrency=1", "repeats=1", "load.warmup=0.2s", "load.duration=1s",
    "load.min_requests=1", "reference.ttft=20ms", "reference.itl=2ms", "device=cpu", "guard=off",
)  # fmt: skip


MARK = "TESTED_IN"


@dataclass(frozen=True)
class Place:
    """A working directory with its own cache. Its processes are recognised by a variable with its path."""

    path: Path

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def run_dir(self) -> Path:
        return self.path / "run"

    def environment(self, **more: str) -> dict[str, str]:
        plain = {key: value for key, value in os.environ.items() if key not in KEPT_BACK}
        return {**plain, "BENCH_CACHE_DIR": str(self.cache), MARK: str(self.path), **more}

    def processes(self) -> list[psutil.Process]:
        """Return the processes that a bench of this place has running, itself included."""
        return [process for process in psutil.process_iter() if _place_of(process) == str(self.path)]

    def wait_until_empty(self) -> None:
        wait_until(lambda: not self.processes(), 15)
        assert not list((self.cache / "running").glob("*")), "the records of what ran are still there"

    def cells(self) -> dict[int, dict[str, Any]]:
        cells = map(_record, self.run_dir.glob("cells/[0-9][0-9][0-9]/cell.json"))
        return {cell["number"]: cell for cell in cells}

    def starts(self) -> list[dict[str, Any]]:
        return [*map(_record, sorted(self.run_dir.glob("starts/*/start.json")))]

    def run(self) -> dict[str, Any]:
        return _record(self.run_dir / "run.json")

    def report(self) -> str:
        return (self.run_dir / "report.html").read_text()

    def rows_so_far(self, cell: int) -> int:
        path = self.run_dir / "cells" / f"{cell:03d}" / "rows.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


def _record(path: Path) -> dict[str, Any]:
    """Read a record, with the sentence of each fact in place of the fact."""
    return json.loads(path.read_text(), object_hook=_sentence)


def _sentence(value: dict[str, Any]) -> object:
    if not isinstance(value.get("kind"), str):
        return value
    try:
        return str(read(Fact, value))
    except ValueError:  # other objects also have a kind
        return value


def _place_of(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARK)
    except psutil.Error:
        return None


def made(path: Path) -> Place:
    path.mkdir()
    return Place(path)


def quick(*changes: str) -> list[str]:
    """Return QUICK with each change in place of the key that it names.

    For other engines, and for a server that runs already, the options of the reference are left out.
    """
    keys = {change.partition("=")[0] for change in changes}
    is_other = any(re.match(r"engine(\.base_url=|=(?!reference))", change) for change in changes)
    options = "reference." if is_other else "-"
    plain = [word for word in QUICK if not word.startswith(options)]
    return [*(word for word in plain if word.partition("=")[0] not in keys), *changes]


def attached(base_url: str, *changes: str, engine: str = "openai") -> list[str]:
    """Return QUICK for a server that runs already, with each change in place of the key that it names."""
    return quick(f"engine={engine}", f"engine.base_url={base_url}", *changes)


def bench(
    place: Place, *arguments: object, limit_s: float = LIMIT_S, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `bench ARGUMENTS` to its end, in a process that `preloaded_bench` forks.

    Whoever gives a variable that a program reads as it starts gets a program that starts.
    """
    words, surroundings = [*map(str, arguments)], place.environment(**environment)
    if any(name.startswith(READ_AT_START) for name in environment):
        return subprocess.run(
            [BENCH, *words], cwd=place.path, env=surroundings, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=patient(limit_s),
        )  # fmt: skip
    call = json.dumps({"words": words, "directory": str(place.path), "environment": surroundings}).encode()
    answer, answering = os.pipe()
    with open(answer) as reader, TemporaryFile("w+") as said, TemporaryFile("w+") as complaints:
        try:
            with LOCK:
                requests, _ = _preloaded()
            socket.send_fds(requests, [call], [said.fileno(), complaints.fileno(), answering])
        finally:
            os.close(answering)
        process = int(reader.readline())
        if not select.select([reader], [], [], patient(limit_s))[0]:
            os.kill(process, signal.SIGKILL)
            raise subprocess.TimeoutExpired(["bench", *words], limit_s)
        code = int(reader.readline())
        said.seek(0)
        complaints.seek(0)
        return subprocess.CompletedProcess(["bench", *words], code, said.read(), complaints.read())


@cache
def _preloaded() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the program that forks to run bench. It ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    argv = [sys.executable, "-P", PRELOADED, str(theirs.fileno())]
    plain = {name: value for name, value in os.environ.items() if name not in KEPT_BACK}
    with theirs:
        return ours, subprocess.Popen(
            argv, env=plain, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
        )


def told(place: Place, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run as `bench` does, but in this process, which has imported everything: half a second less per call.

    For commands that refuse, plan or read, not for those that start servers or need a process of their own.
    """
    said, complaints = io.StringIO(), io.StringIO()
    words = ["bench", *map(str, arguments)]
    surroundings = place.environment(**environment)
    with pytest.MonkeyPatch.context() as here, redirect_stdout(said), redirect_stderr(complaints):
        here.chdir(place.path)
        here.setattr(sys, "argv", words)
        here.setattr(out, "width", int(environment.get("COLUMNS", UNBOUNDED_COLUMNS)))  # as into a pipe
        for name in os.environ.keys() - surroundings.keys():
            here.delenv(name)
        for name, value in surroundings.items():
            here.setenv(name, value)
        with pytest.raises(SystemExit) as ending:
            main()
    code = ending.value.code
    assert isinstance(code, int)
    return subprocess.CompletedProcess(words, code, said.getvalue(), complaints.getvalue())


def printed(width: int, show: Callable[..., None], *arguments: object) -> str:
    """Return what `show(*arguments)` prints on a terminal of this width."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as here, redirect_stdout(said):
        here.setattr(out, "width", width)
        show(*arguments)
    return said.getvalue()


@contextmanager
def begun(place: Place, *arguments: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start `bench ARGUMENTS`; kill it, with all that it started, when the block ends."""
    process = subprocess.Popen(
        [BENCH, *map(str, arguments)], cwd=place.path, env=place.environment(**environment),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            for left in place.processes():
                with suppress(psutil.NoSuchProcess):  # its watchdog was quicker
                    left.kill()


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait until a begun bench ends by itself, and return how."""
    said, complaints = process.communicate(timeout=patient(LIMIT_S))
    return subprocess.CompletedProcess(process.args, process.returncode, said, complaints)


def kill_in_second_cell(place: Place, rows: int) -> None:
    """Begin a run of two cells in `run`, and kill it with -9 once the second cell has `rows` rows."""
    words = quick("load.concurrency=1,2", "load.duration=2s")
    with begun(place, "run", *words, "--output", "run") as process:
        wait_until(lambda: place.rows_so_far(2) >= rows, 30)
        process.kill()
        process.wait()
        wait_until(lambda: not place.processes(), 15)
    assert list(place.cells()) == [1]


@contextmanager
def side_by_side(
    root: Path, stories: Mapping[str, Callable[[Place], Any]]
) -> Iterator[dict[str, Future[Any]]]:
    """Begin all stories at once, each in a place of its own: most of a run is waiting."""
    with ThreadPoolExecutor(len(stories)) as pool:
        yield {name: pool.submit(story, made(root / name)) for name, story in stories.items()}
