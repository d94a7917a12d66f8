"""A second decoder, slow and simple, which follows the WHATWG text byte by byte.

https://html.spec.whatwg.org/multipage/server-sent-events.html, sections 9.2.5 and 9.2.6. It differs in two
things: an event that the body's end cuts off counts, and a line `error: ...` is data of an error event.
"""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class SlowAnswer:
    chunk_ns: list[int] = field(default_factory=list)
    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    tokens: list[int | None] = field(default_factory=lambda: [None, None, None])
    timed_tokens: list[int | None] = field(default_factory=lambda: [None, None, None])
    saw_done: bool = False
    is_error: bool = False
    is_malformed: bool = False
    has_events: bool = False


def slow_events(body: bytes, arrival_ns: list[int]) -> list[tuple[str, bytes, int]]:
    """Return (kind, data, arrival of the byte that completed it) of each event.

    `arrival_ns` has the arrival of each byte.
    """
    if body[:3] == b"\xef\xbb\xbf":
        body, arrival_ns = body[3:], arrival_ns[3:]
    found: list[tuple[str, bytes, int]] = []
    line, kind, data = b"", "", b""
    after_cr = False
    for number in range(len(body)):
        byte = body[number : number + 1]
        if byte == b"\n" and after_cr:
            after_cr = False
            continue
        after_cr = byte == b"\r"
        if byte not in (b"\r", b"\n"):
            line += byte
        elif line:
            kind, data = process(line, kind, data)
            line = b""
        else:
            if data:
                found.append((kind or "message", data[:-1], arrival_ns[number]))
            kind, data = "", b""
    if line:
        kind, data = process(line, kind, data)
    if data:
        found.append((kind or "message", data[:-1], arrival_ns[-1]))
    return found


def process(line: bytes, kind: str, data: bytes) -> tuple[str, bytes]:
    name, value = line, b""
    if b":" in line:
        name, value = line[: line.index(b":")], line[line.index(b":") + 1 :]
        if value[:1] == b" ":
            value = value[1:]
    if name == b"event":
        return value.decode("utf-8", "replace"), data
    if name == b"data":
        return kind, data + value + b"\n"
    if name == b"error":
        return "error", data + value + b"\n"
    return kind, data


def slow_decode(body: bytes, arrival_ns: list[int]) -> SlowAnswer:
    answer = SlowAnswer()
    for kind, data, arrived_ns in slow_events(body, arrival_ns):
        answer.has_events = True
        if data.strip() == b"[DONE]":
            answer.saw_done = True
            break
        try:
            chunk = read_json(data)
        except (ValueError, RecursionError):
            answer.is_error, answer.is_malformed = kind == "error", kind != "error"
            break
        is_dict = isinstance(chunk, dict)
        if kind == "error" or (is_dict and (chunk.get("error") or chunk.get("object") == "error")):
            answer.is_error = True
            break
        if not is_chunk(chunk):
            answer.is_malformed = True
            break
        if take_choices(answer, chunk.get("choices")):
            answer.chunk_ns.append(arrived_ns)
        take_counts(answer, chunk)
    return answer


def read_json(data: bytes) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    value = json.loads(data.decode(), parse_constant=refuse)
    json.dumps(value, ensure_ascii=False).encode()  # raises for a lone surrogate
    return value


def is_chunk(chunk: Any) -> bool:
    """Return whether every field that is read has its type, or is null or absent."""
    fields = {"choices": list, "usage": dict, "timings": dict, "object": str}
    return has_types(chunk, fields) and all(
        has_types(choice, {"delta": dict, "finish_reason": str})
        and has_types(
            choice.get("delta") or {},
            {"content": str, "reasoning_content": str, "reasoning": str, "tool_calls": list},
        )
        for choice in chunk.get("choices") or []
    )


def has_types(value: Any, types: dict[str, type]) -> bool:
    return isinstance(value, dict) and all(
        value.get(name) is None or isinstance(value[name], kind) for name, kind in types.items()
    )


def take_choices(answer: SlowAnswer, choices: Any) -> bool:
    has_content = False
    for choice in choices or []:
        if choice.get("finish_reason") is not None:
            answer.finish_reason = choice["finish_reason"]
        delta = choice.get("delta") or {}
        text = delta.get("content") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        answer.text += text
        answer.reasoning += reasoning
        has_content = has_content or bool(text or reasoning or delta.get("tool_calls"))
    return has_content


def take_counts(answer: SlowAnswer, chunk: dict[str, Any]) -> None:
    """Take the counts of a chunk that has some.

    The last value counts, even if it is no count: earlier ones may be of a part of the answer.
    """
    usage, timings = chunk.get("usage"), chunk.get("timings")
    if isinstance(usage, dict):
        for number, name in enumerate(["prompt_tokens", "completion_tokens"]):
            take_last(answer.tokens, number, usage.get(name))
        if (details := usage.get("prompt_tokens_details")) is not None:
            cached = details.get("cached_tokens") if isinstance(details, dict) else None
            answer.tokens[2] = cached if is_count(cached) else None
    if isinstance(timings, dict):
        evaluated, cached = timings.get("prompt_n"), timings.get("cache_n")
        if is_count(evaluated) and is_count(cached):
            take_last(answer.timed_tokens, 0, evaluated + cached)
        take_last(answer.timed_tokens, 1, timings.get("predicted_n"))
        take_last(answer.timed_tokens, 2, cached)


def take_last(tokens: list[int | None], number: int, value: Any) -> None:
    if value is not None:
        tokens[number] = value if is_count(value) else None


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31
