import json
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
from timeline_server import DONE, event, finish

from serving_bench.harness.contracts import ToolCall
from serving_bench.harness.load.answer.chat import Decoded, classify, decode, events

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}


def read_once(body: bytes, arrival_ns: int = 7) -> Decoded:
    return decode(body, [arrival_ns], [len(body)])


def read_in_parts(body: bytes, parts: Sequence[tuple[int, int]]) -> Decoded:
    """`parts`: (arrival_ns, length)."""
    return decode(body, [at for at, _ in parts], list(accumulate(length for _, length in parts)))


def outcome(body: bytes, status: int = 200) -> tuple[str, str | None]:
    return classify(status, body, read_once(body))


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def test_a_chat_stream_as_openai_sends_it() -> None:
    body = (
        event(role="assistant", content="")
        + event(content="Hel")
        + event(content="lo")
        + finish("length")
        + data({"choices": [], "usage": USAGE})
        + DONE
    )
    assert read_once(body) == Decoded(
        chunk_ns=(7, 7),
        text="Hello",
        finish_reason="length",
        input_tokens=11,
        output_tokens=3,
        cached_tokens=5,
        saw_done=True,
        first_answer_ns=7,
    )
    assert outcome(body) == ("ok", None)


def test_a_chat_stream_as_llama_cpp_sends_it() -> None:
    """Role with null content, usage beside timings in the last chunk; the timings alone serve too."""
    timings = {"prompt_n": 6, "cache_n": 5, "predicted_n": 3, "predicted_ms": 12.5}
    start = event(role="assistant", content=None) + event(content="a") + finish()
    whole = read_once(start + data({"choices": [], "usage": USAGE, "timings": {**timings, "prompt_n": 1}}))
    assert (whole.input_tokens, whole.output_tokens, whole.cached_tokens) == (11, 3, 5)
    old = read_once(start + data({"choices": [], "timings": timings}) + DONE)
    assert (old.input_tokens, old.output_tokens, old.cached_tokens) == (11, 3, 5)
    assert old.chunk_ns == (7,)


def test_each_chunk_has_the_arrival_of_the_read_that_completed_it() -> None:
    role, one, two = event(role="assistant"), event(content="one"), event(content="two")
    end = finish() + DONE
    body = role + one + two + end
    reads = [
        (10, len(role)),
        (20, len(one) - 1),  # all of `one` but its last byte
        (30, 1 + 5),  # which comes with the start of `two`
        (40, len(two) - 5 + len(end)),
    ]
    assert read_in_parts(body, reads).chunk_ns == (30, 40)
    assert read_in_parts(body, [(50, len(body))]).chunk_ns == (50, 50)


@pytest.mark.parametrize(
    ("delta", "counts"),
    [
        ({"role": "assistant"}, False),
        ({"role": "assistant", "content": ""}, False),
        ({"content": None}, False),
        ({}, False),
        ({"reasoning_content": ""}, False),
        ({"tool_calls": []}, False),
        ({"content": " "}, True),
        ({"reasoning_content": "hm"}, True),
        ({"reasoning": "hm"}, True),
        ({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, True),
    ],
)
def test_only_content_counts_as_a_chunk(delta: dict[str, Any], counts: bool) -> None:
    assert len(read_once(event(**delta)).chunk_ns) == counts


def test_reasoning_is_kept_apart_from_text() -> None:
    body = (
        event(reasoning_content="think ") + event(reasoning="more") + event(content="say") + finish() + DONE
    )
    decoded = read_once(body)
    assert (decoded.reasoning, decoded.text) == ("think more", "say")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("11", "'11'"), (-1, "-1"), (True, "True"), (1.5, "1.5"), (7.0, "7.0"), ([1], "[1]"), ({}, "{}")],
)
def test_counts_that_are_no_counts_are_missing_and_said(wrong: object, said: str) -> None:
    decoded = read_once(data({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": wrong}}))
    assert decoded == Decoded(input_tokens=5, absurd=f"completion_tokens={said}")


def test_other_fields_of_usage_may_be_anything() -> None:
    usage = {**USAGE, "tokens_per_second": 1.5, "tokenizer": "x", "prompt_tokens_details": None}
    decoded = read_once(event(content="x") + finish(usage=usage, timings={"predicted_per_token_ms": 0.5}))
    assert decoded.absurd is None


@pytest.mark.parametrize("value", [1 << 31, 1 << 40, (1 << 53) - 1, 1 << 53, 1 << 63, 10**400])
def test_a_count_that_no_request_has_is_missing_and_said(value: int) -> None:
    usage = f'data: {{"usage": {{"prompt_tokens": 11, "completion_tokens": {value}}}}}\n\n'.encode()
    decoded = read_once(event(content="x") + finish() + usage + DONE)
    assert (decoded.input_tokens, decoded.output_tokens) == (11, None)
    assert decoded.absurd == f"completion_tokens={value}"[: len(decoded.absurd or "")]


def test_a_count_inside_another_field_or_a_sum_of_two_can_be_absurd() -> None:
    most = (1 << 31) - 1
    inside = read_once(finish(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": most + 1}}))
    assert (inside.cached_tokens, inside.absurd) == (None, "cached_tokens=2147483648")
    summed = read_once(finish(timings={"prompt_n": most, "cache_n": most, "predicted_n": 1}))
    assert (summed.input_tokens, summed.absurd) == (None, "prompt_n + cache_n=4294967294")


def test_usage_in_every_chunk_ends_with_the_last() -> None:
    body = b"".join(
        data(
            {"choices": [{"delta": {"content": "x"}}], "usage": {"prompt_tokens": 4, "completion_tokens": n}}
        )
        for n in (1, 2, 3)
    )
    decoded = read_once(body + data({"choices": [], "usage": None}))
    assert (decoded.input_tokens, decoded.output_tokens, decoded.cached_tokens) == (4, 3, None)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    "lines",
    [
        [b'data: {"a": 1}'],
        [b'data:{"a": 1}'],
        [b": a comment", b'data: {"a": 1}', b"id: 4", b"retry: 10", b"unknown"],
        [b'data: {"a":', b"data: 1}"],
    ],
)
def test_lines_of_an_event(lines: list[bytes], end: bytes) -> None:
    body = end.join([*lines, b"", b"data: 2", b"", b""])
    first, second = events(body)
    assert json.loads(first[1]) == {"a": 1}
    assert second[1] == b"2"
    # Complete with the first byte of the blank line's end, for its LF may come later.
    assert first[2] == len(end.join(lines) + end) + 1
    assert second[2] == len(body) - len(end) + 1


def test_comments_blank_lines_and_a_byte_order_mark_are_no_events() -> None:
    assert list(events(b"\xef\xbb\xbf: hello\n\n\n\r\n\r: bye\n\nevent: x\n\n")) == []
    assert [data for _, data, _ in events(b"\xef\xbb\xbfdata: x\n\n")] == [b"x"]


def test_an_event_that_the_end_cuts_off_counts_if_it_is_whole() -> None:
    body = event(content="a") + b"data: [DONE]"
    assert read_once(body).saw_done
    assert outcome(body) == ("ok", None)
    assert read_once(event(content="a").rstrip()).text == "a"


def test_half_an_event_at_the_end_is_a_protocol_error() -> None:
    body = event(content="a") + event(content="b")[:-10]
    decoded = read_once(body)
    assert decoded.text == "a"
    assert outcome(body)[0] == "protocol_error"
    assert str(decoded.malformed).startswith("not a chunk in an event: ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (data({"error": {"message": "out of memory", "code": 500}}), "out of memory"),
        (data({"error": "overloaded", "error_type": "x"}), "overloaded"),
        (data({"object": "error", "message": "bad"}), "bad"),
        (b'event: error\ndata: {"message": "gone"}\n\n', "gone"),
        (b"event: error\ndata: it broke\n\n", "it broke"),
        (b"event: error\ndata: \n\n", "an error without a message"),
        (b'error: {"code": 500, "message": "llama"}\n\n', "llama"),
        (b'{"error": {"message": "no such model"}}', "no such model"),
        (data({"error": {"code": 3}}), '{"error": {"code": 3}}'),
        (data({"error": " "}), '{"error": " "}'),
    ],
)
def test_errors_under_http_200_are_server_errors(body: bytes, message: str) -> None:
    assert outcome(body) == ("server_error", message)
    if body.startswith(b"data"):
        late = event(content="a") + body + event(content="b") + DONE
        assert outcome(late) == ("server_error", message)
        assert read_once(late).text == "a"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (event(content="a"), "the answer is cut: neither a finish_reason nor [DONE] came"),
        (event(role="assistant") + finish() + DONE, "the answer has no content"),
        (DONE, "the answer has no content"),
        (b"", "the response is empty"),
        (b"<html>\n  <body>hi", "not an event stream: <html> <body>hi"),
        (b'{"choices": []}', 'not an event stream: {"choices": []}'),
        (b"data: 3\n\n", "not a chunk in an event: 3"),
    ],
)
def test_answers_that_are_none_are_protocol_errors(body: bytes, error: str) -> None:
    assert outcome(body) == ("protocol_error", error)


def test_either_end_mark_is_enough() -> None:
    assert outcome(event(content="a") + finish())[0] == "ok"
    assert outcome(event(content="a") + DONE)[0] == "ok"


def test_http_errors_are_named_with_their_message() -> None:
    assert outcome(b'{"error": {"message": "no slot"}}', 503) == ("http_error", "HTTP 503: no slot")
    assert outcome(b"<h1>Bad Gateway</h1>", 502) == ("http_error", "HTTP 502: <h1>Bad Gateway</h1>")
    assert outcome(b"moved", 307)[0] == "protocol_error"


def test_invalid_utf8_is_a_protocol_error() -> None:
    assert outcome(b'data: {"choices": "\xff"}\n\n')[0] == "protocol_error"


def call(index: int, **function: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": function}]}


def test_tool_calls_are_put_together_from_their_parts() -> None:
    body = (
        event(**call(1, name="add", arguments=""))
        + event(**call(0, name="look_up", arguments='{"na'))
        + event(**call(1, arguments='{"a": 1}'))
        + event(**call(0, arguments='me": "x"}'))
        + event(tool_calls=["not a call", {"index": "0"}])
        + finish("tool_calls")
        + DONE
    )
    expected = (ToolCall("look_up", '{"name": "x"}'), ToolCall("add", '{"a": 1}'))
    assert read_once(body).calls == expected
    assert outcome(body) == ("ok", None)


def test_thinking_is_told_apart_from_the_answer() -> None:
    parts = [
        event(role="assistant"),
        event(reasoning_content="hm"),
        event(reasoning="so"),
        event(content="42"),
        event(content="."),
    ]
    ends = list(accumulate(map(len, parts)))
    found = decode(b"".join(parts), [10, 20, 30, 40, 50], ends)
    assert found.chunk_ns == (20, 30, 40, 50)
    assert (found.reasoning_chunks, found.first_answer_ns) == (2, 40)
    assert decode(b"".join(parts[:3]), [10, 20, 30], ends[:3]).first_answer_ns is None
