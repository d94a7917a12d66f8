"""Baseline: a streamed chat under Locust's FastHttpUser (geventhttpclient), stamped line by line.

locust -f benchmarks/locust_fast.py --headless -u 64 -r 64 -t 10s --stop-timeout 30 --host URL
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from chat_record import stagger, stream_chat
from locust import FastHttpUser, task


def _lines(response: Any) -> Iterator[bytes]:
    """Yield each line as it arrives: the response's own iter_lines waits for 1,024 bytes, several events."""
    return iter(partial(response.stream.readline, b"\n"), b"")


class ChatUser(FastHttpUser):  # type: ignore[misc] # Locust's types are not followed
    """Sends the next chat when the last has ended."""

    network_timeout = 120.0
    connection_timeout = 120.0

    def on_start(self) -> None:
        """Start out of step."""
        stagger()

    @task  # type: ignore[untyped-decorator]
    def chat(self) -> None:
        """Stream one answer."""
        stream_chat(self.client, _lines)
