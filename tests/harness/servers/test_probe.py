"""Questions to real local servers that are already running."""

import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from begun_run import Silent, Told
from fake_http import Answer, Request, fake_http, text
from held_ports import held_port
from own_certificate import certificate_in, tls_of
from places import TESTS
from reference_serving import serving
from timeline_server import Link
from timeline_server import serving as served
from waiting import wait_until

from serving_bench.harness.contracts import AttachSpec
from serving_bench.harness.errors import UserError
from serving_bench.harness.servers import probe
from serving_bench.harness.servers.scrape import fetch_facts

FAKE = TESTS / "support/servers/openai_fake.py"


@contextmanager
def fake(mode: str, **environment: str) -> Iterator[str]:
    """The base URL of a running fake."""
    with held_port() as port:
        argv = [sys.executable, str(FAKE), str(port), mode]
        with subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until(lambda: probe.request("GET", f"http://127.0.0.1:{port}/props", timeout_s=1).status)
                yield f"http://127.0.0.1:{port}/v1"
            finally:
                process.kill()


def refusal(base_url: str, model: str = "tiny", key: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        probe.probe_attached(AttachSpec(base_url, model), key, Silent(), timeout_s=5)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_that_generates_can_be_measured() -> None:
    with fake("ok", WANTED_KEY="sesame") as url:
        assert probe.probe_attached(AttachSpec(url, "tiny"), "sesame", Silent(), timeout_s=5) is None
        assert probe.probe_attached(AttachSpec(f"{url}/", "tiny"), "sesame", Silent(), timeout_s=5) is None


def one_slot(*, goes_on: bool) -> Callable[[Request], Answer | None]:
    """Generate one answer at a time, a token every 5 ms, as many as are asked for."""
    slot = threading.Lock()

    def reply(request: Request) -> Answer | None:
        with slot:
            for _ in range(request.value["max_tokens"]):
                # Its body was read, so what can be read now is that the client has left.
                if not goes_on and select.select([request.connection], [], [], 0)[0]:
                    return None
                time.sleep(0.005)
        return Answer(b"{}")

    return reply


@pytest.mark.parametrize(("goes_on", "least_s", "most_s"), [(True, 2.0, 12.0), (False, 0.0, 0.5)])
def test_a_server_is_busy_with_what_clients_left_if_it_generates_on(
    goes_on: bool, least_s: float, most_s: float
) -> None:
    with fake_http(one_slot(goes_on=goes_on)) as server:
        busy_s = probe.busy_after_leaving_s(server.base_url, "m", clients=2, timeout_s=20, key=None)
    assert busy_s is not None
    assert least_s <= busy_s <= most_s


def test_a_server_whose_answers_are_short_does_not_tell_what_it_does_with_those_left() -> None:
    with fake("ok") as url:
        assert probe.busy_after_leaving_s(url, "tiny", clients=2, timeout_s=5, key=None) is None


def test_a_query_is_part_of_what_is_asked_for() -> None:
    with fake("ok") as url:
        asked = f"{probe.root_of(url)}/props?n=1"
        # The fake knows /props alone.
        assert probe.request("GET", asked, timeout_s=5).status == 404
        assert probe.request("GET", asked.partition("?")[0], timeout_s=5).status == 200


def test_an_address_where_nobody_listens_is_named() -> None:
    with held_port() as port:
        url = f"http://127.0.0.1:{port}/v1"
        assert refusal(url) == f"engine.base_url={url}: no server answers there: connection refused"


def test_a_server_that_never_answers_is_told_of_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_SLOW_S", 0.1)
    told = Told()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/v1"
        with pytest.raises(UserError) as caught:
            probe.probe_attached(AttachSpec(url, "tiny"), None, told, timeout_s=2)
    assert str(caught.value) == f"engine.base_url={url}: no server answers there: no answer within 2 s"
    assert told.lines == [f"{url} has not answered yet; it has 2 s (engine.start_timeout)"]


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000", "ftp://127.0.0.1/v1", "http:///v1", "http://127.0.0.1:x/v1"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    assert refusal(url).startswith(f"engine.base_url={url}: no server answers there: ")


def test_a_model_that_is_not_served_is_refused_with_those_that_are() -> None:
    with fake("ok") as url:
        assert refusal(url, "other") == f"model=other: {url} does not serve it; it serves tiny"


def test_a_server_without_a_list_of_models_is_taken_at_its_word() -> None:
    with fake("nolist") as url:
        assert probe.probe_attached(AttachSpec(url, "tiny"), None, Silent(), timeout_s=5) is None
        assert "a generation answered 500" in refusal(url, "other")


def test_a_refused_key_names_its_option_and_never_shows_the_key() -> None:
    with fake("ok", WANTED_KEY="sesame") as url:
        message = refusal(url, key="wrong-4711")
    assert "engine.api_key_env" in message
    assert "401" in message
    assert "wrong key Bearer ***" in message
    assert "wrong-4711" not in message


def test_a_key_that_the_server_repeats_in_an_error_is_masked() -> None:
    with fake("healthy") as url:
        message = refusal(url, key="secret-4711")
    assert "boom Bearer ***" in message


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("empty", 'a generation answered 200 without content: data: {"choices": '),
        ("error", "a generation answered 200 with an error: CUDA error"),
        ("healthy", 'a generation answered 500: {"error": "boom None"}'),
    ],
)
def test_a_server_that_does_not_generate_is_refused(mode: str, problem: str) -> None:
    with fake(mode) as url:
        expected = f"engine.base_url={url}: model tiny cannot be measured: {problem}"
        assert refusal(url).startswith(expected)


def test_a_stream_that_never_ends_is_given_up() -> None:
    with fake("drip") as url:
        assert probe.generate(url, "tiny", timeout_s=0.5).problem == "a generation got no answer within 0.5 s"


@pytest.mark.parametrize(
    ("scheme", "begin"),
    [
        ("http", b""),
        ("http", b"HTTP/1.1 200 OK\r\nX-Slow: "),
        ("http", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("https", b"\x16\x03\x03\x3f\xff"),  # a record of TLS's handshake, and its length
    ],
)
def test_one_limit_is_for_the_whole_answer_however_its_bytes_trickle(scheme: str, begin: bytes) -> None:
    over = threading.Event()

    def trickle(link: Link) -> None:
        link.socket.recv(65536)
        link.send(begin)
        while not over.wait(0.05):
            link.send(b"x" if begin else b"")

    with served(trickle) as server, ending_within(5):
        url = f"{scheme}://127.0.0.1:{server.port}/health"
        assert str(probe.request("GET", url, timeout_s=0.5)) == "got no answer within 0.5 s"
        over.set()


@contextmanager
def ending_within(seconds: float) -> Iterator[None]:
    begun_s = time.monotonic()
    yield
    assert time.monotonic() - begun_s < seconds


def test_a_name_that_nobody_looks_up_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def stands_still(*_: object, **__: object) -> list[object]:
        over.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", stands_still)
    try:
        with ending_within(5):
            assert str(probe.request("GET", "http://slow.test/", timeout_s=0.5)).endswith("within 0.5 s")
    finally:
        over.set()


def test_all_addresses_of_a_name_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as full, socket.socket() as waits:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waits.connect(full.getsockname())  # its queue is full: the next hears nothing
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address] * 20)
        with ending_within(5):
            assert str(probe.request("GET", "http://many.test/", timeout_s=0.5)).endswith("within 0.5 s")


def test_a_server_over_tls_is_asked_where_its_certificate_is_trusted(tmp_path, monkeypatch):
    def play(link: Link) -> None:
        link.request()
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    certificate = certificate_in(tmp_path)
    with served(play, tls_of(certificate)) as server:
        url = f"https://127.0.0.1:{server.port}/health"
        assert "certificate verify failed" in str(probe.request("GET", url, timeout_s=5))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert str(probe.request("GET", url, timeout_s=5)) == "answered 200: hello"
        other = url.replace("127.0.0.1", "localhost")
        assert "certificate verify failed" in str(probe.request("GET", other, timeout_s=5)), "not its name"


def test_both_questions_to_a_running_server_share_one_limit() -> None:
    """The list of models takes a part of the time, so what generates has the rest."""
    took = list[float]()

    def list_late_and_be_mute(link: Link) -> None:
        link.request()
        if b"models" in link.requests[0][0]:
            threading.Event().wait(1.0)
            link.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        else:
            begun_s = time.monotonic()
            link.socket.recv(65536)
            took.append(time.monotonic() - begun_s)

    with served(list_late_and_be_mute) as server, pytest.raises(UserError) as caught:
        probe.probe_attached(AttachSpec(server.url, "tiny"), None, Silent(), timeout_s=3)
    assert took[0] < 2.5
    assert str(caught.value).endswith("; bench gives all its questions together 3 s (engine.start_timeout)")


def test_a_list_of_models_nested_without_end_is_no_list() -> None:
    with fake_http(text("[" * 100_000 + "]" * 100_000)) as server:
        assert "cannot be measured" in refusal(server.base_url)


def test_a_redirect_is_not_followed() -> None:
    with fake("redirect") as url:
        assert probe.request("GET", f"{probe.root_of(url)}/health", timeout_s=5).status == 302


def test_facts_are_the_json_of_the_paths_that_answer() -> None:
    with fake("ok") as url:
        facts = fetch_facts(url, ["/props", "/absent", "/v1/models"])
    assert facts == {"/props": {"n_ctx": 4096}, "/v1/models": {"data": [{"id": "tiny"}]}}


def test_facts_of_a_server_that_has_gone_are_none() -> None:
    with held_port() as port:
        assert fetch_facts(f"http://127.0.0.1:{port}/v1", ["/props"], timeout_s=1) == {}


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with held_port() as nobody, fake("ok") as url:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{nobody}")
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{nobody}")
        assert probe.request("GET", f"{url}/models", timeout_s=5).status == 200


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("http://h:1/v1", "http://h:1"),
        ("http://h:1/v1/", "http://h:1"),
        ("https://h/openai/v1", "https://h/openai"),
        ("http://h:1", "http://h:1"),
    ],
)
def test_the_root_is_the_address_without_v1(base_url: str, root: str) -> None:
    assert probe.root_of(base_url) == root


def test_each_prompt_is_counted_by_the_server() -> None:
    with serving() as server:
        url = f"http://127.0.0.1:{server.port}/v1"
        counted = probe.count_prompt_tokens(url, "reference", timeout_s=10, key=None)
    assert list(counted) == ["user", "system", "turns"]
    characters = {name: sum(len(m["content"]) for m in messages) for name, messages in probe.PROMPTS.items()}
    # The reference server takes four characters for a token.
    added = (characters["system"] - characters["user"]) / 4
    assert abs(counted["system"] - counted["user"] - added) <= 1


@pytest.mark.parametrize("mode", ["healthy", "plain", "ok", "drip"])
def test_a_server_that_gives_no_usage_is_left_out(mode: str) -> None:
    with fake(mode) as url:
        assert probe.count_prompt_tokens(url, "tiny", timeout_s=0.5, key=None) == {}
