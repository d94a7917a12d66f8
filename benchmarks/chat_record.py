"""What the two Locust baselines share: the request that they send, and the line that they write about it.

The record goes to the file that BENCH_RECORD names, a JSON line per request; see clients.py, which reads it.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from typing import Any

import gevent

PATH = "/v1/chat/completions"
STAGGER_S = 1.0
# Line by line, since Locust ends without writing what is buffered.
_record = open(os.environ["BENCH_RECORD"], "a", buffering=1)  # noqa: SIM115 - open as long as the process


def request_json() -> dict[str, Any]:
    """A streamed chat of BENCH_TOKENS tokens."""
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
    """Users that start in step would stay in step: spread them as bench does."""
    gevent.sleep(random.random() * STAGGER_S)


class Recording:
    """One request's instants, by time.perf_counter, the clock that its user's code would take."""

    def __init__(self) -> None:
        self.request_id = uuid.uuid4().hex
        self.chunks_s: list[float] = []
        self.start_s = time.perf_counter()

    def line(self, line: bytes) -> None:
        """Stamp a line of the stream, then see whether it bears content."""
        if not line.startswith(b"data: "):
            return
        arrived_s = time.perf_counter()
        if line.startswith(b"data: [DONE]"):
            return
        choices = json.loads(line[6:])["choices"]
        if choices and choices[0]["delta"].get("content"):
            self.chunks_s.append(arrived_s)

    def end(self, is_ok: bool) -> None:
        """Write it down."""
        end_s = time.perf_counter()
        times = {"start_s": self.start_s, "chunks_s": self.chunks_s, "end_s": end_s}
        _record.write(json.dumps({"request_id": self.request_id, "ok": is_ok, **times}) + "\n")
