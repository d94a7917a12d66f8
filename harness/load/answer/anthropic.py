"""Anthropic's Messages API.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming, and the types of its Python SDK
(anthropic-sdk-python, src/anthropic/types).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from serving_bench.harness.contracts import Form, Message, Turn
from serving_bench.harness.load.answer.api import (
    REFUSED,
    Api,
    Choice,
    Chunk,
    Delta,
    Tokens,
    call_delta,
    call_id,
    count,
    whole_text,
)

_STOP_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": REFUSED,
}


class _Part(msgspec.Struct, gc=False):
    """A new content block, an addition to one, or a change of the message."""

    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    name: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Message(msgspec.Struct, gc=False):
    usage: dict[str, Any] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str | None = None
    index: int = 0
    message: _Message | None = None
    content_block: _Part | None = None
    delta: _Part | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decode_event = msgspec.json.Decoder(_Event).decode


def _read(data: bytes) -> Chunk:
    event = _decode_event(data)
    usage = event.message.usage if event.message else event.usage
    part = event.content_block or event.delta
    if part is None:  # ping, message_stop, and unknown kinds of events
        return Chunk(usage=usage, error=event.error)
    calls = None
    if part.type == "tool_use" or part.partial_json:
        calls = [call_delta(event.index, part.name, part.partial_json)]
    delta = Delta(content=part.text, reasoning_content=part.thinking, tool_calls=calls)
    reason = part.stop_reason and _STOP_REASONS.get(part.stop_reason, part.stop_reason)
    return Chunk([Choice(delta, finish_reason=reason)], usage, error=event.error)


def _request(
    model: str, turn: Turn, history: Sequence[Message], engine_fields: Mapping[str, Any]
) -> dict[str, Any]:
    system = whole_text(history, "system")
    return {
        "model": model,
        "max_tokens": turn.max_tokens,
        **({"system": system} if system else {}),
        "messages": list(_messages(history)),
        "stream": True,
        **(_form_fields(turn.form) if turn.form else {}),
        **engine_fields,
    }


def _messages(history: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """Yield the messages without the system's and without empty ones, which the API refuses."""
    for place, (message, before) in enumerate(zip(history, [None, *history], strict=False)):
        blocks: list[dict[str, Any]] = []
        if message.role == "tool" and before and before.call:
            result = {"tool_use_id": call_id(place - 1), "content": message.content}
            blocks = [{"type": "tool_result", **result}]
        elif message.content and message.role != "system":
            blocks = [{"type": "text", "text": message.content}]
        if message.call:
            arguments = msgspec.Raw(message.call.arguments.encode())
            call = {"id": call_id(place), "name": message.call.name, "input": arguments}
            blocks.append({"type": "tool_use", **call})
        if blocks:
            yield {"role": "assistant" if message.role == "assistant" else "user", "content": blocks}


def _form_fields(form: Form) -> dict[str, Any]:
    if not form.is_forced:
        return {}
    if form.tools:
        tools = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
            for tool in form.tools
        ]
        return {"tools": tools, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}
    return {"output_config": {"format": {"type": "json_schema", "schema": form.schema}}}


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    """Return the counts. The API's input_tokens leave out what was read from or written to a cache."""
    new, read, written = (
        count(usage, name)
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )
    inputs = None if new is None else new + (read or 0) + (written or 0)
    return inputs, count(usage, "output_tokens"), read


API = Api(
    path="/messages",
    request=_request,
    read=_read,
    tokens=_tokens,
    version="/v1",
    key_header="x-api-key",
    headers={"anthropic-version": "2023-06-01"},
)
