"""Baseline: a streamed chat under Locust's FastHttpUser (geventhttpclient), stamped line by line.

locust -f benchmarks/locust_fast.py --headless -u 64 -r 64 -t 10s --stop-timeout 30 --host URL
"""

from __future__ import annotations

from chat_record import PATH, Recording, request_json, stagger
from locust import FastHttpUser, task


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
        body = request_json()
        recording = Recording()
        headers = {"X-Request-Id": recording.request_id}
        with self.client.post(PATH, json=body, headers=headers, stream=True, catch_response=True) as response:
            is_ok = response.status_code == 200
            # Its own iter_lines waits for 1,024 bytes, several events: readline gives each as it comes.
            while is_ok and (line := response.stream.readline(b"\n")):
                recording.line(line)
            response.success() if is_ok else response.failure(str(response.status_code))
        recording.end(is_ok)
