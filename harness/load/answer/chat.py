"""Turn the bytes of a chat completion, and when they arrived, into text, chunks and token counts.

Pure: it knows no socket, clock or engine. No bytes make it raise: what is wrong with them is in the result.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from harness.contracts import Outcome
from harness.load.answer.fields import (
    NO_TOKENS,
    SHOWN_CHARACTERS,
    error_message,
    later,
    shown,
    timings_of,
    usage_of,
)

DATA, BLANK = b"data: ", b"\n\n"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")  # three kinds of line ends
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Decoded:
    """What a stream said.

    `chunk_ns`: arrival of the read that completed each event that bears content (text, reasoning or a
    tool-call delta). Token counts are the server's, None where it gave none. `server_error`: the message
    of an error event, or of an error in place of a stream. `malformed`: why these bytes are not a stream.
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


class _Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[msgspec.Raw] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    """What is read of a chunk. Errors and fields of other types are left to `_Answer._take_strange`."""

    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    error: None = None
    object: str | None = None


# Half the time of a decoder that makes all fields: 0.3 us for a chunk of 200 bytes. It skips the others'
# strings unseen, so whoever uses it must know that all is UTF-8.
_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class _Answer:
    """Collects what the events of one answer say."""

    def __init__(self) -> None:
        self.chunk_ns: list[int] = []
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.finish_reason: str | None = None
        self.usage = NO_TOKENS
        self.timings = NO_TOKENS
        self.server_error: str | None = None
        self.malformed: str | None = None
        self.saw_done = False

    def take(self, data: bytes, arrival_ns: int | None, kind: str = "message") -> bool:
        """Add one event. Returns False if nothing after it counts."""
        if data.strip() == b"[DONE]":
            self.saw_done = True
            return False
        try:
            data.decode()
            chunk = _decode_chunk(data)
        except (ValueError, RecursionError):
            return self._take_strange(data, arrival_ns, kind)
        if kind == "error" or chunk.object == "error":
            return self._take_strange(data, arrival_ns, kind)
        self.take_chunk(chunk, arrival_ns)
        return True

    def take_chunk(self, chunk: _Chunk, arrival_ns: int | None) -> None:
        """Add what a chunk says that is no error."""
        has_content = False
        for choice in chunk.choices or ():
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
            if (delta := choice.delta) is not None:
                if delta.content:
                    self.text.append(delta.content)
                    has_content = True
                if reasoning := delta.reasoning_content or delta.reasoning:
                    self.reasoning.append(reasoning)
                    has_content = True
                has_content = has_content or bool(delta.tool_calls)
        if has_content and arrival_ns is not None:
            self.chunk_ns.append(arrival_ns)
        if chunk.usage is not None:
            self.usage = later(self.usage, usage_of(chunk.usage))
        if chunk.timings is not None:
            self.timings = later(self.timings, timings_of(chunk.timings))

    def _take_strange(self, data: bytes, arrival_ns: int | None, kind: str) -> bool:
        """Add an event that is an error, no chunk, or one with fields of unusual types."""
        try:
            chunk = msgspec.json.decode(data)
        except (ValueError, RecursionError) as error:
            if kind == "error":
                self.server_error = shown(data)
            else:
                self.malformed = f"not JSON in an event: {error}: {shown(data)}"
            return False
        message = error_message(chunk, kind, data)
        if message is not None:
            self.server_error = message
            return False
        if not isinstance(chunk, dict):
            self.malformed = f"not a chunk in an event: {shown(data)}"
            return False
        self.take_object(chunk, arrival_ns)
        return True

    def take_object(self, chunk: dict[str, Any], arrival_ns: int | None) -> None:
        """Add what a chunk says whose fields may be of any type, or an answer that was not streamed."""
        if self._take_choices(chunk.get("choices")) and arrival_ns is not None:
            self.chunk_ns.append(arrival_ns)
        self.usage = later(self.usage, usage_of(chunk.get("usage")))
        self.timings = later(self.timings, timings_of(chunk.get("timings")))

    def _take_choices(self, choices: Any) -> bool:
        """Add what choices say. Returns whether one of them bears content."""
        has_content = False
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            reason = choice.get("finish_reason")
            if isinstance(reason, str):
                self.finish_reason = reason
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                has_content |= self._take_delta(delta)
        return has_content

    def _take_delta(self, delta: dict[str, Any]) -> bool:
        text = delta.get("content")
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if is_text := isinstance(text, str) and text != "":
            self.text.append(text)
        if is_reasoning := isinstance(reasoning, str) and reasoning != "":
            self.reasoning.append(reasoning)
        return is_text or is_reasoning or bool(delta.get("tool_calls"))

    def decoded(self) -> Decoded:
        input_tokens, output_tokens, cached_tokens = later(self.timings, self.usage)
        return Decoded(
            chunk_ns=tuple(self.chunk_ns),
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            finish_reason=self.finish_reason,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            server_error=self.server_error,
            malformed=self.malformed,
            saw_done=self.saw_done,
        )


# --- server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.5 -


class Event(NamedTuple):
    """One server-sent event. `end`: the offset behind the byte that completed it."""

    kind: str
    data: bytes
    end: int


def events(body: bytes) -> Iterator[Event]:
    """Yield the events of a body, in order. One that the body's end cuts off comes last, if it holds data.

    `kind` is the event field, or `message` if there is none. A line `error: ...`, as older llama.cpp servers
    send it, gives the kind `error`.
    """
    kind, data = "message", list[bytes]()
    # The last line is empty wherever the body ends, so an event that the end cuts off comes out too.
    for line in _LINE.finditer(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0):
        start, stop = line.span(1)
        if start == stop:
            if data:
                # A blank line's CR completes the event; the LF behind it may come in another read.
                yield Event(kind, b"\n".join(data), min(stop + 1, len(body)))
            kind, data = "message", []
        elif body.startswith(DATA, start):
            data.append(body[start + len(DATA) : stop])
        else:
            name, _, value = body[start:stop].partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif name == b"event":
                kind = value.decode("utf-8", "replace")
            elif name == b"error":
                kind = "error"
                data.append(value)


# --- bodies ---------------------------------------------------------------------------------------


def decode(body: bytes, read_ns: Sequence[int], read_ends: Sequence[int]) -> Decoded:
    """Decode a response's body, without transfer framing.

    `read_ns`: when each of its parts arrived; `read_ends`: the offset behind it. Of a body that is cut off,
    what came of it is in the result.
    """
    return _decode_regular(body, read_ns, read_ends) or _decode_any(body, read_ns, read_ends)


def _decode_any(body: bytes, read_ns: Sequence[int], read_ends: Sequence[int]) -> Decoded:
    answer, count = _Answer(), 0
    for event in events(body):
        count += 1
        number = bisect_left(read_ends, event.end)
        arrival_ns = read_ns[number] if number < len(read_ns) else None
        if not answer.take(event.data, arrival_ns, event.kind):
            break
    if not count:
        return _without_events(body)
    return answer.decoded()


def _decode_regular(body: bytes, read_ns: Sequence[int], read_ends: Sequence[int]) -> Decoded | None:
    """Decode a body that is nothing but `data: {chunk}` and blank lines, at a third of the cost of any other.

    Returns None for all others. A chunk with a line end in it would be one chunk to JSON and none to the
    event stream.
    """
    is_whole = body.startswith(DATA) and body.endswith(BLANK) and len(read_ends) == len(read_ns)
    if not is_whole or b"\r" in body or read_ends[-1] < len(body):
        return None
    parts = body[len(DATA) : -len(BLANK)].split(BLANK + DATA)
    if body.count(b"\n") != len(BLANK) * len(parts):
        return None
    answer, end, number = _Answer(), 0, 0
    if parts[-1] == b"[DONE]":
        parts.pop()
        answer.saw_done = True
    try:
        body.decode()
        for part in parts:
            end += len(part) + len(DATA) + len(BLANK)
            while read_ends[number] < end:
                number += 1
            chunk = _decode_chunk(part)
            if chunk.object == "error":
                return None
            answer.take_chunk(chunk, read_ns[number])
    except (ValueError, RecursionError):
        return None
    return answer.decoded()


def classify(
    status: int, body: bytes, decoded: Decoded, content_type: str | None = None
) -> tuple[Outcome, str | None]:
    """Return the outcome of a response that came whole, and a sentence on it unless it is ok.

    A good stream under another content type is none to a browser (WHATWG, section 9.2.2), though most clients
    for language models do not look at it. A response without a content type passes.
    """
    if status >= 400:
        return "http_error", f"HTTP {status}: {decoded.server_error or shown(body)}"
    if status != 200:
        return "protocol_error", f"HTTP {status} in answer to a chat completion: {shown(body)}"
    if decoded.server_error is not None:
        return "server_error", decoded.server_error
    if decoded.malformed is not None:
        return "protocol_error", decoded.malformed
    if decoded.finish_reason is None and not decoded.saw_done:
        return "protocol_error", "the answer is cut: neither a finish_reason nor [DONE] came"
    if not decoded.chunk_ns:
        return "protocol_error", "the answer has no content"
    kind = (content_type or "").partition(";")[0].strip()
    if kind and kind.lower() != "text/event-stream":
        return "protocol_error", f"the content type is {kind[:SHOWN_CHARACTERS]}, not text/event-stream"
    return "ok", None


def _without_events(body: bytes) -> Decoded:
    """Decode a body that is no event stream: an error in JSON, a plain answer, a web page."""
    try:
        whole = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return Decoded(malformed=f"not an event stream: {shown(body)}" if body else "the response is empty")
    message = error_message(whole, "message", body)
    if message is not None:
        return Decoded(server_error=message)
    answer = _Answer()
    if isinstance(whole, dict):
        answer.take_object(whole, None)
    answer.malformed = f"the answer was not streamed: {shown(body)}"
    return answer.decoded()
