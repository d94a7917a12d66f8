"""The basic Python script that everybody starts from: transformers' generate behind an HTTP server.

It runs in the transformers environment (`python -P`).

It serves one request at a time: one thread generates, the others wait in their order. Nothing is kept between
requests. It speaks the OpenAI protocol's /v1/chat/completions, streamed or not, one chunk per token, until
SIGTERM.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

# Tokens that are decoded again with each new one: spaces and accents depend on what stands before.
DECODED_AGAIN = 4
BROKEN = "\ufffd"


# --- what is asked ---------------------------------------------------------------------------------------


class RefusedError(Exception):
    """A request that cannot be served. Its text goes to the client."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_count(value: object, least: int) -> bool:
    return is_number(value) and isinstance(value, int) and value >= least


def are_messages(value: object) -> bool:
    """Return whether these are messages with a role and a text, one at least."""
    texts = [
        (m["role"], m["content"]) for m in value if isinstance(m, dict) and m.keys() == {"role", "content"}
    ]
    return 0 < len(value) == len(texts) and all(isinstance(text, str) for pair in texts for text in pair)


# What of OpenAI's request is served, and vLLM's ignore_eos, min_tokens and top_k: default, check, and what it
# must be. Other fields are refused: ignoring one would answer another question.
FIELDS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "model": ("", lambda v: isinstance(v, str), "a text"),
    "messages": (
        [],
        lambda v: isinstance(v, list) and are_messages(v),
        "a list of {role, content}, both texts",
    ),
    "max_tokens": (None, lambda v: is_count(v, 1), "a whole number from 1"),
    "max_completion_tokens": (None, lambda v: is_count(v, 1), "a whole number from 1"),
    "min_tokens": (0, lambda v: is_count(v, 0), "a whole number from 0"),
    "ignore_eos": (False, lambda v: isinstance(v, bool), "true or false"),
    "temperature": (1.0, lambda v: is_number(v) and v >= 0, "a number from 0"),
    "top_p": (1.0, lambda v: is_number(v) and 0 < v <= 1, "a number above 0, at most 1"),
    "top_k": (0, lambda v: is_count(v, -1), "a whole number from -1"),  # 0 and -1: all
    "seed": (None, lambda v: is_count(v, 0), "a whole number from 0"),
    "stream": (False, lambda v: isinstance(v, bool), "true or false"),
    "stream_options": (
        {},
        lambda v: isinstance(v, dict) and v.keys() <= {"include_usage"},
        "{include_usage}",
    ),
    "user": (None, lambda v: isinstance(v, str), "a text"),
}


def checked(body: Any) -> argparse.Namespace:
    """Return a request with its defaults. Raise RefusedError."""
    if not isinstance(body, dict):
        raise RefusedError("body: not a JSON object")
    given = {name: value for name, value in body.items() if value is not None}
    for name in ("model", "messages", *given):
        if name not in FIELDS:
            raise RefusedError(f"{name}: this server has no such field", name)
        if not FIELDS[name][1](given.get(name)):
            raise RefusedError(f"{name}: must be {FIELDS[name][2]}", name)
    return argparse.Namespace(**{name: given.get(name, row[0]) for name, row in FIELDS.items()})


# --- the model -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loaded:
    """A model that is ready. `end_ids`: tokens that end an answer, of its generation_config.json alone: no
    sampling parameter is taken from there."""

    args: argparse.Namespace
    model: Any
    tokenizer: Any
    template: str | None
    context_length: int
    end_ids: tuple[int, ...]

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the rendered conversation as tokens. Raise RefusedError if the template does not take it."""
        try:
            ids = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.template,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        except Exception as error:  # jinja's, and whatever a template raises
            raise RefusedError(f"the chat template does not take these messages: {error}") from error
        return list(ids)


def load(args: argparse.Namespace) -> Loaded:
    """Block until the weights are in memory. Exit with a sentence if the settings cannot work."""
    if args.threads:
        torch.set_num_threads(args.threads)
    started = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True, trust_remote_code=False)
    template = Path(args.chat_template).read_text(encoding="utf-8") if args.chat_template else None
    if template is None and not tokenizer.chat_template:
        sys.exit(f"{args.model} has no chat template; --chat-template FILE gives one")
    print("loading weights", flush=True)
    model = AutoModelForCausalLM.from_pretrained(
        args.model,
        dtype=getattr(torch, args.dtype),
        attn_implementation=args.attention,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    model = model.to(args.device).eval()
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    # An empty one: else generate takes what a request leaves open from the model's file.
    model.generation_config = GenerationConfig()
    longest = model.config.get_text_config().max_position_embeddings
    context_length = args.context_length or longest
    if context_length > longest:
        sys.exit(f"--context-length {context_length}: the model's context has {longest} tokens")
    if args.seed is not None:
        torch.manual_seed(args.seed)
    end_ids = tuple(ends) if isinstance(ends, (list, tuple)) else () if ends is None else (ends,)
    what = f"{model.num_parameters()} parameters as {args.dtype} on {args.device}"
    print(f"weights loaded: {what}, {time.monotonic() - started:.1f} s", flush=True)
    print(f"weights take {_weights_bytes(model)} bytes", flush=True)
    loaded = Loaded(args, model, tokenizer, template, context_length, end_ids)
    _check_numbers(loaded)
    return loaded


def _weights_bytes(model: torch.nn.Module) -> int:
    """Return the weights' size: on a GPU what PyTorch gave out, rounded up. Tied tensors count once."""
    if next(model.parameters()).is_cuda:
        return torch.cuda.memory_allocated()
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _check_numbers(loaded: Loaded) -> None:
    """Exit where a first prompt gives NaN: such a model answers with padding, which looks like an answer."""
    ids = loaded.prompt_ids([{"role": "user", "content": "Count from one to ten, then back to one."}])
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([ids], device=loaded.model.device)).logits
    if torch.isnan(logits).any():
        sys.exit(f"the model computes NaN as {loaded.args.dtype}; another dtype may do")


class Pieces:
    """The text that each new token adds.

    An unfinished character adds nothing until its last byte has come. `rest` is what never did.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._said = 0  # tokens before this have been given out

    def add(self, token: int) -> str:
        self._ids.append(token)
        text = self.rest()
        if text.endswith(BROKEN):
            return ""
        self._said = len(self._ids) if text else self._said
        return text

    def rest(self) -> str:
        start = max(0, self._said - DECODED_AGAIN)
        parts = (self._ids[start : self._said], self._ids[start:])
        before, now = (self._tokenizer.decode(ids, skip_special_tokens=True) for ids in parts)
        return now[len(before) :]


# --- one generation --------------------------------------------------------------------------------------


class Tokens:
    """A streamer of transformers': passes on each new token. It gets the prompt first."""

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._saw_prompt = False

    def put(self, value: torch.Tensor) -> None:
        for token in value.flatten().tolist() if self._saw_prompt else ():
            self._say(token)
        self._saw_prompt = True

    def end(self) -> None:
        pass


def settings_of(request: argparse.Namespace, loaded: Loaded, prompt_tokens: int) -> GenerationConfig:
    """Return every parameter of generate that a request decides. Raise RefusedError if it does not fit."""
    room = loaded.context_length - prompt_tokens
    most = request.max_completion_tokens or request.max_tokens or room
    if most > room or room < 1:
        raise RefusedError(
            f"the prompt has {prompt_tokens} tokens and {max(most, 1)} more are asked for; the context has "
            f"{loaded.context_length}"
        )
    if request.min_tokens > most:
        raise RefusedError(f"min_tokens={request.min_tokens} is more than max_tokens={most}")
    sampled = {"temperature": request.temperature, "top_p": request.top_p, "top_k": max(request.top_k, 0)}
    ends = list(loaded.end_ids)
    return GenerationConfig(
        max_new_tokens=most,
        min_new_tokens=request.min_tokens or None,
        eos_token_id=None if request.ignore_eos or not ends else ends,
        pad_token_id=loaded.tokenizer.pad_token_id or (ends[0] if ends else 0),
        prompt_lookup_num_tokens=loaded.args.speculative_tokens,
        use_cache=True,
        do_sample=request.temperature > 0,
        **(sampled if request.temperature > 0 else {}),
    )


class Line:
    """The requests' line: one thread, which generates them in their order, and its counters."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.thread = ThreadPoolExecutor(1)
        self.submitted = self.begun = self.ended = self.prompt_tokens = self.generated_tokens = 0
        self.queue_s = 0.0
        self.lock = threading.Lock()  # of `submitted`; the others are the one thread's

    @property
    def waiting(self) -> int:
        """Requests that have not begun to be generated."""
        return self.submitted - self.begun

    def generate(self, *job: Any) -> None:
        """Wait for its turn, then have each token said. Raise what generate or `say` raises, which ends it.

        `job`: the prompt's tokens, the settings of generate, a seed or None, and `say`.
        """
        with self.lock:
            self.submitted += 1
        self.thread.submit(self._generate, time.monotonic(), *job).result()

    def _generate(
        self,
        submitted_s: float,
        ids: list[int],
        settings: GenerationConfig,
        seed: int | None,
        say: Callable[[int], None],
    ) -> None:
        before = self.generated_tokens
        self.queue_s += time.monotonic() - submitted_s
        self.prompt_tokens += len(ids)
        self.begun += 1

        def count(token: int) -> None:
            self.generated_tokens += 1
            say(token)

        try:
            if seed is not None:
                torch.manual_seed(seed)
            prompt = torch.tensor([ids], device=self.loaded.model.device)
            mask = torch.ones_like(prompt)
            with torch.inference_mode():
                self.loaded.model.generate(
                    prompt, attention_mask=mask, generation_config=settings, streamer=Tokens(count)
                )
        except Exception as error:  # of any kind: the server goes on, the client is told
            said = f"{self.generated_tokens - before} of {settings.max_new_tokens} tokens"
            print(f"generation ended after {said}: {error!r}", flush=True)
            raise
        finally:
            self.ended += 1

    def metrics(self) -> str:
        """Return the page for Prometheus. Prompts count when their generation begins."""
        rows = (
            ("requests_running", "gauge", self.begun - self.ended),
            ("requests_waiting", "gauge", self.waiting),
            ("prompt_tokens_total", "counter", self.prompt_tokens),
            ("generated_tokens_total", "counter", self.generated_tokens),
            ("queue_seconds_sum", "counter", self.queue_s),
            ("queue_seconds_count", "counter", self.begun),
        )
        return "".join(
            f"# TYPE transformers:{name} {kind}\ntransformers:{name} {value}\n" for name, kind, value in rows
        )


# --- what is answered ------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What has been generated of one answer, token by token."""

    loaded: Loaded
    request: argparse.Namespace
    prompt_tokens: int
    pieces: Pieces
    started_ns: int = field(default_factory=time.time_ns)
    completion_tokens: int = 0
    last_token: int | None = None

    def take(self, token: int) -> str:
        """Return the text that a token adds."""
        self.completion_tokens += 1
        self.last_token = token
        return self.pieces.add(token)

    @property
    def finish_reason(self) -> str:
        has_ended = self.last_token in self.loaded.end_ids and not self.request.ignore_eos
        return "stop" if has_ended else "length"

    @property
    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {**counts, "total_tokens": total}

    def body(self, kind: str, choice: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
        head = {"id": f"chatcmpl-{self.started_ns:x}", "created": self.started_ns // 10**9, "object": kind}
        choices = [] if choice is None else [{"index": 0, "logprobs": None, **choice}]
        return {**head, "model": self.request.model, "choices": choices, **more}

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"delta": delta, "finish_reason": finish_reason}
        return event(self.body("chat.completion.chunk", choice))

    def end(self) -> Iterator[bytes]:
        """Yield the events after the last token."""
        if rest := self.pieces.rest():
            yield self.chunk({"content": rest})
        yield self.chunk({}, self.finish_reason)
        if self.request.stream_options.get("include_usage"):
            yield event(self.body("chat.completion.chunk", None, usage=self.usage))
        yield b"data: [DONE]\n\n"

    def whole(self, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        choice = {"message": message, "finish_reason": self.finish_reason}
        return self.body("chat.completion", choice, usage=self.usage)


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def error_body(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


class Server(ThreadingHTTPServer):
    """The HTTP server of a model. Raises OSError if its port is taken."""

    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, loaded: Loaded) -> None:
        self.loaded, self.line = loaded, Line(loaded)
        super().__init__((loaded.args.host, loaded.args.port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that has gone is no error
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        loaded, line = self.server.loaded, self.server.line
        model = {"id": loaded.args.alias, "object": "model", "owned_by": "transformers"}
        pages = {
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [{**model, "max_model_len": loaded.context_length}]},
            "/info": {**facts(loaded), "waiting": line.waiting},
        }
        if self.path == "/metrics":
            self._reply(200, line.metrics().encode(), "text/plain; version=0.0.4")
        elif self.path in pages:
            self._reply(200, pages[self.path])
        else:
            self._reply(404, error_body(f"there is no {self.path} here", "invalid_request_error"))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.path != "/v1/chat/completions":
                raise RefusedError(f"there is no {self.path} here", status=404)
            self._chat(checked(json.loads(raw)))
        except ValueError as error:
            self._reply(400, error_body(f"body: {error}", "invalid_request_error"))
        except RefusedError as error:
            self._reply(error.status, error_body(str(error), "invalid_request_error", error.param))

    def _chat(self, request: argparse.Namespace) -> None:
        loaded = self.server.loaded
        if request.model != loaded.args.alias:
            message = f"model {request.model} is not served here; {loaded.args.alias} is"
            raise RefusedError(message, "model", 404)
        ids = loaded.prompt_ids(request.messages)
        settings = settings_of(request, loaded, len(ids))
        answer = Answer(loaded, request, len(ids), Pieces(loaded.tokenizer))
        generate = partial(self.server.line.generate, ids, settings, request.seed)
        if request.stream:
            return self._stream(answer, generate)
        text: list[str] = []
        try:
            generate(lambda token: text.append(answer.take(token)))
        except Exception as error:
            return self._reply(500, error_body(f"{type(error).__name__}: {error}", "server_error"))
        return self._reply(200, answer.whole("".join(text) + answer.pieces.rest()))

    def _stream(self, answer: Answer, generate: Callable[[Callable[[int], None]], None]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._send(answer.chunk({"role": "assistant", "content": ""}))
        try:
            generate(lambda token: self._send(answer.chunk({"content": answer.take(token)})))
        except ConnectionError:
            raise
        except Exception as error:
            self._send(event(error_body(f"{type(error).__name__}: {error}", "server_error")))
        else:
            for each in answer.end():
                self._send(each)
        self.wfile.write(b"0\r\n\r\n")

    def _send(self, content: bytes) -> None:
        """Send one chunk of a body. It is called on the generating thread, too."""
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def _reply(self, status: int, content: Any, kind: str = "application/json") -> None:
        body = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def facts(loaded: Loaded) -> dict[str, Any]:
    """Return what is really used, as bench reads it back."""
    model, args = loaded.model, loaded.args
    return {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "context_length": loaded.context_length,
        "concurrent_sequences": 1,
        "parameters": model.num_parameters(),
        "seed": args.seed,
        "speculative_tokens": args.speculative_tokens,
        "chat_template": Path(args.chat_template).name if args.chat_template else "the model's",
    }


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "alias", "device", "dtype"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--chat-template", help="a Jinja file instead of the model's")
    for name in ("context-length", "threads", "seed", "speculative-tokens"):
        parser.add_argument(f"--{name}", type=int)
    return parser.parse_args(argv)


def leave(signal_number: int, frame: FrameType | None) -> None:
    # A running generation would be waited for; the kernel frees everything anyway.
    os._exit(0)


def main() -> None:
    args = arguments(sys.argv[1:])
    print(f"transformers {transformers.__version__}, torch {torch.__version__}", flush=True)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: this torch finds no CUDA device")
    loaded = load(args)
    try:
        server = Server(loaded)
    except OSError as error:
        sys.exit(f"{args.host}:{args.port}: {str(error.strerror).lower()}")
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    print(f"ready to listen on {args.host}:{args.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
