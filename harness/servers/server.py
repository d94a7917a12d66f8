"""The lifetime of one server: a free port, its start, readiness by a real generation, its end.

Knows no engine: it is told the argv, the paths and the hints. That nothing is left behind is the business of
harness/processes.
"""

import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.contracts import ContainerSpec, Hint, NativeSpec
from harness.errors import ServerError
from harness.processes.supervise import Supervised, supervised
from harness.servers import probe
from harness.servers.log import log_tail, remedies, telling_line

_POLL_S = 0.1
_SAY_EVERY_S = 15.0
_HEALTH_TIMEOUT_S = 5.0
# A server that is still loading answers 503, 429 or 404; these say that it never will generate.
_REFUSALS = (200, 400, 401, 403, 422, 500)
_REFUSING_S = 30.0
_PORT_TAKEN = Hint(
    r"(?i)address (already )?in use|couldn't bind HTTP server socket",
    "Another program took the port in the meantime: run it again.",
)
_KILLED = "signal 9 is how a system ends a process when memory runs out, and how some servers end themselves"


@dataclass(frozen=True)
class Server:
    """A started server, not yet known to be ready.

    `process` tells how it ended; for a server in a container it is docker's client. `container_pid` is the
    container's first process, None if Docker runs it out of our sight. `cause` is asked when the server has
    ended, and returns a clause on what else is known of why. `argv` is what was run, docker's part included.
    """

    engine: str
    spec: NativeSpec | ContainerSpec
    log_path: Path
    hints: tuple[Hint, ...]
    process: Supervised
    argv: tuple[str, ...] = ()
    container_pid: int | None = None
    cause: Callable[[], str | None] | None = None

    @property
    def pid(self) -> int | None:
        """Return the root of the processes that serve; None if they cannot be seen."""
        return self.container_pid if isinstance(self.spec, ContainerSpec) else self.process.pid


@dataclass(frozen=True)
class Startup:
    """The instants of a start: ready_path answered 200; the first token of the first good generation; its
    end; the first token of the generation after it, which meets nothing that is done only once."""

    listening_ns: int
    first_token_ns: int | None
    ready_ns: int
    steady_token_ns: int | None


def free_port() -> int:
    """Return a port of 127.0.0.1 that nothing listens on now. It is ours only once a server has bound it."""
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
    """Run a server while the block runs, its output in log_path. All that it started is gone after it.

    Its environment is a copy of ours `without` the variables of these names, and with spec.environment.
    Raises ServerError if the program cannot be started.
    """
    with ExitStack() as stack:
        running = supervised(
            spec.argv,
            label=engine,
            state_dir=state_dir,
            log_path=log_path,
            environment=spec.environment,
            without=without,
            grace_s=spec.stop_grace_s,
        )
        try:
            process = stack.enter_context(running)
        except OSError as error:
            raise ServerError(f"{engine} cannot be started: {error}", log_tail(log_path)) from error
        yield Server(engine, spec, log_path, tuple(hints), process, spec.argv)


def wait_ready(
    server: Server, timeout_s: float, on_wait: Callable[[float, str], None] | None = None
) -> Startup:
    """Block until the server has answered ready_path with 200 and then two real generations.

    `on_wait` hears every 15 s how long it has been and what is missing. Raises ServerError if the server
    exits first, if it listens and answers each generation with an error for _REFUSING_S, or when timeout_s
    (engine.start_timeout, from the start on) has passed. Ending it is then up to the `with` block.
    """
    spec = server.spec
    listening_ns = refusing_s = None
    said_s = 0.0
    while True:
        left_s = max(_POLL_S, timeout_s - _age_s(server))
        if listening_ns is None:
            url, limit_s = probe.root_of(spec.base_url) + spec.ready_path, min(_HEALTH_TIMEOUT_S, left_s)
            answer = probe.request("GET", url, timeout_s=limit_s)
            problem = f"{spec.ready_path} {answer}"
            listening_ns = time.monotonic_ns() if answer.status == 200 else None
        if listening_ns is not None:
            generation = probe.generate(spec.base_url, spec.served_model, timeout_s=left_s)
            if generation.problem is None:
                ready_ns = time.monotonic_ns()
                left_s = max(_POLL_S, timeout_s - _age_s(server))
                steady = probe.generate(spec.base_url, spec.served_model, timeout_s=left_s)
                check_alive(server, ", after its first generation")
                return Startup(listening_ns, generation.first_token_ns, ready_ns, steady.first_token_ns)
            problem = f"{spec.ready_path} answered 200, {generation.problem}"
            is_refusal = generation.status in _REFUSALS
            refusing_s = (refusing_s or _age_s(server)) if is_refusal else None
        if on_wait and _age_s(server) - said_s >= _SAY_EVERY_S:
            said_s = _age_s(server)
            on_wait(said_s, problem)
        server.process.wait(_POLL_S)
        check_alive(server, ", before it was ready")
        if _age_s(server) >= timeout_s:
            raise _failure(server, f"was not ready within engine.start_timeout={timeout_s:g}s ({problem})")
        if refusing_s is not None and _age_s(server) - refusing_s >= _REFUSING_S:
            raise _failure(server, f"listens but does not generate, for {_REFUSING_S:g} s ({problem})")


def check_alive(server: Server, when: str = "") -> None:
    """Raise ServerError if the server has exited, with how, `when` and its log's end. Does not block."""
    code = server.process.poll()
    if code is not None:
        how = f"exited with code {code}"
        if code < 0:
            how = f"was killed by signal {-code} ({signal.Signals(-code).name})"
        cause = server.cause() if server.cause else None
        known = f" ({cause})" if cause else ""
        advice = [_KILLED] if code == -signal.SIGKILL else []
        raise _failure(server, f"{how} after {_age_s(server):.1f} s{known}{when}", advice)


def _failure(server: Server, what: str, advice: Sequence[str] = ()) -> ServerError:
    tail = log_tail(server.log_path)
    last = telling_line(tail)
    said = "".join(
        f"; {remedy}" for remedy in remedies(server.log_path, (*server.hints, _PORT_TAKEN)) or advice
    )
    return ServerError(f"{server.engine} {what}; the end of {server.log_path}: {last}{said}", tail)


def _age_s(server: Server) -> float:
    return (time.monotonic_ns() - server.process.spawned_ns) / 1e9
