"""An installed Chromium without a window: started, told what to do over a pipe, and ended.

Speaks its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/), messages ended by a zero
byte. No port is opened and no address asked for. Knows no chart.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, Any

from harness.errors import BenchError, MissingError

VARIABLE = "BENCH_CHROMIUM"
_PROGRAMS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge",
    "msedge",
)  # fmt: skip
_IN_MACOS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
_FLAGS = (
    "--headless", "--remote-debugging-pipe", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--no-default-browser-check", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--disable-breakpad", "--disable-crash-reporter",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
)  # fmt: skip
# Chromium reads from 3 and writes to 4; both ends are first moved out of each other's way.
_PLUG = (
    "import os, sys; os.dup2(int(sys.argv[1]), 60); os.dup2(int(sys.argv[2]), 61); os.dup2(60, 3); "
    "os.dup2(61, 4); os.close(60); os.close(61); os.execv(sys.argv[3], sys.argv[3:])"
)
_END_WITHIN_S = 5.0


def program() -> str:
    """Return the path of a Chromium. Raises MissingError where there is none."""
    if named := os.environ.get(VARIABLE):
        found = shutil.which(named)
        if found is None:
            raise MissingError(f"{VARIABLE}={named}: no such program")
        return found
    for name in (*_PROGRAMS, *_IN_MACOS):
        if found := shutil.which(name):
            return found
    raise MissingError(
        "pictures need an installed Chromium, Chrome or Edge on PATH (Debian: apt install chromium), or its "
        f"path in {VARIABLE}"
    )


@dataclass
class Page:
    """A blank page of the Chromium at `path`. `is_late` is set when its time is over and it was killed."""

    path: str
    to_it: IO[bytes]
    from_it: IO[bytes]
    is_late: threading.Event
    session: dict[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _unread: bytes = b""

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the answer to a command of the protocol. Raises BenchError where it fails or is late."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **self.session}
        try:
            self.to_it.write(json.dumps(message).encode() + b"\0")
            while (answer := json.loads(self._message())).get("id") != number:
                pass
        except OSError as error:
            raise self._ended() from error
        if "error" in answer:
            raise BenchError(f"{self.path} refused {method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, awaited. Raises BenchError with what it threw."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if thrown := answer.get("exceptionDetails"):
            said = thrown.get("exception", {}).get("description") or thrown.get("text", "")
            raise BenchError(f"the chart could not be drawn: {said.splitlines()[0]}")
        return answer["result"].get("value")

    def _message(self) -> bytes:
        parts = [self._unread]
        while b"\0" not in parts[-1]:
            parts.append(os.read(self.from_it.fileno(), 1 << 20))
            if not parts[-1]:
                raise self._ended()
        message, _, self._unread = b"".join(parts).partition(b"\0")
        return message

    def _ended(self) -> BenchError:
        did = "did not answer in time" if self.is_late.is_set() else "ended before it had drawn"
        return BenchError(f"{self.path} {did}")


@contextmanager
def blank_page(limit_s: float) -> Iterator[Page]:
    """Start a Chromium with a page, which has `limit_s` for all that is asked of it.

    Everything that it started and wrote is gone at the end. Raises MissingError where it does not begin.
    """
    path = program()
    # Chromium has no sandbox for root, and does not start with one.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with (
        tempfile.TemporaryDirectory(prefix="bench-chromium-", ignore_cleanup_errors=True) as profile,
        _running([path, *_FLAGS, *sandbox, f"--user-data-dir={profile}"], limit_s) as page,
    ):
        try:
            target = page.ask("Target.createTarget", url="about:blank")["targetId"]
        except BenchError as error:
            if page.is_late.is_set():
                raise
            raise MissingError(f"{error}; give the path of a Chromium in {VARIABLE}") from error
        attached = page.ask("Target.attachToTarget", targetId=target, flatten=True)
        page.session = {"sessionId": attached["sessionId"]}
        yield page


@contextmanager
def _running(argv: Sequence[str], limit_s: float) -> Iterator[Page]:
    """Run a process of its own group with two pipes; when its time is over, the group is killed."""
    (read_by_it, to_it), (from_it, written_by_it) = os.pipe(), os.pipe()
    with os.fdopen(to_it, "wb", 0) as writing, os.fdopen(from_it, "rb", 0) as reading:
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", _PLUG, str(read_by_it), str(written_by_it), *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(read_by_it, written_by_it),
                process_group=0,
            )
        finally:
            os.close(read_by_it)
            os.close(written_by_it)
        page = Page(argv[0], writing, reading, threading.Event())
        timer = threading.Timer(limit_s, _end_late, [page, process])
        timer.start()
        try:
            yield page
        finally:
            timer.cancel()
            # Without its pipe it ends by itself; what does not is killed.
            writing.close()
            reading.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_END_WITHIN_S)
            _kill(process)
            process.wait()


def _end_late(page: Page, process: subprocess.Popen[bytes]) -> None:
    page.is_late.set()
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
