"""A server whose page of metrics, and whose faults, a test changes while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from served import served


@dataclass
class PageServer:
    """A server of one page, and the requests that it got.

    It answers with `text` under `status`. While `holds` is set it answers nothing until `released`; with
    `drops` it closes the connection instead of answering, with `closes` after it. `asked`: path, key and the
    client's port of each request.
    """

    text: str = ""
    status: int = 200
    drops: bool = False
    closes: bool = False
    holds: bool = False
    port: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None, int]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def page_server(page: PageServer) -> Iterator[PageServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            page.asked.append((self.path, self.headers["Authorization"], self.client_address[1]))
            if page.holds:
                page.released.wait(30)
            if page.drops:
                self.close_connection = True
                return
            body = page.text.encode()
            self.send_response(page.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = page.closes

    with served(Handler) as page.port:
        try:
            yield page
        finally:
            page.released.set()
