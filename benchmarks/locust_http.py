"""Baseline: a streamed chat under Locust's HttpUser (requests), stamped line by line as people write it.

locust -f benchmarks/locust_http.py --headless -u 64 -r 64 -t 10s --stop-timeout 30 --host URL
"""

from __future__ import annotations

from chat_record import stagger, stream_chat
from locust import HttpUser, task


class ChatUser(HttpUser):  # type: ignore[misc] # Locust's types are not followed
    """Sends the next chat when the last has ended."""

    def on_start(self) -> None:
        """Start out of step."""
        stagger()

    @task  # type: ignore[untyped-decorator]
    def chat(self) -> None:
        """Stream one answer."""
        stream_chat(self.client, lambda response: response.iter_lines())
