"""A server with the part of the Hugging Face hub's API that a download needs, on real sockets.

Source: huggingface_hub 2.4.0, hf_api.py (model_info) and file_download.py (get_hf_file_metadata, http_get).
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from fake_http import Answer, Request, fake_http

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

    def reply(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        byte_range = request.headers.get("Range")
        self.seen.append((request.method, path, byte_range))
        self.tokens.append(request.key)
        if self.status is not None:
            return Answer(b"{}", self.status, headers={"X-Error-Code": self.error_code or ""})
        if re.fullmatch(rf"/api/models/{self.repo}/revision/(main|{COMMIT})", path):
            return Answer(self.info())
        if path == f"/api/models/{self.repo}/tree/{COMMIT}":
            return Answer(self.tree())
        if path.startswith(f"/{self.repo}/resolve/{COMMIT}/"):
            return self.file(path.rpartition(f"/{COMMIT}/")[2], byte_range)
        return Answer(b"{}", 404, headers={"X-Error-Code": "RevisionNotFound"})

    def file(self, name: str, byte_range: str | None) -> Answer:
        data = self.files[name]
        etag = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        rest = re.fullmatch(r"bytes=(\d+)-", byte_range or "")
        if rest:
            start = int(rest[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        answer = Answer(data, 206 if rest else 200, "", headers)
        if not self.is_stalled or len(data) < LARGE_BYTES:
            return answer
        size = {"Content-Length": str(len(data))}
        half = [data[: len(data) // 2], self.released]
        return replace(answer, body=half, headers={**headers, **size}, closes=True)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    with fake_http(hub.reply) as server:
        hub.url = server.url
        yield hub
