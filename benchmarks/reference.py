"""Finds how much each reference server can send: the largest rate at which it stays punctual.

Run `python benchmarks/reference.py` (Linux, two cores, nothing else running). The server is on core 0. This
process holds the streams on core 1 and drains them, once per wake-up like a real client. How late a chunk
was comes from the server's own record: sent_ns - due_ns. It uses no load generator of bench's.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pinned
import script
import server

from serving_bench.harness.contracts import Deployment, EngineTerms, NativeSpec, Place
from serving_bench.harness.errors import BenchError
from serving_bench.harness.selftest.selftest import Reference
from serving_bench.harness.selftest.sends import ARRIVAL, END, read_sends
from serving_bench.harness.servers.server import free_port

LATE_LIMIT_S = 0.5e-3
TTFT_S = 0.2
SETTLE_S = 0.3
FIRST_RATE = {"python": 8_000.0, "native": 50_000.0}
# The search ends when 1.1 times the rate that held, or less, did not hold.
RESOLUTION = 1.1


@dataclass(frozen=True)
class Step:
    """One load. `rate` is asked of all streams together, `reached` is what was sent, both in tokens/s.

    `cpu` is the server's share of a core.
    """

    streams: int
    rate: float
    reached: float
    late_p50_s: float
    late_p99_s: float
    cpu: float

    @property
    def is_punctual(self) -> bool:
        return self.late_p99_s < LATE_LIMIT_S and self.reached > 0.99 * self.rate


@dataclass(frozen=True)
class Given:
    """How a load is tried. It is late only if it is late in each of `tries`: other work only ever delays."""

    duration_s: float
    priority: pinned.Priority
    tries: int


def ceiling(reference: Reference, streams: int, given: Given) -> Step:
    """Return the largest punctual load. The rate is doubled until late, then bisected on a log scale."""
    rate, held, failed = FIRST_RATE[reference.program], None, None
    while failed is None or held is None or failed / held.rate > RESOLUTION:
        step = tried(reference, streams, rate, given)
        if step.is_punctual:
            held = step
        else:
            failed = step.rate
        if held is None and rate < 500:
            raise BenchError(f"{reference.program}: not punctual at any rate; is something else running?")
        rate = _next(rate, held, failed)
    return held


def tried(reference: Reference, streams: int, rate: float, given: Given) -> Step:
    """Return the first try that is punctual, else the last."""
    for _ in range(given.tries):
        step = measured(reference, streams, rate, given)
        print(_line(reference.program, step), file=sys.stderr, flush=True)
        if step.is_punctual:
            break
    return step


def _next(rate: float, held: Step | None, failed: float | None) -> float:
    if held is None:
        return rate / 2
    return rate * 2 if failed is None else (held.rate * failed) ** 0.5


def measured(reference: Reference, streams: int, rate: float, given: Given) -> Step:
    """Serve `streams` answers at once for the given time, and return what the server's record says."""
    itl_s = streams / rate
    tokens = round((given.duration_s + 2 * SETTLE_S) / itl_s)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        with serving(reference, itl_s, streams, scratch, given) as (port, pid):
            before, started_s = pinned.sample(pid), time.monotonic()
            drain(port, streams, tokens, itl_s)
            after, took_s = pinned.sample(pid), time.monotonic() - started_s
        cpu = (after.cpu_s - before.cpu_s) / took_s if before and after else float("nan")
        return _step(streams, rate, scratch / "sends.bin", given, cpu)


def _step(streams: int, rate: float, path: Path, given: Given, cpu: float) -> Step:
    """Return what the record says of the time during which all streams ran."""
    sends = read_sends(path)
    all_run_ns = max(send.sent_ns for send in sends if send.chunk == ARRIVAL) + int((TTFT_S + SETTLE_S) * 1e9)
    until_ns = all_run_ns + int(given.duration_s * 1e9)
    chunks = [send for send in sends if send.chunk < END]
    late = sorted(send.sent_ns - send.due_ns for send in chunks if all_run_ns <= send.due_ns < until_ns)
    reached = sum(all_run_ns <= send.sent_ns < until_ns for send in chunks) / given.duration_s
    p50, p99 = (late[int(share * len(late))] / 1e9 for share in (0.5, 0.99))
    return Step(streams, rate, reached, p50, p99, cpu)


# --- the server ----------------------------------------------------------------------------------


@contextmanager
def serving(
    reference: Reference, itl_s: float, streams: int, scratch: Path, given: Given
) -> Iterator[tuple[int, int]]:
    """Yield the server's port and pid while it runs. Its record is complete afterwards."""
    options = reference.engine.options(
        program=reference.program, ttft_s=TTFT_S, itl_s=itl_s, slots=streams + 1
    )
    terms = EngineTerms(context_length=1 << 30)
    deployment = Deployment("reference", "reference", "-", terms, options, "reference")
    port = free_port()
    spec = reference.engine.launch(deployment, Place(None, None, "127.0.0.1", port, scratch, reference.path))
    assert isinstance(spec, NativeSpec)
    with server.listening(spec, scratch, given.priority):
        yield port, _pid_of(port)


def _pid_of(port: int) -> int:
    """Return the pid of our child that was given this port. exec keeps the number, whatever started it."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in children:
        if f"--port={port}" in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
            return int(pid)
    raise BenchError("the server ended at once")


# --- the streams ---------------------------------------------------------------------------------


def drain(port: int, streams: int, tokens: int, itl_s: float) -> None:
    """Ask for `streams` answers, spread evenly over one gap between tokens, and read them to their ends."""
    content = json.dumps(
        {"messages": [{"role": "user", "content": "x"}], "max_tokens": tokens, "stream": True}
    ).encode()
    with ExitStack() as held, select.epoll() as poll:
        clients = {}
        for _ in range(streams):
            client = held.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client.setblocking(False)
            clients[client.fileno()] = client
        begun_s = time.monotonic()
        for number, client in enumerate(clients.values()):
            while time.monotonic() < begun_s + number * itl_s / streams:
                pass
            head = f"POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nX-Request-Id: {number}\r\n"
            client.send(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            poll.register(client, select.EPOLLIN)
        _read_to_the_ends(poll, clients)


def _read_to_the_ends(poll: select.epoll, clients: dict[int, socket.socket]) -> None:
    is_open = len(clients)
    while is_open:
        for number, _ in poll.poll():
            if not clients[number].recv(65536):
                poll.unregister(number)
                is_open -= 1


# --- the command ---------------------------------------------------------------------------------


def _line(program: str, step: Step) -> str:
    verdict = "punctual" if step.is_punctual else "late"
    return (
        f"{program} {step.streams} x {step.rate / step.streams:.0f}/s: reached {step.reached:,.0f}/s, late "
        f"p50 {step.late_p50_s * 1e6:.0f} us, p99 {step.late_p99_s * 1e6:.0f} us, {step.cpu:.0%} of a core: "
        f"{verdict}"
    )


def _table(steps: Sequence[tuple[str, Step]]) -> str:
    rows = [
        f"| {program} | {step.streams} x {step.rate / step.streams:,.0f} | {step.reached:,.0f} | "
        f"{step.late_p50_s * 1e6:.0f} / {step.late_p99_s * 1e6:.0f} | {step.cpu:.0%} |"
        for program, step in steps
    ]
    head = "| program | streams x tokens/s | tokens/s reached | late p50 / p99, us | of a core |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--programs", nargs="+", default=["python", "native"], choices=list(FIRST_RATE))
    parser.add_argument("--streams", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--duration", type=float, default=3.0, metavar="S", help="of each step")
    parser.add_argument("--tries", type=int, default=3, help="of each step, before it counts as late")
    parser.add_argument(
        "--priority", default="high", choices=get_args(pinned.Priority), help="of the server, where root may"
    )
    parser.add_argument("--rate", type=float, help="tokens/s of all streams: only this load, no search")
    return parser.parse_args()


def main() -> None:
    arguments = _arguments()
    given = Given(arguments.duration, arguments.priority, arguments.tries)
    references = [server.find(program) for program in arguments.programs]
    os.sched_setaffinity(0, {server.CLIENT_CORE})
    steps = [
        (reference.program, tried(reference, streams, arguments.rate, given))
        if arguments.rate
        else (reference.program, ceiling(reference, streams, given))
        for reference in references
        for streams in arguments.streams
    ]
    print(
        f"{platform.machine()}, Linux {platform.release()}, {os.cpu_count()} cores, server on one of them\n"
    )
    print(_table(steps))


if __name__ == "__main__":
    script.run(main)
