"""What a server may do wrong with one request: a row per fault, with the outcome that it must get."""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from threading import Event
from typing import Any

from timeline_server import CHUNKED, DONE, LAST_CHUNK, Link, answer, chunk, event, finish

KEY = "qk-7d1f03b6a5c94e2f88aa"
GOOD_USAGE = {"prompt_tokens": 9, "completion_tokens": 2}
GOOD = answer("one ", "two", usage=GOOD_USAGE)
PAUSE_S = 0.02
ABSURD, BAD_KEY = "missing: absurd value", f"bad key: Bearer {KEY}".encode()
NOT_HTTP, NOT_SIZE, LONG_HEAD = "not an HTTP/1.1 response", "not a chunk size", "headers longer than"
BEHIND = "bytes behind the response's end"
NOT_EVENTS, NOT_CHUNK, CLOSED = "not an event stream", "not a chunk", "closed the connection"


@dataclass(frozen=True)
class Fault:
    """One fault of a server, and what becomes of the request.

    `does`: the bytes to send in answer, or a function that plays the connection; the connection is closed
    afterwards. `outcome`: of the request. `error`: a part of its error, or None if there is none. A cell with
    only such requests counts if they are ok, and fails otherwise.
    """

    name: str
    does: bytes | Callable[[Link], object]
    outcome: str
    error: str | None = None

    def play(self, link: Link) -> None:
        if isinstance(self.does, bytes):
            link.send(self.does)
        else:
            self.does(link)


def streamed(*events: bytes, head: bytes = CHUNKED) -> bytes:
    return head + b"".join(map(chunk, events)) + LAST_CHUNK


def page(status: str, body: bytes = b"", **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {each}" for name, each in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def data(text: str) -> bytes:
    return f"data: {text}\n\n".encode()


def used(**fields: Any) -> bytes:
    """Return a good answer with these fields in its usage."""
    return answer("one ", "two", usage=GOOD_USAGE | fields)


def reset_after(first: bytes) -> Callable[[Link], None]:
    def play(link: Link) -> None:
        link.send(first)
        Event().wait(PAUSE_S)  # else the reset overtakes what was sent
        link.reset()

    return play


def bytewise(link: Link) -> None:
    for at in range(len(GOOD)):
        link.send(GOOD[at : at + 1])


def in_pieces(*pieces: bytes) -> Callable[[Link], None]:
    def play(link: Link) -> None:
        for piece in pieces:
            link.send(piece)
            Event().wait(PAUSE_S)

    return play


def again_and_again(piece: bytes, first: bytes = b"", pause_s: float = PAUSE_S) -> Callable[[Link], None]:
    """Send `first`, then `piece` again and again until the client has gone."""

    def play(link: Link) -> None:
        link.send(first)
        while True:
            link.send(piece)
            Event().wait(pause_s)

    return play


def failed(name: str, does: bytes, error: str) -> Fault:
    return Fault(name, does, "server_error", error)


def silent_after(first: bytes) -> Callable[[Link], None]:
    def play(link: Link) -> None:
        link.send(first)
        link.socket.recv(1)

    return play


def no_answer(name: str, does: bytes | Callable[[Link], object], error: str) -> Fault:
    return Fault(name, does, "protocol_error", error)


def absurd(name: str, error: str, **fields: Any) -> Fault:
    """A good answer whose usage has these fields, of which one has no sense."""
    return Fault(name, used(**fields), "ok", f"{ABSURD} ({error}")


ONE, TWO = event(content="one "), event(content="two")
END = finish(usage=GOOD_USAGE)
TEXT = b'data: {"choices": [{"index": 0, "delta": {"content": "gr\xc3\xbc\xc3\x9f"}}]}\n\n'
HALF = TEXT.index(b"\xc3") + 1
WHOLE = b"".join((ONE, TWO, END, DONE))
LENGTHLESS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
DEEP = '{"choices":' + "[" * 100_000 + "]" * 100_000 + "}"
LARGE = event(content="x" * 2_000_000)

AT_THE_SOCKET = (
    Fault("closes without a byte", b"", "reset", CLOSED),
    Fault("resets without a byte", reset_after(b""), "reset", "broke"),
    Fault("closes in the head", CHUNKED[:20], "reset", CLOSED),
    Fault("closes after a token", CHUNKED + chunk(ONE), "reset", CLOSED),
    Fault("resets after a token", reset_after(CHUNKED + chunk(ONE)), "reset", "broke"),
    Fault("speaks TLS", b"\x16\x03\x03\x00\x31\x02" + bytes(49), "protocol_error", NOT_HTTP),
    Fault("speaks SSH", b"SSH-2.0-OpenSSH_9.6\r\n", "protocol_error", NOT_HTTP),
    no_answer("sends noise", random.Random(1).randbytes(5000), NOT_HTTP),
    Fault("sends single bytes", bytewise, "ok"),
)
IN_HTTP = (
    Fault("a status line without a status", b"HTTP/1.1 \r\n\r\n", "protocol_error", NOT_HTTP),
    no_answer("a status of four digits", GOOD.replace(b"200", b"2000"), NOT_HTTP),
    no_answer("HTTP/2", GOOD.replace(b"/1.1", b"/2"), NOT_HTTP),
    no_answer("a header without a colon", GOOD.replace(b"OK\r\n", b"OK\r\nX\r\n"), "header line"),
    no_answer("headers without end", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000, LONG_HEAD),
    no_answer("one header of a megabyte", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000, LONG_HEAD),
    Fault("100 Continue first", b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD, "ok"),
    Fault("20,000 times 100 Continue", b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000, "reset", CLOSED),
    Fault("a chunk's size no number", CHUNKED + b"size\r\n", "protocol_error", NOT_SIZE),
    no_answer("a chunk's size below 0", CHUNKED + b"-5\r\n", NOT_SIZE),
    no_answer("a chunk's size of 1,000 digits", CHUNKED + b"1" * 1000 + b"\r\n", NOT_SIZE),
    no_answer("a chunk longer than it says", CHUNKED + b"5\r\n" + ONE + b"\r\n", "longer than its size"),
    Fault("a chunk that never comes", CHUNKED + b"ffff\r\n" + ONE, "reset", CLOSED),
    no_answer("a length of 5,000 digits", page("200 OK", Content_Length="9" * 5000), "is no length"),
    no_answer("a length below 0", page("200 OK", Content_Length="-1"), "is no length"),
    no_answer("two lengths", page("200 OK", WHOLE, Content_Length="5"), "is no length"),
    Fault("a length too long", LENGTHLESS[:-2] + b"Content-Length: 9999\r\n\r\n" + WHOLE, "reset", CLOSED),
    no_answer("a length too short", LENGTHLESS[:-2] + b"Content-Length: 9\r\n\r\n" + WHOLE, BEHIND),
    Fault("no length, and closes", LENGTHLESS + WHOLE, "ok"),
    Fault(
        "extensions and trailers of chunks",
        CHUNKED + b"%x;a=b\r\n" % len(WHOLE) + WHOLE + b"\r\n0\r\nX: y\r\n\r\n",
        "ok",
    ),
    no_answer("noise behind the answer", GOOD + b"HTTP/1.1 200 OK\r\n\r\nnoise", BEHIND),
    no_answer("two answers", GOOD + GOOD, BEHIND),
    Fault("an empty line behind the answer", GOOD + b"\r\n", "ok"),
    no_answer("a coding almost chunked", GOOD.replace(b": chunked", b": xchunked"), "is not chunked"),
    no_answer("a coding beside chunked", GOOD.replace(b": chunked", b": gzip, chunked"), "is not chunked"),
    no_answer("a blank in a header's name", GOOD.replace(b"Encoding:", b"Encoding :"), "header line"),
    Fault("chunked and a length", GOOD.replace(b"OK\r\n", b"OK\r\nContent-Length: 3\r\n"), "ok"),
    Fault("a redirect", page("302 Found", Location="http://127.0.0.1:9/v1"), "protocol_error", "HTTP 302"),
    no_answer("a redirect of a POST", page("307 Moved", Location="/"), "HTTP 307"),
    no_answer("204", b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP 204"),
    Fault("401 that repeats the key", page("401 No", BAD_KEY), "http_error", "HTTP 401"),
    Fault("429", page("429 Wait", b"slow down", Retry_After="1"), "http_error", "HTTP 429: slow down"),
    Fault("500 with a page", page("500 Oh", b"<html><script>alert(1)</script>"), "http_error", "HTTP 500"),
    Fault("500 of 1 MB", page("500 Oh", b"\x1b[2J" * 250_000), "http_error", "HTTP 500"),
    Fault("503 without a body", page("503 Busy"), "http_error", "HTTP 503"),
    no_answer("a compressed body", page("200 OK", gzip.compress(WHOLE), Content_Encoding="gzip"), NOT_EVENTS),
    no_answer("another content type", page("200 OK", WHOLE, Content_Type="text/html"), "text/html"),
    no_answer("a page of HTML", page("200 OK", b"<html>log in</html>"), NOT_EVENTS),
    no_answer("JSON in place of a stream", page("200 OK", b'{"choices": []}'), NOT_EVENTS),
    no_answer("an empty body", page("200 OK"), "empty"),
)
IN_EVENTS = (
    Fault("no [DONE]", streamed(ONE, TWO, END), "ok"),
    Fault("no end at all", streamed(ONE, TWO), "protocol_error", "neither a finish_reason nor [DONE]"),
    Fault(
        "bytes split in a character",
        in_pieces(CHUNKED + chunk(TEXT[:HALF]), chunk(TEXT[HALF:]) + chunk(END) + LAST_CHUNK),
        "ok",
    ),
    Fault("half a character", streamed(TEXT[:HALF] + TEXT[HALF + 1 :], END), "protocol_error", NOT_CHUNK),
    no_answer("half a surrogate", streamed(event(content="\ud800"), END), NOT_CHUNK),
    Fault("no newline at the end", LENGTHLESS + WHOLE.rstrip(), "ok"),
    Fault("an event of 2 MB", streamed(LARGE, END, DONE), "ok"),
    Fault("a line of 2 MB without an event", streamed(b"x" * 2_000_000), "protocol_error", NOT_EVENTS),
    no_answer("a body without end", again_and_again(chunk(LARGE), CHUNKED, 0), "longer than"),
    Fault(
        "another index", streamed(data('{"choices": [{"index": -7, "delta": {"content": "x"}}]}'), END), "ok"
    ),
    Fault("no choices", streamed(data('{"choices": []}'), DONE), "protocol_error", "no content"),
    no_answer("choices that are null", streamed(data('{"choices": null}'), DONE), "no content"),
    no_answer("choices that are none", streamed(data('{"choices": {"a": 1}}'), DONE), NOT_CHUNK),
    no_answer("a content that is a number", streamed(event(content=7), END), NOT_CHUNK),
    Fault("calls that are none", streamed(ONE, event(tool_calls=[7, {"index": "x"}]), END), "ok"),
    failed(
        "an error in the middle", streamed(ONE, data('{"error": {"message": "CUDA error"}}')), "CUDA error"
    ),
    failed("an event called error", streamed(ONE, b"event: error\n" + data("no memory")), "no memory"),
    no_answer("an error that is deep", streamed(ONE, data(DEEP.replace("choices", "error"))), NOT_CHUNK),
    no_answer("deep JSON", streamed(ONE, data(DEEP), END), NOT_CHUNK),
    no_answer("NaN", streamed(ONE, data('{"choices": [], "usage": {"x": NaN}}'), END), NOT_CHUNK),
    no_answer(
        "200,000 events", lambda link: link.send(streamed(ONE * 200_000, END)), "more than 4352 events"
    ),
    Fault("64 events for each token", streamed(ONE * 4 * 64, END), "ok"),
    Fault("the same event thrice", streamed(ONE, ONE, ONE, END), "ok"),
    Fault("a byte-order mark", streamed(b"\xef\xbb\xbf" + WHOLE), "ok"),
    Fault("CR, LF and both", streamed(ONE.replace(b"\n", b"\r"), TWO.replace(b"\n", b"\r\n"), END), "ok"),
    Fault("comments alone", streamed(b": here\n\n" * 1000), "protocol_error", NOT_EVENTS),
    Fault("10,000 comments before", streamed(b": here\n\n" * 10_000, WHOLE), "ok"),
    Fault("fields of other kinds", streamed(b"id: 1\nretry: 9\nx: y\n" + WHOLE), "ok"),
    Fault("commands of a terminal", streamed(event(content="\x1b]52;c;eA==\x07\x1b[2J\0"), END), "ok"),
    Fault("HTML and the key", streamed(event(content=f"<script>{KEY}</script>"), END), "ok"),
    failed("the key in an error", streamed(data(json.dumps({"error": f"no: {KEY}"}))), "no: ***"),
    failed("a refusal", streamed(ONE, finish("content_filter")), "content_filter"),
    Fault("more behind [DONE]", streamed(WHOLE, data("{"), ONE), "ok"),
)
NO_COUNT = '{"choices": [], "usage": '
IN_COUNTS = (
    no_answer("usage that is a list", streamed(ONE, data(NO_COUNT + "[1]}"), END), NOT_CHUNK),
    absurd("input tokens of 2^40", "prompt_tokens=1099511627776)", prompt_tokens=1 << 40),
    absurd("output tokens of 2^63", "completion_tokens=", completion_tokens=1 << 63),
    absurd("all tokens of 2^31", "total_tokens=2147483648)", total_tokens=1 << 31),
    absurd("output tokens of 400 digits", "completion_tokens=1000", completion_tokens=10**400),
    no_answer(
        "tokens of 9,000 digits",
        streamed(ONE, data(f'{NO_COUNT}{{"prompt_tokens": {"9" * 9000}}}}}'), END), NOT_CHUNK,
    ),
    absurd("cached tokens of 2^40", "cached_tokens=", prompt_tokens_details={"cached_tokens": 1 << 40}),
    Fault("more cached than input tokens", used(prompt_tokens_details={"cached_tokens": 10}), "ok"),
    Fault("details that are a list", used(prompt_tokens_details=[1]), "ok"),
    absurd("tokens below 0", "prompt_tokens=-1)", prompt_tokens=-1, completion_tokens=-5),
    absurd("tokens that are texts", "prompt_tokens='9')", prompt_tokens="9", completion_tokens="2"),
    absurd("tokens that are fractions", "prompt_tokens=9.5)", prompt_tokens=9.5, completion_tokens=1e308),
    absurd("tokens that are true", "prompt_tokens=True)", prompt_tokens=True, completion_tokens=None),
    absurd(
        "more output tokens than asked", "output_tokens=2000000000 where max_tokens=4)",
        completion_tokens=2_000_000_000,
    ),
    Fault(
        "sums of tokens beyond 2^31",
        answer("one", timings={"prompt_n": (1 << 31) - 1, "cache_n": (1 << 31) - 1, "predicted_n": 1}),
        "ok", ABSURD,
    ),
)  # fmt: skip
# Each of these takes as long as a request may.
IN_TIME = (
    Fault("never answers", silent_after(b""), "timeout"),
    Fault("stalls in the head", silent_after(CHUNKED[:20]), "timeout"),
    Fault("stalls after the first token", silent_after(CHUNKED + chunk(ONE)), "timeout"),
    Fault("sends its head byte by byte", again_and_again(b"X", b"HTTP/1.1 200 OK\r\n"), "timeout"),
    Fault("trickles", again_and_again(chunk(b"x"), CHUNKED + chunk(b"data: ")), "timeout"),
    Fault("comments without end", again_and_again(chunk(b": here\n\n"), CHUNKED), "timeout"),
    Fault("tokens without end", again_and_again(chunk(ONE), CHUNKED), "timeout"),
)
AT_ONCE = (*AT_THE_SOCKET, *IN_HTTP, *IN_EVENTS, *IN_COUNTS)


def shown(body: bytes, status: str = "200 OK") -> Fault:
    """Return a page that bench must accept, whatever it contains."""
    return Fault(f"{status} {body[:30]!r}", page(status, body), "ok")


LISTED = page("200 OK", b'{"data": [{"id": "tiny", "max_model_len": 4096}]}')
MANY = json.dumps({"data": [{"id": f"model-{number}"} for number in range(100_000)]}).encode()
# Lists of models that a server answers with when it is first asked. Then it is measured (ok), or refused in
# one line that contains the error.
LISTS = (
    shown(b""),
    shown(b"<html>"),
    shown(DEEP.encode()),
    shown(b"\xff\xfe\x00"),
    shown(b'{"data": [7, null]}'),
    shown(b"no", "500 Oh"),
    shown(b"no", "404 Not Found"),
    Fault(
        "no model of that name", page("200 OK", b'{"data": [{"id": "\\u001b[2Jx"}]}'), "refused", "it serves"
    ),
    Fault("100,000 models", page("200 OK", MANY), "refused", "it serves model-0, model-1, "),
    Fault("17 MB", page("200 OK", b" " * (17 << 20)), "refused", "more than 16 MiB"),
    Fault("noise", random.Random(2).randbytes(5000), "refused", "no server answers there"),
    Fault("nothing", b"", "refused", "no server answers there"),
    Fault("a key refused", page("401 No", KEY.encode()), "refused", "the key was refused (401: ***"),
    Fault("drips", again_and_again(b"X", b"HTTP/1.1 200 OK\r\n"), "refused", "no answer within"),
    Fault("never", silent_after(b""), "refused", "no answer within"),
)
# Pages of version, facts and metrics that a server answers with while it is measured.
PAGES = (
    *LISTS,
    shown(b'{"version": {"a": [1]}, "data": [{"max_model_len": {"a": 1}}]}'),
    shown(b'{"version": 7, "data": [{"max_model_len": 1e400}]}'),
    shown(b"vllm:num_requests_running NaN\nvllm:num_requests_waiting 1e999\n" * 1000),
    shown(b"vllm:num_requests_running{" + b'a="' * 100_000),
    shown(b'vllm:prompt_tokens_total{model_name="\xff\x1b[2J"} -5\n' * 1000),
)


def pages_of(**pages: Iterator[Fault]) -> Callable[[str], Fault | None]:
    """Return a function that gives the next fault of a page, by the last part of its path."""

    def next_of(path: str) -> Fault | None:
        found = pages.get(path.rpartition("/")[2])
        return next(found, None) if found else None

    return next_of


GOOD_LIST = pages_of(models=repeat(Fault("listed", LISTED, "ok")))


def player(
    faults: Mapping[str, Fault], page_of: Callable[[str], Fault | None] = GOOD_LIST
) -> Callable[[Link], None]:
    """Return a function that plays a connection.

    A prompt that is the name of a fault gets that fault, any other a good answer. `page_of` gives pages.
    """

    def play(link: Link) -> None:
        link.socket.settimeout(None)  # it is the client that has a limit
        while (body := link.request()) is not None:
            path = link.requests[-1][0].split()[1].decode()
            prompt = json.loads(body)["messages"][-1]["content"] if body else None
            fault = faults.get(prompt) if prompt is not None else page_of(path)
            if fault:
                fault.play(link)
                return
            link.send(GOOD if body else page("404 Not Found"))

    return play
