"""What becomes of a request, from real sockets to its row."""

import json
import os
import resource
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from timeline_server import CHUNKED, DONE, LAST_CHUNK, Link, answer, chunk, event, finish, serving, steps

from serving_bench.harness.contracts import BegunRow, Form, Message, Outcome, RequestRow, Tool, ToolCall, Turn
from serving_bench.harness.load.answer import openai
from serving_bench.harness.load.answer.chat import Decoded, decode
from serving_bench.harness.load.answer.history import answer_message
from serving_bench.harness.load.client import http as client_module
from serving_bench.harness.load.client.http import Client, endpoint
from serving_bench.harness.load.client.receive import Receiver
from serving_bench.harness.load.client.response import MAX_RESPONSE_BYTES, Exchange
from serving_bench.harness.load.play.rows import RAW_BYTES, id_of, request_row

LIMIT_S = 20.0
KEY = "sk-secret-1"
ONE = CHUNKED + chunk(event(content="one"))
Play = Callable[[Link], object]


def row_of(exchange: Exchange, keep_bytes: bool = False) -> RequestRow:
    begun = BegunRow("r", worker=0, user=0, conversation=0, turn=0, scheduled_ns=0, max_tokens=8)
    decoded = decode(exchange.body, exchange.read_ns, exchange.read_ends)
    return request_row(begun, b'{"messages":"two words"}', exchange, decoded, KEY, keep_bytes)


@pytest.mark.parametrize("cell", ["007", "99999", "locust"])
def test_ids_are_uuids_as_they_are_written_and_no_two_are_alike(cell: str) -> None:
    """Servers that check an X-Request-Id read it so."""
    ids = [id_of(cell, conversation, turn) for conversation in (0, 3, 10**9) for turn in (0, 30, 9999)]
    assert len(set(ids)) == 9
    assert [str(uuid.UUID(each, version=4)) for each in ids] == ids


def asked(
    play: Play, timeout_s: float = LIMIT_S, keep_bytes: bool = False, leave_after_s: float | None = None
) -> RequestRow:
    with (
        serving(play) as server,
        Receiver() as receiver,
        closing(Client(endpoint(server.url), receiver)) as client,
    ):
        return row_of(client.stream(b"{}", "r", timeout_s, leave_after_s), keep_bytes)


def sending(*parts: bytes) -> Play:
    """Answer a request with these bytes, then close the connection."""
    return steps(Link.request, *parts)


def holding(*parts: bytes) -> Play:
    """Answer with these bytes, then stay silent until the client closes."""
    return steps(Link.request, *parts, Link.request)


def dripping(link: Link) -> None:
    sending(ONE)(link)
    stop = threading.Event()
    while not stop.wait(0.01):  # until the client closes: sending then fails, which ends the thread
        link.send(chunk(b": still here\n\n"))


def whole(status: bytes, kind: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(body))
    return head + body


STREAM = event(content="one") + event(content="two") + finish() + DONE
SSE, JSON = b"text/event-stream", b"application/json"
FAULTS: dict[str, tuple[Play, Outcome, str, int]] = {
    "400": (sending(whole(b"400 Bad", JSON, b'{"error": "too long"}')), "http_error", "too long", 0),
    "503": (sending(whole(b"503 Busy", b"text/html", b"<h1>Busy</h1>")), "http_error", "<h1>Busy</h1>", 0),
    "HTML": (sending(whole(b"200 OK", b"text/html", b"<p>hi")), "protocol_error", "not an event stream", 0),
    "nothing": (sending(), "reset", "without a response", 0),
    "an empty body": (sending(whole(b"200 OK", SSE, b"")), "protocol_error", "the response is empty", 0),
    "half an event": (
        sending(whole(b"200 OK", SSE, STREAM[:-40])), "protocol_error", "not a chunk in an event", 2
    ),
    "invalid UTF-8": (
        sending(whole(b"200 OK", SSE, event(content="one") + b'data: {"id": "\xff"}\n\n')),
        "protocol_error", "not a chunk in an event", 1,
    ),
    "a stream called HTML": (
        sending(whole(b"200 OK", b"text/html; charset=utf-8", STREAM)),
        "protocol_error", "the content type is text/html, not text/event-stream", 2,
    ),
    "a stream called JSON": (
        sending(whole(b"200 OK", JSON, STREAM)),
        "protocol_error", "the content type is application/json, not text/event-stream", 2,
    ),
    "an error event": (
        sending(ONE, chunk(b'data: {"error": {"message": "out of memory"}}\n\n'), LAST_CHUNK),
        "server_error", "out of memory", 1,
    ),
    "an error, then the end": (sending(ONE, chunk(b'data: {"error": "x"}\n\n')), "server_error", "x", 1),
    "a body that stops early": (sending(ONE, LAST_CHUNK), "protocol_error", "the answer is cut", 1),
    "a connection that stops early": (sending(ONE), "reset", "before the response's end", 1),
    "a reset": (steps(Link.request, ONE, Link.reset), "reset", "the connection broke", 1),
    "a stall": (holding(ONE), "timeout", "not finished after 0.5 s", 1),
    "no end": (dripping, "timeout", "not finished after 0.5 s", 1),
    "a wrong chunk, then silence": (holding(ONE, b"3\r\nabcd\r\n"), "protocol_error", "its size", 1),
    "a wrong chunk, then the end": (sending(ONE, b"zzz\r\n"), "protocol_error", "not a chunk size", 1),
    "no chunks at all": (holding(CHUNKED + STREAM), "protocol_error", "not a chunk size", 0),
}  # fmt: skip


@pytest.mark.alone
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_failed_request_with_its_reason_and_times(name: str) -> None:
    play, outcome, reason, chunks = FAULTS[name]
    row = asked(play, timeout_s=0.5 if outcome == "timeout" or "silence" in name else LIMIT_S)
    assert row.outcome == outcome
    assert reason in str(row.error)
    assert len(row.chunk_ns) == chunks
    assert row.sent_ns is not None
    assert [row.sent_ns, *row.chunk_ns, row.end_ns] == sorted([row.sent_ns, *row.chunk_ns, row.end_ns])
    ends = (row.chunk_ns[0], row.chunk_ns[-1]) if chunks else (None, None)
    assert (row.first_content_ns, row.last_content_ns) == ends


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n",
        CHUNKED + b"6400000\r\n",
    ],
)
def test_100_mb_in_one_line_end_at_the_limit_in_bounded_memory(head: bytes) -> None:
    play = steps(Link.request, answer("a"), Link.request, head + b"data: ", *[b"x" * 1_048_576] * 100)
    # In a process of its own: the most that this one ever took may be more already.
    with serving(play) as server:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, __file__, server.url]
        done = subprocess.run(command, check=True, capture_output=True, timeout=30, env=environment)
    outcome, error, kept, grown_bytes = json.loads(done.stdout)
    assert (outcome, error) == ("protocol_error", f"the response is longer than {MAX_RESPONSE_BYTES} bytes")
    assert kept == RAW_BYTES
    # All bytes, the body, and two more of it while it is decoded; 100 MB would take 400 MB.
    assert grown_bytes < 4.5 * MAX_RESPONSE_BYTES


def say_what_a_second_answer_takes(url: str) -> None:
    """For the test above: how the row ends, and by how much the most memory of this process has grown."""
    with Receiver() as receiver, closing(Client(endpoint(url), receiver)) as client:
        row_of(client.stream(b"{}", "r", LIMIT_S))
        before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        row = row_of(client.stream(b"{}", "r", LIMIT_S))
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    print(json.dumps([row.outcome, row.error, len(row.raw_response or ""), grown_kib * 1024]))


def test_a_good_stream_is_ok_with_either_end_mark_and_without_a_content_type() -> None:
    for body in (event(content="one") + finish(), event(content="one") + DONE):
        row = asked(sending(b"HTTP/1.1 200 OK\r\n\r\n" + body))
        assert (row.outcome, row.error, row.raw_response) == ("ok", None, None)


def test_all_bytes_are_kept_where_wanted() -> None:
    response = answer("x" * 100_000)
    row = asked(sending(response), keep_bytes=True)
    assert row.outcome == "ok"
    assert row.raw_response == response.decode()
    assert asked(sending(response)).raw_response is None


def test_the_key_is_masked_in_all_that_is_kept() -> None:
    row = asked(
        sending(CHUNKED + chunk(event(content=KEY, reasoning=KEY) + finish()) + LAST_CHUNK), keep_bytes=True
    )
    assert (row.output_text, row.reasoning_text) == ("***", "***")
    assert KEY not in str(row)
    pieces = [chunk(event(content=each)) for each in (KEY[:9], KEY[9:])]
    spoken = asked(sending(CHUNKED, *pieces, chunk(finish()), LAST_CHUNK), keep_bytes=True)
    assert (spoken.output_text, spoken.raw_response) == ("***", "***"), "its pieces are in what came"
    assert asked(
        sending(CHUNKED + chunk(event(content="a") + finish()) + LAST_CHUNK), keep_bytes=True
    ).raw_response
    refused = b'{"error": {"message": "' + b"x" * 190 + KEY.encode() + b'"}}'
    assert asked(sending(whole(b"401 No", JSON, refused))).error == f"HTTP 401: {'x' * 190}***"
    failed = asked(sending(whole(b"401 No", SSE, b"x" * (RAW_BYTES - 100) + KEY.encode() * 20)))
    assert "sk-" not in str(failed)


def test_a_request_that_was_sent_twice_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(link: Link) -> None:
        link.request()
        link.send(answer("a"))
        if len(server.links) == 1:
            link.request()  # and close without an answer

    monkeypatch.setattr(client_module, "CLOSED_BEFORE_S", LIMIT_S)
    with (
        serving(play) as server,
        Receiver() as receiver,
        closing(Client(endpoint(server.url), receiver)) as client,
    ):
        rows = [row_of(client.stream(b"{}", "r", LIMIT_S)) for _ in range(2)]
    assert [(row.outcome, row.is_resent) for row in rows] == [("ok", False), ("ok", True)]


def test_no_proxy_is_used_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert asked(sending(answer("a"))).outcome == "ok"


def test_a_user_who_goes_away_has_left_and_nothing_failed() -> None:
    row = asked(holding(ONE), leave_after_s=0.05)
    assert (row.outcome, row.error, row.is_failed) == ("left", "the user went away after 0.05 s", False)
    assert (row.output_text, len(row.chunk_ns)) == ("one", 1)


def test_a_user_who_would_go_later_gets_the_answer() -> None:
    assert asked(sending(answer("one")), leave_after_s=LIMIT_S).outcome == "ok"


LOOK_UP = Tool("look_up", "Look a word up.", {"type": "object", "properties": {"word": {"type": "string"}}})
CALL = ToolCall("look_up", '{"word": "oak"}')
ASKED = Turn((Message("user", "What is an oak?"),), 64, form=Form("dictionary", (LOOK_UP,)), call=CALL)


def body(turn: Turn, *history: Message) -> dict[str, Any]:
    return openai.API.request("m", turn, history, {})


def test_a_turn_with_tools_must_call_one() -> None:
    sent = body(ASKED, *ASKED.messages)
    function = {"name": "look_up", "description": "Look a word up.", "parameters": LOOK_UP.parameters}
    assert sent["tools"] == [{"type": "function", "function": function}]
    assert (sent["tool_choice"], sent["parallel_tool_calls"]) == ("required", False)
    assert sent["messages"] == [{"role": "user", "content": "What is an oak?"}]


def test_a_tools_result_answers_the_call_before_it() -> None:
    history = (*ASKED.messages, Message("assistant", "", CALL), Message("tool", "a tree"))
    called, result = body(ASKED, *history)["messages"][1:]
    assert called["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"word": "oak"}'}
    assert result["tool_call_id"] == called["tool_calls"][0]["id"]
    assert result["content"] == "a tree"


def test_a_result_that_answers_no_call_has_no_id() -> None:
    assert body(ASKED, Message("tool", "a tree"))["messages"] == [{"role": "tool", "content": "a tree"}]


def test_a_turn_with_a_schema_asks_for_it() -> None:
    turn = Turn((Message("user", "Give JSON."),), 64, form=Form("city", schema={"type": "object"}))
    given = {"name": "city", "schema": {"type": "object"}, "strict": True}
    assert body(turn)["response_format"] == {"type": "json_schema", "json_schema": given}


@pytest.mark.parametrize(
    ("calls", "kept"),
    [
        ([ToolCall("look_up", '{"word": "elm"}'), CALL], ToolCall("look_up", '{"word": "elm"}')),
        ([ToolCall("look_up", "{'word'"), ToolCall("look_up", '"elm"')], CALL),
        ([ToolCall("look_uplook_up", '{"word": "elm"}')], CALL),
        ([], CALL),
    ],
)
def test_the_history_goes_on_with_a_call_that_a_template_can_read(calls: list[ToolCall], kept: ToolCall):
    decoded = Decoded(text="Well", calls=tuple(calls))
    assert answer_message(ASKED, decoded, is_scripted=False) == Message("assistant", "Well", kept)
    assert answer_message(ASKED, decoded, is_scripted=True) == Message("assistant", "", CALL)


if __name__ == "__main__":
    say_what_a_second_answer_takes(sys.argv[1])


@pytest.mark.parametrize(
    ("counted", "text", "kept"),
    [
        (8, "one", True),
        (16 + 64, "one", True),  # thoughts that were not sent, and marks
        (5000, "w" * 5000, True),  # a server that does not hold to max_tokens
        (5000, "w" * 100, False),
        (16 + 65, "one", False),
        (2_000_000_000, "one", False),
    ],
)
def test_a_count_that_neither_the_limit_nor_the_answer_can_hold_is_missing(
    counted: int, text: str, kept: bool
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": counted}
    row = asked(sending(answer(text, usage=usage)))
    assert (row.outcome, row.input_tokens) == ("ok", 5)
    assert row.output_tokens == (counted if kept else None)
    absurd = f"missing: absurd value (output_tokens={counted} where max_tokens=8)"
    assert row.error == (None if kept else absurd)
