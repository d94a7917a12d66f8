"""The basic Python script that everybody starts from: transformers' generate behind FastAPI. Runs in the
transformers environment (`python -P`).

One request at a time: one thread generates, the others wait in their order. Nothing is kept between requests.
Speaks the OpenAI protocol's /v1/chat/completions, streamed or not, one chunk per token; serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
import transformers
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, StoppingCriteriaList

# Tokens that are decoded again with each new one: spaces and accents depend on what stands before.
DECODED_AGAIN = 4
BROKEN = "\ufffd"


# --- what is asked ---------------------------------------------------------------------------------------


class RefusedError(Exception):
    """A request that cannot be served; its text goes to the client under HTTP 400."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: str
    content: str | list[Part]


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class ChatRequest(BaseModel):
    """What of OpenAI's request is served, and vLLM's ignore_eos, min_tokens and top_k. Other fields are
    refused: ignoring one would answer another question."""

    model_config = ConfigDict(extra="forbid")
    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    min_tokens: int = Field(0, ge=0)
    ignore_eos: bool = False
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)  # 0 and -1: all
    seed: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None


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

    def prompt_ids(self, messages: list[ChatMessage]) -> list[int]:
        """The rendered conversation as tokens; RefusedError where the template does not take it."""
        said = [{"role": m.role, "content": _text(m.content)} for m in messages]
        try:
            ids = self.tokenizer.apply_chat_template(
                said,
                chat_template=self.template,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
            )
        except Exception as error:  # jinja's, and whatever a template raises
            raise RefusedError(f"the chat template does not take these messages: {error}") from error
        return list(ids)


def _text(content: str | list[Part]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


def load(args: argparse.Namespace) -> Loaded:
    """Blocks until the weights are in memory. Exits with a sentence where the settings cannot work."""
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
    """On a GPU what PyTorch has given out, which is rounded up; tied tensors count once."""
    if next(model.parameters()).is_cuda:
        return torch.cuda.memory_allocated()
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _check_numbers(loaded: Loaded) -> None:
    """Exit where a first prompt gives NaN: such a model answers with padding, which looks like an answer."""
    ids = loaded.prompt_ids([ChatMessage(role="user", content="Count from one to ten, then back to one.")])
    with torch.inference_mode():
        logits = loaded.model(torch.tensor([ids], device=loaded.model.device)).logits
    if torch.isnan(logits).any():
        sys.exit(f"the model computes NaN as {loaded.args.dtype}; another dtype may do")


class Pieces:
    """Text that each new token adds. An unfinished character adds nothing until its last byte has come;
    `rest` is what never did."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._start = 0  # decoding begins here
        self._said = 0  # tokens before this have been given out

    def add(self, token: int) -> str:
        self._ids.append(token)
        before = self._decoded(self._start, self._said)
        now = self._decoded(self._start, len(self._ids))
        if len(now) <= len(before) or now.endswith(BROKEN):
            return ""
        self._said = len(self._ids)
        self._start = max(self._start, self._said - DECODED_AGAIN)
        return now[len(before) :]

    def rest(self) -> str:
        before = self._decoded(self._start, self._said)
        return self._decoded(self._start, len(self._ids))[len(before) :]

    def _decoded(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True)


# --- one generation --------------------------------------------------------------------------------------


@dataclass
class Job:
    """One request on its way. `say` takes a token's id, an exception that ended it, or None at its end; it is
    called on the generating thread, which stops before its next token once `cancelled` is set."""

    ids: list[int]
    settings: GenerationConfig
    seed: int | None
    say: Callable[[int | Exception | None], None]
    cancelled: threading.Event = field(default_factory=threading.Event)
    submitted_s: float = field(default_factory=time.monotonic)


class Tokens:
    """A streamer of transformers': passes on each new token, and counts them. It gets the prompt first."""

    def __init__(self, say: Callable[[int], None]) -> None:
        self._say = say
        self._saw_prompt = False
        self.count = 0

    def put(self, value: torch.Tensor) -> None:
        if self._saw_prompt:
            for token in value.flatten().tolist():
                self.count += 1
                self._say(token)
        self._saw_prompt = True

    def end(self) -> None:
        pass


def settings_of(request: ChatRequest, loaded: Loaded, prompt_tokens: int) -> GenerationConfig:
    """Every parameter of generate that a request decides. RefusedError where the answer does not fit."""
    room = loaded.context_length - prompt_tokens
    most = request.max_completion_tokens or request.max_tokens or room
    if most > room or room < 1:
        raise RefusedError(
            f"the prompt has {prompt_tokens} tokens and {max(most, 1)} more are asked for; the context has "
            f"{loaded.context_length}"
        )
    if request.min_tokens > most:
        raise RefusedError(f"min_tokens={request.min_tokens} is more than max_tokens={most}")
    chosen: dict[str, Any] = {"do_sample": False}
    if request.temperature > 0:
        chosen = {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p}
        chosen["top_k"] = max(request.top_k, 0)
    ends = list(loaded.end_ids)
    return GenerationConfig(
        max_new_tokens=most,
        min_new_tokens=request.min_tokens or None,
        eos_token_id=None if request.ignore_eos or not ends else ends,
        pad_token_id=loaded.tokenizer.pad_token_id or (ends[0] if ends else 0),
        prompt_lookup_num_tokens=loaded.args.speculative_tokens,
        use_cache=True,
        **chosen,
    )


def run(loaded: Loaded, job: Job) -> None:
    """Generate to the end of the answer, or until the job is cancelled."""

    def is_cancelled(seen: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((seen.shape[0],), job.cancelled.is_set(), device=seen.device)

    ids, tokens = torch.tensor([job.ids], device=loaded.model.device), Tokens(job.say)
    with torch.inference_mode():
        loaded.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=job.settings,
            streamer=tokens,
            stopping_criteria=StoppingCriteriaList([is_cancelled]),
        )
    if job.cancelled.is_set():
        most = job.settings.max_new_tokens
        print(f"generation ended after {tokens.count} of {most} tokens: its client has gone", flush=True)


def generate(loaded: Loaded, job: Job) -> None:
    """Runs on the one generating thread; raises nothing."""
    try:
        if not job.cancelled.is_set():
            if job.seed is not None:
                torch.manual_seed(job.seed)
            run(loaded, job)
        job.say(None)
    except Exception as error:  # of any kind: the server goes on, the client is told
        print(f"generation failed: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        job.say(error)


# --- what is answered ------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What has been generated of one answer, token by token."""

    loaded: Loaded
    request: ChatRequest
    prompt_tokens: int
    pieces: Pieces
    head: dict[str, str | int]
    completion_tokens: int = 0
    last_token: int | None = None

    def take(self, token: int) -> str:
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

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self.head, "object": "chat.completion.chunk", "choices": [choice]})

    def end(self) -> Iterator[bytes]:
        """The events after the last token."""
        if rest := self.pieces.rest():
            yield self.chunk({"content": rest})
        yield self.chunk({}, self.finish_reason)
        options = self.request.stream_options
        if options and options.include_usage:
            yield event({**self.head, "object": "chat.completion.chunk", "choices": [], "usage": self.usage})
        yield b"data: [DONE]\n\n"

    def whole(self, text: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return {**self.head, "object": "chat.completion", "choices": [choice], "usage": self.usage}


def begun(loaded: Loaded, request: ChatRequest, prompt_tokens: int) -> Answer:
    now_ns = time.time_ns()
    head = {"id": f"chatcmpl-{now_ns:x}", "created": now_ns // 10**9, "model": request.model}
    return Answer(loaded, request, prompt_tokens, Pieces(loaded.tokenizer), head)


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def error_body(message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": None}}


class Line:
    """The requests' line: one thread, which generates them in their order. What it counts, that thread alone
    writes but `_submitted`."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="generate")
        self._submitted = self._begun = self._ended = 0
        self._prompt_tokens = self._generated_tokens = 0
        self._queue_s = 0.0

    @property
    def waiting(self) -> int:
        """Requests that have not begun to be generated."""
        return self._submitted - self._begun

    def metrics(self) -> str:
        """As Prometheus reads them. Prompts count when their generation begins."""
        rows = (
            ("requests_running", "gauge", self._begun - self._ended),
            ("requests_waiting", "gauge", self.waiting),
            ("prompt_tokens_total", "counter", self._prompt_tokens),
            ("generated_tokens_total", "counter", self._generated_tokens),
            ("queue_seconds_sum", "counter", self._queue_s),
            ("queue_seconds_count", "counter", self._begun),
        )
        return "".join(
            f"# TYPE transformers:{name} {kind}\ntransformers:{name} {value}\n" for name, kind, value in rows
        )

    def _take(self, job: Job) -> None:
        self._queue_s += time.monotonic() - job.submitted_s
        self._prompt_tokens += len(job.ids)
        self._begun += 1
        generate(self._loaded, job)
        self._ended += 1

    async def tokens(
        self, ids: list[int], settings: GenerationConfig, seed: int | None
    ) -> AsyncGenerator[int, None]:
        """Each token as it comes. Raises what generate raised; closing it ends the generation."""
        said: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def say(value: int | Exception | None) -> None:
            self._generated_tokens += isinstance(value, int)
            loop.call_soon_threadsafe(said.put_nowait, value)

        job = Job(ids, settings, seed, say)
        self._submitted += 1
        self._thread.submit(self._take, job)
        try:
            while (value := await said.get()) is not None:
                if isinstance(value, Exception):
                    raise value
                yield value
        finally:
            job.cancelled.set()


async def streamed(answer: Answer, tokens: AsyncGenerator[int, None]) -> AsyncIterator[bytes]:
    yield answer.chunk({"role": "assistant", "content": ""})
    try:
        async with aclosing(tokens):
            async for token in tokens:
                yield answer.chunk({"content": answer.take(token)})
    except Exception as error:
        yield event(error_body(f"{type(error).__name__}: {error}", "server_error"))
        return
    for end in answer.end():
        yield end


async def collected(
    answer: Answer, tokens: AsyncGenerator[int, None], request: Request
) -> dict[str, Any] | None:
    """The whole answer; None where the client has gone."""
    text = []
    async for token in tokens:
        text.append(answer.take(token))
        if await request.is_disconnected():
            return None
    return answer.whole("".join(text) + answer.pieces.rest())


def refusal(message: str, param: str | None = None, code: int = 400) -> JSONResponse:
    return JSONResponse(error_body(message, "invalid_request_error", param), code)


async def refuse(request: Request, error: Exception) -> JSONResponse:
    return refusal(str(error))


async def refuse_form(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    return refusal(f"{param or 'body'}: {first['msg']}", param)


async def answered(
    loaded: Loaded, line: Line, asked: ChatRequest, request: Request
) -> StreamingResponse | JSONResponse:
    """RefusedError where it cannot be served."""
    alias = loaded.args.alias
    if asked.model != alias:
        return refusal(f"model {asked.model} is not served here; {alias} is", "model", 404)
    ids = loaded.prompt_ids(asked.messages)
    settings = settings_of(asked, loaded, len(ids))
    answer = begun(loaded, asked, len(ids))
    tokens = line.tokens(ids, settings, asked.seed)
    if asked.stream:
        return StreamingResponse(streamed(answer, tokens), media_type="text/event-stream")
    try:
        return JSONResponse(await collected(answer, tokens, request))
    except Exception as error:
        return JSONResponse(error_body(f"{type(error).__name__}: {error}", "server_error"), 500)
    finally:
        await tokens.aclose()


def lifespan_of(args: argparse.Namespace) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # Here, because uvicorn sets its own handlers before: those wait for the answers that are running.
        signal.signal(signal.SIGTERM, leave)
        signal.signal(signal.SIGINT, leave)
        print(f"ready to listen on {args.host}:{args.port}", flush=True)
        yield

    return lifespan


def application(loaded: Loaded) -> FastAPI:
    line = Line(loaded)
    app = FastAPI(lifespan=lifespan_of(loaded.args), openapi_url=None)
    app.add_exception_handler(RequestValidationError, refuse_form)
    app.add_exception_handler(RefusedError, refuse)

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(asked: ChatRequest, request: Request) -> StreamingResponse | JSONResponse:
        return await answered(loaded, line, asked, request)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(line.metrics(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        served = {"id": loaded.args.alias, "object": "model", "owned_by": "transformers"}
        return {"object": "list", "data": [{**served, "max_model_len": loaded.context_length}]}

    @app.get("/info")
    async def info() -> dict[str, Any]:
        return {**facts(loaded), "waiting": line.waiting}

    return app


def facts(loaded: Loaded) -> dict[str, Any]:
    """What is really used, as bench reads it back."""
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
    parser.add_argument("--model", required=True, help="directory of a checkpoint")
    parser.add_argument("--alias", required=True, help="the model's name in requests")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), required=True)
    parser.add_argument("--attention", choices=("eager", "sdpa"), default="sdpa")
    parser.add_argument("--context-length", type=int, help="tokens of prompt and answer (the model's)")
    parser.add_argument("--chat-template", help="a Jinja file instead of the model's")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--speculative-tokens", type=int, help="proposed at once from n-grams of the text")
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
    uvicorn.run(application(loaded), host=args.host, port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
