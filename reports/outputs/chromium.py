"""An installed Chromium without a window: started, told what to do over a pipe, and ended.

Speaks its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/), messages ended by a zero
byte. No port is opened and no address asked for. Knows no chart.
"""

import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

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
_READ_AT_ONCE_BYTES = 1 << 20


def program() -> str:
    """The path of a Chromium. Raises MissingError where there is none."""
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
    """A blank page of the Chromium at `path`. `until_s`: the moment (time.monotonic) when waiting ends."""

    path: str
    to_it: int
    from_it: int
    until_s: float
    session: str | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _unread: bytearray = field(default_factory=bytearray)

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command of the protocol. Raises BenchError where it fails, or comes too late."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        try:
            self._send(json.dumps(message).encode() + b"\0")
            while (answer := json.loads(self._message())).get("id") != number:
                pass
        except OSError as error:
            raise BenchError(f"{self.path} ended before it had drawn ({error.strerror})") from error
        if "error" in answer:
            raise BenchError(f"{self.path} refused {method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript, awaited. Raises BenchError with what it threw."""
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if thrown := answer.get("exceptionDetails"):
            said = thrown.get("exception", {}).get("description") or thrown.get("text", "")
            raise BenchError(f"the chart could not be drawn: {said.splitlines()[0]}")
        return answer["result"].get("value")

    def _send(self, message: bytes) -> None:
        left = memoryview(message)
        while left:
            self._wait(writing=[self.to_it])
            left = left[os.write(self.to_it, left) :]

    def _message(self) -> bytes:
        while (end := self._unread.find(0)) < 0:
            self._wait(reading=[self.from_it])
            read = os.read(self.from_it, _READ_AT_ONCE_BYTES)
            if not read:
                raise BenchError(f"{self.path} ended before it had drawn")
            self._unread += read
        message = bytes(self._unread[:end])
        del self._unread[: end + 1]
        return message

    def _wait(self, reading: Sequence[int] = (), writing: Sequence[int] = ()) -> None:
        left_s = max(self.until_s - time.monotonic(), 0)
        if not any(select.select(reading, writing, [], left_s)):
            raise BenchError(f"{self.path} did not answer in time")


@contextmanager
def blank_page(limit_s: float) -> Iterator[Page]:
    """A page in a Chromium of its own, which has `limit_s` for all that is asked of it. Everything that it
    started and wrote is gone at the end. Raises MissingError where it does not begin."""
    path = program()
    with (
        tempfile.TemporaryDirectory(prefix="bench-chromium-", ignore_cleanup_errors=True) as profile,
        _running([path, *_FLAGS, *_sandbox(), f"--user-data-dir={profile}"]) as (to_it, from_it),
    ):
        page = Page(path, to_it, from_it, time.monotonic() + limit_s)
        try:
            target = page.ask("Target.createTarget", url="about:blank")["targetId"]
        except BenchError as error:
            raise MissingError(f"{error}; give the path of a Chromium in {VARIABLE}") from error
        page.session = page.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        yield page


def _sandbox() -> list[str]:
    """Chromium has no sandbox for root, and does not start with one."""
    return ["--no-sandbox"] if os.geteuid() == 0 else []


@contextmanager
def _running(argv: Sequence[str]) -> Iterator[tuple[int, int]]:
    """A process of its own group; the ends of the pipes to it and from it."""
    read_by_it, to_it = os.pipe()
    from_it, written_by_it = os.pipe()
    os.set_blocking(to_it, False)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _PLUG, str(read_by_it), str(written_by_it), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(read_by_it, written_by_it),
            process_group=0,
        )
    except BaseException:
        os.close(to_it)
        os.close(from_it)
        raise
    finally:
        os.close(read_by_it)
        os.close(written_by_it)
    try:
        yield to_it, from_it
    finally:
        # Without its pipe it ends by itself; what does not is killed.
        os.close(to_it)
        os.close(from_it)
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_WITHIN_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
