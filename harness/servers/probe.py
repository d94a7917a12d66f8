"""Ask one server over HTTP what it is and what it uses, and have it generate. No error contains the key."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

import msgspec

from serving_bench.harness.contracts import AttachSpec, HttpCall, Message, Turn
from serving_bench.harness.contracts.secrets import masked_bytes
from serving_bench.harness.errors import ServerError, UserError
from serving_bench.harness.load.answer import openai
from serving_bench.harness.load.answer.api import Api
from serving_bench.harness.load.answer.chat import Decoded, decode
from serving_bench.harness.sampling.sampling import QuietThread, within
from serving_bench.harness.settings.units import duration_text

T = TypeVar("T")
# For all questions to an attached server before its run, unless engine.start_timeout was given.
ATTACHED_TIMEOUT_S = 60.0
_SLOW_S = 5.0
_NAMED_MODELS = 10  # in a refusal
# Characters of an answer that a line quotes.
_SHOWN = 200
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
_FAILURES: Mapping[type[Exception], str] = {
    ConnectionRefusedError: "connection refused",
    socket.gaierror: "no such host",
}
# vLLM's page of metrics has 50 KiB with the histograms of one model.
_BODY_LIMIT_BYTES = 16 * 2**20
_REPEATED_TOKENS = 16
# An answer that nobody waits for: its tokens, its client's shortest stay, and how many clients leave.
_LEFT_TOKENS = 512
_STAYS_S = 0.25
_LONG_S = 10.0  # an answer of this time is long enough
_MOST_LEAVING = 16
_LONG = ({"role": "user", "content": "Tell a long story about a river and the people who live beside it."},)
_USER = {"role": "user", "content": "Name three rivers and the seas that they flow into."}
# Prompts whose token counts show how the chat template differs: a doubled BOS adds one to each, a dropped
# system prompt makes `system` no longer than `user`.
PROMPTS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "user": (_USER,),
    "system": (
        {"role": "system", "content": "You are a geographer. Answer in one short sentence, in plain words."},
        _USER,
    ),
    "turns": (
        _USER,
        {"role": "assistant", "content": "The Rhine, the Danube and the Rhone."},
        {"role": "user", "content": "Which of them is the longest?"},
    ),
}


@dataclass(frozen=True)
class Answer:
    """What a server answered. `status` is None if nothing came back, and `text` then says why.

    `read_ns` (CLOCK_MONOTONIC): when each part of the body was read; `read_ends`: the offset where it ends.
    """

    status: int | None
    body: bytes
    read_ns: Sequence[int] = ()
    read_ends: Sequence[int] = ()

    def __str__(self) -> str:
        return self.outcome + self.sent

    @property
    def outcome(self) -> str:
        """What came back, without what a server sent."""
        return f"got {self.shown}" if self.status is None else f"answered {self.status}"

    @property
    def sent(self) -> str:
        """What a server sent, as the end of a sentence."""
        return "" if self.status is None else f": {self.shown}"

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    @property
    def shown(self) -> str:
        return " ".join(self.text.split())[:_SHOWN] or "(nothing)"

    def decoded(self, api: Api = openai.API) -> Decoded:
        return decode(self.body, self.read_ns, self.read_ends, api)


def root_of(base_url: str) -> str:
    return base_url.rstrip("/").removesuffix("/v1")


def request(
    method: str,
    url: str,
    *,
    timeout_s: float,
    body: object = None,
    key: str | None = None,
    api: Api = openai.API,
) -> Answer:
    """Send one request on a connection of its own. Blocks for up to timeout_s, however bytes trickle in."""
    try:
        answer = _answer(method, url, max(0.01, timeout_s), body, api.headers_with(key))
    except TimeoutError:
        answer = Answer(None, f"no answer within {duration_text(timeout_s)}".encode())
    except (OSError, http.client.HTTPException, ValueError) as error:
        causes = (text for kind, text in _FAILURES.items() if isinstance(error, kind))
        answer = Answer(None, next(causes, f"{type(error).__name__}: {error}").encode(errors="replace"))
    # Masking keeps the length, since read_ends are offsets into the body.
    return replace(answer, body=masked_bytes(answer.body, [key]))


def ask(call: HttpCall, kind: type[T], base_url: str, *, timeout_s: float, key: str | None) -> T:
    """Send a call to a server and return its JSON as `kind`. Raises ServerError for any other answer."""
    answer = request(call.method, root_of(base_url) + call.path, timeout_s=timeout_s, body=call.body, key=key)
    if answer.status != 200:
        raise ServerError(f"{call.method} {call.path} {answer.outcome}", sent=answer.sent)
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (ValueError, RecursionError) as error:
        what = f"{call.method} {call.path} answered what bench cannot read"
        raise ServerError(what, sent=f" ({error}){answer.sent}") from error


def _answer(method: str, url: str, timeout_s: float, body: object, headers: dict[str, str]) -> Answer:
    parts = urlsplit(url)
    if parts.scheme not in _CONNECTIONS or not parts.hostname:
        raise ValueError("not an address of the form http://HOST:PORT/v1")
    content = None if body is None else msgspec.json.encode(body)
    if content is not None:
        headers["Content-Type"] = "application/json"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _CONNECTIONS[parts.scheme](parts.hostname, parts.port)
    deadline = time.monotonic() + timeout_s
    with closing(connection):
        connection.sock = _connected(connection.host, connection.port, deadline)
        if parts.scheme == "https":
            connection.sock = _over_tls(connection.sock, connection.host)
        with _cut_at(deadline, connection.sock):
            if isinstance(connection.sock, ssl.SSLSocket):
                connection.sock.do_handshake()
            connection.request(method, target, content, headers)
            response = connection.getresponse()
            read, read_ns, read_ends = bytearray(), list[int](), list[int]()
            while piece := response.read1(1 << 18):
                read += piece
                read_ns.append(time.monotonic_ns())
                read_ends.append(len(read))
                if len(read) > _BODY_LIMIT_BYTES:
                    raise ValueError(f"more than {_BODY_LIMIT_BYTES >> 20} MiB")
            return Answer(response.status, bytes(read), read_ns, read_ends)


def _connected(host: str, port: int, deadline: float) -> socket.socket:
    """Connect to the first of a host's addresses that accepts. Raises OSError, and TimeoutError at the
    deadline: neither looking up a name nor trying many addresses has a limit of its own."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    failure = OSError("no address")
    for family, kind, protocol, _, address in within(deadline - time.monotonic(), look_up):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(max(0.001, deadline - time.monotonic()))
            connected.connect(address)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
        except OSError as error:
            connected.close()
            failure = error
            if time.monotonic() >= deadline:
                raise TimeoutError from error
    raise failure


def _over_tls(connected: socket.socket, host: str) -> ssl.SSLSocket:
    """Return the connection wrapped in TLS, before its handshake."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context.wrap_socket(connected, server_hostname=host, do_handshake_on_connect=False)


@contextmanager
def _cut_at(deadline: float, connected: socket.socket) -> Iterator[None]:
    """Cut a connection off if the block has not ended by the deadline, and raise TimeoutError.

    A socket's own limit is for each read, and a server may send its head byte by byte.
    """
    cut = threading.Event()

    def shut() -> None:
        cut.set()
        with suppress(OSError):  # the other side has gone
            connected.shutdown(socket.SHUT_RDWR)

    try:
        with _unless_over(deadline - time.monotonic(), shut):
            yield
    except (OSError, http.client.HTTPException):
        if cut.is_set():
            raise TimeoutError from None
        raise
    if cut.is_set():
        raise TimeoutError


@contextmanager
def _unless_over(seconds: float, act: Callable[[], object]) -> Iterator[None]:
    """Call `act` in a thread if the block takes longer than this."""
    over = threading.Event()

    def watch() -> None:
        if not over.wait(max(0.0, seconds)):
            act()

    watching = QuietThread(target=watch, name="probe", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join(_SLOW_S)


@dataclass(frozen=True)
class Generation:
    """One generation as a probe. `problem` (a clause) is None if tokens came.

    `first_token_ns` (CLOCK_MONOTONIC): when the first event with content had been read. `status`: of the HTTP
    response, None if nothing came.
    """

    problem: str | None
    first_token_ns: int | None = None
    status: int | None = None


def generate(
    base_url: str, model: str, *, timeout_s: float, key: str | None = None, api: Api = openai.API
) -> Generation:
    """Ask for a short answer, and judge whether the server generates. Blocks for up to timeout_s."""
    messages = (Message("user", "Count from one to ten."),)
    body = api.request(model, Turn(messages, max_tokens=8), messages, {})
    url = base_url.rstrip("/") + api.path_of(model)
    answer = request("POST", url, timeout_s=timeout_s, body=body, key=key, api=api)
    if answer.status != 200:
        return Generation(f"a generation {answer}", status=answer.status)
    answer_text = answer.decoded(api)
    if answer_text.server_error is not None:
        # What came before the error may be a whole screen.
        why = " ".join(answer_text.server_error.split())[:_SHOWN] or answer.shown
        return Generation(f"a generation answered 200 with an error: {why}", status=200)
    if not (answer_text.chunk_ns or answer_text.text or answer_text.reasoning or answer_text.output_tokens):
        return Generation(f"a generation answered 200 without content: {answer.shown}", status=200)
    return Generation(None, (*answer_text.chunk_ns, answer.read_ns[-1])[0], 200)


def count_prompt_tokens(base_url: str, model: str, *, timeout_s: float, key: str | None) -> dict[str, int]:
    """Return the server's token count of each of PROMPTS, except those that it refuses. Blocks."""
    counts = {}
    for name, messages in PROMPTS.items():
        answer = _ask_greedily(base_url, model, messages, 1, timeout_s, key)
        if answer.status == 200 and (tokens := answer.decoded().input_tokens):
            counts[name] = tokens
    return counts


def repeats_answers(base_url: str, model: str, *, timeout_s: float, key: str | None) -> bool | None:
    """Return whether a prompt gets the same answer twice at temperature 0; None if it gets no text. Blocks.

    It is asked three times. The last two find the same in a prefix cache, so rounding is the same, too.
    """
    answers = []
    for _ in range(3):
        answer = _ask_greedily(base_url, model, PROMPTS["user"], _REPEATED_TOKENS, timeout_s, key)
        if answer.status != 200:  # the next one may take timeout_s, too
            return None
        answers.append(answer.decoded())
    _, first, again = answers
    if not (first.text or first.reasoning):
        return None
    return (first.text, first.reasoning) == (again.text, again.reasoning)


def busy_after_leaving_s(
    base_url: str, model: str, *, clients: int, timeout_s: float, key: str | None
) -> float | None:
    """Return for how long short answers wait after clients left long ones: until one is as quick as before.

    That is within twice the time of before and 50 ms, at most timeout_s. If the first short answer takes much
    longer than the next, it waited for earlier clients' answers; otherwise `clients` ask for long ones now,
    and leave. 0 if it takes less than half of the time that the rest of such an answer would. None if the
    server does not answer, or its long answer is too short. Blocks.
    """

    def ask_for(tokens: int, limit_s: float) -> tuple[float, Answer]:
        # As a cell's requests do: a server may see only of a stream that nobody reads it.
        began_s, limit_s = time.monotonic(), max(_STAYS_S, limit_s)
        answer = _ask_greedily(base_url, model, _LONG, tokens, limit_s, key, streams=True)
        return time.monotonic() - began_s, answer

    first_s, first = ask_for(1, timeout_s)
    quick_s, second = ask_for(1, timeout_s)
    is_late = first.status is None and first_s >= timeout_s
    if second.status != 200 or (first.status != 200 and not is_late):
        return None
    if is_late or first_s > 10 * quick_s + 1:
        return first_s
    clients, stays_s = min(clients, _MOST_LEAVING), max(_STAYS_S, 3 * quick_s)
    whole_s, whole = ask_for(_LEFT_TOKENS, max(_LONG_S, 5 * stays_s))
    if whole.status not in (None, 200) or whole_s < 4 * stays_s:
        return None
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda _: ask_for(_LEFT_TOKENS, stays_s), range(clients)))
    began_s = time.monotonic()
    while True:
        busy_s = time.monotonic() - began_s
        limit_s = timeout_s - busy_s
        took_s, answer = ask_for(1, limit_s)
        if busy_s >= timeout_s or (answer.status == 200 and took_s <= 2 * quick_s + 0.05):
            return busy_s if busy_s > (whole_s - stays_s) / 2 else 0.0
        if answer.status != 200 and took_s < limit_s:
            return None


def _ask_greedily(
    base_url: str,
    model: str,
    messages: Sequence[Mapping[str, str]],
    most: int,
    timeout_s: float,
    key: str | None,
    *,
    streams: bool = False,
) -> Answer:
    body = {"model": model, "messages": list(messages), "max_tokens": most, "temperature": 0}
    body |= {"stream": True} if streams else {}
    url = base_url.rstrip("/") + openai.API.path
    return request("POST", url, timeout_s=timeout_s, body=body, key=key)


class Show(Protocol):
    """Shows a line."""

    def line(self, text: str) -> None: ...


def probe_attached(
    spec: AttachSpec,
    key: str | None,
    show: Show,
    *,
    timeout_s: float,
    api: Api = openai.API,
) -> None:
    """Raise UserError if a running server does not answer, does not know the model, or does not generate.

    It is asked up to twice, within timeout_s in all. If that takes more than _SLOW_S, a line says so.
    """
    deadline = time.monotonic() + timeout_s
    limit = f"it has {duration_text(timeout_s)} (engine.start_timeout)"
    with _unless_over(_SLOW_S, partial(show.line, f"{spec.base_url} has not answered yet; {limit}")):
        at = f"engine.base_url={spec.base_url}"
        if api.listing:
            url = spec.base_url.rstrip("/") + api.listing
            listed = request("GET", url, timeout_s=timeout_s, key=key, api=api)
            shown_list = listed.shown if listed.status is None else f"{listed.status}: {listed.shown}"
            _check_reached(at, listed.status, shown_list, key)
            _check_listed(spec, listed)
        left_s = deadline - time.monotonic()
        generation = generate(spec.base_url, spec.served_model, timeout_s=left_s, key=key, api=api)
        if generation.problem:
            if not api.listing:
                _check_reached(at, generation.status, generation.problem, key)
            why = generation.problem
            if api.listing and time.monotonic() >= deadline:
                limit = f"bench gives all its questions together {duration_text(timeout_s)}"
                why = f"{why}; {limit} (engine.start_timeout)"
            raise UserError(f"{at}: model {spec.served_model} cannot be measured: {why}")


def _check_reached(at: str, status: int | None, shown_list: str, key: str | None) -> None:
    """Raise UserError if no server answered, or if it wants another key."""
    if status is None:
        raise UserError(f"{at}: no server answers there: {shown_list}")
    if status in (401, 403):
        refused = "the key was refused" if key else "it wants a key, and none is set"
        raise UserError(f"{at}: {refused} ({shown_list}); engine.api_key_env names its variable")


def _check_listed(spec: AttachSpec, listed: Answer) -> None:
    """Raise UserError if a server lists models and the one that is asked for is not among them."""
    names = []
    if listed.status == 200:
        with suppress(ValueError, RecursionError, TypeError, KeyError):
            names = [str(model["id"]) for model in msgspec.json.decode(listed.body)["data"]]
    # Ollama lists a model without a tag as NAME:latest.
    if names and not {spec.served_model, f"{spec.served_model}:latest"} & {*names, *spec.names}:
        more = f" and {len(names) - _NAMED_MODELS:,} more" if len(names) > _NAMED_MODELS else ""
        served = f"{', '.join(names[:_NAMED_MODELS])}{more}"
        raise UserError(f"model={spec.served_model}: {spec.base_url} does not serve it; it serves {served}")
