"""Both real reference servers over real sockets: their schedule, their record, their end.

Faults are the Python server's alone.
"""

import http.client
import json
import resource
import signal
import socket
import statistics
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from reference_serving import (
    FAST,
    LAST_CHUNK,
    LIMIT_S,
    PYTHON,
    Server,
    ask,
    body,
    command_of,
    connected,
    content_of,
    contents,
    events,
    native_program,
    page,
    received,
    sent_raw,
    serving,
    spawned,
    start_line,
    struck,
    text_of,
    whole,
)
from waiting import wait_until

from serving_bench.harness.selftest.sends import ARRIVAL, END, read_sends


@pytest.fixture(scope="module", params=["python", "native"])
def command(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return command_of(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def server(command: tuple[str, ...]) -> Iterator[Server]:
    with serving(*FAST, command=command) as running:
        yield running


@pytest.fixture(scope="module")
def python_server() -> Iterator[Server]:
    with serving(*FAST) as running:
        yield running


# --- answers -------------------------------------------------------------------------------------


def test_each_token_is_an_event_then_finish_usage_and_done(server: Server) -> None:
    with connected(server.port) as connection:
        response = ask(connection, body(stream_options={"include_usage": True}))
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Request-Id"] == "r1"
        stream = [data for _, data in events(response)]
    assert len(stream) == 8 + 3
    assert all(content_of(data) for data in stream[:8])
    finish, usage = json.loads(stream[8]), json.loads(stream[9])
    assert finish["choices"][0] == {"index": 0, "finish_reason": "length", "delta": {}}
    assert usage["choices"] == []
    assert usage["usage"] == {
        "prompt_tokens": 3,  # 11 bytes
        "completion_tokens": 8,
        "total_tokens": 11,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert stream[10] == "[DONE]"


def test_the_bytes_of_a_stream_are_as_written_out_here(server: Server) -> None:
    answer, end = received(sent_raw(server.port, body(max_tokens=1)))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert end == "closed"
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/event-stream",
        b"Transfer-Encoding: chunked",
        b"X-Request-Id: r1",
    ]
    size, _, rest = rest.partition(b"\r\n")
    event = rest[: int(size, 16)]
    assert event.startswith(b'data: {"id":"chatcmpl-r1","object":"chat.completion.chunk","created":')
    assert event.endswith(b'"}}]}\n\n')
    assert rest.endswith(b"\r\ne\r\ndata: [DONE]\n\n\r\n" + LAST_CHUNK)


def test_a_server_with_adapters_knows_no_other_model() -> None:
    with serving(*FAST, "--model=m", "--adapters=one,two") as server:
        listed = json.loads(page(server.port, "/v1/models"))["data"]
        assert [each["id"] for each in listed] == ["m", "one", "two"]
        for name in ("m", "one", "two"):
            status, answer = whole(server.port, body(model=name, stream=False))
            assert (status, answer["model"]) == (200, name)
        status, answer = whole(server.port, body(model="three", stream=False))
        assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_no_usage_chunk_unless_asked_for(server: Server) -> None:
    with connected(server.port) as connection:
        stream = events(ask(connection, body()))
    assert not any("usage" in data for _, data in stream)


def test_the_same_messages_give_the_same_text_streamed_or_not(server: Server) -> None:
    with connected(server.port) as connection:
        streamed = text_of(events(ask(connection, body())))
        longer = text_of(events(ask(connection, body(max_tokens=9))))
        other = text_of(events(ask(connection, body(messages=[{"role": "user", "content": "?"}]))))
    status, answer = whole(server.port, body(stream=False))
    assert status == 200
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": streamed}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    assert len(streamed.split()) == 8
    assert longer.startswith(streamed)
    assert other != streamed


@pytest.mark.parametrize(
    ("messages", "tokens"),
    [
        (b'[{"role":"user","content":"12345"},{"role":"user","content":"1"}]', 2 + 1),
        (b'[{"role":"user","content":[{"type":"text","text":"abc"},{"text":"de"}]}]', 2),
        (b'[{"role":"user","content":""},{"role":"user","content":null},{"role":"user"}]', 0),
        (rb'[{"role":"user","content":"\u00e9\n\"\\\/"}]', 2),  # 2 bytes and 4 of one
        (rb'[{"role":"user","content":"\ud83d\ude00"}]', 1),  # one character of 4 bytes
        (rb'[{"role":"user","content":"\ud83d\ude00\ud83d"}]', 2),  # half a pair counts as one byte
        ('[{"role":"user","content":"\u20ac\u20ac"}]'.encode(), 2),  # 3 bytes each
        (b'[{"role":"user" , "content" :"1234" , "x":[1,{"content":"]}", "a":-1.5e+3}]}]', 1),
    ],
)
def test_prompt_tokens_are_counted_by_the_texts_bytes(server: Server, messages: bytes, tokens: int) -> None:
    status, answer = whole(server.port, b'{"messages": %b, "max_tokens": 1}' % messages)
    assert status == 200
    assert answer["usage"]["prompt_tokens"] == tokens


def test_names_come_back_as_they_were_given(python_server: Server) -> None:
    model = 'm\u00e9 "\\/\n\U0001f600'
    with connected(python_server.port) as connection:
        response = ask(connection, body(stream=False, model=model), 'id-"\\\xe9')
        answer = json.loads(response.read())
        stream = [json.loads(data) for _, data in events(ask(connection, body(model=model)))[:-1]]
    assert response.headers["X-Request-Id"] == 'id-"\\\xe9'
    assert (answer["model"], answer["id"]) == (model, 'chatcmpl-id-"\\\xe9')
    assert {event["model"] for event in stream} == {model}


def test_output_tokens_end_an_answer_early_but_never_pass_max_tokens(command: tuple[str, ...]) -> None:
    def ending(output_tokens: int, **fields: Any) -> tuple[int, str]:
        with serving(*FAST, "--output-tokens", output_tokens, command=command) as server:
            answer = whole(server.port, body(stream=False, **fields))[1]
        return answer["usage"]["completion_tokens"], answer["choices"][0]["finish_reason"]

    assert ending(3) == (3, "stop")
    assert ending(30) == (8, "length")
    assert ending(30, max_tokens=None) == (30, "length")


def test_a_connection_serves_request_after_request(server: Server) -> None:
    with connected(server.port) as connection:
        ask(connection, body()).read()
        first = connection.sock
        assert len(events(ask(connection, body()))) == 8 + 2
        assert connection.sock is first


def test_requests_sent_at_once_on_one_connection_are_answered_in_order(server: Server) -> None:
    content = body(stream=False)
    request = b"POST /v1/chat/completions HTTP/1.1\r\nX-Request-Id: %b\r\nContent-Length: %d\r\n%b\r\n%b"
    keep = (b"first", len(content), b"", content)
    close = (b"second", len(content), b"Connection: close\r\n", content)
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as client:
        client.sendall(request % keep + request % close)
        answer, _ = received(client)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert 0 < answer.index(b"chatcmpl-first") < answer.index(b"chatcmpl-second")


def test_the_other_pages(server: Server) -> None:
    assert json.loads(page(server.port, "/health")) == {"status": "ok"}
    assert json.loads(page(server.port, "/info"))["slots"] == 64


def test_the_python_server_lists_its_model(python_server: Server) -> None:
    listed = json.loads(page(python_server.port, "/v1/models"))
    assert [model["id"] for model in listed["data"]] == ["reference"]


def test_metrics_count_generated_tokens(server: Server) -> None:
    def value(name: str) -> int:
        rows = dict(row.split() for row in page(server.port, "/metrics").splitlines() if row[0] != "#")
        return int(rows[f"reference:{name}"])

    before = value("output_tokens_total")
    whole(server.port, body(stream=False))
    assert value("output_tokens_total") == before + 8
    assert value("requests_running") == value("requests_waiting") == 0


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"messages": [{"role": "user", "content": "x',
        b'{"a": 1} x',
        b'{"a": ' + b"[" * 100_000,
        b"[]",
        b"{}",
        body(messages=["x"]),
        body(messages=[{"role": "user", "content": 5}]),
        body(messages=[{"role": "user", "content": [{"type": "image"}]}]),
        body(max_tokens=1.5),
        body(stream_options=3),
    ],
)
def test_a_request_that_cannot_be_read_gets_400_with_the_reason(server: Server, content: bytes) -> None:
    status, answer = whole(server.port, content)
    assert status == 400
    assert answer["error"]["message"]


@pytest.mark.parametrize("max_tokens", [131072, 10**30])
def test_more_tokens_than_the_context_has_are_refused(server: Server, max_tokens: int) -> None:
    status, answer = whole(server.port, body(max_tokens=max_tokens))
    assert status == 400
    assert "context length" in answer["error"]["message"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /v1/chat/completions HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_bad_http_gets_a_json_error_and_the_end(server: Server, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as client:
        client.sendall(request_bytes)
        answer, end = received(client)
    assert answer.startswith(b"HTTP/1.1 4")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert end == "closed"


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "chunks", "end", "is_whole", "has", "lacks"),
    [
        ("reset@0", 0, "reset", False, (), ()),
        ("reset@3", 3, "reset", False, (), ()),
        ("reset@8", 8, "reset", False, (), ()),
        ("reset@9", 8, None, True, (b"[DONE]",), ()),  # beyond the end it never strikes
        ("truncate@3", 3, "closed", False, (), ()),
        ("end@3", 3, None, True, (), (b"length", b"stop", b"usage", b"[DONE]")),
        ("error@3", 3, None, True, (b"HTTP/1.1 200 ", b'data: {"error": {"message": '), ()),
        ("no_done", 8, None, True, (b'"usage"',), (b"[DONE]",)),
    ],
)
def test_a_fault_strikes_after_k_chunks(
    fault: str, chunks: int, end: str | None, is_whole: bool, has: tuple[bytes, ...], lacks: tuple[bytes, ...]
) -> None:
    answer, ended = struck(fault)
    assert contents(answer) == chunks
    assert end in (ended, None)
    assert answer.endswith(LAST_CHUNK) is is_whole
    assert [answer.count(word) for word in (*has, *lacks)] == [1] * len(has) + [0] * len(lacks)


def test_stall_goes_silent_and_keeps_the_connection() -> None:
    answer, end = struck("stall@3", limit_s=1.5)
    assert (contents(answer), end) == (3, "open")


def test_garbage_is_one_event_that_is_not_json_in_a_whole_answer() -> None:
    stream = events_of("--fault=garbage@3")
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(stream[3])
    assert all(content_of(data) for data in stream[:3] + stream[4:9])
    assert stream[-1] == "[DONE]"


def test_http_answers_with_that_status() -> None:
    with serving("--fault=http@503") as server:
        status, answer = whole(server.port, body())
    assert status == 503
    assert answer["error"]["type"] == "server_error"


def test_exit_ends_the_process_with_code_3_and_its_record_written(tmp_path: Path) -> None:
    with serving(*FAST, "--sends", tmp_path, "--fault=exit@3") as server:
        answer, _ = received(sent_raw(server.port, body()))
        assert server.process.wait(LIMIT_S) == 3
    assert contents(answer) == 3
    assert [send.chunk for send in read_sends(tmp_path / "sends.bin")] == [ARRIVAL, 0, 1, 2]


def test_no_generation_is_healthy_but_generates_nothing() -> None:
    with serving("--fault", "no_generation") as server:
        assert page(server.port, "/health")
        assert whole(server.port, body())[0] == 500


def test_a_fault_can_strike_every_nth_request() -> None:
    with serving(*FAST, "--fault", "http@500/3") as server:
        statuses = [whole(server.port, body(stream=False))[0] for _ in range(6)]
    assert statuses == [200, 200, 500, 200, 200, 500]


# --- clients that behave badly -------------------------------------------------------------------


def test_a_client_that_does_not_read_gets_all_of_it_later(tmp_path: Path, command: tuple[str, ...]) -> None:
    tokens, per_chunk = 1_200_000, 5_000  # 8 MB: more than a kernel keeps for a client
    options = (*FAST, "--context-length", 10**9, "--tokens-per-chunk", per_chunk, "--sends", tmp_path)
    with serving(*options, command=command) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(LIMIT_S)
        client.connect(("127.0.0.1", server.port))
        content = body(max_tokens=tokens)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nX-Request-Id: slow\r\nContent-Length: %d\r\n\r\n"
        client.sendall(head % len(content) + content)
        # Other clients are served while it does not read, and its chunks wait.
        wait_until(lambda: "reference:requests_running 1" in page(server.port, "/metrics"))
        assert whole(server.port, body(stream=False))[0] == 200
        assert f"reference:output_tokens_total {tokens + 8}" not in page(server.port, "/metrics")
        answer = bytearray()
        while not answer.endswith(LAST_CHUNK):
            answer += client.recv(1 << 20)
        assert contents(answer) == tokens // per_chunk
        server.end()
    sends = [send for send in read_sends(tmp_path / "sends.bin") if send.request_id == "slow"]
    assert [send.chunk for send in sends] == [ARRIVAL, *range(tokens // per_chunk), END]
    assert all(late.sent_ns >= early.sent_ns for early, late in pairwise(sends))


def test_a_request_that_comes_byte_by_byte_is_answered(server: Server) -> None:
    content = body(stream=False)
    request = b"POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(
        content
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request + content:
            client.sendall(bytes([byte]))
        answer, _ = received(client)
    assert answer.startswith(b"HTTP/1.1 200 OK")


def test_a_body_of_many_megabytes_is_read(command: tuple[str, ...]) -> None:
    text = "x" * (15 * 2**20)
    with serving(*FAST, "--context-length", 10**9, command=command) as server:
        messages = [{"role": "user", "content": text}]
        status, answer = whole(server.port, body(messages=messages, stream=False))
    assert status == 200
    assert answer["usage"]["prompt_tokens"] == len(text) // 4


def test_many_clients_at_once_are_all_answered(command: tuple[str, ...]) -> None:
    count = 300
    with serving("--slots", count, "--ttft-s", 0.2, "--itl-s", 0, command=command) as server:
        clients = [sent_raw(server.port, body(max_tokens=2)) for _ in range(count)]
        answers = [received(client) for client in clients]
    assert all(contents(answer) == 2 and answer.endswith(LAST_CHUNK) for answer, _ in answers)


def test_more_clients_than_files_wait_for_one_to_go(tmp_path_factory: pytest.TempPathFactory) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))

    argv = (str(native_program(tmp_path_factory)),)
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, preexec_fn=limited) as process,
        ExitStack() as held,
    ):
        held.callback(process.kill)
        port = int(start_line(process).rpartition(":")[2])
        clients = [
            held.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT_S)) for _ in range(60)
        ]
        for client in clients:
            client.sendall(b"GET /health HTTP/1.1\r\n\r\n")
        for client in clients:
            assert client.recv(4096).startswith(b"HTTP/1.1 200 OK")
            client.close()


# --- times ---------------------------------------------------------------------------------------


@pytest.mark.alone
def test_chunks_follow_the_schedule_and_the_record_pairs_with_what_arrived(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    with serving("--sends", tmp_path, "--ttft-s", 0.08, "--itl-s", 0.01, command=command) as server:
        with connected(server.port) as connection:
            asked_ns = time.monotonic_ns()
            response = ask(connection, body(max_tokens=40), "a-request")
            stream = events(response)
        assert server.end() == 0
    arrived_ns = [ns for ns, data in stream if content_of(data)]
    arrival, *sends, end = read_sends(tmp_path / "sends.bin")
    assert (arrival.chunk, arrival.due_ns, end.chunk, end.due_ns) == (ARRIVAL, 0, END, 0)
    assert asked_ns < arrival.sent_ns < sends[0].sent_ns
    assert sends[-1].sent_ns < end.sent_ns < arrived_ns[-1] + 1e9
    assert [send[:2] for send in sends] == [("a-request", chunk) for chunk in range(40)]
    assert [send.due_ns - arrival.sent_ns for send in sends] == [
        pytest.approx(80e6 + 10e6 * chunk, abs=2) for chunk in range(40)
    ]
    sent_ns = [send.sent_ns for send in sends]
    delays_ms = [(there - here) / 1e6 for here, there in zip(sent_ns, arrived_ns, strict=True)]
    assert min(delays_ms) > 0
    assert statistics.median(delays_ms) < 5
    gaps_ms = [(late - early) / 1e6 for early, late in pairwise(sent_ns)]
    assert abs(statistics.median(gaps_ms) - 10) < 5
    # The schedule is absolute: no chunk is early, and the lateness does not add up.
    late_ms = [(send.sent_ns - send.due_ns) / 1e6 for send in sends]
    assert min(late_ms) >= 0
    assert statistics.median(late_ms[20:]) < 5


def test_a_longer_prompt_takes_longer(command: tuple[str, ...]) -> None:
    def ttft_s(connection: http.client.HTTPConnection, prompt: str) -> float:
        started_s, messages = time.monotonic(), [{"role": "user", "content": prompt}]
        ask(connection, body(stream=False, max_tokens=1, messages=messages)).read()
        return time.monotonic() - started_s

    options = (*FAST, "--prefill-per-token-s", 0.001)
    with serving(*options, command=command) as server, connected(server.port) as connection:
        short_s, long_s = ttft_s(connection, "x" * 4), ttft_s(connection, "x" * 1200)
    assert long_s >= 0.3
    assert short_s < long_s


def test_a_request_without_a_free_slot_begins_when_another_ends(tmp_path: Path, command: tuple[str, ...]):
    options = ("--slots", 1, "--ttft-s", 0.05, "--itl-s", 0.02, "--sends", tmp_path)
    with serving(*options, command=command) as server:
        with connected(server.port) as first, connected(server.port) as second:
            answers = []
            for connection, name in ((first, "first"), (second, "second")):
                connection.request("POST", "/v1/chat/completions", body(), {"X-Request-Id": name})
            wait_until(lambda: "reference:requests_waiting 1" in page(server.port, "/metrics"))
            answers = [connection.getresponse().read() for connection in (first, second)]
        server.end()
    assert [contents(answer) for answer in answers] == [8, 8]
    sends = [send for send in read_sends(tmp_path / "sends.bin") if send.chunk < END]
    names = [send.request_id for send in sends]
    assert names in (["first"] * 8 + ["second"] * 8, ["second"] * 8 + ["first"] * 8)
    assert sends[8].sent_ns - sends[7].sent_ns >= 50e6  # the second's TTFT counts from its start in the slot


def test_a_client_that_goes_frees_its_slot(command: tuple[str, ...]) -> None:
    with serving("--slots", 1, "--ttft-s", 0, "--itl-s", 60, command=command) as server:
        client = sent_raw(server.port, body())
        wait_until(lambda: "reference:requests_running 1" in page(server.port, "/metrics"))
        client.close()
        assert whole(server.port, body(stream=False, max_tokens=1))[0] == 200


def test_a_client_that_goes_leaves_the_queue(command: tuple[str, ...]) -> None:
    with serving("--slots", 1, "--ttft-s", 0, "--itl-s", 60, command=command) as server:
        running = sent_raw(server.port, body())
        wait_until(lambda: "reference:requests_running 1" in page(server.port, "/metrics"))
        waiting, last = (sent_raw(server.port, body(max_tokens=tokens)) for tokens in (2, 1))
        wait_until(lambda: "reference:requests_waiting 2" in page(server.port, "/metrics"))
        waiting.close()
        wait_until(lambda: "reference:requests_waiting 1" in page(server.port, "/metrics"))
        running.close()
        answer, _ = received(last)
    assert answer.endswith(LAST_CHUNK)


def events_of(*options: object, command: tuple[str, ...] = PYTHON, **fields: Any) -> list[str]:
    """The events of an answer of a server with these options."""
    with serving(*FAST, *options, command=command) as server, connected(server.port) as connection:
        return [data for _, data in events(ask(connection, body(**fields)))]


def test_tokens_share_a_chunk(command: tuple[str, ...]) -> None:
    stream = events_of("--tokens-per-chunk", 3, command=command)
    assert [len((content_of(data) or "").split()) for data in stream[:3]] == [3, 3, 2]
    assert json.loads(stream[3])["choices"][0]["finish_reason"] == "length"


def test_a_role_chunk_comes_first() -> None:
    role, first, *_ = events_of("--role-chunk")
    assert json.loads(role)["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert content_of(first)


def test_the_first_chunks_are_thoughts() -> None:
    stream = events_of("--thinking-chunks", 3, max_tokens=5)[:5]
    deltas = [list(json.loads(data)["choices"][0]["delta"]) for data in stream]
    assert deltas == [["reasoning_content"]] * 3 + [["content"]] * 2


# --- the process ---------------------------------------------------------------------------------


def test_term_during_a_stream_ends_with_0_at_once(command: tuple[str, ...]) -> None:
    with serving("--ttft-s", 0, "--itl-s", 60, command=command) as server:
        client = sent_raw(server.port, body())
        wait_until(lambda: "reference:output_tokens_total 1" in page(server.port, "/metrics"))
        assert server.end() == 0
        answer, _ = received(client)
        assert server.process.stderr
        assert server.process.stderr.read() == ""
    assert contents(answer) == 1


def test_ignore_term_outlives_term() -> None:
    with serving("--fault", "ignore_term") as server:
        server.process.terminate()
        assert whole(server.port, body(stream=False))[0] == 200
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.3)
        server.process.kill()
        assert server.process.wait(LIMIT_S) == -signal.SIGKILL


def test_the_start_can_be_delayed_and_term_is_obeyed_meanwhile(command: tuple[str, ...]) -> None:
    started_s = time.monotonic()
    with serving("--start-delay-s", 0.5, command=command):
        assert time.monotonic() - started_s >= 0.5
    with spawned((*command, "--start-delay-s", "60")) as process:
        status = Path(f"/proc/{process.pid}/status")
        if not status.exists():
            pytest.skip("needs /proc")

        def is_heard() -> bool:
            """Whether SIGTERM, bit 14, is caught, or blocked to be waited for."""
            masks = [
                status.read_text().partition(f"{name}:\t")[2].split()[0] for name in ("SigCgt", "SigBlk")
            ]
            return any(int(mask, 16) >> 14 & 1 for mask in masks)

        wait_until(is_heard)
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_memory_is_held_for_real(command: tuple[str, ...]) -> None:
    with serving(command=command) as plain, serving("--memory-bytes", 64 * 2**20, command=command) as heavy:
        rss_bytes = [psutil.Process(server.process.pid).memory_info().rss for server in (plain, heavy)]
    assert 60 * 2**20 < rss_bytes[1] - rss_bytes[0] < 70 * 2**20


def test_a_taken_port_is_one_line(server: Server, command: tuple[str, ...]) -> None:
    with spawned((*command, "--port", str(server.port))) as process:
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert "in use" in errors


# --- the record


def test_a_second_server_appends_and_long_ids_are_cut(tmp_path: Path, command: tuple[str, ...]) -> None:
    for _ in range(2):
        with serving("--sends", tmp_path, command=command) as server, connected(server.port) as connection:
            ask(connection, body(max_tokens=1), "x" * 40).read()
            server.end()
    rows = [("x" * 36, ARRIVAL), ("x" * 36, 0), ("x" * 36, END)]
    assert [send[:2] for send in read_sends(tmp_path / "sends.bin")] == rows * 2


def test_each_request_of_a_connection_has_its_own_id(tmp_path: Path, command: tuple[str, ...]) -> None:
    with serving(*FAST, "--sends", tmp_path, command=command) as server:
        with connected(server.port) as connection:
            for name in ("x" * 36, "short", ""):
                ask(connection, body(max_tokens=1), name).read()
        server.end()
    names = [send.request_id for send in read_sends(tmp_path / "sends.bin") if send.chunk < END]
    assert names == ["x" * 36, "short", "reference-3"]


def test_a_record_of_another_version_is_not_written_on(tmp_path: Path, command: tuple[str, ...]) -> None:
    before = b"RFSENDS\n" + struct.pack("<II", 1, 48)
    (tmp_path / "sends.bin").write_bytes(before)
    with spawned((*command, "--sends", str(tmp_path))) as process:
        _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "sends.bin: not a record of version 2; move it away" in errors
    assert (tmp_path / "sends.bin").read_bytes() == before


def test_a_refused_request_has_an_arrival_and_no_end(tmp_path: Path, command: tuple[str, ...]) -> None:
    with serving("--sends", tmp_path, command=command) as server:
        received(sent_raw(server.port, b"{"))
        server.end()
    assert [send.chunk for send in read_sends(tmp_path / "sends.bin")] == [ARRIVAL]


def test_faults_have_an_arrival_and_an_end_if_the_body_has(tmp_path: Path) -> None:
    for fault in ("http@503", "truncate@1", "end@1"):
        with serving(*FAST, "--sends", tmp_path, "--fault", fault) as server:
            received(sent_raw(server.port, body()))
            server.end()
    chunks = [send.chunk for send in read_sends(tmp_path / "sends.bin")]
    assert chunks == [ARRIVAL, ARRIVAL, 0, ARRIVAL, 0, END]


def test_the_record_is_written_while_the_server_runs(tmp_path: Path, command: tuple[str, ...]) -> None:
    with serving(*FAST, "--sends", tmp_path, command=command) as server:
        received(sent_raw(server.port, body()))
        wait_until(lambda: len(read_sends(tmp_path / "sends.bin")) == 10, 5)
