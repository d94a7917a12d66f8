import socket
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import gevent
import pytest
from gevent.event import Event
from own_certificate import certificate_in, tls_of
from timeline_server import CHUNKED, LAST_CHUNK, Link, Server, answer, chunk, serving, steps, wait_until_ns

from serving_bench.harness.errors import UserError
from serving_bench.harness.load.client import http as client_module
from serving_bench.harness.load.client import response
from serving_bench.harness.load.client.clock import ClockMap
from serving_bench.harness.load.client.http import Client, Endpoint, endpoint
from serving_bench.harness.load.client.receive import Receiver, Take, has_kernel_stamps
from serving_bench.harness.load.client.response import Exchange

MS = 1_000_000
LIMIT_S = 10.0
needs_kernel_stamps = pytest.mark.skipif(
    not has_kernel_stamps(), reason="this system's kernel does not stamp"
)
# A request is read and an answer begins.
HELLO = (Link.request, CHUNKED + chunk(b"hello"))


@contextmanager
def client_of(where: Server | Endpoint, receiver: Receiver | None = None) -> Iterator[Client]:
    target = endpoint(where.url) if isinstance(where, Server) else where
    with receiver or Receiver() as entered, closing(Client(target, entered)) as client:
        yield client


def streamed(client: Client, count: int = 1) -> list[Exchange]:
    return [client.stream(b"{}", "r1", LIMIT_S) for _ in range(count)]


def exchanges(play: Callable[[Link], object], count: int = 1) -> tuple[Server, list[Exchange]]:
    with serving(play) as server, client_of(server) as client:
        return server, streamed(client, count)


def in_turn(*plays: Callable[[Link], None]) -> Callable[[Link], None]:
    """Play each connection by the next of these."""
    rest = iter(plays)
    return lambda link: next(rest)(link)


def requests_of(server: Server) -> list[int]:
    """How many requests came on each connection."""
    return [len(link.requests) for link in server.links]


def byte_ns(exchange: Exchange, number: int) -> int:
    """Arrival of the body's byte with this number, from 1."""
    return exchange.read_ns[bisect_left(exchange.read_ends, number)]


def wait_for(condition: Callable[[], bool]) -> None:
    """Let the client's loop run until a condition holds."""
    with gevent.Timeout(LIMIT_S):
        while not condition():
            Event().wait(0.005)


def answering(*parts: bytes) -> Callable[[Link], None]:
    def play(link: Link) -> None:
        while link.request() is not None:
            steps(*parts)(link)

    return play


def test_the_request_on_the_wire() -> None:
    with serving(answering(answer("hi"))) as server:
        target = endpoint(f"http://127.0.0.1:{server.port}/some/v1/?api=2", "sk-1")
        with client_of(target) as client:
            client.stream(b'{"a": 1}', "cell-c0-t0", LIMIT_S)
    head, body = server.links[0].requests[0]
    assert head.decode().split("\r\n") == [
        "POST /some/v1/chat/completions?api=2 HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "User-Agent: serving-bench",
        "Accept: text/event-stream",
        "Content-Type: application/json",
        "Content-Length: 8",
        "X-Request-Id: cell-c0-t0",
        "Authorization: Bearer sk-1",
    ]
    assert body == b'{"a": 1}'


def test_an_endpoint_does_not_show_its_key() -> None:
    shown = repr(endpoint("http://127.0.0.1/v1", "sk-4711"))
    assert "sk-4711" not in shown
    assert "chat/completions" in shown


def test_without_a_key_nothing_is_authorized() -> None:
    server, _ = exchanges(answering(answer("hi")))
    assert b"authorization" not in server.links[0].requests[0][0].lower()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://host/v1", "http://", "http://host:port/v1", "http://hö/"]
)
def test_a_url_that_cannot_work_is_a_users_mistake(url: str) -> None:
    with pytest.raises(UserError, match="base_url="):
        endpoint(url)


@pytest.mark.parametrize("key", ["sk\r\nX-Evil: 1", "schlüssel"])
def test_a_key_that_cannot_stand_in_a_header_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(UserError) as refused:
        endpoint("http://127.0.0.1/v1", key)
    assert key not in str(refused.value)


def test_a_response_in_single_bytes_is_read_whole() -> None:
    whole = answer("a", "b")
    _, [exchange] = exchanges(answering(*(whole[at : at + 1] for at in range(len(whole)))))
    assert (exchange.outcome, exchange.status, exchange.error) == ("ok", 200, None)
    assert exchange.body.endswith(b"data: [DONE]\n\n")
    assert exchange.read_ends[-1] == len(exchange.body)
    assert list(exchange.read_ns) == sorted(exchange.read_ns)
    assert exchange.headers["content-type"] == "text/event-stream"


def test_a_response_with_a_length_and_one_that_ends_with_the_connection() -> None:
    with_length = b"HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nhello"
    without = b"HTTP/1.0 200 OK\r\n\r\nwor"
    server, (first, second) = exchanges(steps(Link.request, with_length, Link.request, without, b"ld"), 2)
    assert (first.outcome, first.status, first.body) == ("ok", 500, b"hello")
    assert (second.outcome, second.status, second.body) == ("ok", 200, b"world")
    assert len(server.links) == 1


def test_large_requests_and_responses_pass_whole() -> None:
    body = b"x" * 8_000_000

    def play(link: Link) -> None:
        assert link.request() == body
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with serving(play) as server, client_of(server) as client:
        exchange = client.stream(body, "r", LIMIT_S)
    assert exchange.outcome == "ok"
    assert exchange.body == body


def test_a_length_of_thousands_of_digits_costs_its_request_alone() -> None:
    lengths = [b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\nok" % length for length in (b"9" * 5000, b"2")]
    plays = (steps(Link.request, each) for each in lengths)
    _, (first, second) = exchanges(in_turn(*plays), 2)
    assert (first.outcome, first.error) == ("protocol_error", f"Content-Length: {'9' * 60} is no length")
    assert (second.outcome, second.body) == ("ok", b"ok")


def test_an_answer_that_comes_before_the_request_was_read_counts() -> None:
    def read_all(link: Link) -> None:
        # Closing with bytes unread would reset the connection: wait for the client to close it.
        while link.socket.recv(65536):
            pass

    large = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
    with (
        serving(steps(lambda link: link.socket.recv(1000), large, read_all)) as server,
        client_of(server) as client,
    ):
        exchange = client.stream(b"x" * 30_000_000, "r", LIMIT_S)
    assert (exchange.outcome, exchange.status, exchange.body) == ("ok", 413, b"big")


def test_a_reset_in_the_stream_keeps_what_came() -> None:
    seen = threading.Event()
    with serving(steps(*HELLO, seen, Link.reset)) as server, client_of(server) as client:
        sent = gevent.spawn(client.stream, b"{}", "r", LIMIT_S)
        wait_for(lambda: client.receiver.reads > 0)
        seen.set()
        exchange = sent.get()
    assert (exchange.outcome, exchange.body) == ("reset", b"hello")
    assert "reset" in str(exchange.error)
    assert exchange.raw == HELLO[1]
    assert exchange.end_ns > exchange.read_ns[0]


def test_a_connection_that_closes_early_is_a_reset() -> None:
    _, [exchange] = exchanges(steps(*HELLO))
    after = f"the server closed the connection after {len(exchange.raw)} bytes, before the response's end"
    assert (exchange.outcome, exchange.error) == ("reset", after)


def test_a_new_connection_that_closes_without_an_answer_is_not_tried_again() -> None:
    server, [exchange] = exchanges(Link.request)
    said = "the server closed the connection without a response"
    assert (exchange.outcome, exchange.error) == ("reset", said)
    assert len(server.links) == 1


def test_a_stall_ends_as_timeout_with_what_came() -> None:
    began_ns = time.monotonic_ns()
    with serving(steps(*HELLO, Link.request)) as server, client_of(server) as client:
        exchange = client.stream(b"{}", "r1", 0.2)
    assert (exchange.outcome, exchange.error) == ("timeout", "not finished after 0.2 s")
    assert exchange.body == b"hello"
    assert 200 * MS <= exchange.end_ns - began_ns < 2000 * MS


def test_connecting_counts_towards_the_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # Connections beyond the backlog get no answer, as from a host that drops packets.
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        with client_of(endpoint(f"http://127.0.0.1:{port}/v1")) as client:
            exchange = client.stream(b"{}", "r", 0.2)
        for each in waiting:
            each.close()
    assert (exchange.outcome, exchange.sent_ns) == ("timeout", None)


def test_no_server_is_a_connect_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with client_of(endpoint(f"http://127.0.0.1:{port}/v1")) as client:
            [exchange] = streamed(client)
    assert exchange.outcome == "connect_error"
    assert exchange.error == f"127.0.0.1:{port}: [Errno 111] Connection refused"
    assert (exchange.sent_ns, exchange.status, exchange.body) == (None, None, b"")


def test_bytes_that_are_not_http_are_a_protocol_error() -> None:
    _, [exchange] = exchanges(answering(b"SSH-2.0-OpenSSH_9.9\r\n"))
    assert (exchange.outcome, exchange.raw) == ("protocol_error", b"SSH-2.0-OpenSSH_9.9\r\n")


def test_a_response_without_bounds_is_a_protocol_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "MAX_RESPONSE_BYTES", 1000)
    _, [exchange] = exchanges(answering(CHUNKED + chunk(b"x" * 2000)))
    assert (exchange.outcome, exchange.error) == ("protocol_error", "the response is longer than 1000 bytes")


class BrokenReceiver(Receiver):
    def reader(self, socket: object, take: Take, end: Callable[..., object]) -> Callable[[], None]:
        def broken(stamp: bytes, read_ns: int, data: bytes | memoryview) -> bool:
            raise RuntimeError("a bug in the hub")

        return super().reader(socket, broken, end)


def test_an_exception_in_the_hub_ends_the_request_that_waits() -> None:
    with serving(answering(answer("a"))) as server, client_of(server, BrokenReceiver()) as client:
        [exchange] = streamed(client)
    assert (exchange.outcome, exchange.error) == ("protocol_error", "RuntimeError: a bug in the hub")


def test_a_killed_greenlet_gets_its_exchange_as_cancelled() -> None:
    with serving(steps(*HELLO, Link.request)) as server, client_of(server) as client:
        sent = gevent.spawn(client.stream, b"{}", "r", LIMIT_S)
        wait_for(lambda: client.receiver.reads > 0)
        sent.kill()
        exchange = sent.get()
    assert (exchange.outcome, exchange.body) == ("cancelled", b"hello")


def test_requests_share_a_connection_until_the_server_says_close() -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"
    kept = (Link.request, answer("a"))
    server, found = exchanges(steps(*kept, *kept, Link.request, last), 4)
    assert [each.outcome for each in found] == ["ok"] * 4
    assert requests_of(server) == [3, 1]


def test_a_failed_exchange_does_not_leave_its_connection_to_the_next() -> None:
    play = in_turn(steps(Link.request, CHUNKED, Link.request), steps(Link.request, answer("b")))
    with serving(play) as server, client_of(server) as client:
        first = client.stream(b"{}", "r", 0.1)
        [second] = streamed(client)
    assert (first.outcome, second.outcome) == ("timeout", "ok")
    assert requests_of(server) == [1, 1]


def test_a_connection_with_bytes_that_nobody_asked_for_is_not_used_again() -> None:
    answered, written = threading.Event(), threading.Event()
    # The client has read its answer before these bytes, which must not be taken for the next one's.
    unasked = (answered, answer("nobody asked"), lambda _: written.set())
    play = in_turn(
        steps(Link.request, answer("a"), *unasked, Link.request),
        steps(Link.request, answer("a"), Link.request),
    )
    with serving(play) as server, client_of(server) as client:
        assert streamed(client)[0].outcome == "ok"
        answered.set()
        assert written.wait(LIMIT_S)
        [second] = streamed(client)
    assert b"nobody asked" not in second.body
    assert requests_of(server) == [1, 1]


def test_a_second_answer_behind_the_first_marks_it_and_is_nobodys() -> None:
    server, (first, second) = exchanges(in_turn(
        steps(Link.request, answer("a") + answer("nobody asked"), Link.request),
        steps(Link.request, answer("a"), Link.request),
    ), 2)  # fmt: skip
    assert (first.outcome, second.outcome) == ("protocol_error", "ok")
    unasked = len(answer("nobody asked"))
    assert str(first.error).startswith(f"{unasked} bytes behind the response's end: b'HTTP/1.1")
    assert b"nobody asked" not in second.body
    assert requests_of(server) == [1, 1]


class Waiting(Receiver):
    """One that lets a server answer at a certain moment, and waits for that answer's arrival."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        self.moment, self.may_answer, self.has_answered = moment, threading.Event(), threading.Event()

    def wait_at(self, moment: str) -> None:
        if self.moment == moment:
            self.moment = "never again"
            self.may_answer.set()
            assert self.has_answered.wait(LIMIT_S)

    def read(self, socket: socket.socket) -> memoryview:
        self.wait_at("as the first ends")
        return super().read(socket)

    def reader(self, socket: object, take: Take, end: Callable[..., object]) -> Callable[[], None]:
        if self.streamed:
            self.wait_at("as the second is sent")
        self.streamed = True
        return super().reader(socket, take, end)

    streamed = False


@needs_kernel_stamps
@pytest.mark.parametrize(
    ("moment", "outcomes", "said"),
    [
        ("as the first ends", ["protocol_error", "ok", "ok"], "bytes behind the response's end"),
        ("as the second is sent", ["ok", "protocol_error", "ok"], "before its request was sent"),
    ],
)
def test_an_answer_that_nobody_asked_for_is_refused_whenever_it_comes(
    moment: str, outcomes: list[str], said: str
) -> None:
    def play(link: Link) -> None:
        while link.request() is not None:
            link.send(answer("a"))
            if not receiver.has_answered.is_set():
                assert receiver.may_answer.wait(LIMIT_S)
                link.send(answer("nobody asked"))
                receiver.has_answered.set()
                # Nothing more is sent, not even the end: joined segments have the youngest's stamp.
                while link.request() is not None:
                    pass

    with Waiting(moment) as receiver, serving(play) as server, client_of(server, receiver) as client:
        found = streamed(client, 3)
    assert [each.outcome for each in found] == outcomes
    [error] = [each.error for each in found if each.error]
    assert said in error
    assert not [each for each in found if each.outcome == "ok" and b"nobody asked" in each.body]
    assert len(server.links) == 2


@needs_kernel_stamps
def test_a_time_of_day_that_is_set_back_makes_no_answer_too_early() -> None:
    ahead_ns = 50 * MS

    class Ahead:
        monotonic_ns = staticmethod(time.monotonic_ns)

        def time_ns(self) -> int:
            return time.time_ns() + ahead_ns

    with serving(answering(answer("a"))) as server, client_of(server) as client:
        client.receiver.clock = ClockMap(Ahead())
        ahead_ns = 0  # all stamps from now on look 50 ms old until the clocks are read again
        assert streamed(client)[0].outcome == "ok"


def test_a_connection_closed_between_requests_is_replaced_unseen() -> None:
    closed = threading.Event()
    close = (lambda link: link.socket.shutdown(socket.SHUT_RDWR), lambda _: closed.set())
    with serving(steps(Link.request, answer("a"), *close)) as server, client_of(server) as client:
        assert streamed(client)[0].outcome == "ok"
        assert closed.wait(LIMIT_S)
        assert streamed(client)[0].outcome == "ok"
    assert requests_of(server) == [1, 1]


lost = pytest.mark.parametrize("end", [Link.reset, lambda link: None], ids=["reset", "closed"])


@lost
def test_a_kept_connection_lost_at_once_is_tried_again_and_the_first_try_counts(
    end: Callable[[Link], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(link: Link) -> None:
        if link.request() is not None and len(server.links) == 1:
            link.send(answer("a"))
            link.request()
            requested_ns.append(time.monotonic_ns())
            return end(link)
        link.send(answer("b"))
        return None

    requested_ns: list[int] = []
    monkeypatch.setattr(client_module, "CLOSED_BEFORE_S", LIMIT_S)  # not a matter of this machine's speed
    with serving(play) as server, client_of(server) as client:
        assert client.stream(b"{}", "r", LIMIT_S).outcome == "ok"
        before_ns = time.monotonic_ns()
        second = client.stream(b"{}", "r", LIMIT_S)
    assert second.outcome == "ok"
    assert b'"b"' in second.body
    assert requests_of(server) == [2, 1]
    assert second.sent_ns is not None
    assert before_ns < second.sent_ns < requested_ns[0] < second.read_ns[0]
    assert second.is_resent


def test_the_second_try_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(link: Link) -> None:
        link.request()
        if len(server.links) == 1:
            link.send(answer("a"))
            link.request()
        link.reset()

    monkeypatch.setattr(client_module, "CLOSED_BEFORE_S", LIMIT_S)
    with serving(play) as server, client_of(server) as client:
        first, second = streamed(client, 2)
    assert (first.outcome, second.outcome) == ("ok", "reset")
    assert requests_of(server) == [2, 1]


@lost
def test_a_server_that_breaks_off_after_some_work_has_failed(end: Callable[[Link], object]) -> None:
    def work_and_end(link: Link) -> None:
        if link.request() is not None:
            wait_until_ns(time.monotonic_ns() + 200 * MS)
            end(link)

    server, (_, second) = exchanges(steps(Link.request, answer("a"), work_and_end), 2)
    assert (second.outcome, second.body) == ("reset", b"")
    assert requests_of(server) == [2]
    assert second.sent_ns is not None
    assert second.end_ns - second.sent_ns >= 200 * MS


@needs_kernel_stamps
def test_stamps_are_those_of_the_sends() -> None:
    sends: list[int] = []

    def play(link: Link) -> None:
        link.request()
        link.send(CHUNKED)
        began_ns = time.monotonic_ns()
        for number in range(10):
            wait_until_ns(began_ns + number * 5 * MS)
            sends.append(link.send(chunk(b"x")))
        link.send(LAST_CHUNK)

    with serving(play) as server, client_of(server) as client:
        [exchange] = streamed(client)
    assert client.receiver.stamp_source == "kernel"
    late_ns = [byte_ns(exchange, number + 1) - sent for number, sent in enumerate(sends)]
    assert min(late_ns) >= 0
    assert sorted(late_ns)[5] < 3 * MS
    assert exchange.sent_ns is not None
    assert exchange.sent_ns < sends[0]
    assert sends[-1] < exchange.end_ns


@needs_kernel_stamps
def test_stamps_are_true_while_the_client_is_busy() -> None:
    """What a stamp after the read gets wrong: here by the 0.3 s for which the loop is blocked."""
    sends: list[int] = []
    started, blocked, never = threading.Event(), threading.Event(), threading.Event()
    late_ms = {}
    play = steps(
        Link.request, CHUNKED, lambda _: started.set(), blocked,
        lambda link: sends.append(link.send(chunk(b"x") + LAST_CHUNK)),
    )  # fmt: skip
    for use_kernel in (True, False):
        started.clear()
        blocked.clear()
        with serving(play) as server, client_of(server, Receiver(use_kernel)) as client:
            sent = gevent.spawn(client.stream, b"{}", "r", LIMIT_S)
            wait_for(started.is_set)
            blocked.set()
            never.wait(0.3)
            exchange = sent.get()
        late_ms[client.receiver.stamp_source] = (byte_ns(exchange, 1) - sends[-1]) / MS
    assert late_ms["kernel"] < 100
    assert late_ms["read"] > 200


def test_without_kernel_stamps_the_source_says_so() -> None:
    with serving(answering(answer("a"))) as server, client_of(server, Receiver(False)) as client:
        [exchange] = streamed(client)
    assert (exchange.outcome, client.receiver.stamp_source) == ("ok", "read")
    assert exchange.sent_ns is not None
    assert exchange.sent_ns < exchange.read_ns[0] <= time.monotonic_ns()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_in(tmp_path_factory.mktemp("tls"))


def secure(server: Server) -> Endpoint:
    return endpoint(f"https://127.0.0.1:{server.port}/v1")


def test_tls_streams_on_one_connection_with_true_stamps(certificate: Path, monkeypatch: pytest.MonkeyPatch):
    def play(link: Link) -> None:
        for _ in range(2):
            link.request()
            link.send(CHUNKED)
            sends.append(link.send(chunk(b"x" * 50_000)))
            link.send(LAST_CHUNK)

    sends: list[int] = []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(play, tls_of(certificate)) as server, client_of(secure(server)) as client:
        exchanges = [client.stream(b"{}" * 50_000, "r", LIMIT_S) for _ in range(2)]
    assert [(exchange.outcome, exchange.body) for exchange in exchanges] == [("ok", b"x" * 50_000)] * 2
    assert len(server.links) == 1
    for exchange, sent_ns in zip(exchanges, sends, strict=True):
        assert 0 <= byte_ns(exchange, 1) - sent_ns < 100 * MS
        assert client.receiver.stamp_source == ("kernel" if has_kernel_stamps() else "read")


def test_a_tls_connection_that_ends_early_is_a_reset(certificate: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    play = steps(*HELLO, lambda link: link.socket.unwrap())
    with serving(play, tls_of(certificate)) as server, client_of(secure(server)) as client:
        [exchange] = streamed(client)
    assert (exchange.outcome, exchange.body) == ("reset", b"hello")


def test_an_unknown_certificate_is_refused(certificate: Path) -> None:
    with serving(Link.request, tls_of(certificate)) as server, client_of(secure(server)) as client:
        [exchange] = streamed(client)
    assert exchange.outcome == "connect_error"
    assert "CERTIFICATE_VERIFY_FAILED" in str(exchange.error)


def test_tls_to_a_plain_server_is_a_connect_error() -> None:
    play = steps(lambda link: link.socket.recv(10), b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with serving(play) as server, client_of(secure(server)) as client:
        assert streamed(client)[0].outcome == "connect_error"


def test_an_address_of_a_family_that_this_kernel_lacks_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch):
    def two_addresses(host: str, port: int, *_: int) -> list[tuple[object, ...]]:
        return [(255, socket.SOCK_STREAM, 0, "", (host, port)),
                (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]  # fmt: skip

    monkeypatch.setattr("gevent.socket.getaddrinfo", two_addresses)
    assert exchanges(answering(answer("a")))[1][0].outcome == "ok"


def test_without_a_descriptor_left_a_request_is_a_connect_error() -> None:
    program = (
        "import resource, socket, sys\n"
        "from contextlib import closing\n"
        "from serving_bench.harness.load.client.http import Client, endpoint\n"
        "from serving_bench.harness.load.client.receive import Receiver\n"
        "with Receiver() as receiver, closing(Client(endpoint(sys.argv[1]), receiver)) as client:\n"
        "    print(client.stream(b'{}', 'r1', 10).outcome)\n"
        "    client.close()\n"
        "    with socket.socket() as next_one:\n"
        "        free = next_one.fileno()\n"
        "    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))\n"
        "    exchange = client.stream(b'{}', 'r2', 10)\n"
        "print(exchange.outcome, exchange.error)\n"
    )
    with serving(answering(answer("a"))) as server:
        done = subprocess.run(
            [sys.executable, "-c", program, server.url],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
    first, second = done.stdout.splitlines() or ["", done.stderr]
    assert first == "ok"
    assert second == f"connect_error 127.0.0.1:{server.port}: [Errno 24] Too many open files"


def test_a_user_who_leaves_does_so_that_long_after_the_sending_however_long_connecting_took(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def play(link: Link) -> None:
        wait_until_ns(time.monotonic_ns() + 400 * MS)
        with tls_of(certificate).wrap_socket(link.socket, server_side=True) as wrapped:
            secured = Link(wrapped)
            secured.request()
            secured.send(CHUNKED + chunk(b"x"))
            secured.request()

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(play) as server, client_of(secure(server)) as client:
        exchange = client.stream(b"{}", "r", LIMIT_S, leave_after_s=0.2)
    assert (exchange.outcome, exchange.body) == ("left", b"x")
    assert exchange.sent_ns is not None
    assert exchange.end_ns - exchange.sent_ns >= 200 * MS


class Unsure(Receiver):
    """One that fails on the instants of the first response."""

    failures = 1

    def arrivals_ns(self, stamps_ns: Sequence[int], read_ns: Sequence[int]) -> list[int]:
        if self.failures:
            self.failures -= 1
            raise ZeroDivisionError("no clock")
        return super().arrivals_ns(stamps_ns, read_ns)


def test_a_response_whose_instants_cannot_be_computed_costs_itself_alone() -> None:
    with serving(answering(answer("hi"))) as server, client_of(server, Unsure()) as client:
        wrong, good = streamed(client, 2)
    assert (wrong.outcome, wrong.error) == ("protocol_error", "ZeroDivisionError: no clock")
    assert (good.outcome, good.status) == ("ok", 200)
