"""A server with Anthropic's Messages API or Gemini's API, after their documentation and SDKs.

It refuses what they refuse: another path, method, model or version, no key, unknown fields.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fake_http import NOT_FOUND, Answer, Request, fake_http, page

KEY, MODEL = "sk-native-of-these-tests", "large-1"
# For each API: the path of a stream, the key's header, the fields that a request may have, and the roles.
PATHS = {"anthropic": "/v1/messages", "gemini": f"/v1beta/models/{MODEL}:streamGenerateContent?alt=sse"}
KEY_HEADERS = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}
FIELDS = {
    "anthropic": {
        "model", "max_tokens", "messages", "system", "stream", "temperature", "thinking", "tools",
        "tool_choice", "output_config",
    },
    "gemini": {"contents", "systemInstruction", "generationConfig", "tools", "toolConfig"},
}  # fmt: skip
ROLES = {"anthropic": {"user", "assistant"}, "gemini": {"user", "model"}}


@dataclass
class Native:
    base_url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)  # the bodies of good requests
    keys: set[str | None] = field(default_factory=set)


# --- events, as the documentation has them ---


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
    """Return the events of a content block of Anthropic's API, from its start to its end."""
    begun = named("content_block_start", index=index, content_block=start)
    changes = [named("content_block_delta", index=index, delta=delta) for delta in deltas]
    return [begun, *changes, named("content_block_stop", index=index)]


def named(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def text_block(index: int, *texts: str) -> list[bytes]:
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    return block(index, {"type": "text", "text": ""}, *deltas)


def message(
    *blocks: bytes, stop: str | None = "end_turn", output: int = 3, cached: int = 0, written: int = 0
) -> list[bytes]:
    """Return the events of a stream of Anthropic's API. With `stop` None it does not end."""
    usage = {"input_tokens": 20, "cache_read_input_tokens": cached, "cache_creation_input_tokens": written}
    began = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": MODEL}
    start = named(
        "message_start", message={**began, "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    )
    end = [
        named(
            "message_delta",
            delta={"stop_reason": stop, "stop_sequence": None},
            usage={"output_tokens": output},
        ),
        named("message_stop"),
    ]
    return [start, named("ping"), *blocks, *(end if stop else ())]


def part(**content: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [content]}, "index": 0}]}


def response(*chunks: dict[str, Any], **usage: int) -> list[bytes]:
    """Return the events of a stream of Gemini's API, with the usage so far in each chunk."""
    counts = {"promptTokenCount": 20, **usage}
    more = {"usageMetadata": counts, "modelVersion": MODEL, "responseId": "r1"}
    return [b"data: " + json.dumps({**chunk, **more}).encode() + b"\r\n\r\n" for chunk in chunks]


def finished(reason: str, **content: Any) -> dict[str, Any]:
    made = part(**content) if content else {"candidates": [{"index": 0}]}
    made["candidates"][0]["finishReason"] = reason
    return made


def good(api: str, *texts: str, cached: int = 0) -> list[bytes]:
    """Return a complete answer of these texts, a token each, to a prompt of 20 uncached tokens."""
    if api == "anthropic":
        return message(*text_block(0, *texts), output=len(texts), cached=cached)
    *first, last = texts
    counts = {"promptTokenCount": 20 + cached, "candidatesTokenCount": len(texts)}
    return response(
        *(part(text=text) for text in first),
        finished("STOP", text=last),
        **counts,
        cachedContentTokenCount=cached,
    )


def error_of(api: str, status: int, kind: str, said: str) -> Any:
    if api == "anthropic":
        return {"type": "error", "error": {"type": kind, "message": said}, "request_id": "req_1"}
    return {"error": {"code": status, "message": said, "status": kind}}


# --- the server ---


def _refusal(api: str, request: Request, body: dict[str, Any]) -> Answer | None:
    """Return what an API answers to a request that it refuses, or None if it accepts it."""

    def refused(status: int, kind: str, message: str) -> Answer:
        return page(error_of(api, status, kind, message), status)

    key = request.headers.get(KEY_HEADERS[api])
    if key != KEY:
        # A server may repeat what it was sent.
        return refused(401, "authentication_error", f"invalid key {key}")
    if api == "anthropic" and request.headers.get("anthropic-version") != "2023-06-01":
        return refused(400, "invalid_request_error", "anthropic-version: header is required")
    if request.path != PATHS[api] or body.get("model", MODEL) != MODEL:
        return refused(404, "not_found_error", f"model: {body.get('model', request.path)}")
    if unknown := body.keys() - FIELDS[api]:
        return refused(400, "invalid_request_error", f"{sorted(unknown)}: Extra inputs are not permitted")
    messages = body["messages" if api == "anthropic" else "contents"]
    bad = [each for each in messages if each["role"] not in ROLES[api] or not all(_texts(each))]
    if bad or not messages:
        return refused(400, "invalid_request_error", f"messages: roles and texts must be good: {bad}")
    return None


def _texts(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content", message.get("parts"))
    assert isinstance(content, list)
    for each in content:
        yield each.get("text", "-")


def events(parts: Sequence[bytes], *, closes: bool = False) -> Answer:
    """Return a stream of events. With `closes` the connection ends before the stream does."""
    return Answer(parts, kind="text/event-stream", closes=closes)


@contextmanager
def native_server(api: str, answer: Callable[[int, dict[str, Any]], Answer]) -> Iterator[Native]:
    """Serve an API. `answer(n, body)` gives the answer to the nth good request, counted from 0."""
    native = Native()

    def reply(request: Request) -> Answer:
        if request.method == "GET":
            return NOT_FOUND
        native.keys.add(request.headers.get(KEY_HEADERS[api]))
        body = request.value
        refusal = _refusal(api, request, body)
        if refusal is not None:
            return refusal
        native.asked.append(body)
        return answer(len(native.asked) - 1, body)

    with fake_http(reply) as server:
        native.base_url = server.url
        yield native
