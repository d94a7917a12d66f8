"""Google's Gemini API: streamGenerateContent as server-sent events.

Source: https://ai.google.dev/api/generate-content, and the types of its Python SDK (python-genai,
google/genai/types.py).
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
    count,
    whole_text,
)

_FINISH_REASONS = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"), REFUSED),
}
# Sent instead of a call's signature, which a model wants back, if the model did not make the call itself.
# Source: https://ai.google.dev/gemini-api/docs/thought-signatures.
_NO_SIGNATURE = "skip_thought_signature_validator"


class _Call(msgspec.Struct, gc=False):
    name: str
    args: msgspec.Raw = msgspec.Raw(b"{}")


class _Part(msgspec.Struct, gc=False, rename="camel"):
    text: str | None = None
    thought: bool = False
    function_call: _Call | None = None


class _Content(msgspec.Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct, gc=False, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None


class _Feedback(msgspec.Struct, gc=False, rename="camel"):
    block_reason: str | None = None


class _Response(msgspec.Struct, gc=False, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: dict[str, Any] | None = None
    prompt_feedback: _Feedback | None = None
    error: Any = None


_decode_response = msgspec.json.Decoder(_Response).decode


def _read(data: bytes) -> Chunk:
    response = _decode_response(data)
    choices = [_choice(candidate) for candidate in response.candidates or ()]
    if response.prompt_feedback and response.prompt_feedback.block_reason:
        choices.append(Choice(finish_reason=REFUSED))
    return Chunk(choices, response.usage_metadata, error=response.error)


def _choice(candidate: _Candidate) -> Choice:
    parts = (candidate.content and candidate.content.parts) or []
    calls = [part.function_call for part in parts if part.function_call]
    delta = Delta(
        content="".join(part.text for part in parts if part.text and not part.thought),
        reasoning_content="".join(part.text for part in parts if part.text and part.thought),
        tool_calls=[call_delta(None, call.name, bytes(call.args).decode()) for call in calls],
    )
    reason = candidate.finish_reason
    return Choice(delta, finish_reason=reason and _FINISH_REASONS.get(reason, reason))


def _request(
    model: str, turn: Turn, history: Sequence[Message], engine_fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields. The engine's own go into generationConfig; the model is named in the path."""
    system, form = whole_text(history, "system"), turn.form if turn.form and turn.form.is_forced else None
    schema = form.schema if form and not form.tools else None
    json_form = {"responseMimeType": "application/json", "responseJsonSchema": schema} if schema else {}
    return {
        **({"systemInstruction": {"parts": [{"text": system}]}} if system else {}),
        "contents": list(_contents(history)),
        "generationConfig": {"maxOutputTokens": turn.max_tokens, **json_form, **engine_fields},
        **(_tool_fields(form) if form and form.tools else {}),
    }


def _contents(history: Sequence[Message]) -> Iterator[dict[str, Any]]:
    """Yield the messages without the system's and without empty ones."""
    for message, before in zip(history, [None, *history], strict=False):
        parts: list[dict[str, Any]] = []
        if message.role == "tool" and before and before.call:
            result = {"name": before.call.name, "response": {"result": message.content}}
            parts = [{"functionResponse": result}]
        elif message.content and message.role != "system":
            parts = [{"text": message.content}]
        if message.call:
            arguments = msgspec.Raw(message.call.arguments.encode())
            call = {"name": message.call.name, "args": arguments}
            parts.append({"functionCall": call, "thoughtSignature": _NO_SIGNATURE})
        if parts:
            yield {"role": "model" if message.role == "assistant" else "user", "parts": parts}


def _tool_fields(form: Form) -> dict[str, Any]:
    declared = [
        {"name": tool.name, "description": tool.description, "parametersJsonSchema": tool.parameters}
        for tool in form.tools
    ]
    called = {"functionCallingConfig": {"mode": "ANY"}}
    return {"tools": [{"functionDeclarations": declared}], "toolConfig": called}


def _tokens(usage: Mapping[str, Any]) -> Tokens:
    """Return the counts. The API counts thoughts separately and bills them as output."""
    counts = [count(usage, name) for name in ("candidatesTokenCount", "thoughtsTokenCount")]
    present = [each for each in counts if each is not None]
    outputs = sum(present) if present else None
    return count(usage, "promptTokenCount"), outputs, count(usage, "cachedContentTokenCount")


API = Api(
    path="/models/{model}:streamGenerateContent?alt=sse",
    request=_request,
    read=_read,
    tokens=_tokens,
    version="/v1beta",
    key_header="x-goog-api-key",
)
