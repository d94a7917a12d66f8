"""Serve transformers' generate over HTTP: the basic Python script that everybody starts from.

One thread generates, other requests wait in order, and nothing is kept between requests.
"""

import argparse
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation.streamers import BaseStreamer

# The fields of a request. Others are refused, since ignoring one would answer another question.
FIELDS = (
    "model", "messages", "max_tokens", "ignore_eos", "temperature", "stream", "stream_options", "logprobs",
    "top_logprobs",
)  # fmt: skip
TOKENIZE_FIELDS = ("model", "prompt", "messages", "top_logprobs")
MOST_LOGPROBS = 20  # as in OpenAI's API
# The bytes that a byte-level vocabulary writes as themselves. Others are written as characters from U+0100
# on.
PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
MOVED = [byte for byte in range(256) if byte not in PLAIN]
BYTE_OF = {chr(byte): byte for byte in PLAIN} | {chr(256 + at): byte for at, byte in enumerate(MOVED)}
# Previous tokens that are decoded again with each new one: spaces and accents depend on what comes before.
DECODED_AGAIN = 4
BROKEN = "\ufffd"


class RefusedError(Exception):
    """A request that cannot be served. Its text goes to the client, with HTTP 400."""


class Model:
    """A model in memory, the one thread that generates with it, and its counters."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Block until the weights are in memory. Exit with a sentence if the settings cannot work."""
        if args.threads:
            torch.set_num_threads(args.threads)
        started = time.monotonic()
        self.args = args
        self.tokenizer = AutoTokenizer.from_pretrained(
            args.model, local_files_only=True, trust_remote_code=False
        )
        self.template = Path(args.chat_template).read_text(encoding="utf-8") if args.chat_template else None
        if self.template is None and not self.tokenizer.chat_template:
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
        self.model = model.to(args.device).eval()
        # Of the model's generation_config.json only the end tokens are used.
        ends = model.generation_config.eos_token_id
        ends = self.tokenizer.eos_token_id if ends is None else ends
        self.end_ids = list(ends) if isinstance(ends, (list, tuple)) else [] if ends is None else [ends]
        model.generation_config = GenerationConfig()
        longest = model.config.get_text_config().max_position_embeddings
        self.context_length = args.context_length or longest
        if self.context_length > longest:
            sys.exit(f"--context-length {self.context_length}: the model's context has {longest} tokens")
        if args.seed is not None:
            torch.manual_seed(args.seed)
        what = f"{model.num_parameters()} parameters as {args.dtype} on {args.device}"
        print(f"weights loaded: {what}, {time.monotonic() - started:.1f} s", flush=True)
        # On a GPU this is what PyTorch allocated, which is rounded up. Tied tensors count once.
        tensors = [*model.parameters(), *model.buffers()]
        on_cpu = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        taken = torch.cuda.memory_allocated() if args.device == "cuda" else on_cpu
        print(f"weights take {taken} bytes", flush=True)
        self._check_numbers()
        decoder = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "decoder", None)
        self.is_byte_level = decoder is not None and b'"ByteLevel"' in decoder.__getstate__()
        self.thread = ThreadPoolExecutor(1)
        self.submitted = self.begun = self.ended = self.prompt_tokens = self.generated_tokens = 0
        self.queue_s = 0.0
        self.lock = threading.Lock()  # for `submitted`; only the one thread changes the other counters

    def _check_numbers(self) -> None:
        """Exit if a first prompt gives NaN: the answers would be padding, which looks like text."""
        ids = self.prompt_ids([{"role": "user", "content": "Count from one to ten, then back to one."}])
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids], device=self.model.device)).logits
        if torch.isnan(logits).any():
            sys.exit(f"the model computes NaN as {self.args.dtype}; another dtype may work")

    def prompt_ids(self, messages: Any) -> list[int]:
        """Return the rendered conversation as tokens. Raise RefusedError if the template rejects it."""
        try:
            return list(
                self.tokenizer.apply_chat_template(
                    messages,
                    chat_template=self.template,
                    add_generation_prompt=True,
                    tokenize=True,
                    return_dict=False,
                )
            )
        except Exception as error:  # jinja's, and whatever a template raises
            raise RefusedError(f"the chat template does not take these messages: {error}") from error

    def text_ids(self, text: Any) -> list[int]:
        """Return a text as tokens, with a leading special token if the model has one. Raise RefusedError."""
        if not isinstance(text, str) or not text:
            raise RefusedError("prompt: must be a text")
        return list(self.tokenizer(text)["input_ids"])

    def given(self, ids: list[int], count: int) -> dict[str, Any]:
        """Wait for the thread, then return each token's log-probability and the `count` likeliest ones by id.

        One pass over the text gives all of them, but none for the first token. Raise RefusedError if the text
        is too long.
        """
        if len(ids) > self.context_length:
            raise RefusedError(f"the text has {len(ids)} tokens; the context has {self.context_length}")
        return self.thread.submit(self._given, ids, count).result()

    def _given(self, ids: list[int], count: int) -> dict[str, Any]:
        with torch.inference_mode():
            logits = self.model(torch.tensor([ids], device=self.model.device)).logits[0]
            rows = [likeliest(row, token, count) for row, token in zip(logits, ids[1:], strict=False)]
        tops = [{}, *({str(token): each for token, each in top} for _, top in rows)]
        return {"logprobs": [None, *(logprob for logprob, _ in rows)], "top": tops}

    def token_bytes(self, token: int) -> bytes:
        piece = self.tokenizer.convert_ids_to_tokens(token)
        if self.is_byte_level and all(letter in BYTE_OF for letter in piece):
            return bytes(BYTE_OF[letter] for letter in piece)
        if match := re.fullmatch("<0x([0-9A-F]{2})>", piece):
            return bytes.fromhex(match[1])
        # SentencePiece writes a space as U+2581.
        return (piece if self.is_byte_level else piece.replace("\u2581", " ")).encode()

    def named(self, token: int, logprob: float) -> dict[str, Any]:
        """Return a token of an answer in the form of OpenAI's API."""
        raw = self.token_bytes(token)
        return {"token": raw.decode(errors="replace"), "logprob": logprob, "bytes": list(raw)}

    def generate(self, answer: "Answer") -> None:
        """Wait for the thread, then generate. Raise what generate or the answer's `send` raises."""
        with self.lock:
            self.submitted += 1
        self.thread.submit(self._generate, answer, time.monotonic()).result()

    def _generate(self, answer: "Answer", submitted_s: float) -> None:
        self.queue_s += time.monotonic() - submitted_s
        self.prompt_tokens += len(answer.ids)
        self.begun += 1
        settings = GenerationConfig(
            max_new_tokens=answer.most,
            eos_token_id=answer.end_ids or None,
            pad_token_id=self.tokenizer.pad_token_id or next(iter(self.end_ids), 0),
            prompt_lookup_num_tokens=self.args.speculative_tokens,
            use_cache=True,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=answer.count is not None,
        )
        prompt = torch.tensor([answer.ids], device=self.model.device)
        mask = torch.ones_like(prompt)
        try:
            with torch.inference_mode():
                output = self.model.generate(
                    prompt, attention_mask=mask, generation_config=settings, streamer=answer
                )
                answer.finish(output.logits)
        except Exception as error:  # of any kind: log it and let the caller tell the client
            stopped = f"{len(answer.tokens)} of {answer.most} tokens"
            print(f"generation ended after {stopped}: {error!r}", flush=True)
            raise
        finally:
            self.ended += 1

    def metrics(self) -> str:
        """Return the Prometheus page. A prompt's tokens count when its generation begins."""
        rows = (
            ("requests_running", "gauge", self.begun - self.ended),
            ("requests_waiting", "gauge", self.submitted - self.begun),
            ("prompt_tokens_total", "counter", self.prompt_tokens),
            ("generated_tokens_total", "counter", self.generated_tokens),
            ("queue_seconds_sum", "counter", self.queue_s),
            ("queue_seconds_count", "counter", self.begun),
        )
        return "".join(
            f"# TYPE transformers:{name} {kind}\ntransformers:{name} {value}\n" for name, kind, value in rows
        )

    def facts(self) -> dict[str, Any]:
        return {
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "device": str(self.model.device),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "attention": self.model.config._attn_implementation,
            "threads": torch.get_num_threads(),
            "context_length": self.context_length,
            "concurrent_sequences": 1,
            "parameters": self.model.num_parameters(),
            "seed": self.args.seed,
            "speculative_tokens": self.args.speculative_tokens,
            "chat_template": Path(self.args.chat_template).name if self.template else "the model's",
        }


def likeliest(row: torch.Tensor, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Return a token's log-probability and the `count` likeliest tokens with theirs, from a row of logits."""
    logs = torch.log_softmax(row.float(), dim=-1)
    if torch.isnan(logs).any():
        raise ArithmeticError("the model computes NaN")
    values, tokens = torch.topk(logs, count)
    return logs[token].item(), list(zip(tokens.tolist(), values.tolist(), strict=True))


class Answer(BaseStreamer):
    """One answer. As a streamer it gets the prompt, each new token, and the end from generate.

    `count`: how many likeliest tokens it names beside each of its own; None: it gives no probabilities.
    Raises RefusedError for a request that cannot be served.
    """

    def __init__(self, model: Model, request: dict[str, Any], send: Callable[[bytes], None]) -> None:
        self.model, self.send = model, send
        self.ids = model.prompt_ids(request.get("messages"))
        room = model.context_length - len(self.ids)
        self.most = request.get("max_tokens") or max(room, 1)
        if self.most > room:
            raise RefusedError(
                f"the prompt has {len(self.ids)} tokens and {self.most} more are asked for; the context has "
                f"{model.context_length}"
            )
        self.end_ids = [] if request.get("ignore_eos") else model.end_ids
        self.is_streamed = request.get("stream")
        self.count = self._count(request)
        self.has_usage = not self.is_streamed or (request.get("stream_options") or {}).get("include_usage")
        self.started_ns = time.time_ns()
        self.saw_prompt = False
        self.tokens: list[int] = []
        self.said = 0  # tokens before this are in `text`
        self.text = ""

    def _count(self, request: dict[str, Any]) -> int | None:
        count = counted(request.get("top_logprobs"))
        if not request.get("logprobs"):
            if count:
                raise RefusedError("top_logprobs: needs logprobs, which must be true")
            return None
        if self.is_streamed:
            raise RefusedError("logprobs: only of an answer that is not streamed")
        return count

    def put(self, value: torch.Tensor) -> None:
        for token in value.flatten().tolist() if self.saw_prompt else ():
            self.model.generated_tokens += 1
            self.tokens.append(token)
            new = self._undecoded()
            # An unfinished character adds nothing until its last byte has come.
            self._say("" if new.endswith(BROKEN) else new)
        self.saw_prompt = True

    def end(self) -> None:
        if rest := self._undecoded():
            self._say(rest)

    def finish(self, logits: Any) -> None:
        """Send what comes after the text. `logits`: a row per token, if the answer gives probabilities."""
        finish: dict[str, Any] = {"finish_reason": "stop" if self.tokens[-1] in self.end_ids else "length"}
        counts = {"prompt_tokens": len(self.ids), "completion_tokens": len(self.tokens)}
        usage = {"usage": {**counts, "total_tokens": sum(counts.values())}}
        if not self.is_streamed:
            finish["message"] = {"role": "assistant", "content": self.text}
            if self.count is not None:
                finish["logprobs"] = {"content": self._content(logits, self.count)}
            self.send(to_json(self._body("chat.completion", [finish]) | usage))
            return
        self.event([{"delta": {}, **finish}])
        if self.has_usage:
            self.send(event(self._body("chat.completion.chunk", []) | usage))
        self.send(b"data: [DONE]\n\n")

    def _content(self, logits: Any, count: int) -> list[dict[str, Any]]:
        pieces = []
        for token, (row,) in zip(self.tokens, logits, strict=True):
            logprob, top = likeliest(row, token, count)
            likely = [self.model.named(*each) for each in top]
            pieces.append(self.model.named(token, logprob) | {"top_logprobs": likely})
        return pieces

    def _undecoded(self) -> str:
        start = max(0, self.said - DECODED_AGAIN)
        parts = (self.tokens[start : self.said], self.tokens[start:])
        before, now = (self.model.tokenizer.decode(ids, skip_special_tokens=True) for ids in parts)
        return now[len(before) :]

    def _say(self, text: str) -> None:
        self.text += text
        self.said = len(self.tokens) if text else self.said
        if self.is_streamed:
            self.event([{"delta": {"content": text}, "finish_reason": None}])

    def event(self, choices: list[dict[str, Any]]) -> None:
        self.send(event(self._body("chat.completion.chunk", choices)))

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self.started_ns:x}",
            "created": self.started_ns // 10**9,
            "object": kind,
            "model": self.model.args.alias,
            "choices": [{"index": 0, "logprobs": None, **choice} for choice in choices],
        }


def counted(top_logprobs: Any) -> int:
    """Return how many likeliest tokens are asked for; 0 for None. Raise RefusedError."""
    count = top_logprobs or 0
    if not isinstance(count, int) or not 0 <= count <= MOST_LOGPROBS:
        raise RefusedError(f"top_logprobs: must be a whole number from 0 to {MOST_LOGPROBS}")
    return count


def to_json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def event(value: object) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


def error_body(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def __init__(self, model: Model) -> None:
        self.model = model
        super().__init__((model.args.host, model.args.port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that has left is not an error
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        model = self.server.model
        listed = {"id": model.args.alias, "object": "model", "owned_by": "transformers"}
        pages = {
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [{**listed, "max_model_len": model.context_length}]},
            "/info": model.facts(),
        }
        if self.path == "/metrics":
            self._reply(200, model.metrics().encode(), "text/plain; version=0.0.4")
        elif self.path in pages:
            self._reply(200, to_json(pages[self.path]))
        else:
            self._reply(404, to_json(error_body(f"there is no {self.path} here")))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.path not in ("/tokenize", "/v1/chat/completions"):
                raise RefusedError(f"there is no {self.path} here")
            is_chat = self.path != "/tokenize"
            request = self._request(json.loads(raw), FIELDS if is_chat else TOKENIZE_FIELDS)
            answer = self._answer(request) if is_chat else self._tokens(request)
        except (RefusedError, ValueError) as error:
            self._reply(400, to_json(error_body(str(error))))
        except ArithmeticError as error:
            self._reply(500, to_json(error_body(str(error), "server_error")))
        else:
            self._generate(answer) if isinstance(answer, Answer) else self._reply(200, to_json(answer))

    def _request(self, request: Any, fields: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(request, dict) or not request.keys() <= {*fields}:
            raise RefusedError(f"body: must be an object of {', '.join(fields)}")
        alias = self.server.model.args.alias
        if request.get("model") != alias:
            raise RefusedError(f"model {request.get('model')} is not served here; {alias} is")
        return request

    def _tokens(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the tokens of a prompt or a rendered chat, and their probabilities if asked for."""
        model, messages, count = self.server.model, request.get("messages"), request.get("top_logprobs")
        ids = model.text_ids(request.get("prompt")) if messages is None else model.prompt_ids(messages)
        return {"tokens": ids} | ({} if count is None else model.given(ids, counted(count)))

    def _answer(self, request: dict[str, Any]) -> Answer:
        if request.get("temperature"):
            raise RefusedError("temperature: must be 0; this server takes the likeliest token")
        most = request.get("max_tokens")
        if most is not None and (not isinstance(most, int) or most < 1):
            raise RefusedError("max_tokens: must be a whole number from 1")
        send = self._send if request.get("stream") else partial(self._reply, 200)
        return Answer(self.server.model, request, send)

    def _generate(self, answer: Answer) -> None:
        if answer.is_streamed:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            answer.event([{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        try:
            self.server.model.generate(answer)
        except ConnectionError:
            raise
        except Exception as error:
            body = error_body(f"{type(error).__name__}: {error}", "server_error")
            self._send(event(body)) if answer.is_streamed else self._reply(500, to_json(body))
        if answer.is_streamed:
            self.wfile.write(b"0\r\n\r\n")

    def _send(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(content), content))

    def _reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def leave(signal_number: int, frame: FrameType | None) -> None:
    # A regular exit would wait for a running generation. The kernel frees everything anyway.
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "alias", "device", "dtype"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--chat-template", help="a Jinja file instead of the model's")
    for name in ("context-length", "threads", "seed", "speculative-tokens"):
        parser.add_argument(f"--{name}", type=int)
    args = parser.parse_args()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}", flush=True)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: this torch finds no CUDA device")
    model = Model(args)
    try:
        server = Server(model)
    except OSError as error:
        sys.exit(f"{args.host}:{args.port}: {str(error.strerror).lower()}")
    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    print(f"ready to listen on {args.host}:{args.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
