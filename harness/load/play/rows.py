"""Make the record of a request from its exchange. Pure."""

import msgspec

from harness.contracts import BegunRow, Outcome, RequestRow
from harness.load.answer.chat import Decoded, classify
from harness.load.client.response import Exchange

RAW_BYTES = 65536


def id_of(cell: str, conversation: int, turn: int, part: int = 0) -> str:
    """Return a request's id: cell, turn, part and conversation in decimal, as a UUID of version 4.

    An example is 00000007-0002-4001-8000-000000000031. A cell without a number counts as 0. Some servers
    (llama-cpp-python's) refuse an X-Request-Id of another form.
    """
    number = cell if cell.isdecimal() else "0"
    return f"{number:0>8}-{turn:04d}-4{part:03d}-8000-{conversation:012d}"


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
    begun: BegunRow,
    body: bytes,
    exchange: Exchange,
    decoded: Decoded,
    key: str | None,
    keep_bytes: bool = False,
) -> RequestRow:
    """Return the record of one request. With `keep_bytes` it holds the whole response as it came."""
    outcome, error = outcome_of(exchange, decoded)
    if decoded.absurd and error is None:
        error = f"missing: absurd value ({decoded.absurd})"
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
        group=begun.group,
        form=begun.form,
        calls=masked(msgspec.json.encode(decoded.calls).decode(), key) if decoded.calls else None,
        first_answer_ns=decoded.first_answer_ns,
        reasoning_chunks=decoded.reasoning_chunks or None,
        part=begun.part,
        leave_after_s=begun.leave_after_s,
        sent_words=len(body.split()),
        turns=begun.turns,
        raw_response=_raw(exchange, key, keep_bytes) if keep_bytes or outcome not in ("ok", "left") else None,
    )


def _raw(exchange: Exchange, key: str | None, is_whole: bool) -> str | None:
    # The key must not survive in halves at the cut, so it is masked before.
    start = exchange.raw if is_whole else exchange.raw[: RAW_BYTES + 4096]
    text = masked(start.decode("utf-8", "replace"), key)
    return (text if is_whole else text[:RAW_BYTES]) or None
