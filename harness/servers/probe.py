"""HTTP questions to one server before it is measured: does it listen, does it generate, what does it say of
itself.

Plain http.client: no proxies, no redirects, no pool. Not for measuring; that is harness/load's. Error texts
never hold the key.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from harness.contracts import AttachSpec
from harness.errors import UserError

OnLine = Callable[[bytes], None]

_BODY_LIMIT_BYTES = 8 * 2**20
_GENERATION_TOKENS = 8


@dataclass(frozen=True)
class Answer:
    """What came back; `status` is None where nothing did, and `text` says why."""

    status: int | None
    text: str

    def __str__(self) -> str:
        return _short(self.text) if self.status is None else f"{self.status}: {_short(self.text)}"


def _short(text: str) -> str:
    """On one line, of a length that fits into a message."""
    return " ".join(text.split())[:200] or "(nothing)"


def root_of(base_url: str) -> str:
    """The server's root: base_url without its last /v1."""
    return base_url.rstrip("/").removesuffix("/v1")


def request(
    method: str,
    url: str,
    *,
    timeout_s: float,
    body: object = None,
    key: str | None = None,
    on_line: OnLine | None = None,
) -> Answer:
    """One request on a connection of its own. Blocks for timeout_s, twice that if bytes keep trickling in.

    `on_line` hears each line of the body as soon as it has been read."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    content = None if body is None else json.dumps(body).encode()
    if content is not None:
        headers["Content-Type"] = "application/json"
    try:
        with closing(connect(parts, timeout_s)) as connection:
            connection.request(method, target, content, headers)
            response = connection.getresponse()
            return Answer(response.status, _without(key, _read(response, timeout_s, on_line)))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(None, _without(key, _why(error)))


def _read(response: http.client.HTTPResponse, timeout_s: float, on_line: OnLine | None) -> str:
    deadline = time.monotonic() + timeout_s
    body = b""
    heard = 0
    while piece := response.read1(65536):
        body += piece
        if time.monotonic() > deadline or len(body) > _BODY_LIMIT_BYTES:
            raise TimeoutError
        while on_line and (end := body.find(b"\n", heard)) >= 0:
            on_line(body[heard:end])
            heard = end + 1
    if on_line and heard < len(body):
        on_line(body[heard:])
    return body.decode(errors="replace")


def connect(parts: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    """A connection that is made with its first request; each of its waits is timeout_s at most. Raises
    ValueError for what is no address of HTTP."""
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an address of the form http://HOST:PORT/v1")
    if parts.scheme == "https":
        context = ssl.create_default_context()
        return http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=max(0.01, timeout_s), context=context
        )
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=max(0.01, timeout_s))


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "no such host"
    return f"{type(error).__name__}: {error}"


def _without(key: str | None, text: str) -> str:
    return text.replace(key, "***") if key else text


@dataclass(frozen=True)
class Generation:
    """`problem`: None if tokens came, else what came instead, as a clause. `first_token_ns`: CLOCK_MONOTONIC,
    when the first event that bears content had been read. `status`: of HTTP, None where nothing came."""

    problem: str | None
    first_token_ns: int | None = None
    status: int | None = None


def generate(base_url: str, model: str, *, timeout_s: float, key: str | None = None) -> Generation:
    """Ask for a few streamed tokens; blocks until their end."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Count from one to ten."}],
        "max_tokens": _GENERATION_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first_ns: list[int] = []

    def hear(line: bytes) -> None:
        if not first_ns and any(map(_bears_content, _events(line.decode(errors="replace")))):
            first_ns.append(time.monotonic_ns())

    url = f"{base_url.rstrip('/')}/chat/completions"
    answer = request("POST", url, timeout_s=timeout_s, body=body, key=key, on_line=hear)
    problem = _generation_problem(answer)
    return Generation(problem, None if problem or not first_ns else first_ns[0], answer.status)


def _generation_problem(answer: Answer) -> str | None:
    if answer.status is None:
        return f"a generation got {answer}"
    if answer.status != 200:
        return f"a generation answered {answer}"
    events = list(_events(answer.text))
    if any(event.get("error") for event in events):
        return f"a generation answered 200 with an error: {_short(answer.text)}"
    if not any(map(_bears_content, events)):
        return f"a generation answered 200 without content: {_short(answer.text)}"
    return None


def _events(text: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of an event stream, or of a plain answer from a server that does not stream."""
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith("data:")] or [text]
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event


def _bears_content(event: Mapping[str, Any]) -> bool:
    usage, choices = event.get("usage"), event.get("choices")
    if isinstance(usage, dict) and (usage.get("completion_tokens") or 0) > 0:
        return True
    return isinstance(choices, list) and any(map(_has_text, choices))


def _has_text(choice: object) -> bool:
    said = (choice.get("delta") or choice.get("message")) if isinstance(choice, dict) else None
    fields = ("content", "reasoning_content", "reasoning", "tool_calls")
    return isinstance(said, dict) and any(said.get(field) for field in fields)


def fetch_facts(
    base_url: str, paths: Iterable[str], *, timeout_s: float = 5.0, key: str | None = None
) -> dict[str, Any]:
    """The JSON answers at `paths` (from the server's root) by path; what did not answer is left out."""
    facts: dict[str, Any] = {}
    for path in paths:
        answer = request("GET", root_of(base_url) + path, timeout_s=timeout_s, key=key)
        if answer.status == 200:
            try:
                facts[path] = json.loads(answer.text)
            except ValueError:
                continue
    return facts


def probe_attached(spec: AttachSpec, key: str | None, *, timeout_s: float = 60.0) -> None:
    """Whether a running server can be measured: it answers, knows the model, and generates.

    Raises UserError that says what did not work. A server without a list of models is taken at its word.
    """
    at = f"engine.base_url={spec.base_url}"
    listed = request("GET", f"{spec.base_url.rstrip('/')}/models", timeout_s=timeout_s, key=key)
    if listed.status is None:
        raise UserError(f"{at}: no server answers there: {listed}")
    if listed.status in (401, 403):
        raise UserError(f"{at}: the key was refused ({listed}); engine.api_key_env names its variable")
    names = _model_names(listed)
    if names and spec.served_model not in names:
        raise UserError(
            f"model={spec.served_model}: {spec.base_url} does not serve it; it serves {', '.join(names)}"
        )
    generation = generate(spec.base_url, spec.served_model, timeout_s=timeout_s, key=key)
    if generation.problem:
        raise UserError(f"{at}: model {spec.served_model} cannot be measured: {generation.problem}")


def _model_names(listed: Answer) -> Sequence[str]:
    if listed.status != 200:
        return ()
    try:
        return [str(model["id"]) for model in json.loads(listed.text)["data"]]
    except (ValueError, TypeError, KeyError):
        return ()
