"""OpenAI's chat completions, as all engines that bench starts serve them.

Source: https://platform.openai.com/docs/api-reference/chat-streaming.
"""

from collections.abc import Mapping, Sequence
from itertools import count as numbers
from typing import Any

import msgspec

from serving_bench.harness.contracts import Form, Message, Turn
from serving_bench.harness.load.answer.api import Api, Chunk, Tokens, call_id, count


def _request(
    model: str, turn: Turn, history: Sequence[Message], engine_fields: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "model": model,
        "messages": list(map(_message_fields, history, [None, *history], numbers())),
        "max_tokens": turn.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **(_form_fields(turn.form) if turn.form else {}),
        **engine_fields,
    }


def _message_fields(message: Message, before: Message | None, place: int) -> dict[str, Any]:
    fields = message.fields
    if message.call:
        fields["tool_calls"] = [{"id": call_id(place), "type": "function", "function": vars(message.call)}]
    is_result = message.role == "tool" and before and before.call
    return fields | ({"tool_call_id": call_id(place - 1)} if is_result else {})


def _form_fields(form: Form) -> dict[str, Any]:
    if not form.is_forced:
        return {}
    if form.tools:
        # Without tool_choice a small model answers in prose. A turn is one call.
        tools = [{"type": "function", "function": vars(tool)} for tool in form.tools]
        return {"tools": tools, "tool_choice": "required", "parallel_tool_calls": False}
    schema = {"name": form.name, "schema": form.schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    cached = count(usage.get("prompt_tokens_details"), "cached_tokens")
    return count(usage, "prompt_tokens"), count(usage, "completion_tokens"), cached


API = Api(
    path="/chat/completions",
    request=_request,
    # Takes half the time of a decoder that makes all fields. It skips other strings without checking them, so
    # the caller must see to it that the data is valid UTF-8.
    read=msgspec.json.Decoder(Chunk).decode,
    tokens=_tokens,
    listing="/models",
    key_prefix="Bearer ",
)
