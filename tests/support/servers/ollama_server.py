"""A program with Ollama's commands and HTTP API, whose answers have the shape of a real Ollama's.

Run as `python ollama_server.py serve`, `list`, `show NAME` or `create NAME -f FILE`, with Ollama's
environment. Its pages, errors, chunks and log are those of tests/data/ollama (Ollama 0.33.0-rc2) with other
values; blobs and models follow its source (2026-08-21). Answers repeat a few words, for as many tokens as
are asked for, or at most ANSWER_TOKENS of the environment. It has what troubles a client: no /metrics, no
cached tokens, no forced lengths, models that must be created first and are loaded late.
"""

import hashlib
import http.client
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from captured import Capture, answer_of
from captured import captured as recorded
from fake_http import Answer, Request, fake_http

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

    def reply(self, request: Request) -> Answer:
        return answer_of(self.capture(request))

    def capture(self, request: Request) -> Capture:
        last = request.path.rpartition("/")[2]
        match request.method, request.path:
            case "GET", path:
                return self.page(path)
            case "HEAD", _:
                return Capture(200 if last in self.blobs else 404, "", b"")
            case "POST", "/api/create":
                return self.create(request.value)
            case "POST", "/v1/chat/completions":
                return self.chat(request.value)
            case "POST", path if path.startswith("/api/blobs/"):
                return self.blob(last, request.body)
        return captured("no-such-page")

    def blob(self, digest: str, raw: bytes) -> Capture:
        is_right = digest == f"sha256:{hashlib.sha256(raw).hexdigest()}"
        if is_right:
            self.blobs[digest] = raw[:4]
        return Capture(201 if is_right else 400, "", b"")

    def create(self, body: dict[str, Any]) -> Capture:
        digests = list(body["files"].values())
        status = {"status": "success"}
        if not all(self.blobs.get(digest) == b"GGUF" for digest in digests):
            status = {"error": "unknown type"}
        else:
            self.models[body["model"]] = digests[0]
            if "OLLAMA_MODELS" in os.environ:
                kept().parent.mkdir(parents=True, exist_ok=True)
                kept().write_text(json.dumps(self.models))
            print('[GIN] POST "/api/create"', file=sys.stderr, flush=True)
        return Capture(200, "application/x-ndjson", dump(status) + b"\n")

    def chat(self, body: dict[str, Any]) -> Capture:
        self.bodies.append(body)
        if self.name_of(body) not in self.models:
            return captured("chat-unknown-model")
        with self.slots:
            self.load(self.name_of(body))
            if body.get("stream"):
                events = b"".join(b"data: " + dump(event) + b"\n\n" for event in self.events(body))
                return replace(captured("chat-stream"), body=events + b"data: [DONE]\n\n")
            *pieces, finish, usage = self.events({**body, "stream_options": {"include_usage": True}})
        text = "".join(piece["choices"][0]["delta"]["content"] for piece in pieces)
        message = {"role": "assistant", "content": text}
        reason = finish["choices"][0]["finish_reason"]
        choices = [{"index": 0, "message": message, "finish_reason": reason}]
        whole = {"model": body["model"], "choices": choices, "usage": usage["usage"]}
        return Capture(200, "application/json", dump({**captured("chat-plain").value, **whole}))


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


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
    with fake_http(state.reply, host, int(port)) as server:
        log("routes.go:1997", f"Listening on {host}:{port} (version 0.33.0-rc2)")
        server.ended.wait()


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
