"""Serves JSON over HTTP; a test decides each answer by the path and body of the request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from served import served

Reply = Callable[[str, dict[str, Any]], object]


@contextmanager
def answering(reply: Reply) -> Iterator[str]:
    """Yield the base URL. What `reply` returns is sent as JSON, bytes unchanged; None becomes HTTP 500."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = reply(self.path, asked)
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(500 if said is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with served(Handler) as port:
        yield f"http://127.0.0.1:{port}/v1"
