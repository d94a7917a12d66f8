"""The code that the two Locust baselines share: a streamed chat, and the record of it.

The record goes to the file that BENCH_RECORD names, a JSON line per request; clients.py reads it.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import gevent

PATH = "/v1/chat/completions"
STAGGER_S = 1.0
# Line-buffered, since Locust exits without writing what is buffered.
_record = open(os.environ["BENCH_RECORD"], "a", buffering=1)  # noqa: SIM115 - open as long as the process


def stream_chat(client: Any, lines: Callable[[Any], Iterable[bytes]]) -> None:
    """Play a chat of BENCH_TOKENS tokens and record it. `lines` gives a response's lines as they arrive."""
    recording = Recording()
    headers = {"X-Request-Id": recording.request_id}
    with client.post(PATH, json=_body(), headers=headers, stream=True, catch_response=True) as response:
        is_ok = response.status_code == 200
        for line in lines(response) if is_ok else ():
            recording.line(line)
        response.success() if is_ok else response.failure(str(response.status_code))
    recording.end(is_ok)


def _body() -> dict[str, Any]:
    return {
        "model": "reference",
        "messages": [
            {"role": "user", "content": "Tell me about a kitchen garden, again and in other words."}
        ],
        "max_tokens": int(os.environ["BENCH_TOKENS"]),
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def stagger() -> None:
    """Wait for up to STAGGER_S: users that start in step stay in step. bench spreads its users too."""
    gevent.sleep(random.random() * STAGGER_S)


class Recording:
    """The instants of one request, by time.perf_counter, the clock that a user's own code would use."""

    def __init__(self) -> None:
        self.request_id = uuid.uuid4().hex
        self.chunks_s: list[float] = []
        self.start_s = time.perf_counter()

    def line(self, line: bytes) -> None:
        """Stamp a line of the stream before looking for content in it, and keep the stamp if there is any."""
        if not line.startswith(b"data: "):
            return
        arrived_s = time.perf_counter()
        if line.startswith(b"data: [DONE]"):
            return
        choices = json.loads(line[6:])["choices"]
        if choices and choices[0]["delta"].get("content"):
            self.chunks_s.append(arrived_s)

    def end(self, is_ok: bool) -> None:
        """Write the record of this request."""
        end_s = time.perf_counter()
        times = {"start_s": self.start_s, "chunks_s": self.chunks_s, "end_s": end_s}
        _record.write(json.dumps({"request_id": self.request_id, "ok": is_ok, **times}) + "\n")
