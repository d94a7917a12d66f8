"""A tiny OpenAI-compatible server for tests, run as a program: `python openai_fake.py PORT MODE`.

Modes: `ok` streams; `plain` answers without streaming; `healthy` has a good /health and fails to generate;
`empty` generates nothing; `error` streams an error event after some text; `loading` never becomes healthy;
`crash` logs and exits with 1 on the first GET; `stubborn` ignores TERM; `drip` sends comments for ten
seconds; `counting` sends no text, only the count of tokens; `redirect` redirects /health; `nolist` has no
list of models. With WANTED_KEY in its environment the list needs that key.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, MODE = int(sys.argv[1]), sys.argv[2]
TEXT = {"choices": [{"index": 0, "delta": {"content": "one"}}]}
ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]}
EVENTS = {
    "empty": [ROLE],
    "error": [TEXT, {"error": {"message": "CUDA error"}}],
    "counting": [ROLE, {"choices": [], "usage": {"completion_tokens": 3}}],
}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if MODE == "crash":
            print("\x1b[31mloading\x1b[0m\nRuntimeError: CUDA out of memory", flush=True)
            os._exit(1)
        if self.path == "/health":
            self.answer({"ok": True}, {"loading": 503, "redirect": 302}.get(MODE, 200))
        elif self.path == "/v1/models" and MODE != "nolist":
            key = os.environ.get("WANTED_KEY")
            refused = key and self.headers["Authorization"] != f"Bearer {key}"
            said = f"wrong key {self.headers['Authorization']}"
            self.answer({"error": said} if refused else {"data": [{"id": "tiny"}]}, 401 if refused else 200)
        elif self.path == "/props":
            self.answer({"n_ctx": 4096})
        else:
            self.answer({"error": "no such path"}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if MODE == "healthy" or self.path != "/v1/chat/completions" or body["model"] != "tiny":
            self.answer({"error": f"boom {self.headers['Authorization']}"}, 500)
        elif MODE == "plain":
            self.answer({"choices": [{"message": {"content": "one"}}]})
        elif MODE == "drip":
            self.start(200, "text/event-stream")
            for _ in range(500):
                threading.Event().wait(0.02)
                self.wfile.write(b": still here\n\n")
        else:
            self.start(200, "text/event-stream")
            for event in EVENTS.get(MODE, [ROLE, TEXT]):
                self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
            self.wfile.write(b"data: [DONE]\n\n")

    def start(self, status: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def answer(self, value: object, status: int = 200) -> None:
        self.start(status, "application/json")
        self.wfile.write(json.dumps(value).encode())


if __name__ == "__main__":
    if MODE == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"serving on {PORT}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
