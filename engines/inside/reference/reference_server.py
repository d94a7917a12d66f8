"""Serve an OpenAI-compatible API with known send times, and faults on demand: the reference engine's server.

Uses only the standard library and is never imported. engines/reference/engine.py writes its command line
and checks the values; harness/selftest/sends.py reads its record. reference_server.c serves the same at
higher rates, without faults and role chunks.

DIR/sends.bin (`--sends DIR`) is little-endian and only appended to. A header of 16 bytes (magic
b"RFSENDS\\n", u32 version 2, u32 record size 56) comes before records of 56 bytes: request id (X-Request-Id,
ASCII, cut to 36 bytes, padded with zeros), u32 number of the content chunk within its answer, u64 due_ns,
when the chunk should have been sent, u64 sent_ns, just before it was handed to the kernel; both on
CLOCK_MONOTONIC. Two numbers are not chunks and have a due_ns of 0: 0xFFFFFFFF, the request had been read,
head and body; 0xFFFFFFFE, the end of its answer's body was handed over. The second is missing for errors by
status and for answers that were cut.

Faults, `NAME[@K][/N]`. K counts content chunks; `/N` strikes only every Nth generation:
  reset@K      TCP reset            stall@K     silence, the connection stays open
  truncate@K   the connection closes cleanly in the middle of the body
  end@K        the body ends properly, without finish_reason, usage and [DONE]
  error@K      an error event under HTTP 200, then [DONE]
  garbage@K    an event that is not JSON, then the rest of the answer
  exit@K       the process exits with code 3
  http@STATUS  this status and a JSON error, no generation      no_done   all but [DONE]
  no_generation   healthy, but each generation answers 500      ignore_term   SIGTERM does nothing
All but http and no_generation strike only streamed answers. A K beyond the answer's length never strikes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from operator import index
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

DEFAULT_MAX_TOKENS = 16
FLUSH_PERIOD_S = 1.0
BACKLOG = 8192
LAST_CHUNK = b"0\r\n\r\n"
FAULT = re.compile(
    r"(?P<kind>(?:reset|stall|truncate|end|error|garbage|exit|http)(?=@)|no_done|no_generation|ignore_term)"
    r"(?:@(?P<at>\d+))?(?:/(?P<every>\d+))?"
)
SENDS_HEADER = struct.Struct("<8sII")
SENDS_RECORD = struct.Struct("<36sIQQ")
SENDS_VERSION = 2
ARRIVAL = 0xFFFFFFFF
END = 0xFFFFFFFE
WORDS = (
    "amber birch cedar delta ember fjord grove harbor island kernel lantern meadow north orchid pebble river"
)
to_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps would make an encoder for each token


class Fault(NamedTuple):
    kind: str
    at: int
    every: int


def fault(text: str) -> Fault:
    match = FAULT.fullmatch(text)
    if not match:
        raise ValueError(text)
    return Fault(match["kind"], int(match["at"] or 0), int(match["every"] or 1))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name, kind, default, text in (
        ("model", str, "reference", "name in /v1/models"),
        ("port", int, 0, "on 127.0.0.1; 0: any free one"),
        ("sends", Path, None, "directory: record send times in its sends.bin"),
        ("context-length", int, 131072, "prompt and output, tokens"),
        ("ttft-s", float, 0.05, "from the start in a slot to chunk 0"),
        ("itl-s", float, 0.01, "between chunks, on an absolute schedule"),
        ("output-tokens", int, None, "of each answer, at most max_tokens"),
        ("slots", int, 64, "generations at once; others wait"),
        ("start-delay-s", float, 0.0, "before it listens"),
        ("fault", fault, Fault("none", 0, 1), "as the head of this file lists them"),
        ("label", str, "", "shown in /info"),
        ("tokens-per-chunk", int, 1, "output tokens of one chunk"),
        ("thinking-chunks", int, 0, "of a stream, which are reasoning"),
        ("prefill-per-token-s", float, 0.0, "added to the TTFT"),
        ("memory-bytes", int, 0, "hold that much memory"),
        ("adapters", str, "", "names with commas between; with some, no other model is known"),
    ):
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    parser.add_argument("--role-chunk", action="store_true", help="begin with a role-only chunk at once")
    return parser.parse_args()


class HttpError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    arrived_ns: int


def take_request(buffer: bytearray) -> Request | None:
    """Take the first request off the buffer; return None while it is incomplete. Raise ValueError."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
    stop = end + 4 + int(headers.get("content-length", 0))
    if len(buffer) < stop:
        return None
    body = bytes(buffer[end + 4 : stop])
    del buffer[:stop]
    return Request(method, target.partition("?")[0], headers, body, time.monotonic_ns())


def head(status: int, content_type: str, framing: str, request_id: str | None = None) -> bytes:
    phrase = next((each_status.phrase for each_status in HTTPStatus if each_status == status), "Error")
    lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Type: {content_type}", framing]
    lines += [f"X-Request-Id: {request_id}"] if request_id else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def framed(data: str) -> bytes:
    """Return a server-sent event, framed as a chunk of the chunked transfer encoding."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def error_json(message: str, status: int, code: str | None = None) -> str:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "code": code or status}})


class Connection(asyncio.Protocol):
    """One client, whose requests are answered in turn. While it reads, a write reaches the kernel at once."""

    transport: Any

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.is_writable = asyncio.Event()
        self.resume_writing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self.task:
            self.task.cancel()

    def pause_writing(self) -> None:
        self.is_writable.clear()

    def resume_writing(self) -> None:
        self.is_writable.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.task:
            self.answer_next()

    def answer_next(self) -> None:
        try:
            request = take_request(self.buffer)
        except ValueError:
            # It is not known where the next request begins, so the connection is closed.
            self.write_error(HttpError(400, "not an HTTP/1.1 request with a Content-Length"))
            self.transport.close()
        else:
            self.task = asyncio.create_task(self.answer(request)) if request else None

    async def answer(self, request: Request) -> None:
        try:
            await answer(self, request)
        except HttpError as error:
            self.write_error(error)
        except BaseException:
            self.transport.abort()
            raise
        self.task = None
        if request.headers.get("connection", "").lower() == "close":
            self.transport.close()
        if not self.transport.is_closing():
            self.answer_next()

    def write_whole(self, status: int, content_type: str, text: str, request_id: str | None = None) -> None:
        body = text.encode()
        self.transport.write(head(status, content_type, f"Content-Length: {len(body)}", request_id) + body)

    def write_error(self, error: HttpError) -> None:
        self.write_whole(error.status, "application/json", error_json(str(error), error.status, error.code))


class State:
    """State that all connections share: the options, the slots, the counts of /metrics, and the record."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.slots = asyncio.Semaphore(options.slots)
        self.generations = self.running = self.waiting = self.prompt_tokens = self.output_tokens = 0
        # Written to, so that every page is resident.
        self.ballast = bytearray(b"\1") * options.memory_bytes
        self.record = (options.sends / "sends.bin" if options.sends else Path(os.devnull)).open("ab+")
        self.record.seek(0)
        header = SENDS_HEADER.pack(b"RFSENDS\n", SENDS_VERSION, SENDS_RECORD.size)
        start = self.record.read(len(header))
        if start not in (b"", header):
            raise OSError(f"{self.record.name}: not a record of version {SENDS_VERSION}; move it away")
        self.record.write(b"" if start else header)

    def metrics(self) -> str:
        rows = (
            ("requests_running", "gauge", self.running),
            ("requests_waiting", "gauge", self.waiting),
            ("requests_total", "counter", self.generations),
            ("prompt_tokens_total", "counter", self.prompt_tokens),
            ("output_tokens_total", "counter", self.output_tokens),
        )
        return "".join(f"# TYPE reference:{name} {kind}\nreference:{name} {n}\n" for name, kind, n in rows)

    def add(self, request_id: str, chunk: int, due_ns: int, sent_ns: int) -> None:
        self.record.write(SENDS_RECORD.pack(request_id.encode("ascii", "replace"), chunk, due_ns, sent_ns))


@dataclass(frozen=True)
class Job:
    """One requested generation that passed all checks."""

    options: argparse.Namespace
    request_id: str
    created: int
    model: str
    seed: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: str
    is_streamed: bool
    has_usage: bool
    is_struck: bool  # by the fault

    @property
    def usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.output_tokens,
            "total_tokens": self.prompt_tokens + self.output_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        }

    def envelope(self, kind: str, choice: dict[str, Any] | None, usage: dict[str, Any] | None = None) -> str:
        choices = [{"index": 0, "finish_reason": None, **choice}] if choice else []
        answer = {"id": f"chatcmpl-{self.request_id}", "object": kind, "created": self.created}
        answer |= {"model": self.model, "choices": choices}
        return to_json(answer | {"usage": usage} if usage else answer)

    def delta(self, fields: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return framed(
            self.envelope("chat.completion.chunk", {"delta": fields, "finish_reason": finish_reason})
        )

    def texts(self) -> Iterator[tuple[str, int]]:
        """Yield the text and tokens of each chunk. A token is a word, drawn from the messages' seed."""
        rng, words = Random(self.seed), WORDS.split()
        for first in range(0, self.output_tokens, self.options.tokens_per_chunk):
            tokens = min(self.options.tokens_per_chunk, self.output_tokens - first)
            yield "".join(f"{rng.choice(words)} " for _ in range(tokens)), tokens

    def due_ns(self, start_ns: int, chunk: int) -> int:
        """Return when a chunk is due. The schedule is absolute: a late chunk does not delay those after."""
        options = self.options
        ttft_s = options.ttft_s + options.prefill_per_token_s * self.prompt_tokens
        return start_ns + int((ttft_s + chunk * options.itl_s) * 1e9)


def read_job(request: Request, request_id: str, state: State) -> Job:
    options = state.options
    try:
        body = json.loads(request.body)
        prompt_tokens = sum(map(prompt_tokens_of, body["messages"]))
        most = body.get("max_completion_tokens") or body.get("max_tokens")
        limit = index(most or options.output_tokens or DEFAULT_MAX_TOKENS)
        has_usage = (body.get("stream_options") or {}).get("include_usage")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise HttpError(
            400, f"the body is not a chat request in JSON, with messages of text: {error!r}"
        ) from error
    model = body.get("model") or options.model
    if options.adapters and model not in models_of(options):
        raise HttpError(404, f"the model {model} does not exist", "model_not_found")
    wanted = options.output_tokens or limit
    if prompt_tokens + limit > options.context_length:
        text = f"{prompt_tokens} + {limit} tokens exceed the context length of {options.context_length}"
        raise HttpError(400, text, "context_length_exceeded")
    return Job(
        options=options,
        request_id=request_id,
        created=int(time.time()),
        model=model,
        seed=json.dumps(body["messages"]),
        prompt_tokens=prompt_tokens,
        output_tokens=min(wanted, limit),
        finish_reason="stop" if wanted < limit else "length",
        is_streamed=bool(body.get("stream")),
        has_usage=bool(has_usage),
        is_struck=state.generations % options.fault.every == 0,
    )


def models_of(options: argparse.Namespace) -> list[str]:
    return [options.model, *filter(None, options.adapters.split(","))]


def prompt_tokens_of(message: dict[str, Any]) -> int:
    """Count one token per 4 bytes of a message's text, rounded up."""
    content = message.get("content") or ""
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    return -(-len(text.encode(errors="replace")) // 4)


async def generate(connection: Connection, state: State, request: Request) -> None:
    state.generations += 1
    request_id = request.headers.get("x-request-id") or f"reference-{state.generations}"
    state.add(request_id, ARRIVAL, 0, request.arrived_ns)
    job, fault = read_job(request, request_id, state), state.options.fault
    if job.is_struck and fault.kind in ("http", "no_generation"):
        raise HttpError(fault.at or 500, f"fault {fault.kind}")
    is_free = not state.slots.locked()
    state.waiting += 1
    try:
        await state.slots.acquire()
    finally:
        state.waiting -= 1
    start_ns = request.arrived_ns if is_free else time.monotonic_ns()
    state.running += 1
    state.prompt_tokens += job.prompt_tokens
    try:
        await (stream if job.is_streamed else write_at_once)(connection, state, job, start_ns)
    finally:
        state.running -= 1
        state.slots.release()


async def write_at_once(connection: Connection, state: State, job: Job, start_ns: int) -> None:
    texts = [text for text, _ in job.texts()]
    await until(job.due_ns(start_ns, len(texts) - 1))
    state.output_tokens += job.output_tokens
    message = {"role": "assistant", "content": "".join(texts)}
    choice = {"message": message, "finish_reason": job.finish_reason}
    state.add(job.request_id, END, 0, time.monotonic_ns())
    text = job.envelope("chat.completion", choice, job.usage)
    connection.write_whole(200, "application/json", text, job.request_id)


async def stream(connection: Connection, state: State, job: Job, start_ns: int) -> None:
    write = connection.transport.write
    write(head(200, "text/event-stream", "Transfer-Encoding: chunked", job.request_id))
    if job.options.role_chunk:
        write(job.delta({"role": "assistant", "content": None}))
    chunk = 0
    for chunk, (text, tokens) in enumerate(job.texts()):
        if await strike(connection, state, job, chunk):
            return
        due_ns = job.due_ns(start_ns, chunk)
        event = job.delta({"reasoning_content" if chunk < job.options.thinking_chunks else "content": text})
        await until(due_ns)
        await connection.is_writable.wait()
        sent_ns = time.monotonic_ns()
        write(event)
        state.add(job.request_id, chunk, due_ns, sent_ns)
        state.output_tokens += tokens
    if not await strike(connection, state, job, chunk + 1):
        write(job.delta({}, job.finish_reason))
        if job.has_usage:
            write(framed(job.envelope("chat.completion.chunk", None, job.usage)))
        has_done = not (job.is_struck and job.options.fault.kind == "no_done")
        write_end(connection, state, job, framed("[DONE]") if has_done else b"")


def write_end(connection: Connection, state: State, job: Job, last_event: bytes = b"") -> None:
    state.add(job.request_id, END, 0, time.monotonic_ns())
    connection.transport.write(last_event + LAST_CHUNK)


async def until(instant_ns: int) -> None:
    await asyncio.sleep(max(0.0, (instant_ns - time.monotonic_ns()) / 1e9))


async def strike(connection: Connection, state: State, job: Job, sent: int) -> bool:
    """Let the fault happen if it is due after `sent` chunks. Return whether the answer is over."""
    fault, transport = job.options.fault, connection.transport
    if not job.is_struck or fault.at != sent:
        return False
    match fault.kind:
        case "garbage":
            transport.write(framed('{"choices": [this is not JSON'))
            return False
        case "reset":
            linger = struct.pack("ii", 1, 0)  # on, for 0 s: close() then sends RST instead of FIN
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        case "stall":
            await asyncio.get_running_loop().create_future()  # cancelled when the client goes
        case "truncate":
            transport.close()
        case "end":
            write_end(connection, state, job)
        case "error":
            write_end(connection, state, job, framed(error_json("fault error", 500)) + framed("[DONE]"))
        case "exit":
            state.record.flush()
            os._exit(3)
        case _:
            return False
    return True


async def answer(connection: Connection, request: Request) -> None:
    state = connection.state
    names = models_of(state.options)
    models = [{"id": name, "object": "model", "created": 0, "owned_by": "reference"} for name in names]
    pages = {
        "/v1/models": {"object": "list", "data": models},
        "/health": {"status": "ok"},
        "/info": {"program": "python", **vars(state.options)},
    }
    match request.method, request.path:
        case "POST", "/v1/chat/completions":
            await generate(connection, state, request)
        case "GET", "/metrics":
            connection.write_whole(200, "text/plain; version=0.0.4; charset=utf-8", state.metrics())
        case "GET", path if path in pages:
            connection.write_whole(200, "application/json", json.dumps(pages[path], default=str))
        case _:
            raise HttpError(404, f"no {request.method} {request.path} here")


async def serve(options: argparse.Namespace) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if options.fault.kind == "ignore_term":
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    state = State(options)
    if not await set_within(stop, options.start_delay_s):
        server = await loop.create_server(
            lambda: Connection(state), "127.0.0.1", options.port, backlog=BACKLOG
        )
        print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        while not await set_within(stop, FLUSH_PERIOD_S):
            state.record.flush()
    state.record.flush()


async def set_within(event: asyncio.Event, limit_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
    return event.is_set()


class Selector(selectors.DefaultSelector):
    """A selector with exact timeouts: epoll rounds them up to whole milliseconds."""

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0 and hasattr(self, "fileno"):
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


def main() -> None:
    options = read_arguments()
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector())) as runner:
            runner.run(serve(options))
    except OSError as error:
        sys.exit(f"reference_server: {error}")


if __name__ == "__main__":
    main()
