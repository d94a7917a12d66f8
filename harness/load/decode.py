"""Turns the bytes of a streamed chat completion, and when they arrived, into text, chunks and token counts.

Pure: knows no socket, clock or engine. No bytes make it raise; what is wrong with them is in the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import orjson

from harness.contracts import Outcome

# https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.5: three kinds of line ends.
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SHOWN_CHARACTERS = 200

Tokens = tuple[int | None, int | None, int | None]  # input, output, cached
_NO_TOKENS: Tokens = (None, None, None)


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


class Event(NamedTuple):
    """One server-sent event. `end`: the offset behind the byte that completed it."""

    kind: str
    data: bytes
    end: int


def events(body: bytes) -> Iterator[Event]:
    """The events of a body, in order; one that the body's end cuts off comes last, if it holds data.

    `kind` is the event field (`message` where there is none), or `error` for a line `error: ...` as
    older llama.cpp servers send it.
    """
    kind, data = "message", list[bytes]()
    # The last line is empty wherever the body ends, so an event that the end cuts off comes out too.
    for line in _LINE.finditer(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0):
        content = line[1]
        if not content:
            if data:
                # A blank line's CR completes the event; the LF behind it may come in another read.
                yield Event(kind, b"\n".join(data), min(line.start(2) + 1, len(body)))
            kind, data = "message", []
            continue
        name, _, value = content.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"event":
            kind = value.decode("utf-8", "replace")
        elif name == b"error":
            kind = "error"
            data.append(value)


class _Arrivals:
    """Finds the read that brought a byte; offsets must not descend."""

    def __init__(self, reads: Sequence[tuple[int, int]]) -> None:
        self._ends = list(accumulate(length for _, length in reads))
        self._reads = reads
        self._at = 0

    def of(self, end: int) -> int | None:
        while self._at < len(self._ends) and self._ends[self._at] < end:
            self._at += 1
        return self._reads[self._at][0] if self._at < len(self._ends) else None


class _Answer:
    """Collects what the events say."""

    def __init__(self) -> None:
        self.chunk_ns: list[int] = []
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.finish_reason: str | None = None
        self.usage = _NO_TOKENS
        self.timings = _NO_TOKENS
        self.server_error: str | None = None
        self.malformed: str | None = None
        self.saw_done = False

    def take(self, event: Event, arrivals: _Arrivals) -> bool:
        """Add one event; False if nothing after it counts."""
        if event.data.strip() == b"[DONE]":
            self.saw_done = True
            return False
        try:
            chunk = orjson.loads(event.data)
        except orjson.JSONDecodeError as error:
            if event.kind == "error":
                self.server_error = _shown(event.data)
            else:
                self.malformed = f"not JSON in an event: {error}: {_shown(event.data)}"
            return False
        message = _error_message(chunk, event.kind, event.data)
        if message is not None:
            self.server_error = message
            return False
        if not isinstance(chunk, dict):
            self.malformed = f"not a chunk in an event: {_shown(event.data)}"
            return False
        if self._take_choices(chunk.get("choices")):
            arrival_ns = arrivals.of(event.end)
            if arrival_ns is not None:
                self.chunk_ns.append(arrival_ns)
        self.usage = _later(self.usage, _usage(chunk.get("usage")))
        self.timings = _later(self.timings, _timings(chunk.get("timings")))
        return True

    def _take_choices(self, choices: Any) -> bool:
        """True if one of them bears content."""
        has_content = False
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            reason = choice.get("finish_reason")
            if isinstance(reason, str):
                self.finish_reason = reason
            delta = choice.get("delta")
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
        input_tokens, output_tokens, cached_tokens = _later(self.timings, self.usage)
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


def decode(body: bytes, reads: Sequence[tuple[int, int]]) -> Decoded:
    """Decode a response's body, without transfer framing; `reads` are (arrival_ns, length) of its parts.

    Also for a body that is cut off: what came of it is in the result.
    """
    arrivals, answer, count = _Arrivals(reads), _Answer(), 0
    for event in events(body):
        count += 1
        if not answer.take(event, arrivals):
            break
    if not count:
        return _without_events(body)
    return answer.decoded()


def classify(status: int, body: bytes, decoded: Decoded) -> tuple[Outcome, str | None]:
    """The outcome of a response that came whole, and a sentence on it unless it is ok."""
    if status >= 400:
        return "http_error", f"HTTP {status}: {decoded.server_error or _shown(body)}"
    if status != 200:
        return "protocol_error", f"HTTP {status} in answer to a chat completion: {_shown(body)}"
    if decoded.server_error is not None:
        return "server_error", decoded.server_error
    if decoded.malformed is not None:
        return "protocol_error", decoded.malformed
    if decoded.finish_reason is None and not decoded.saw_done:
        return "protocol_error", "the answer is cut: neither a finish_reason nor [DONE] came"
    if not decoded.chunk_ns:
        return "protocol_error", "the answer has no content"
    return "ok", None


def _without_events(body: bytes) -> Decoded:
    """A body that is no event stream: an error in JSON, an answer that was not streamed, a web page."""
    try:
        whole = orjson.loads(body)
    except orjson.JSONDecodeError:
        return Decoded(malformed=f"not an event stream: {_shown(body)}" if body else "the response is empty")
    message = _error_message(whole, "message", body)
    if message is not None:
        return Decoded(server_error=message)
    return Decoded(malformed=f"the answer was not streamed: {_shown(body)}")


def _error_message(chunk: Any, kind: str, data: bytes) -> str | None:
    """The message of an error, None if this is none.

    OpenAI: {"error": {"message": ...}}; TGI: {"error": "..."}; vLLM: {"object": "error", "message": ...}.
    """
    is_error = isinstance(chunk, dict) and (chunk.get("error") or chunk.get("object") == "error")
    if not is_error and kind != "error":
        return None
    found = chunk
    for name in ("error", "message"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return _shown(found.encode() if isinstance(found, str) else data)


def _usage(usage: Any) -> Tokens:
    """Input, output and cached tokens as OpenAI has them."""
    if not isinstance(usage, dict):
        return _NO_TOKENS
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")), _count(cached)


def _timings(timings: Any) -> Tokens:
    """The same as llama.cpp has them beside `usage`, or without it."""
    if not isinstance(timings, dict):
        return _NO_TOKENS
    evaluated, cached = _count(timings.get("prompt_n")), _count(timings.get("cache_n"))
    inputs = None if evaluated is None or cached is None else evaluated + cached
    return inputs, _count(timings.get("predicted_n")), cached


def _later(old: Tokens, new: Tokens) -> Tokens:
    """Each count of `new`, or of `old` where that has none."""
    return (
        old[0] if new[0] is None else new[0],
        old[1] if new[1] is None else new[1],
        old[2] if new[2] is None else new[2],
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else None


def _shown(data: bytes) -> str:
    """The start of it, on one line."""
    return " ".join(data[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace").split())[:SHOWN_CHARACTERS]
