"""Make the body of a request from a turn, and the record of a request from its exchange. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from harness.contracts import BegunRow, Message, Outcome, RequestRow, Turn
from harness.load.answer.chat import Decoded, classify
from harness.load.client.response import Exchange

RAW_BYTES = 65536


def id_of(cell: str, conversation: int, turn: int) -> str:
    """Return a request's id: cell, turn and conversation in decimal, in the form of a UUID of version 4.

    An example is 00000007-0002-4000-8000-000000000031. A cell without a number counts as 0. Some servers
    (llama-cpp-python's) refuse an X-Request-Id of another form.
    """
    number = cell if cell.isdecimal() else "0"
    return f"{number:0>8}-{turn:04d}-4000-8000-{conversation:012d}"


def request_body(
    model: str, turn: Turn, history: Sequence[Message], engine_fields: Mapping[str, Any]
) -> bytes:
    """Return the JSON of a streamed chat completion. `engine_fields` are added and take precedence."""
    fields = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in history],
        "max_tokens": turn.max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **engine_fields,
    }
    return msgspec.json.encode(fields)


def masked(text: str, key: str | None) -> str:
    """Return `text` without the API key, which a server may repeat in its answer."""
    if not key:
        return text
    in_json = msgspec.json.encode(key).decode()[1:-1]
    return text.replace(key, "***").replace(in_json, "***")


def outcome_of(exchange: Exchange, decoded: Decoded) -> tuple[Outcome, str | None]:
    """Return the transport's outcome, or an error that the server sent before it broke off."""
    if exchange.outcome in ("ok", "reset") and exchange.status is not None:
        content_type = exchange.headers.get("content-type")
        outcome, error = classify(exchange.status, exchange.body, decoded, content_type)
        if exchange.outcome == "ok" or outcome in ("http_error", "server_error"):
            return outcome, error
    return exchange.outcome, exchange.error


def request_row(
    begun: BegunRow, exchange: Exchange, decoded: Decoded, key: str | None, keep_bytes: bool = False
) -> RequestRow:
    """Return the record of one request. With `keep_bytes` it holds the whole response as it came."""
    outcome, error = outcome_of(exchange, decoded)
    has_tokens = decoded.input_tokens is not None or decoded.output_tokens is not None
    return RequestRow(
        request_id=begun.request_id,
        user=begun.user,
        conversation=begun.conversation,
        turn=begun.turn,
        outcome=outcome,
        error=None if error is None else masked(error, key),
        http_status=exchange.status,
        scheduled_ns=begun.scheduled_ns,
        sent_ns=exchange.sent_ns,
        first_content_ns=decoded.chunk_ns[0] if decoded.chunk_ns else None,
        last_content_ns=decoded.chunk_ns[-1] if decoded.chunk_ns else None,
        end_ns=exchange.end_ns,
        chunk_ns=decoded.chunk_ns,
        input_tokens=decoded.input_tokens,
        output_tokens=decoded.output_tokens,
        cached_tokens=decoded.cached_tokens,
        token_source="server" if has_tokens else None,
        max_tokens=begun.max_tokens,
        finish_reason=decoded.finish_reason,
        output_text=masked(decoded.text, key),
        reasoning_text=masked(decoded.reasoning, key),
        worker=begun.worker,
        is_resent=exchange.is_resent,
        raw_response=_raw(exchange, key, keep_bytes) if keep_bytes or outcome != "ok" else None,
    )


def _raw(exchange: Exchange, key: str | None, is_whole: bool) -> str | None:
    # The key must not survive in halves at the cut, so it is masked before.
    start = exchange.raw if is_whole else exchange.raw[: RAW_BYTES + 4096]
    text = masked(start.decode("utf-8", "replace"), key)
    return (text if is_whole else text[:RAW_BYTES]) or None
