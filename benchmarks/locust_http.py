"""Baseline: a streamed chat under Locust's HttpUser (requests), stamped line by line as people write it.

locust -f benchmarks/locust_http.py --headless -u 64 -r 64 -t 10s --stop-timeout 30 --host URL
"""

from __future__ import annotations

from chat_record import PATH, Recording, request_json, stagger
from locust import HttpUser, task


class ChatUser(HttpUser):  # type: ignore[misc] # Locust's types are not followed
    """Sends the next chat when the last has ended."""

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
            for line in response.iter_lines():
                recording.line(line)
            response.success() if is_ok else response.failure(str(response.status_code))
        recording.end(is_ok)
