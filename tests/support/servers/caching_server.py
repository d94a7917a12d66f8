"""An OpenAI-compatible server with a prefix cache, run as a program with llama-server's arguments.

A token is a word of all messages together. Prompts are cached in blocks of BLOCK tokens until
/slots/N?action=erase. CACHING_SERVER in its environment: `refuses` to erase, `lies` that it has erased,
`forgets` (caches nothing), `uncounted` (answers do not say what was cached, but the metrics page does),
`silent` (neither does), `busy` (the first try to erase is refused), `mute` (a request for logprobs waits for
ever), `deaf` (a request without a stream gets an error).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BLOCK = 16
MODE = os.environ.get("CACHING_SERVER", "")


class Cache:
    """The cached blocks of prompts, each with all words before it, and the counts of tokens."""

    def __init__(self) -> None:
        self.blocks: set[tuple[str, ...]] = set()
        self.queried = self.hit = self.erased = 0
        self.lock = threading.Lock()

    def read(self, words: tuple[str, ...]) -> int:
        """Read a prompt. Return how many of its tokens were cached; the last one never is."""
        ends = range(BLOCK, len(words), BLOCK)
        with self.lock:
            cached = max((end for end in ends if words[:end] in self.blocks), default=0)
            if MODE != "forgets":
                self.blocks.update(words[:end] for end in ends)
            self.queried += len(words)
            self.hit += cached
        return cached

    def erase(self) -> int:
        """Erase the cache as MODE says, and return the status of the answer."""
        with self.lock:
            self.erased += 1
            if MODE == "refuses" or (MODE == "busy" and self.erased == 1):
                return 501
            if MODE != "lies":
                self.blocks.clear()
            return 200


CACHE = Cache()


def metrics() -> str:
    counted = {
        "prompt_tokens_total": CACHE.queried - CACHE.hit,
        "prompt_tokens_cached_total": CACHE.hit,
    }
    return "".join(f"# TYPE llamacpp:{name} counter\nllamacpp:{name} {n}\n" for name, n in counted.items())


def usage(prompt_tokens: int, cached_tokens: int, output_tokens: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }
    is_told = MODE not in ("uncounted", "silent")
    return found | ({"prompt_tokens_details": {"cached_tokens": cached_tokens}} if is_told else {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/health":
            self.answer(200, "application/json", b"{}")
        elif self.path == "/metrics" and MODE != "silent":
            self.answer(200, "text/plain", metrics().encode())
        else:
            self.answer(404, "application/json", b"{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if re.fullmatch(r"/slots/\d\?action=erase", self.path):
            self.answer(CACHE.erase(), "application/json", b'{"id_slot": 0}')
        elif self.path == "/v1/chat/completions":
            self.generate(json.loads(body))
        else:
            self.answer(404, "application/json", b"{}")

    def generate(self, asked: dict[str, Any]) -> None:
        words = tuple(" ".join(message["content"] for message in asked["messages"]).split())
        counted = usage(len(words), CACHE.read(words), asked["max_tokens"])
        if asked.get("stream"):
            chunk = {"choices": [{"index": 0, "delta": {"content": "word "}}]}
            last = [{"choices": [], "usage": counted}, "[DONE]"]
            self.answer(200, "text/event-stream", stream([*[chunk] * asked["max_tokens"], *last]))
        elif MODE == "deaf":
            self.answer(500, "application/json", b"{}")
        else:
            message = {"role": "assistant", "content": "word"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            if asked.get("logprobs"):
                if MODE == "mute":
                    threading.Event().wait()
                named = {"token": "word", "logprob": -0.5, "bytes": list(b"word")}
                choice["logprobs"] = {"content": [{**named, "top_logprobs": [named]}]}
            said = {"choices": [choice], "usage": counted}
            self.answer(200, "application/json", json.dumps(said).encode())

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def stream(events: Iterable[object]) -> bytes:
    said = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return "".join(f"data: {event}\n\n" for event in said).encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    args, _ = parser.parse_known_args(sys.argv[1:])
    ThreadingHTTPServer((args.host, args.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
