"""A program with Ollama's commands and HTTP API, whose answers have the shape of a real Ollama's.

Run as `python ollama_server.py serve`, `list`, `show NAME` or `create NAME -f FILE`, with Ollama's
environment. Its pages, errors, chunks and log are those of tests/data/ollama (Ollama 0.33.0-rc2) with other
values; blobs and models follow its source (2026-08-21). Answers repeat a few words, for as many tokens as
are asked for, or at most ANSWER_TOKENS of the environment. It has what troubles a client: no /metrics, no
cached tokens, no forced lengths, models that must be created first and are loaded late.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from captured import Capture, send
from captured import captured as recorded

DATA = Path(__file__).parent.parent.parent / "data" / "ollama"
WORDS = ("The ", "model ", "is ", "a ", "10-", "bit ", "integer.\n")
PAGES = {"/": "root", "/v1/models": "models", "/api/version": "version"}


def captured(name: str) -> Capture:
    return recorded(DATA / f"{name}.http")


@dataclass
class Server:
    """The state that all connections share. `models`: name -> digest."""

    context_length: int = 4096
    answer_tokens: int = 10**9
    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1))
    models: dict[str, str] = field(default_factory=lambda: {"gemma3-270m:latest": "13f46315d1c0"})
    blobs: dict[str, bytes] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    def load(self, name: str) -> None:
        if name not in self.loaded:
            count = os.environ.get("OLLAMA_NUM_PARALLEL", "1")
            kept = os.environ.get("OLLAMA_KV_CACHE_TYPE")
            cache = f" --cache-type-k {kept} --cache-type-v {kept}" if kept else ""
            size = self.context_length * int(count)
            said = (DATA / "serve.log").read_text().replace("-c 4096 -np 1", f"-c {size} -np {count}{cache}")
            for term, number in (("n_seq_max", count), ("n_ctx", size), ("n_ctx_seq", self.context_length)):
                said = re.sub(rf"({term} +=) \d+", rf"\1 {number}", said)
            print(said.replace("(f16)", f"({kept or 'f16'})"), end="", file=sys.stderr, flush=True)
            self.loaded[:] = [name]

    def page(self, path: str) -> Capture:
        if path == "/api/ps":
            said = captured("ps")
            [row] = said.value["models"]
            rows = [
                {**row, "name": name, "model": name, "context_length": self.context_length}
                for name in self.loaded
            ]
            return Capture(200, said.kind, dump({"models": rows}))
        said = captured(PAGES.get(path, "no-such-page"))
        if path == "/v1/models":
            [row] = said.value["data"]
            rows = [{**row, "id": name} for name in self.models]
            return Capture(200, said.kind, dump({"object": "list", "data": rows}))
        return said

    def name_of(self, body: dict[str, Any]) -> str:
        return body["model"] if ":" in body["model"] else f"{body['model']}:latest"

    def events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        first, second, *_, finish, usage = captured("chat-stream").events
        inputs = sum(1 + len(str(message["content"]).split()) for message in body["messages"])
        count = min(body.get("max_tokens") or 10**9, self.answer_tokens)
        for number in range(count):
            shape = second if number else first
            [choice] = shape["choices"]
            delta = {**choice["delta"], "content": WORDS[number % len(WORDS)]}
            yield {**shape, "model": body["model"], "choices": [{**choice, "delta": delta}]}
        [choice] = finish["choices"]
        reason = "length" if count == body.get("max_tokens") else "stop"
        yield {**finish, "model": body["model"], "choices": [{**choice, "finish_reason": reason}]}
        if (body.get("stream_options") or {}).get("include_usage"):
            counts = {"prompt_tokens": inputs, "completion_tokens": count, "total_tokens": inputs + count}
            yield {**usage, "model": body["model"], "usage": counts}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(self.state.page(self.path))

    def do_HEAD(self) -> None:
        is_there = self.path.rpartition("/")[2] in self.state.blobs
        self.answer(Capture(200 if is_there else 404, "", b""))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/api/blobs/"):
            self.blob(self.path.rpartition("/")[2], raw)
        elif self.path == "/api/create":
            self.create(json.loads(raw))
        elif self.path == "/v1/chat/completions":
            self.chat(json.loads(raw))
        else:
            self.answer(captured("no-such-page"))

    def blob(self, digest: str, raw: bytes) -> None:
        is_right = digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if is_right:
            self.state.blobs[digest] = raw[:4]
        self.answer(Capture(201 if is_right else 400, "", b""))

    def create(self, body: dict[str, Any]) -> None:
        digests = list(body["files"].values())
        said = {"status": "success"}
        if not all(self.state.blobs.get(digest) == b"GGUF" for digest in digests):
            said = {"error": "unknown type"}
        else:
            self.state.models[body["model"]] = digests[0]
            if "OLLAMA_MODELS" in os.environ:
                kept().parent.mkdir(parents=True, exist_ok=True)
                kept().write_text(json.dumps(self.state.models))
            print('[GIN] POST "/api/create"', file=sys.stderr, flush=True)
        self.answer(Capture(200, "application/x-ndjson", dump(said) + b"\n"))

    def chat(self, body: dict[str, Any]) -> None:
        state = self.state
        state.bodies.append(body)
        if state.name_of(body) not in state.models:
            return self.answer(captured("chat-unknown-model"))
        with state.slots:
            state.load(state.name_of(body))
            if body.get("stream"):
                events = b"".join(b"data: " + dump(event) + b"\n\n" for event in state.events(body))
                return self.answer(replace(captured("chat-stream"), body=events + b"data: [DONE]\n\n"))
            *pieces, finish, usage = state.events({**body, "stream_options": {"include_usage": True}})
            said, text = captured("chat-plain").value, ""
            for piece in pieces:
                text += piece["choices"][0]["delta"]["content"]
            [choice] = finish["choices"]
            message = {"role": "assistant", "content": text}
            choices = [{"index": 0, "message": message, "finish_reason": choice["finish_reason"]}]
            whole = {**said, "model": body["model"], "choices": choices, "usage": usage["usage"]}
        return self.answer(Capture(200, "application/json", dump(whole)))

    def answer(self, said: Capture) -> None:
        send(self, said)


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def bound(state: Server) -> type[Handler]:
    return type("BoundHandler", (Handler,), {"state": state})


def log(source: str, message: str, more: str = "") -> None:
    line = f'level=INFO source={source} msg="{message}"{more}'
    print(f"time=2026-11-27T12:00:00.000Z {line}", file=sys.stderr, flush=True)


# --- the program -----------------------------------------------------------------------------------------


def kept() -> Path:
    """Return the file of the models that earlier servers made."""
    return Path(os.environ["OLLAMA_MODELS"], "models.json")


def serve() -> None:
    host, _, port = os.environ["OLLAMA_HOST"].rpartition(":")
    Path(os.environ["HOME"], ".ollama").mkdir(parents=True, exist_ok=True)
    state = Server(
        context_length=int(os.environ.get("OLLAMA_CONTEXT_LENGTH", "4096")),
        answer_tokens=int(os.environ.get("ANSWER_TOKENS", 10**9)),
        slots=threading.Semaphore(int(os.environ.get("OLLAMA_NUM_PARALLEL", "1"))),
        models=json.loads(kept().read_text()) if kept().exists() else {},
    )
    server = ThreadingHTTPServer((host, int(port)), bound(state))
    log("routes.go:1997", f"Listening on {host}:{port} (version 0.33.0-rc2)")
    server.serve_forever()


def asked(method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(os.environ["OLLAMA_HOST"], timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    except ConnectionRefusedError:
        sys.exit("Error: could not connect to ollama server, run 'ollama serve' to start it")
    finally:
        connection.close()


def create(name: str, modelfile: str) -> None:
    lines = [line.partition(" ") for line in Path(modelfile).read_text().splitlines()]
    files = {}
    for path in (Path(value) for command, _, value in lines if command == "FROM"):
        raw = path.read_bytes()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if asked("HEAD", f"/api/blobs/{digest}")[0] != 200:
            asked("POST", f"/api/blobs/{digest}", raw)
        files[path.name] = digest
    said = json.loads(asked("POST", "/api/create", dump({"model": name, "files": files}))[1])
    if "error" in said:
        sys.exit(f"Error: {said['error']}")
    print(said["status"], file=sys.stderr)


def main() -> None:
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["list"]:
            asked("GET", "/api/version")
            print("NAME    ID    SIZE    MODIFIED")
        case ["show", name]:
            if name not in {each["id"] for each in json.loads(asked("GET", "/v1/models")[1])["data"]}:
                sys.exit(f"Error: model '{name}' not found")
        case ["create", name, "-f", modelfile]:
            create(name, modelfile)
        case words:
            sys.exit(f'Error: unknown command "{" ".join(words)}" for "ollama"')


if __name__ == "__main__":
    main()
