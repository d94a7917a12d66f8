"""The reference engine's server: an OpenAI-compatible server with known send times, and faults on demand.

Run as `python -P reference_server.py --port 8000`; standard library only, never imported, knows nothing of
bench. engines/reference/engine.py writes its command line; engines/reference/sends.py reads what it records.
reference_server.c beside it serves at higher rates: the same options and record, but no faults, no role
chunk and no options in a request.

DIR/sends.bin (`--sends DIR`), little-endian, append only: a header of 16 bytes (magic b"RFSENDS\\n", u32
version 2, u32 record size 56), then records of 56 bytes: request id (X-Request-Id, ASCII, cut to 36 bytes,
padded with zeros), u32 number of the content chunk within its answer, u64 due_ns, when the chunk should have
been sent, u64 sent_ns, just before it was handed to the kernel; both CLOCK_MONOTONIC. Two numbers are no
chunks, and have a due_ns of 0: 0xFFFFFFFF, the request had been read, head and body; 0xFFFFFFFE, the end of
its answer's body was handed over. The second is missing for errors by status and for answers that were cut.

Faults, `NAME[@K][/N]`; K counts content chunks, and `/N` strikes every Nth generation only:
  reset@K      TCP reset            stall@K     silence, the connection stays open
  truncate@K   the connection closes cleanly in the middle of the body
  end@K        the body ends properly, without finish_reason, usage and [DONE]
  error@K      an error event under HTTP 200, then [DONE]
  garbage@K    an event that is not JSON, then the rest of the answer
  exit@K       the process exits with code 3
  http@STATUS  this status and a JSON error, no generation      no_done   all but [DONE]
  no_generation   healthy, but each generation answers 500      ignore_term   SIGTERM does nothing
All but http and no_generation strike streamed answers only. A K beyond the answer's length never strikes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from pathlib import Path
from random import Random
from typing import Any

HEAD_LIMIT_BYTES = 64 * 1024
BODY_LIMIT_BYTES = 16 * 1024 * 1024
DEFAULT_MAX_TOKENS = 16
DURATION_LIMIT_S = 86400.0
FLUSH_PERIOD_S = 1.0
BACKLOG = 8192
to_json = json.JSONEncoder(separators=(",", ":")).encode  # once: json.dumps would make one for each token
CHUNK_KIND = "chat.completion.chunk"

FAULTS_AFTER_K = ("reset", "stall", "truncate", "end", "error", "garbage", "exit")
FAULTS_OF_PROCESS = ("no_generation", "ignore_term")
FAULTS = (*(f"{kind}@K" for kind in FAULTS_AFTER_K), "http@STATUS", "no_done", *FAULTS_OF_PROCESS)
FAULT = re.compile(
    rf"(?:({'|'.join(FAULTS_AFTER_K)})@([0-9]{{1,9}})|(http)@([45][0-9][0-9])|"
    rf"(no_done|{'|'.join(FAULTS_OF_PROCESS)}))(?:/([1-9][0-9]{{0,8}}))?"
)

SENDS_HEADER = struct.Struct("<8sII")
SENDS_RECORD = struct.Struct("<36sIQQ")
SENDS_VERSION = 2
ARRIVAL = 0xFFFFFFFF
END = 0xFFFFFFFE

REQUEST_LINE = re.compile(r"([A-Z]+) (/[!-~]*) HTTP/1\.1")
HEADER_LINE = re.compile(r"([!#-'*+.0-9A-Z^-z|~-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")

WORDS = (
    "amber birch cedar delta ember fjord grove harbor island kernel lantern meadow north orchid pebble river"
)


# --- options -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    kind: str
    at: int
    every: int


@dataclass(frozen=True)
class Options:
    """The command line; a request's `reference` object replaces the fields of OVERRIDES for itself."""

    model: str
    port: int
    sends: Path | None
    context_length: int
    ttft_s: float
    itl_s: float
    output_tokens: int | None
    slots: int
    start_delay_s: float
    fault: Fault | None
    label: str
    tokens_per_chunk: int
    prefill_per_token_s: float
    memory_bytes: int
    role_chunk: bool


def read_fault(text: str | None) -> Fault | None:
    """Raise ValueError with one line that names the choices, if this is none of them."""
    if text is None:
        return None
    match = FAULT.fullmatch(text)
    if not match:
        raise ValueError(f"fault={text}: no such fault; choose from {', '.join(FAULTS)}, each with /N or not")
    after_k, k, http, status, other, every = match.groups()
    return Fault(after_k or http or other, int(k or status or 0), int(every or 1))


def seconds(value: str | float) -> float:
    number = float(value)
    if not 0 <= number <= DURATION_LIMIT_S:
        raise ValueError(f"{value}: must be from 0 to {DURATION_LIMIT_S:.0f} seconds")
    return number


def count(value: str | float) -> int:
    number = int(value)
    if number != float(value) or number < 1:
        raise ValueError(f"{value}: must be a whole number from 1")
    return number


OVERRIDES = {"ttft_s": seconds, "itl_s": seconds, "output_tokens": count, "fault": read_fault}


def overridden(options: Options, wanted: Any) -> Options:
    """Return the options for one request, from its `reference` object (None: as they are)."""
    wanted = {} if wanted is None else wanted
    if not isinstance(wanted, dict) or not wanted.keys() <= OVERRIDES.keys():
        raise HttpError(400, f"reference: must be an object with some of {', '.join(OVERRIDES)}")
    changes: dict[str, Any] = {}
    for name, value in wanted.items():
        try:
            if isinstance(value, bool):
                raise TypeError(f"{value}: true and false are no numbers")
            changes[name] = OVERRIDES[name](value)
        except (ValueError, TypeError, OverflowError) as error:
            raise HttpError(400, f"reference.{name}: {error}") from error
    if changes.get("fault") and changes["fault"].kind == "ignore_term":
        raise HttpError(400, "reference.fault=ignore_term: a fault of the process, not of one request")
    return replace(options, **changes)


ARGUMENTS: tuple[tuple[str, Callable[[str], object], object, str], ...] = (
    ("model", str, "reference", "name in /v1/models"),
    ("port", int, 0, "on 127.0.0.1; 0: any free one"),
    ("sends", Path, None, "directory: record send times in its sends.bin"),
    ("context-length", count, 131072, "prompt and output, tokens"),
    ("ttft-s", seconds, 0.05, "from the start in a slot to chunk 0"),
    ("itl-s", seconds, 0.01, "between chunks, on an absolute schedule"),
    ("output-tokens", count, None, "of each answer, at most max_tokens"),
    ("slots", count, 64, "generations at once; others wait"),
    ("start-delay-s", seconds, 0.0, "before it listens"),
    ("fault", str, None, ", ".join(FAULTS)),
    ("label", str, "", "shown in /info"),
    ("tokens-per-chunk", count, 1, "output tokens of one chunk"),
    ("prefill-per-token-s", seconds, 0.0, "added to the TTFT"),
    ("memory-bytes", int, 0, "hold that much memory"),
)


def read_arguments() -> Options:
    parser = argparse.ArgumentParser(usage="%(prog)s [options]", allow_abbrev=False)
    for name, kind, default, text in ARGUMENTS:
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    parser.add_argument("--role-chunk", action="store_true", help="begin with a role-only chunk at once")
    arguments = vars(parser.parse_args())
    try:
        arguments["fault"] = read_fault(arguments["fault"])
    except ValueError as error:
        sys.exit(f"reference_server: {error}")
    return Options(**arguments)


# --- HTTP ----------------------------------------------------------------------------------------


class HttpError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    arrived_ns: int


def take_request(buffer: bytearray) -> Request | None:
    """Take the first request off the buffer. Return None while it is incomplete."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0 and len(buffer) <= HEAD_LIMIT_BYTES:
        return None
    if not 0 <= end <= HEAD_LIMIT_BYTES:
        raise HttpError(431, "the request's head is too long")
    first, *lines = buffer[:end].decode("latin-1").split("\r\n")
    target = REQUEST_LINE.fullmatch(first)
    fields = [HEADER_LINE.fullmatch(line) for line in lines]
    headers = {field[1].lower(): field[2] for field in fields if field}
    length = headers.get("content-length", "0")
    if not target or None in fields or not re.fullmatch("[0-9]{1,18}", length):
        raise HttpError(400, "not an HTTP/1.1 request")
    if "transfer-encoding" in headers:
        raise HttpError(411, "the request needs a Content-Length")
    if int(length) > BODY_LIMIT_BYTES:
        raise HttpError(413, f"the body is longer than {BODY_LIMIT_BYTES} bytes")
    stop = end + 4 + int(length)
    if len(buffer) < stop:
        return None
    body = bytes(buffer[end + 4 : stop])
    del buffer[:stop]
    return Request(target[1], target[2].partition("?")[0], headers, body, time.monotonic_ns())


def head(status: int, content_type: str, framing: str, request_id: str | None = None) -> bytes:
    phrase = next((known.phrase for known in HTTPStatus if known == status), "Error")
    lines = [f"HTTP/1.1 {status} {phrase}", f"Content-Type: {content_type}", framing]
    lines += [f"X-Request-Id: {request_id}"] if request_id else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def framed(data: str) -> bytes:
    """Return a server-sent event, framed as a chunk of the chunked transfer encoding."""
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


LAST_CHUNK = b"0\r\n\r\n"


def error_json(message: str, status: int, code: str | None = None) -> str:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "code": code or status}})


class Connection(asyncio.Protocol):
    """One client. It answers its requests one after the other; an answer ends when the client goes.

    asyncio sets TCP_NODELAY. A write goes to the kernel at once unless the client has stopped reading.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.buffer = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.is_writable = asyncio.Event()
        self.is_writable.set()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.is_writable.set()
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
        elif len(self.buffer) > BODY_LIMIT_BYTES:
            self.transport.abort()

    def answer_next(self) -> None:
        try:
            request = take_request(self.buffer)
        except HttpError as error:
            # Where the next request begins is not known: the connection cannot be kept.
            self.write_error(error)
            self.transport.close()
            return
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

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)  # on, for 0 s: close() then sends RST instead of FIN
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


# --- generation ----------------------------------------------------------------------------------


class Sends:
    """Writes sends.bin, if a directory was given."""

    def __init__(self, directory: Path | None) -> None:
        self.file = (directory / "sends.bin" if directory else Path(os.devnull)).open("ab+")
        self.file.seek(0)
        header = SENDS_HEADER.pack(b"RFSENDS\n", SENDS_VERSION, SENDS_RECORD.size)
        found = self.file.read(len(header))
        if found not in (b"", header):
            raise OSError(f"{self.file.name}: not a record of version {SENDS_VERSION}; move it away")
        self.file.write(b"" if found else header)

    def add(self, request_id: str, chunk: int, due_ns: int, sent_ns: int) -> None:
        self.file.write(SENDS_RECORD.pack(request_id.encode("ascii", "replace"), chunk, due_ns, sent_ns))


class State:
    """What all connections share: the options, the slots, the counts of /metrics, and the record."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.slots = asyncio.Semaphore(options.slots)
        self.sends = Sends(options.sends)
        self.generations = self.running = self.waiting = self.prompt_tokens = self.output_tokens = 0
        # Written, not only reserved: every page is resident.
        self.ballast = bytearray(b"\1") * options.memory_bytes


@dataclass(frozen=True)
class Job:
    """One generation that was asked for, after all checks."""

    request_id: str
    created: int
    model: str
    is_streamed: bool
    has_usage: bool
    options: Options  # with those of the request
    fault: Fault | None
    seed: str
    prompt_tokens: int
    output_tokens: int
    finish_reason: str

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

    def texts(self) -> Iterator[tuple[str, int]]:
        """Yield the text and tokens of each chunk. A token is a word, drawn from the messages' seed."""
        rng, words = Random(self.seed), WORDS.split()
        for first in range(0, self.output_tokens, self.options.tokens_per_chunk):
            tokens = min(self.options.tokens_per_chunk, self.output_tokens - first)
            yield "".join(f"{rng.choice(words)} " for _ in range(tokens)), tokens


def read_job(request: Request, request_id: str, state: State) -> Job:
    """Raise HttpError if the request cannot be served."""
    body = read_body(request.body)
    options = overridden(state.options, body.get("reference"))
    prompt_tokens = prompt_tokens_of(body.get("messages"))
    limit = max_tokens_of(body, options.output_tokens or DEFAULT_MAX_TOKENS)
    wanted = options.output_tokens or limit
    if prompt_tokens + limit > options.context_length:
        text = f"{prompt_tokens} + {limit} tokens exceed the context length of {options.context_length}"
        raise HttpError(400, text, "context_length_exceeded")
    fault = options.fault
    return Job(
        request_id=request_id,
        created=int(time.time()),
        model=str(body.get("model") or options.model),
        is_streamed=flag(body, "stream"),
        has_usage=flag(body.get("stream_options") or {}, "include_usage"),
        options=options,
        fault=fault if fault and state.generations % fault.every == 0 else None,
        seed=json.dumps(body["messages"]),
        prompt_tokens=prompt_tokens,
        output_tokens=min(wanted, limit),
        finish_reason="stop" if wanted < limit else "length",
    )


def read_body(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HttpError(400, f"the body is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise HttpError(400, "the body is not a JSON object")
    return fields


def flag(fields: Any, name: str) -> bool:
    value = fields.get(name) or False if isinstance(fields, dict) else None
    if not isinstance(value, bool):
        raise HttpError(400, f"{name}: must be true or false")
    return value


def max_tokens_of(body: dict[str, Any], default: int) -> int:
    name = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int or value < 1:
        raise HttpError(400, f"{name}: must be a whole number from 1")
    return value


def prompt_tokens_of(messages: Any) -> int:
    """Count a token for each 4 bytes of a message's text, rounded up message by message."""
    if not isinstance(messages, list) or not messages:
        raise HttpError(400, "messages: must be a list with one message at least")
    return sum(-(-len(text_of(message).encode(errors="replace")) // 4) for message in messages)


def text_of(message: Any) -> str:
    fields = message if isinstance(message, dict) else {}
    content = fields.get("content")
    parts = content if isinstance(content, list) else [{"text": content or ""}]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    if not isinstance(fields.get("role"), str) or not all(isinstance(text, str) for text in texts):
        raise HttpError(400, "messages: each needs a role, and text as its content")
    return "".join(map(str, texts))


async def generate(connection: Connection, state: State, request: Request) -> None:
    state.generations += 1
    request_id = request.headers.get("x-request-id") or f"reference-{state.generations}"
    state.sends.add(request_id, ARRIVAL, 0, request.arrived_ns)
    job = read_job(request, request_id, state)
    if job.fault and job.fault.kind in ("http", "no_generation"):
        raise HttpError(job.fault.at or 500, f"fault {job.fault.kind}")
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
    texts = list(job.texts())
    await until(due_ns_of(job, start_ns, len(texts) - 1))
    state.output_tokens += job.output_tokens
    message = {"role": "assistant", "content": "".join(text for text, _ in texts)}
    choice = {"message": message, "finish_reason": job.finish_reason}
    answer = job.envelope("chat.completion", choice, job.usage())
    state.sends.add(job.request_id, END, 0, time.monotonic_ns())
    connection.write_whole(200, "application/json", answer, job.request_id)


async def stream(connection: Connection, state: State, job: Job, start_ns: int) -> None:
    write = connection.transport.write
    write(head(200, "text/event-stream", "Transfer-Encoding: chunked", job.request_id))
    if job.options.role_chunk:
        write(framed(delta(job, {"role": "assistant", "content": None})))
    chunk = 0
    for chunk, (text, tokens) in enumerate(job.texts()):
        if await strike(connection, state, job, chunk):
            return
        due_ns = due_ns_of(job, start_ns, chunk)
        event = framed(delta(job, {"content": text}))
        await until(due_ns)
        await connection.is_writable.wait()
        sent_ns = time.monotonic_ns()
        write(event)
        state.sends.add(job.request_id, chunk, due_ns, sent_ns)
        state.output_tokens += tokens
    if not await strike(connection, state, job, chunk + 1):
        write(framed(delta(job, {}, job.finish_reason)))
        if job.has_usage:
            write(framed(job.envelope(CHUNK_KIND, None, job.usage())))
        has_done = not (job.fault and job.fault.kind == "no_done")
        write_end(connection, state, job, framed("[DONE]") if has_done else b"")


def write_end(connection: Connection, state: State, job: Job, last_event: bytes = b"") -> None:
    state.sends.add(job.request_id, END, 0, time.monotonic_ns())
    connection.transport.write(last_event + LAST_CHUNK)


def delta(job: Job, fields: dict[str, Any], finish_reason: str | None = None) -> str:
    return job.envelope(CHUNK_KIND, {"delta": fields, "finish_reason": finish_reason})


def due_ns_of(job: Job, start_ns: int, chunk: int) -> int:
    """Return when a chunk is due. The schedule is absolute: a late chunk does not delay those after it."""
    options = job.options
    ttft_s = options.ttft_s + options.prefill_per_token_s * job.prompt_tokens
    return start_ns + int((ttft_s + chunk * options.itl_s) * 1e9)


async def until(instant_ns: int) -> None:
    await asyncio.sleep(max(0.0, (instant_ns - time.monotonic_ns()) / 1e9))


async def strike(connection: Connection, state: State, job: Job, sent: int) -> bool:
    """Let the fault happen if it is due after `sent` chunks. Return whether the answer is over."""
    fault = job.fault
    if not fault or fault.kind not in FAULTS_AFTER_K or fault.at != sent:
        return False
    match fault.kind:
        case "garbage":
            connection.transport.write(framed('{"choices": [this is not JSON'))
            return False
        case "reset":
            connection.reset()
        case "stall":
            await asyncio.get_running_loop().create_future()  # cancelled when the client goes
        case "truncate":
            connection.transport.close()
        case "end":
            write_end(connection, state, job)
        case "error":
            error = framed(error_json("fault error", 500))
            write_end(connection, state, job, error + framed("[DONE]"))
        case "exit":
            state.sends.file.flush()
            os._exit(3)
    return True


# --- other pages and the process -----------------------------------------------------------------


CHAT_PATH = "/v1/chat/completions"
PAGES = ("/v1/models", "/health", "/info", "/metrics")


def page(path: str, state: State) -> str:
    """Return the page at one of PAGES, as JSON but for the metrics."""
    if path == "/metrics":
        return metrics(state)
    if path == "/info":
        return json.dumps({"program": "python"} | asdict(state.options), default=str)
    if path == "/health":
        return '{"status": "ok"}'
    model = {"id": state.options.model, "object": "model", "created": 0, "owned_by": "reference"}
    return json.dumps({"object": "list", "data": [model]})


def metrics(state: State) -> str:
    rows = (
        ("requests_running", "gauge", state.running),
        ("requests_waiting", "gauge", state.waiting),
        ("requests_total", "counter", state.generations),
        ("prompt_tokens_total", "counter", state.prompt_tokens),
        ("output_tokens_total", "counter", state.output_tokens),
    )
    lines = [f"# TYPE reference:{name} {kind}\nreference:{name} {value}\n" for name, kind, value in rows]
    return "".join(lines)


async def answer(connection: Connection, request: Request) -> None:
    path, state = request.path, connection.state
    if path != CHAT_PATH and path not in PAGES:
        raise HttpError(404, f"{path}: no such path; there are {', '.join([CHAT_PATH, *PAGES])}")
    if request.method != ("POST" if path == CHAT_PATH else "GET"):
        raise HttpError(405, f"{request.method}: not for {path}")
    if path == CHAT_PATH:
        await generate(connection, state, request)
    else:
        content_type = (
            "text/plain; version=0.0.4; charset=utf-8" if path == "/metrics" else "application/json"
        )
        connection.write_whole(200, content_type, page(path, state))


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT, which cut the streams that run."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    if options.fault and options.fault.kind == "ignore_term":
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    state = State(options)
    if not await set_within(stop, options.start_delay_s):
        server = await loop.create_server(
            lambda: Connection(state), "127.0.0.1", options.port, backlog=BACKLOG
        )
        print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        while not await set_within(stop, FLUSH_PERIOD_S):
            state.sends.file.flush()
    state.sends.file.flush()


class Selector(selectors.DefaultSelector):
    """Waits for what asyncio asks, not up to 1 ms more: epoll counts whole milliseconds."""

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0 and hasattr(self, "fileno"):
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


async def set_within(event: asyncio.Event, limit_s: float) -> bool:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
    return event.is_set()


def main() -> None:
    options = read_arguments()
    with suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Selector())) as runner:
            runner.run(serve(options))
    except OSError as error:
        sys.exit(f"reference_server: {error}")


if __name__ == "__main__":
    main()
