"""The decoder against tests/support/loads/slow_decode.py, whatever the bytes and however they were cut into
reads."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from slow_decode import SlowAnswer, slow_decode

from harness.load.answer.chat import Decoded, decode

quick = settings(derandomize=True, max_examples=400, deadline=None, database=None)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
counts = st.one_of(st.none(), st.integers(-1, 1 << 60), st.booleans(), st.just("3"), st.just(1.5))
strange = st.one_of(st.none(), st.booleans(), st.integers(), texts, st.lists(st.integers(), max_size=2))
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.one_of(st.none(), texts, strange),
        "reasoning_content": st.one_of(st.none(), texts, strange),
        "reasoning": st.one_of(texts, strange),
        "tool_calls": st.one_of(st.just([]), st.just([{"index": 0}]), strange),
    },
)
choices = st.fixed_dictionaries(
    {"index": st.just(0)},
    optional={
        "delta": st.one_of(deltas, deltas, strange),
        "finish_reason": st.one_of(st.none(), st.just("stop"), strange),
    },
)
usages = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts,
        "completion_tokens": counts,
        "prompt_tokens_details": st.one_of(
            st.none(), st.fixed_dictionaries({}, optional={"cached_tokens": counts})
        ),
    },
)
timings = st.fixed_dictionaries({}, optional={"prompt_n": counts, "cache_n": counts, "predicted_n": counts})
chunks = st.fixed_dictionaries(
    {"id": st.just("chatcmpl-1")},
    optional={
        "choices": st.one_of(st.lists(choices, max_size=2), st.lists(choices, max_size=2), strange),
        "usage": st.one_of(usages, strange),
        "timings": st.one_of(timings, strange),
        "error": st.one_of(st.none(), strange),
        "object": st.one_of(st.just("chat.completion.chunk"), st.just("error"), strange),
    },
)
plain_chunks = st.builds(
    lambda text, finish: {"choices": [{"delta": {"content": text}, "finish_reason": finish}]},
    texts,
    st.sampled_from([None, None, "stop"]),
)


def to_json(value: Any, is_ascii: bool) -> bytes:
    return json.dumps(value, ensure_ascii=is_ascii).encode()


jsons = st.builds(to_json, st.one_of(plain_chunks, plain_chunks, chunks), st.booleans())
# What a decoder in a hurry gets wrong: line ends that JSON takes for blanks, bytes that nobody looks at.
tricky = st.sampled_from(
    [
        b'data: {"choices":\n[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"choices":\r[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"x"}}]}\r\n\r\n',
        b'data: {"choices":[{"delta":{"content":"x"}}]}\r\r',
        b'data: {"id":"\xff","choices":[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"id":"\\q","choices":[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"object":"error","choices":[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"error":"full","choices":[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a"}}],"choices":[{"delta":{"content":"b"}}]}\n\n',
        b'data: {"ch\\u006fices":[{"delta":{"content":"x"}}]}\n\n',
        b"data: [DONE]\n\n",
        b"data: {}\n\n\n\n",
        b"data: \n\n",
    ]
)
regular_events = st.one_of(
    jsons.map(lambda data: b"data: " + data + b"\n\n"),
    plain_chunks.map(lambda chunk: b"data: " + to_json(chunk, False) + b"\n\n"),
    tricky,
)
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
lines = st.one_of(
    jsons.map(lambda data: b"data: " + data),
    jsons.map(lambda data: b"data:" + data),
    jsons.map(lambda data: b"error: " + data),
    st.sampled_from(
        [
            b"",
            b"",
            b": ping",
            b"data",
            b"data:",
            b"event: error",
            b"event: x",
            b"id: 3",
            b"[DONE]",
            b"data: [DONE]",
        ]
    ),
    st.sampled_from([b"data: 3", b"data: {", b'data: "choices": []}', b"data: {} {}", b"\xef\xbb\xbf"]),
    st.binary(max_size=8),
)
irregular_events = st.builds(lambda line, end: line + end, lines, line_ends)
bodies = st.one_of(
    st.lists(regular_events, min_size=1, max_size=5).map(b"".join),
    st.lists(st.one_of(regular_events, irregular_events), max_size=12).map(b"".join),
)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(bodies))
    for _ in range(draw(st.integers(0, 2)) if body else 0):
        at = draw(st.integers(0, len(body) - 1)) if body else 0
        body[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b"\n", b"\r", b"\n\n", b"\\", b'"', b"\xc3", b"}", b"data: "])
        )
    return bytes(body)


def same(fast: Decoded, slow: SlowAnswer) -> None:
    assert fast.chunk_ns == tuple(slow.chunk_ns)
    assert (fast.text, fast.reasoning, fast.finish_reason) == (slow.text, slow.reasoning, slow.finish_reason)
    usage, timed = slow.tokens, slow.timed_tokens
    expected = [
        of_timings if of_usage is None else of_usage
        for of_usage, of_timings in zip(usage, timed, strict=True)
    ]
    assert [fast.input_tokens, fast.output_tokens, fast.cached_tokens] == expected
    assert fast.saw_done == slow.saw_done
    if slow.has_events:
        assert (fast.server_error is not None) == slow.is_error
        assert (fast.malformed is not None) == slow.is_malformed
    else:
        assert fast.malformed is not None or fast.server_error is not None


@quick
@given(st.one_of(bodies, mangled()), st.data())
def test_any_bytes_cut_anywhere_decode_as_the_standard_says(body: bytes, data: st.DataObject) -> None:
    breaks = [at + 1 for at, byte in enumerate(body) if byte in b"\r\n"]
    anywhere = st.one_of(st.integers(0, len(body)), st.sampled_from(breaks or [0]))
    cuts = data.draw(st.lists(anywhere, max_size=12).map(sorted))
    bounds = [0, *cuts, len(body)]
    read_ends = bounds[1:]
    read_ns = [100 + number for number in range(len(read_ends))]
    arrival_ns = [
        at for at, (start, end) in zip(read_ns, pairwise(bounds), strict=True) for _ in range(end - start)
    ]
    same(decode(body, read_ns, read_ends), slow_decode(body, arrival_ns))


@quick
@given(st.lists(regular_events, min_size=1, max_size=12).map(b"".join))
def test_a_regular_stream_in_one_read_per_event(body: bytes) -> None:
    blank_lines = [at + 2 for at in range(len(body)) if body[at : at + 2] == b"\n\n"]
    read_ends = [*blank_lines, len(body)]
    read_ns = list(range(len(read_ends)))
    arrival_ns = [sum(end <= at for end in read_ends) for at in range(len(body))]
    same(decode(body, read_ns, read_ends), slow_decode(body, arrival_ns))
