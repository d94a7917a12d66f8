"""Start one server, wait until it generates, read its log, and stop it.

Instants are CLOCK_MONOTONIC nanoseconds. Knows no engine: it is given argv, paths, patterns and hints.
"""

import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol
from urllib.parse import urlsplit

from serving_bench.harness.contracts import ContainerSpec, Hint, NativeSpec, Stage, inert
from serving_bench.harness.errors import ServerError
from serving_bench.harness.processes.listening import stranger_on
from serving_bench.harness.processes.supervise import Supervised, supervised
from serving_bench.harness.sampling.sampling import QuietThread
from serving_bench.harness.servers import probe
from serving_bench.harness.servers.log import MOST_LINE_BYTES, bytes_from, text_of

_LOOK_S, _LOOK_BYTES = 0.02, 4 << 20
_END_BYTES = 256 << 10
# The cause may come before the traceback of another program that only reports it.
_MORE_LINES = 400
PROCESS_UP = "process_up"
# Colours and other commands to a terminal, and what sets its title or clipboard.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b\r\n]{0,10000}(?:\x07|\x1b\\)")
_NAMES_ERROR = re.compile(r"\w(Error|Exception)\b|\b(?i:error|fatal|failed|killed|aborted)\b")
_POLL_S = 0.1
_SAY_EVERY_S = 15.0
# A server that is still loading answers 503, 429 or 404. These mean that it will never generate.
_REFUSALS = (200, 400, 401, 403, 422, 500)
_REFUSING_S = 30.0
_TRY_AGAIN = "Another program took the port in the meantime: run it again."
_PORT_TAKEN = Hint(r"(?i)address (already )?in use|couldn't bind HTTP server socket", _TRY_AGAIN)
_KILLED = "signal 9 is how a system ends a process when memory runs out, and how some servers end themselves"


class Container(Protocol):
    """The container of a server."""

    def cause(self) -> str | None:
        """Return a clause on why it has ended, if Docker knows."""


class Starting(Protocol):
    """Watches a start-up."""

    def reached(self, stage: str) -> None:
        """Note a stage. Called from a thread of its own, in order."""

    def waits(self, age_s: float, problem: str) -> None:
        """Show every 15 s what is missing."""


@dataclass(frozen=True)
class Server:
    """A started server that may not be ready yet.

    `process` knows how it ended; for a server in a container it is docker's client. `pid` is the root of the
    serving processes, None if Docker runs them where bench cannot see them. `argv` is the whole command, with
    docker's part.
    """

    engine: str
    spec: NativeSpec | ContainerSpec
    log_path: Path
    hints: tuple[Hint, ...]
    process: Supervised
    argv: tuple[str, ...]
    pid: int | None
    container: Container | None = None


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on now. Another program may still take it."""
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


@contextmanager
def running_server(
    spec: NativeSpec,
    *,
    engine: str,
    log_path: Path,
    state_dir: Path,
    hints: Sequence[Hint] = (),
    without: Sequence[str] = (),
) -> Iterator[Server]:
    """Run a server during the block, with its output in log_path. Everything it started is gone afterwards.

    It gets bench's environment without the names in `without`, plus spec.environment. Raises ServerError.
    """
    running = supervised(
        spec.argv,
        label=engine,
        state_dir=state_dir,
        log_path=log_path,
        environment=spec.environment,
        without=without,
        grace_s=spec.stop_grace_s,
    )
    with ExitStack() as stack:
        process = entered(stack, running, f"{engine} cannot be started: {spec.argv[0]}", log_path)
        yield Server(engine, spec, log_path, tuple(hints), process, spec.argv, process.pid)


def entered(
    stack: ExitStack, running: AbstractContextManager[Supervised], failure: str, log_path: Path
) -> Supervised:
    """Start a program that ends with the stack. Raise ServerError with a text that begins with `failure`."""
    try:
        return stack.enter_context(running)
    except OSError as error:
        raise ServerError(f"{failure}: {error}", log_tail(log_path)) from error


def wait_ready(server: Server, timeout_s: float, starting: Starting | None = None) -> dict[str, int]:
    """Wait until the server has answered ready_path with 200 and then a real generation; time a second one.

    Return the instants of `listening`, `first_token` (of the first good generation), `ready` (its end) and
    `steady_token` (of the second one, if it is good). Raises ServerError if the server exits, answers each
    generation with an error for _REFUSING_S, or is not ready within timeout_s.
    """
    spec = server.spec
    listening_ns = refusing_s = None
    said_s = 0.0
    while True:
        left_s = max(_POLL_S, timeout_s - _age_s(server))
        if listening_ns is None:
            url, limit_s = probe.root_of(spec.base_url) + spec.ready_path, min(5.0, left_s)
            answer = probe.request("GET", url, timeout_s=limit_s)
            problem = f"{spec.ready_path} {answer}"
            if answer.status == 200:
                listening_ns = time.monotonic_ns()
                _check_port(server)
        if listening_ns is not None:
            generation = probe.generate(spec.base_url, spec.served_model, timeout_s=left_s)
            if generation.problem is None:
                ready_ns = time.monotonic_ns()
                left_s = max(_POLL_S, timeout_s - _age_s(server))
                steady = probe.generate(spec.base_url, spec.served_model, timeout_s=left_s)
                check_alive(server, ", after its first generation")
                seen = {
                    "listening": listening_ns,
                    "first_token": generation.first_token_ns,
                    "ready": ready_ns,
                    "steady_token": steady.first_token_ns,
                }
                return {name: t_ns for name, t_ns in seen.items() if t_ns is not None}
            problem = f"{spec.ready_path} answered 200, {generation.problem}"
            refusing_s = (refusing_s or _age_s(server)) if generation.status in _REFUSALS else None
        if starting and _age_s(server) - said_s >= _SAY_EVERY_S:
            said_s = _age_s(server)
            starting.waits(said_s, problem)
        server.process.wait(_POLL_S)
        check_alive(server, ", before it was ready")
        if _age_s(server) >= timeout_s:
            raise _failure(server, f"was not ready within engine.start_timeout={timeout_s:g}s ({problem})")
        if refusing_s is not None and _age_s(server) - refusing_s >= _REFUSING_S:
            raise _failure(server, f"listens but has not generated for {_REFUSING_S:g} s ({problem})")


def _check_port(server: Server) -> None:
    """Raise ServerError if another program listens on a started server's port."""
    parts = urlsplit(server.spec.base_url)
    host, port = parts.hostname, parts.port
    # A container has the host's network, but is no child of Docker's client.
    root = server.pid if isinstance(server.spec, ContainerSpec) else server.process.watchdog_pid
    if host is None or port is None or root is None:
        return
    if stranger := stranger_on(host, port, root):
        raise _failure(server, f"is not what answers on its port: {stranger} listens on {port}", [_TRY_AGAIN])


def check_alive(server: Server, when: str = "") -> None:
    """Raise ServerError if the server has exited: how, `when`, and the end of its log. Does not block."""
    code = server.process.poll()
    if code is not None:
        how = f"exited with code {code}"
        if code < 0:
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
        because_of = f" ({cause})" if (cause := server.container and server.container.cause()) else ""
        advice = [_KILLED] if code == -signal.SIGKILL else []
        raise _failure(server, f"{how} after {_age_s(server):.1f} s{because_of}{when}", advice)


def _failure(server: Server, what: str, advice: Sequence[str] = ()) -> ServerError:
    tail = log_tail(server.log_path)
    end = f"the end of {server.log_path}: {quoted_line(server.log_path, server.hints)}"
    remedy = remedies(server.log_path, (*server.hints, _PORT_TAKEN)) or advice
    return ServerError("; ".join([f"{server.engine} {what}", end, *remedy]), tail)


def _age_s(server: Server) -> float:
    return (time.monotonic_ns() - server.process.spawned_ns) / 1e9


class Stages:
    """The stages that a log has shown so far. `look` puts the name of each new one into `new`."""

    def __init__(self, log_path: Path, stages: Sequence[Stage]) -> None:
        self._path = log_path
        self.new = SimpleQueue[str | None]()
        self._patterns = {stage.name: re.compile(stage.pattern) for stage in stages}
        self._reached: dict[str, int] = {}
        self._offset = 0
        self._rest = b""
        self._lock = threading.Lock()

    @property
    def reached(self) -> dict[str, int]:
        """Return the instants of the stages so far, at most 0.02 s late, or later if a server writes more
        than 4 MiB in that time. `process_up` is the first line."""
        return dict(self._reached)

    def look(self) -> None:
        """Read what the log has gained, up to 4 MiB, and note the stages that it shows."""
        with self._lock:
            now_ns = time.monotonic_ns()
            added = bytes_from(self._path, self._offset, _LOOK_BYTES)
            self._offset += len(added)
            *lines, rest = (self._rest + added).replace(b"\r", b"\n").split(b"\n")
            self._rest = rest[:MOST_LINE_BYTES]
            new = [PROCESS_UP] if added else []
            for line in filter(None, lines):
                text = _ESCAPES.sub("", line[:MOST_LINE_BYTES].decode(errors="replace"))
                new += [name for name, pattern in self._patterns.items() if pattern.search(text)]
            for name in new:
                if name not in self._reached:
                    self._reached[name] = now_ns
                    self.new.put(name)


@contextmanager
def watched_stages(log_path: Path, stages: Sequence[Stage], starting: Starting) -> Iterator[Stages]:
    """Look every 0.02 s during the block until all stages are reached, and once more at its end.

    Leaving the block waits until `starting` has noted all of them.
    """
    watched = Stages(log_path, stages)
    over = threading.Event()

    def look_on() -> None:
        while not over.wait(_LOOK_S) and len(watched.reached) <= len(stages):
            watched.look()
        watched.look()

    def tell() -> None:
        while (name := watched.new.get()) is not None:
            starting.reached(name)

    looking = QuietThread(target=look_on, name="stages", daemon=True)
    telling = QuietThread(target=tell, name="stages told", daemon=True)
    looking.start()
    telling.start()
    try:
        yield watched
    finally:
        over.set()
        looking.join(5.0)
        watched.new.put(None)
        telling.join(5.0)


def log_tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log without control characters; an empty text if there is no log."""
    return "\n".join(inert(line, keep="\t") for line in _end_of(path).splitlines()[-lines:])


def quoted_line(path: Path, hints: Sequence[Hint] = ()) -> str:
    """Return the telling_line of a log's last 20 lines; if these name only effects, of its last 400."""
    line = telling_line(log_tail(path), hints)
    return telling_line(log_tail(path, _MORE_LINES), hints) if _is_effect(line, hints) else line


def telling_line(tail: str, hints: Sequence[Hint] = ()) -> str:
    """Return the last line that names an error, else the last line. Warnings may come after the error.

    A line that a hint calls an effect is returned only if no other line names an error.
    """
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    errors = [line for line in lines if _NAMES_ERROR.search(line)]
    causes = [line for line in errors if not _is_effect(line, hints)]
    return next(reversed(causes or errors or lines), "(empty)")[:300]


def _is_effect(line: str, hints: Sequence[Hint]) -> bool:
    return any(hint.is_effect and re.search(hint.pattern, line) for hint in hints)


def remedies(path: Path, hints: Sequence[Hint]) -> list[str]:
    text = _end_of(path)
    remedied = (hint for hint in hints if hint.remedy)
    return list(
        dict.fromkeys(hint.remedy for hint in remedied if re.search(hint.pattern, text, re.MULTILINE))
    )


def _end_of(path: Path) -> str:
    return _ESCAPES.sub("", text_of(bytes_from(path, -_END_BYTES, _END_BYTES)))
