"""A server with the part of the Hugging Face hub's API that a download needs, on real sockets.

Source: huggingface_hub 2.4.0, hf_api.py (model_info) and file_download.py (get_hf_file_metadata, http_get).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from served import served

COMMIT = "a" * 40
LARGE_BYTES = 100_000  # files of this size or more are stored with git LFS


@dataclass
class Hub:
    """A hub with one repository, and the requests that it got.

    `files`: of the repository, by name. `status`: the answer to all requests, if given. While `is_stalled`, a
    large file stops half way. `lies_about`: a file for which the hub names a wrong hash. `counted`:
    parameters by type, as the hub counts them in safetensors. `seen`: method, path and range of each request.
    `tokens`: their Authorization.
    """

    repo: str
    files: Mapping[str, bytes]
    status: int | None = None
    error_code: str | None = None
    is_stalled: bool = False
    lies_about: str | None = None
    counted: Mapping[str, int] | None = None
    released: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    url: str = ""

    def info(self) -> bytes:
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": "b" * 40, **self._large(name, data, "sha256")}
            for name, data in self.files.items()
        ]
        about: dict[str, object] = {"id": self.repo, "sha": COMMIT, "siblings": siblings}
        if self.counted is not None:
            about["safetensors"] = {"parameters": self.counted, "total": sum(self.counted.values())}
        return json.dumps(about).encode()

    def tree(self) -> bytes:
        files = [
            {
                "type": "file",
                "path": name,
                "size": len(data),
                "oid": "b" * 40,
                **self._large(name, data, "oid"),
            }
            for name, data in self.files.items()
        ]
        return json.dumps(files).encode()

    def _large(self, name: str, data: bytes, key: str) -> dict[str, object]:
        said = b"something else" if name == self.lies_about else data
        digest = hashlib.sha256(said).hexdigest()
        lfs = {"size": len(data), key: digest, "pointerSize": 134}
        return {"lfs": lfs} if len(data) >= LARGE_BYTES else {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        hub = self.hub
        path = self.path.partition("?")[0]
        hub.seen.append((self.command, path, self.headers.get("Range")))
        hub.tokens.append(self.headers.get("Authorization"))
        if hub.status is not None:
            self._send(hub.status, b"{}", {"X-Error-Code": hub.error_code or ""}, with_body)
        elif re.fullmatch(rf"/api/models/{hub.repo}/revision/(main|{COMMIT})", path):
            self._send(200, hub.info(), {"Content-Type": "application/json"}, with_body)
        elif path == f"/api/models/{hub.repo}/tree/{COMMIT}":
            self._send(200, hub.tree(), {"Content-Type": "application/json"}, with_body)
        elif path.startswith(f"/{hub.repo}/resolve/{COMMIT}/"):
            self._send_file(path.rpartition(f"/{COMMIT}/")[2], with_body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, with_body)

    def _send_file(self, name: str, with_body: bool) -> None:
        data = self.hub.files[name]
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked:
            start = int(asked[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], headers, with_body)
        else:
            self._send(200, data, headers, with_body)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not with_body:
            return
        if self.hub.is_stalled and len(body) >= LARGE_BYTES:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.hub.released.wait(timeout=60)
            self.close_connection = True
            return
        self.wfile.write(body)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    handler = type("Handler", (_Handler,), {"hub": hub})
    with served(handler) as port:
        hub.url = f"http://127.0.0.1:{port}"
        try:
            yield hub
        finally:
            hub.released.set()
