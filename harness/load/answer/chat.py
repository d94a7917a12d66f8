"""Turn the bytes of a chat's answer, and when they arrived, into text, chunks and counts. Never raises."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import msgspec

from serving_bench.harness.contracts import Outcome, ToolCall, inert
from serving_bench.harness.load.answer import openai
from serving_bench.harness.load.answer.api import REFUSED, Api, Chunk, Tokens, absurd_counts, count

SHOWN_CHARACTERS = 200
# The most events for each token of max_tokens, since some servers send characters, and of pings and the like.
_EVENTS_PER_TOKEN, _OTHER_EVENTS = 64, 4096

_INPUTS = "prompt_n + cache_n"
_DATA, _BLANK = b"data: ", b"\n\n"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")  # three kinds of line ends
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Decoded:
    """The content of a stream. `malformed`: why these bytes are not a stream.

    `chunk_ns`: when the read arrived that completed each event with content (text, reasoning or a tool-call
    delta); `reasoning_chunks` of them have only reasoning, and `first_answer_ns` is the first of the others.
    The token counts are the server's. `absurd`: a count that no request can have. `server_error`: the message
    of an error event, or of an error that came instead of a stream.
    """

    chunk_ns: tuple[int, ...] = ()
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    server_error: str | None = None
    malformed: str | None = None
    saw_done: bool = False
    calls: tuple[ToolCall, ...] = ()
    first_answer_ns: int | None = None
    reasoning_chunks: int = 0
    absurd: str | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(msgspec.Struct):
    index: int | None = 0
    function: _Function | None = None


def decode(
    body: bytes,
    read_ns: Sequence[int],
    read_ends: Sequence[int],
    api: Api = openai.API,
    max_tokens: int | None = None,
) -> Decoded:
    """Decode a response's body, without transfer framing. If it was cut off, decode what came.

    `read_ns`: when each of its parts arrived; `read_ends`: the offset where it ends. Of an answer with far
    more events than a request for `max_tokens` can get, nothing is kept.
    """
    most = None if max_tokens is None else _EVENTS_PER_TOKEN * max_tokens + _OTHER_EVENTS
    heard, usage, timings, end = _heard(body, read_ns, read_ends, api, most)
    if not end:
        return _decode_plain(body, api)
    server_error = heard.server_error
    if heard.finish_reason is None and not (heard.saw_done or server_error or heard.malformed):
        server_error = _error_message(body[end:])  # Gemini may send one without `data:`
    input_tokens, output_tokens, cached_tokens = _counts(usage, timings, api)
    return replace(
        heard,
        server_error=server_error,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
        absurd=next((shown(each.encode()) for each in absurd_counts(usage | timings)), None),
    )


def _heard(
    body: bytes, read_ns: Sequence[int], read_ends: Sequence[int], api: Api, most: int | None
) -> tuple[Decoded, dict[str, Any], dict[str, Any], int]:
    """Return what a body's events say, their `usage` and llama.cpp's `timings`, and where the last one ends.

    Reading ends at [DONE], at an error, or at data that is not an event of the API. If more than `most`
    events come before that, none is returned.
    """
    read_events, read = events(body), api.read
    chunk_ns, text, reasoning, calls = list[int](), list[str](), list[str](), list[msgspec.Raw]()
    finish_reason = server_error = malformed = first_answer_ns = None
    usage, timings = dict[str, Any](), dict[str, Any]()
    reasoning_chunks, saw_done, end, is_ascii = 0, False, 0, body.isascii()
    # Counting costs time, and the shortest event has six bytes.
    for kind, data, end in islice(read_events, most) if most and len(body) > 6 * most else read_events:
        try:
            if not is_ascii:
                data.decode()
            chunk = read(data)
        except (ValueError, RecursionError):
            chunk = None
            if data.strip() == b"[DONE]":
                saw_done = True
                break
        if chunk is None or kind == "error" or chunk.error or chunk.object == "error":
            server_error = _error_message(data, is_error=kind == "error")
            malformed = None if server_error else f"not a chunk in an event: {shown(data)}"
            break
        has_answer = has_thought = False
        for choice in chunk.choices or ():
            if choice.finish_reason is not None:
                finish_reason = choice.finish_reason
            if delta := choice.delta:
                if delta.content:
                    text.append(delta.content)
                    has_answer = True
                if thought := delta.reasoning_content or delta.reasoning:
                    reasoning.append(thought)
                    has_thought = True
                if delta.tool_calls:
                    calls += delta.tool_calls
                    has_answer = True
        if has_answer or has_thought:
            chunk_ns.append(read_ns[bisect_left(read_ends, end)])
            reasoning_chunks += not has_answer
            if has_answer and first_answer_ns is None:
                first_answer_ns = chunk_ns[-1]
        if chunk.usage is not None:
            usage |= _known(chunk.usage)
        if chunk.timings is not None:
            timings |= _with_inputs(_known(chunk.timings))
    else:
        if next(read_events, None):
            return Decoded(malformed=f"more than {most} events, far beyond max_tokens"), {}, {}, end
    heard = Decoded(
        tuple(chunk_ns),
        "".join(text),
        "".join(reasoning),
        finish_reason,
        server_error=server_error,
        malformed=malformed,
        saw_done=saw_done,
        calls=_joined(calls),
        first_answer_ns=first_answer_ns,
        reasoning_chunks=reasoning_chunks,
    )
    return heard, usage, timings, end


def _joined(deltas: Sequence[msgspec.Raw]) -> tuple[ToolCall, ...]:
    """Join the parts of a stream's tool calls and return the calls in the order of their index. Data that is
    not such a part is left out."""
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for raw in deltas:
        with suppress(ValueError, RecursionError):
            delta = msgspec.json.decode(raw, type=_CallDelta)
            function = delta.function or _Function()
            index = len(names) if delta.index is None else delta.index
            names[index] = names.get(index, "") + (function.name or "")
            arguments[index] = arguments.get(index, "") + (function.arguments or "")
    return tuple(ToolCall(names[index], arguments[index]) for index in sorted(names))


def _decode_plain(body: bytes, api: Api) -> Decoded:
    if not body:
        return Decoded(malformed="the response is empty")
    server_error, malformed = _error_message(body), f"not an event stream: {shown(body)}"
    try:
        answer = api.read(body)
    except (ValueError, RecursionError):
        answer = Chunk()
    input_tokens, output_tokens, cached_tokens = _counts(
        answer.usage or {}, _with_inputs(answer.timings or {}), api
    )
    messages = [choice.message for choice in answer.choices or () if choice.message]
    return Decoded(
        text="".join(message.content or "" for message in messages),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
        server_error=server_error,
        malformed=None if server_error else malformed,
    )


def events(body: bytes) -> Iterator[tuple[str, bytes, int]]:
    """Yield a body's server-sent events: kind, data, and the offset after the byte that completed it.

    An event that the end cuts off comes last. `error: ...` (older llama.cpp servers) gives the kind `error`.
    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.5.
    """
    if body.startswith(_DATA) and body.endswith(_BLANK) and b"\r" not in body:
        parts = body[len(_DATA) : -len(_BLANK)].split(_BLANK + _DATA)
        # This path is for a body of only `data: ...` and blank lines. It takes a third of the other's time.
        if body.count(b"\n") == len(_BLANK) * len(parts):
            end = 0
            for part in parts:
                end += len(_DATA) + len(part) + len(_BLANK)
                yield "message", part, end
            return
    kind, data = "message", list[bytes]()
    # The last line is empty wherever the body ends, so an event that the end cuts off comes out too.
    for line in _LINE.finditer(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0):
        start, stop = line.span(1)
        if start == stop:
            if data:
                # A blank line's CR completes the event; the LF behind it may come in another read.
                yield kind, b"\n".join(data), min(stop + 1, len(body))
            kind, data = "message", []
            continue
        name, _, value = body[start:stop].partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            kind = value.decode("utf-8", "replace")
        elif name in (b"data", b"error"):
            kind = "error" if name == b"error" else kind
            data.append(value)


def classify(
    status: int, body: bytes, decoded: Decoded, content_type: str | None = None
) -> tuple[Outcome, str | None]:
    """Return the outcome of a complete response, and what is wrong with it (None if it is ok).

    Another content type makes a good stream a protocol_error, as in browsers (WHATWG, section 9.2.2).
    """
    if status >= 400:
        return "http_error", f"HTTP {status}: {decoded.server_error or shown(body)}"
    if status != 200:
        return "protocol_error", f"HTTP {status} in answer to a chat completion: {shown(body)}"
    if decoded.server_error is not None:
        return "server_error", decoded.server_error
    if decoded.malformed is not None:
        return "protocol_error", decoded.malformed
    if decoded.finish_reason == REFUSED:
        return "server_error", f"the model, or a filter, refused to answer or to go on ({REFUSED})"
    if decoded.finish_reason is None and not decoded.saw_done:
        return "protocol_error", "the answer is cut: neither a finish_reason nor [DONE] came"
    if not decoded.chunk_ns:
        return "protocol_error", "the answer has no content"
    kind = (content_type or "").partition(";")[0].strip()
    if kind and kind.lower() != "text/event-stream":
        return "protocol_error", f"the content type is {kind[:SHOWN_CHARACTERS]}, not text/event-stream"
    return "ok", None


def shown(data: bytes) -> str:
    text = data[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace")
    return " ".join(inert(text).split())[:SHOWN_CHARACTERS]


def _error_message(data: bytes, is_error: bool = False) -> str | None:
    """Return the message of an error as OpenAI, TGI or vLLM send it; None if this is not one."""
    try:
        error = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        error = None
    says_error = isinstance(error, dict) and (error.get("error") or error.get("object") == "error")
    if not says_error and not is_error:
        return None
    for name in ("error", "message"):
        if isinstance(error, dict) and error.get(name):
            error = error[name]
    message = (shown(error.encode()) if isinstance(error, str) else "") or shown(data)
    return message or "an error without a message"


def _counts(usage: Mapping[str, Any], timings: Mapping[str, Any], api: Api) -> Tokens:
    """Return the counts of `usage`, else of llama.cpp's `timings`, which it may send instead."""
    of_timings = (count(timings, name) for name in (_INPUTS, "predicted_n", "cache_n"))
    return tuple(
        before if now is None else now for before, now in zip(of_timings, api.tokens(usage), strict=True)
    )


def _with_inputs(timings: Mapping[str, Any]) -> dict[str, Any]:
    """Add the count of all input tokens to llama.cpp's timings, if they have both of its parts."""
    evaluated, cached = count(timings, "prompt_n"), count(timings, "cache_n")
    inputs = {} if evaluated is None or cached is None else {_INPUTS: evaluated + cached}
    return {**timings, **inputs}


def _known(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
