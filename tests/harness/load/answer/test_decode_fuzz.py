"""The decoder against tests/support/loads/slow_decode.py, whatever the bytes and however they were cut into
reads."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
from fuzzing import NO_VALUES, altered, damaged, json_bytes, texts
from hypothesis import example, given
from hypothesis import strategies as st
from slow_decode import SlowAnswer, slow_decode

from serving_bench.harness.load.answer import APIS
from serving_bench.harness.load.answer.chat import Decoded, classify, decode

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
            b"", b"", b": ping", b"data", b"data:", b"event: error", b"event: x", b"id: 3", b"[DONE]",
            b"data: [DONE]",
        ],
    ),
    st.sampled_from([b"data: 3", b"data: {", b'data: "choices": []}', b"data: {} {}", b"\xef\xbb\xbf"]),
    st.binary(max_size=8),
)  # fmt: skip
irregular_events = st.builds(lambda line, end: line + end, lines, line_ends)
bodies = st.one_of(
    st.lists(regular_events, min_size=1, max_size=5).map(b"".join),
    st.lists(st.one_of(regular_events, irregular_events), max_size=12).map(b"".join),
)


PIECES = [b"", b"\n", b"\r", b"\n\n", b"\\", b'"', b"\xc3", b"}", b"data: "]
mangled = bodies.flatmap(lambda body: damaged(body, PIECES))


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


@st.composite
def cuts(draw: st.DrawFn, body: bytes) -> list[int]:
    breaks = [at + 1 for at, byte in enumerate(body) if byte in b"\r\n"]
    anywhere = st.integers(0, len(body)) | st.sampled_from(breaks or [0])
    return [0, *sorted(draw(st.lists(anywhere, max_size=12))), len(body)]


@given(st.lists(st.builds(lambda *each: dict(zip(("usage", "timings"), each, strict=True)), usages, timings)))
def test_the_last_word_on_each_count_holds(counted: list[dict[str, Any]]) -> None:
    body = b"".join(b"data: " + to_json(each, True) + b"\n\n" for each in [*counted, {"choices": []}])
    same(decode(body, [0], [len(body)]), slow_decode(body, [0] * len(body)))


parts = st.sampled_from([b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', b'data: {"choices":[]}\n\n',
                         b": ping\n\n", b"data: {}\r\n\r\n", b"event: x\n\n"])  # fmt: skip


@given(parts, st.integers(0, 9000), st.integers(1, 40))
@example(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n', 200_000, 30)
def test_any_number_of_events_is_bounded_by_what_was_asked(part: bytes, count: int, asked: int) -> None:
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    body, most = part * count + end, 64 * asked + 4096
    whole = decode(body, [0], [len(body)])
    found = decode(body, [0], [len(body)], max_tokens=asked)
    if count * part.count(b"data") + 1 <= most:
        assert found == whole
    else:
        assert found == Decoded(malformed=f"more than {most} events, far beyond max_tokens")


@given(st.one_of(bodies, mangled), st.data())
def test_any_bytes_cut_anywhere_decode_as_the_standard_says(body: bytes, data: st.DataObject) -> None:
    bounds = data.draw(cuts(body))
    read_ends = bounds[1:]
    read_ns = [100 + number for number in range(len(read_ends))]
    arrival_ns = [
        at for at, (start, end) in zip(read_ns, pairwise(bounds), strict=True) for _ in range(end - start)
    ]
    same(decode(body, read_ns, read_ends), slow_decode(body, arrival_ns))


@given(st.lists(regular_events, min_size=1, max_size=12).map(b"".join))
def test_a_regular_stream_in_one_read_per_event(body: bytes) -> None:
    blank_lines = [at + 2 for at in range(len(body)) if body[at : at + 2] == b"\n\n"]
    read_ends = [*blank_lines, len(body)]
    read_ns = list(range(len(read_ends)))
    arrival_ns = [sum(end <= at for end in read_ends) for at in range(len(body))]
    same(decode(body, read_ns, read_ends), slow_decode(body, arrival_ns))


# --- every API -------------------------------------------------------------------------------------

STREAMS: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"choices": [{"delta": {"reasoning": "hm"}}]},
        {"choices": [{"delta": {"content": "é", "tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}},
    ],
    "anthropic": [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3, "cache_read_input_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "f"}},
        {"type": "content_block_delta", "index": 0, "delta": {"partial_json": "{", "text": "é"}},
        {"type": "content_block_delta", "index": 1, "delta": {"thinking": "hm"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    ],
    "gemini": [
        {"candidates": [{"content": {"parts": [{"text": "é", "thought": True}, {"text": "b"}]}}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]}}]},
        {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 3}},
    ],
}  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, bytes]:
    """An API and the body of an answer, of which a value or some bytes are others."""
    name = draw(st.sampled_from(sorted(STREAMS)))
    stream = draw(altered({"events": STREAMS[name]}))["events"]
    events = stream if isinstance(stream, list) else [stream]
    lines = [b"data: " + draw(json_bytes(event)) + b"\n\n" for event in events]
    return name, draw(damaged(b"".join(lines), [*PIECES, *NO_VALUES]) | st.just(b"".join(lines)))


@given(answers(), st.data())
@example(("anthropic", b'data: {"index": 9999999999999999999999}\n\n'), None)
@example(("openai", b"data: " + b"[" * 100_000), None)
def test_an_answer_of_any_api_is_decoded_the_same_however_it_was_cut(
    made: tuple[str, bytes], data: st.DataObject | None
) -> None:
    name, body = made
    whole = decode(body, [7], [len(body)], APIS[name])
    ends = (data.draw(cuts(body)) if data else [0, len(body)])[1:]
    cut = decode(body, range(len(ends)), ends, APIS[name])
    assert replace(cut, chunk_ns=(), first_answer_ns=None) == replace(
        whole, chunk_ns=(), first_answer_ns=None
    )
    assert len(cut.chunk_ns) == len(whole.chunk_ns)
    assert list(cut.chunk_ns) == sorted(cut.chunk_ns)
    assert 0 <= cut.reasoning_chunks <= len(cut.chunk_ns)
    counted = (cut.input_tokens, cut.output_tokens, cut.cached_tokens)
    assert all(each is None or 0 <= each < 2**33 for each in counted)
    assert msgspec.json.decode(msgspec.json.encode(cut), type=Decoded) == cut
    outcome, error = classify(200, body, cut)
    assert (error is None) == (outcome == "ok")
