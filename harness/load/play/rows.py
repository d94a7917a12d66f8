"""Make the record of a request from its exchange. Pure."""

import re
from dataclasses import replace

import msgspec

from serving_bench.harness.contracts import (
    MASK,
    BegunRow,
    Outcome,
    RequestRow,
    ToolCall,
    masked_bytes,
    masked_known,
    without_answer,
)
from serving_bench.harness.load.answer import openai
from serving_bench.harness.load.answer.api import Api
from serving_bench.harness.load.answer.chat import Decoded, classify, decode
from serving_bench.harness.load.client.response import Exchange, unreadable

RAW_BYTES = 65536
# Bytes after these that are masked as well, since the cut could go through a key.
_BEYOND = 4096
# A count of output tokens up to this many times max_tokens, plus this many, is always believed: an API may
# count what it did not send, such as thoughts, but max_tokens bounds them.
_TIMES_ASKED, _UNSEEN_TOKENS = 2, 64
# An error message quotes only the beginning of a body.
_ERROR_BYTES = 1 << 20


def id_of(cell: str, conversation: int, turn: int, part: int = 0) -> str:
    """Return a request's id: cell, turn, part and conversation in decimal, as a UUID of version 4.

    An example is 00000007-0002-4001-8000-000000000031. A cell without a number counts as 0. Some servers
    (llama-cpp-python's) refuse an X-Request-Id of another form.
    """
    number = cell if cell.isdecimal() else "0"
    return f"{number:0>8}-{turn:04d}-4{part:03d}-8000-{conversation:012d}"


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
    api: Api = openai.API,
) -> RequestRow:
    """Return the record of one request. With `keep_bytes` it holds the whole response as it came.

    If the server repeats the API key in its answer, the record has it masked.
    """
    decoded = _possible(decoded, begun.max_tokens)
    outcome, error, raw = _told(exchange, decoded, begun.max_tokens, key, keep_bytes, api)
    usable = _shown(decoded, key)
    has_tokens = decoded.input_tokens is not None or decoded.output_tokens is not None
    return RequestRow(
        **vars(begun),
        outcome=outcome,
        error=error,
        http_status=exchange.status,
        sent_ns=exchange.sent_ns,
        first_content_ns=decoded.chunk_ns[0] if decoded.chunk_ns else None,
        last_content_ns=decoded.chunk_ns[-1] if decoded.chunk_ns else None,
        end_ns=exchange.end_ns,
        chunk_ns=decoded.chunk_ns,
        input_tokens=decoded.input_tokens,
        output_tokens=decoded.output_tokens,
        cached_tokens=decoded.cached_tokens,
        token_source="server" if has_tokens else None,
        finish_reason=usable.finish_reason,
        output_text=usable.text,
        reasoning_text=usable.reasoning,
        is_resent=exchange.is_resent,
        calls=msgspec.json.encode(usable.calls).decode() if usable.calls else None,
        first_answer_ns=decoded.first_answer_ns,
        reasoning_chunks=decoded.reasoning_chunks or None,
        sent_words=len(body.split()),
        raw_response=MASK if raw and usable != decoded else raw,  # the key is spread over several events
    )


def _possible(decoded: Decoded, max_tokens: int) -> Decoded:
    """Return the answer without a count of output tokens that is far above both max_tokens and its bytes.

    A token has at least one byte, except for a few that mark the answer's end or its parts.
    """
    tokens = decoded.output_tokens
    if tokens is None or tokens <= _TIMES_ASKED * max_tokens + _UNSEEN_TOKENS:
        return decoded
    seen = [decoded.text, decoded.reasoning, *(each.name + each.arguments for each in decoded.calls)]
    if tokens <= sum(len(each.encode()) for each in seen) + _UNSEEN_TOKENS:
        return decoded
    absurd = decoded.absurd or f"output_tokens={tokens} where max_tokens={max_tokens}"
    return replace(decoded, output_tokens=None, absurd=absurd)


def unread_row(begun: BegunRow, exchange: Exchange, wrong: Exception, key: str | None) -> RequestRow:
    """Return the record of a request whose answer made bench's own code raise `wrong`."""
    outcome: Outcome = "cancelled" if exchange.outcome == "cancelled" else "protocol_error"
    row = without_answer(begun, outcome, masked_known(unreadable(wrong), [key]), exchange.end_ns)
    return replace(row, http_status=exchange.status, sent_ns=exchange.sent_ns)


def _told(
    exchange: Exchange, decoded: Decoded, max_tokens: int, key: str | None, keep_bytes: bool, api: Api
) -> tuple[Outcome, str | None, str | None]:
    """Return the outcome, its error, and the response if it is kept, all without the key."""
    outcome, error = outcome_of(exchange, decoded)
    is_kept = keep_bytes or outcome not in ("ok", "left")
    if is_kept and key:
        # Mask before a text is cut for an error, which could keep half of the key.
        exchange = _without_key(exchange, key, keep_bytes)
        result = decode(exchange.body, exchange.read_ns, exchange.read_ends, api, max_tokens)
        outcome, error = outcome_of(exchange, result)
        error = error and re.sub(r"\*{4,}", MASK, error)
    if decoded.absurd and error is None:
        error = f"missing: absurd value ({decoded.absurd})"
    raw = exchange.raw.decode("utf-8", "replace") if is_kept else ""
    return outcome, error and masked_known(error, [key]), (raw if keep_bytes else raw[:RAW_BYTES]) or None


def _shown(decoded: Decoded, key: str | None) -> Decoded:
    """Return an answer with the key masked in all its texts."""

    def without(text: str) -> str:
        return masked_known(text, [key])

    return replace(
        decoded,
        text=without(decoded.text),
        reasoning=without(decoded.reasoning),
        finish_reason=decoded.finish_reason and without(decoded.finish_reason),
        calls=tuple(ToolCall(without(call.name), without(call.arguments)) for call in decoded.calls),
    )


def _without_key(exchange: Exchange, key: str, is_whole: bool) -> Exchange:
    """Return an exchange without the key in what is kept of its bytes."""
    whole = (exchange.raw if is_whole else exchange.raw[: RAW_BYTES + _BEYOND]).decode("latin-1")
    raw, begin = masked_known(whole, [key]), exchange.body[:_ERROR_BYTES]
    masked_begin = masked_bytes(begin, [key])
    if begin != masked_begin and raw == whole:
        raw = MASK  # the key is spread over several HTTP chunks
    body = exchange.body if begin == masked_begin else masked_begin + exchange.body[_ERROR_BYTES:]
    return replace(exchange, raw=bytearray(raw.encode("latin-1")), body=body)
