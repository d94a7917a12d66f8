"""A chat server whose answers a test gives: a text, the status of a refusal, or nothing until it ends."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from served import served


@dataclass
class AnsweringServer:
    """A server and what it was asked.

    `answer` gets the text of the last message. `refusal`: the error that is sent with a status. `asked`: the
    body of each request, with its key as `key` and its path as `path`.
    """

    answer: Callable[[str], str | int | None]
    port: int = 0
    refusal: str = "refused"
    asked: list[dict[str, Any]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def answering_server(answer: Callable[[str], str | int | None]) -> Iterator[AnsweringServer]:
    made = AnsweringServer(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            made.asked.append({**body, "key": self.headers["Authorization"], "path": self.path})
            said = made.answer(body["messages"][-1]["content"])
            if said is None:
                made.ended.wait(30)
                return
            self.send_response(said if isinstance(said, int) else 200)
            self.end_headers()
            message = {"role": "assistant", "content": said}
            page = {"error": made.refusal} if isinstance(said, int) else {"choices": [{"message": message}]}
            self.wfile.write(json.dumps(page).encode())

    with served(Handler) as made.port:
        try:
            yield made
        finally:
            made.ended.set()
