"""A server that speaks TGI's HTTP as its source has it (2026-01-08, after v3.3.7), around a few words.

Run as `python tgi_server.py --port P [...]`, or as a text-generation-launcher: it takes that program's flags,
and writes the lines of its log that say what is used. Its answers are fixed by the prompt, so that two
readers of it can be compared. What trips a client of TGI is here: no role-only chunk, one event per token
even where it has no text, errors under HTTP 200, parameters that are refused or read as something else,
answers in pieces of 1,024. A prompt with `break now` breaks down after three tokens; one with `linger` waits
a second before each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL_ID = "test/words"
VERSION = "3.3.6-dev0"
LABEL = "sha-db931fc"
PIECE_TOKENS = 1024  # DEFAULT_GENERATION_LENGTH
WORDS = ("the ", "sea ", "is ", "", "🙂 ", "wide ", "and ", "old, ")  # a character may take two tokens
EOS = ("</s>", True)


class RefusedError(Exception):
    """A failure that TGI names; `kind` is its error_type, `status` of an answer that is not streamed."""

    def __init__(self, message: str, kind: str, status: int) -> None:
        super().__init__(message)
        self.kind, self.status = kind, status


def invalid(message: str) -> RefusedError:
    return RefusedError(f"Input validation error: {message}", "validation", 422)


@dataclass(frozen=True)
class Asked:
    """GenerateParameters, as far as they matter here; `seed` is what a random one stands for."""

    prompt: str
    max_new_tokens: int | None
    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 7
    details: bool = True


@dataclass(frozen=True)
class Token:
    """One step of an answer. `end`: why it is the last; `generated`: what the server counts then."""

    text: str
    is_special: bool = False
    end: str | None = None
    generated: int = 0
    input_tokens: int = 0
    whole_text: str = ""


@dataclass
class Server:
    """State of all connections. `is_broken`: a generation failed, and no health check has run since."""

    args: argparse.Namespace
    permits: threading.Semaphore
    is_broken: bool = False
    bodies: list[Any] = field(default_factory=list)

    def validate(self, asked: Asked, so_far: str = "") -> tuple[int, int]:
        """Input tokens, and how many may come in one piece."""
        if asked.temperature is not None and asked.temperature <= 0:
            raise invalid("`temperature` must be strictly positive")
        if asked.top_p is not None and not 0 < asked.top_p < 1:
            raise invalid("`top_p` must be > 0.0 and < 1.0")
        if asked.repetition_penalty <= 0:
            raise invalid("`repetition_penalty` must be strictly positive")
        if asked.max_new_tokens == 0:
            raise invalid("`max_new_tokens` must be strictly positive")
        longest, inputs = self.args.max_total_tokens, count(asked.prompt + so_far)
        wanted = longest - inputs if asked.max_new_tokens is None else asked.max_new_tokens
        piece = min(wanted, PIECE_TOKENS)
        if inputs + piece > longest:
            raise invalid(
                f"`inputs` tokens + `max_new_tokens` must be <= {longest}. Given: {inputs} `inputs` tokens "
                f"and {piece} `max_new_tokens`"
            )
        if inputs > self.args.max_input_tokens:
            raise invalid(
                f"`inputs` must have less than {self.args.max_input_tokens} tokens. Given: {inputs}"
            )
        return inputs, piece

    def tokens(self, asked: Asked) -> Iterator[Token]:
        """The answer; holds a permit while it runs. Raises RefusedError, before the first token or later."""
        if not self.permits.acquire(blocking=False):
            raise RefusedError("Model is overloaded", "overloaded", 429)
        try:
            yield from self._pieces(asked)
        finally:
            self.permits.release()

    def _pieces(self, asked: Asked) -> Iterator[Token]:
        inputs, piece = self.validate(asked)
        wanted = self.args.max_total_tokens - inputs if asked.max_new_tokens is None else asked.max_new_tokens
        said: list[str] = []
        while True:
            for text, is_special, reason in self._piece(asked, len(said), piece):
                said.append(text)
                visible = "".join(said[:-1] if is_special else said)
                if reason == "length" and len(said) < wanted:
                    try:
                        _, piece = self.validate(asked, " ".join(said))
                    except RefusedError:  # no room for the next piece: the answer ends here
                        pass
                    else:
                        yield Token(text)
                        break
                yield Token(text, is_special, reason, len(said), inputs, visible)
                if reason:
                    return

    def _piece(self, asked: Asked, begun: int, size: int) -> Iterator[tuple[str, bool, str | None]]:
        for number in range(begun, begun + size):
            if "linger" in asked.prompt:
                threading.Event().wait(1)
            if "break now" in asked.prompt and number == 3:
                self.is_broken = True
                message = "Request failed during generation: Server error: CUDA out of memory"
                raise RefusedError(message, "generation", 424)
            is_end = number + 1 >= self.args.answer_tokens
            text, is_special = EOS if is_end else (word(asked, number), False)
            # The limit is looked at before the end of the answer.
            reason = "length" if number + 1 == begun + size else "eos_token" if is_end else None
            yield text, is_special, reason
            if reason:
                return


def word(asked: Asked, number: int) -> str:
    """Greedy: the words in turn. With a repetition penalty none comes twice."""
    turn, place = divmod(number, len(WORDS))
    if turn and asked.repetition_penalty > 1:
        return f"word-{number} "
    return WORDS[place]


def count(text: str) -> int:
    return 1 + len(text.split())


# --- what is asked ---------------------------------------------------------------------------------------


def chat_asked(body: Mapping[str, Any]) -> Asked:
    """As try_into_generate does. RefusedError where the template does not take the messages."""
    penalty = body.get("presence_penalty")
    temperature = body.get("temperature")
    if any(message.get("role") == "nobody" for message in body["messages"]):
        raise RefusedError("Template error: invalid operation: nobody speaks", "template_error", 422)
    rendered = "".join(f"{message['role']}: {message['content']}\n" for message in body["messages"])
    return Asked(
        rendered + "assistant:",
        body.get("max_tokens", body.get("max_completion_tokens")),
        None if temperature == 0 else temperature,
        body.get("top_p"),
        1.0 if penalty is None else penalty + 2.0,
    )


def generate_asked(body: Mapping[str, Any]) -> Asked:
    given = body.get("parameters") or {}
    return Asked(
        body["inputs"],
        given.get("max_new_tokens"),
        given.get("temperature"),
        given.get("top_p"),
        given.get("repetition_penalty") or 1.0,
        given.get("seed") or 7,
        bool(given.get("details")),
    )


def wrong_type(body: Any) -> str | None:
    """What serde says of a chat request, None where it is well formed."""
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        return "missing field `messages`"
    wanted: dict[str, type | tuple[type, ...]] = {
        "stop": list,
        "logit_bias": list,
        "presence_penalty": (int, float),
        "top_p": (int, float),
        "temperature": (int, float),
    }
    for name, kind in wanted.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            return f"{name}: invalid type"
    if "stream_options" in body and not isinstance(body["stream_options"], dict):
        return "stream_options: invalid type: null, expected struct StreamOptions"
    return None


# --- what is answered ------------------------------------------------------------------------------------


def chat_chunk(model: str, choices: list[Any], usage: dict[str, int] | None) -> dict[str, Any]:
    fixed = {"id": "", "created": int(time.time()), "model": model}
    return {**fixed, "system_fingerprint": f"{VERSION}-{LABEL}", "choices": choices, "usage": usage}


def chat_events(model: str, tokens: Iterator[Token], include_usage: bool) -> Iterator[dict[str, Any]]:
    for token in tokens:
        delta = {"role": "assistant", "content": "" if token.is_special else token.text}
        reason = "stop" if token.end == "eos_token" else token.end
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        yield chat_chunk(model, [choice], None)
        if token.end and include_usage:
            yield chat_chunk(model, [], usage_of(token))


def usage_of(last: Token) -> dict[str, int]:
    counts = {"prompt_tokens": last.input_tokens, "completion_tokens": last.generated}
    return {**counts, "total_tokens": last.input_tokens + last.generated}


def generate_events(asked: Asked, tokens: Iterator[Token]) -> Iterator[dict[str, Any]]:
    for index, token in enumerate(tokens, 1):
        details = None
        if token.end and asked.details:
            details = {"finish_reason": token.end, "generated_tokens": token.generated, "seed": asked.seed}
            details["input_length"] = token.input_tokens
        shown = {"id": index, "text": token.text, "logprob": -0.1, "special": token.is_special}
        whole = token.whole_text if token.end else None
        yield {"index": index, "token": shown, "generated_text": whole, "details": details}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path in ("/health", "/ping", "/"):
            broken, self.state.is_broken = self.state.is_broken, False  # the check generates a token
            unhealthy = {"error": "unhealthy", "error_type": "healthcheck"}
            self.answer(unhealthy if broken else None, 503 if broken else 200)
        elif self.path == "/info":
            self.answer(info(self.state.args))
        elif self.path == "/v1/models":
            model = {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": MODEL_ID}
            self.answer({"object": "list", "data": [model]})
        else:
            self.answer(None, 404)

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            body = json.loads(raw)
        except ValueError as error:
            return self.plain(f"Failed to parse the request body as JSON: {error}", 400)
        self.state.bodies.append(body)
        if self.path == "/v1/chat/completions":
            if wrong := wrong_type(body):
                return self.plain(f"Failed to deserialize the JSON body into the target type: {wrong}", 422)
            return self.guarded(self.chat, body)
        if self.path == "/generate_stream" or (self.path == "/" and body.get("stream")):
            asked = generate_asked(body)
            return self.stream(generate_events(asked, self.state.tokens(asked)), is_openai=False)
        return self.answer(None, 404)

    def guarded(self, answer: Any, body: dict[str, Any]) -> None:
        try:
            answer(body)
        except RefusedError as error:
            self.answer({"error": str(error), "error_type": error.kind}, error.status)

    def chat(self, body: dict[str, Any]) -> None:
        asked = chat_asked(body)
        name = body.get("model")
        model = MODEL_ID if name in (None, "tgi") else name
        tokens = self.state.tokens(asked)
        if body.get("stream"):
            include_usage = bool(body.get("stream_options", {}).get("include_usage"))
            return self.stream(chat_events(model, tokens, include_usage), is_openai=True)
        *_, last = tokens
        message = {"role": "assistant", "content": last.whole_text}
        reason = "stop" if last.end == "eos_token" else last.end
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return self.answer({**chat_chunk(model, [choice], usage_of(last)), "object": "chat.completion"})

    def stream(self, events: Iterator[dict[str, Any]], *, is_openai: bool) -> None:
        """The headers first: what goes wrong after them has HTTP status 200."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-cache")
        self.send_header("x-compute-type", "gpu+optimized")
        self.send_header("x-accel-buffering", "no")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for number, event in enumerate(events):
                self.chunk(b"data:" + b" " + dump(event) + b"\n\n")
                if number == 0:
                    self.chunk(b":\n\n")  # what keeps a connection alive, every 15 s there
        except RefusedError as error:
            message = {"message": str(error), "http_status_code": 422}
            failed = {"error": message} if is_openai else {"error": str(error), "error_type": error.kind}
            self.chunk(b"data: " + dump(failed) + b"\n\n")
        if is_openai:
            self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def plain(self, text: str, status: int) -> None:
        self.reply(text.encode(), "text/plain; charset=utf-8", status)

    def answer(self, value: object, status: int = 200) -> None:
        self.reply(b"" if value is None else dump(value), "application/json", status)

    def reply(self, body: bytes, kind: str, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def info(args: argparse.Namespace) -> dict[str, Any]:
    limits = {name: getattr(args, name) for name in ("max_concurrent_requests", "max_input_tokens")}
    fixed = {"max_best_of": 2, "max_stop_sequences": 4, "validation_workers": 2, "max_client_batch_size": 4}
    build = {"router": "text-generation-router", "version": VERSION, "sha": None, "docker_label": LABEL}
    model = {"model_id": MODEL_ID, "model_sha": None, "model_pipeline_tag": None}
    return {**model, **limits, "max_total_tokens": args.max_total_tokens, **fixed, **build}


# --- the launcher ----------------------------------------------------------------------------------------


def arguments(argv: list[str]) -> argparse.Namespace:
    """The launcher's flags, and two of the test's own. An unknown one ends the program, as there."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model-id", default=MODEL_ID)
    parser.add_argument("--hostname", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--max-total-tokens", type=int, default=4096)
    parser.add_argument("--max-input-tokens", type=int)
    parser.add_argument("--max-concurrent-requests", type=int, default=128)
    parser.add_argument("--dtype", choices=("float16", "bfloat16"))
    parser.add_argument("--quantize")
    parser.add_argument("--usage-stats", choices=("on", "off", "no-stack"), default="on")
    for name in ("num-shard", "max-batch-size", "max-batch-prefill-tokens", "cuda-graphs", "speculate"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--cuda-memory-fraction", type=float)
    parser.add_argument("--kv-cache-dtype")
    parser.add_argument("--shard-uds-path")
    parser.add_argument("--graceful-termination-timeout", type=int)
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--answer-tokens", type=int, default=int(os.environ.get("ANSWER_TOKENS", 10**9)))
    args = parser.parse_args(argv)
    if args.max_input_tokens is None:
        args.max_input_tokens = args.max_total_tokens - 1
    return args


def log(source: str, message: str, level: str = " INFO") -> None:
    print(f"2026-11-25T12:00:00.000000Z {level} {source}: {message}", flush=True)


def say_what_is_used(args: argparse.Namespace) -> None:
    """The lines of a start, in their order."""
    launcher, router = "text_generation_launcher", "text_generation_router_v3"
    attention = os.environ.get("ATTENTION", "flashinfer")
    is_paged = attention == "paged"
    caching = os.environ.get("PREFIX_CACHING", "0" if is_paged else "true")
    is_caching = caching.lower() in ("1", "true")
    is_chunking = os.environ.get("PREFILL_CHUNKING", "1") == "1" and not args.speculate and not is_paged
    log(launcher, f"Using attention {attention} - Prefix caching {caching}")
    if args.max_batch_prefill_tokens is None:
        log(launcher, "Default `max_batch_prefill_tokens` to 4096")
    log(launcher, f"Starting check and download process for {args.model_id}")
    log("shard-manager", "text_generation_launcher: Starting shard rank=0")
    log(launcher, f"Using prefix caching = {is_caching}")
    log(launcher, f"Using Attention = {attention}")
    log(launcher, f"Using prefill chunking = {is_chunking}")
    log("shard-manager", "text_generation_launcher: Shard ready in 6.5s rank=0")
    log(launcher, "Starting Webserver")
    log(router, "backends/v3/src/lib.rs:125: Warming up model")
    log(launcher, "KV-cache blocks: 200000, size: 1")
    is_eager = args.cuda_graphs == 0
    graphs = "disabled (CUDA_GRAPHS=[0])." if is_eager else "enabled for sizes [32, 16, 8, 4, 2, 1]"
    log(launcher, f"Cuda Graphs are {graphs}")
    log(router, "backends/v3/src/lib.rs:137: Setting max batch total tokens to 200000")
    log(router, "backends/v3/src/lib.rs:166: Using backend V3")
    Path("out").mkdir(exist_ok=True)
    Path("out", "tokenizer.json").write_text("{}")
    log("text_generation_router::server", "router/src/server.rs:2302: Connected")


def serving(args: argparse.Namespace) -> ThreadingHTTPServer:
    """A bound server; `.state` of its handler holds what it was asked."""
    state = Server(args, threading.Semaphore(args.max_concurrent_requests))
    handler = type("BoundHandler", (Handler,), {"state": state})
    return ThreadingHTTPServer((args.hostname, args.port), handler)


def main() -> None:
    args = arguments(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    shard = socket.socket(socket.AF_UNIX)
    if args.shard_uds_path:
        shard.bind(f"{args.shard_uds_path}-0")  # each shard's has its rank
    say_what_is_used(args)
    serving(args).serve_forever()


if __name__ == "__main__":
    main()
