"""Framing against a parser that sees the whole response, whatever the bytes and however they were cut."""

import json
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate, pairwise

import pytest
from fuzzing import damaged
from hypothesis import example, given
from hypothesis import strategies as st

from serving_bench.harness.load.answer.chat import decode
from serving_bench.harness.load.client.framing import Framing, FramingError
from serving_bench.harness.load.client.receive import Receiver
from serving_bench.harness.load.client.response import Exchange, ExchangeError, Response

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
payloads = st.one_of(
    st.binary(min_size=1, max_size=20),
    st.sampled_from(
        [b"\r\n0\r\n\r\n", b"0", b"\r\n", b"\n\n", b"a\r\n1\r\nb", b"x\r\n0", b'data: {"a": 1}\n\n']
    ),
)
sizes = st.sampled_from(["%x", "%X", "0%x", "%x;a=b", "%x ", "%x", "%x"])
chunks = st.builds(lambda data, size: (size % len(data)).encode() + b"\r\n" + data + b"\r\n", payloads, sizes)
ends = st.sampled_from(
    [b"0\r\n\r\n", b"0\r\n\r\n", b"000\r\n\r\n", b"0;x\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n", b""]
)
chunked = st.builds(lambda parts, end: CHUNKED + b"".join(parts) + end, st.lists(chunks, max_size=8), ends)
measured = st.binary(max_size=30).map(
    lambda data: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data
)
unmeasured = st.binary(max_size=30).map(lambda data: b"HTTP/1.1 200 OK\r\n\r\n" + data)
responses = st.one_of(chunked, chunked, measured, unmeasured)
WRONG = [b"", b"\r\n", b"0", b"\r\n0", b"z", b"1"]
mangled = chunked.flatmap(lambda response: damaged(response, WRONG, len(CHUNKED)))


def slow_parse(response: bytes) -> tuple[str, bytes]:
    """What a response is, `complete`, `unfinished` or `wrong`, and its body as far as it came."""
    head, _, rest = response.partition(b"\r\n\r\n")
    if length := re.search(rb"Content-Length: (\d+)", head):
        wanted = int(length[1])
        return ("complete" if len(rest) >= wanted else "unfinished"), rest[:wanted]
    if b"chunked" not in head:
        return "complete", rest  # once the connection has ended
    body = b""
    while True:
        line, found, after = rest.partition(b"\r\n")
        if not found:
            # What can no longer become a size is wrong before its line has ended.
            may_become = re.fullmatch(rb"([0-9a-fA-F]{1,15}[ \t]*(;[^\r\n]*)?\r?)?", line)
            return ("unfinished" if may_become else "wrong"), body
        size = line.partition(b";")[0].rstrip(b" \t")
        if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", size) or re.search(rb"[\r\n]", line):
            return "wrong", body
        wanted = int(size, 16)
        if wanted == 0:
            is_whole = after.startswith(b"\r\n") or b"\r\n\r\n" in after
            return ("complete" if is_whole else "unfinished"), body
        body += after[:wanted]
        end, rest = after[wanted : wanted + 2], after[wanted + 2 :]
        if not b"\r\n".startswith(end):
            return "wrong", body
        if len(end) < 2:
            return "unfinished", body


def fed(response: bytes, bounds: list[int]) -> tuple[str, Framing, "array[int]"]:
    """Feed it as a client does, which stops at the end, and then end the connection."""
    raw, offsets = bytearray(), array("q")
    framing = Framing(raw)
    try:
        for start, end in pairwise(bounds):
            raw += response[start:end]
            offsets.append(len(raw))
            if framing.advance():
                return "complete", framing, offsets
        return ("complete" if framing.close() else "unfinished"), framing, offsets
    except FramingError:
        return "wrong", framing, offsets


@st.composite
def cuts(draw: st.DrawFn, response: bytes) -> list[int]:
    breaks = [at + 1 for at, byte in enumerate(response) if byte in b"\r\n"]
    anywhere = st.integers(min(1, len(response)), len(response)) | st.sampled_from(breaks or [0])
    return sorted({0, len(response), *draw(st.lists(anywhere, max_size=12))})


@given(st.one_of(responses, mangled), st.data())
def test_any_response_cut_anywhere_has_the_same_body(response: bytes, data: st.DataObject) -> None:
    bounds = data.draw(cuts(response))
    kind, framing, offsets = fed(response, bounds)
    expected, body = slow_parse(response)
    assert kind == expected
    assert framing.body() == body
    ends = framing.body_offsets(offsets)
    assert ends == sorted(ends)
    # Each read brought the body's bytes up to its end: those of the response cut off there.
    assert ends == [len(slow_parse(response[:offset])[1]) for offset in offsets]


# --- any framing header ------------------------------------------------------------------------------

pads = st.sampled_from(["", " ", "\t", " \t", "\x0b", "\xa0"])
names = st.sampled_from(
    ["Transfer-Encoding", "transfer-encoding", "Content-Length", "CONTENT-LENGTH", "X", "Connection", ""]
)
values = st.sampled_from(
    ["chunked", "Chunked", "xchunked", "chunkedx", "gzip", "identity", "chunked;a", "", "3", "03", "4", "+3",
     "-3", "3x", "close", "keep-alive", "xclose"]
)  # fmt: skip
lists = st.lists(
    st.builds(lambda before, value, after: before + value + after, pads, values, pads), max_size=3
)
header_lines = st.builds(
    lambda fold, name, pad, given: fold + name + pad + ":" + ",".join(given),
    st.sampled_from(["", "", "", " "]), names, st.sampled_from(["", "", "", " "]), lists,
)  # fmt: skip
heads = st.lists(header_lines, max_size=4).map(lambda lines: ["X: y", *lines])


def slow_framing(lines: list[str]) -> tuple[str, bool]:
    """How the end of a response with these header lines is found (`wrong`: it cannot be), and whether the
    connection may be kept, by RFC 9112, sections 5 and 6."""
    found: dict[str, list[str]] = {}
    unfolded: list[str] = []
    for line in lines:
        if line[0] in " \t":
            unfolded[-1] += line
        else:
            unfolded.append(line)
    for line in unfolded:
        name, _, value = line.partition(":")
        if not re.fullmatch(r"[A-Za-z-]+", name):
            return "wrong", False
        found.setdefault(name.lower(), []).append(value.strip(" \t"))
    codings, options = (
        [
            each
            for value in found.get(name, [])
            for part in value.split(",")
            if (each := part.strip(" \t").lower())
        ]
        for name in ("transfer-encoding", "connection")
    )
    lengths = found.get("content-length", [])
    keeps = "close" not in options
    if codings:
        return ("chunked", keeps and not lengths) if codings == ["chunked"] else ("wrong", False)
    if not lengths:
        return "close", False
    if len(lengths) == 1 and re.fullmatch(r"[0-9]+", lengths[0]):
        return f"length {int(lengths[0])}", keeps
    return "wrong", False


@given(heads)
def test_any_framing_headers_mean_what_the_standard_says(lines: list[str]) -> None:
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode("latin-1")
    kind, keeps = slow_framing(lines)
    bodies = {"chunked": b"3\r\nabc\r\n0\r\n\r\n", "length 3": b"abc", "length 4": b"abcd", "close": b"ab"}
    found, framing, _ = fed(head + bodies.get(kind, b""), [0, len(head), len(head + bodies.get(kind, b""))])
    assert found == ("wrong" if kind == "wrong" else "complete")
    if kind != "wrong":
        body = {"chunked": b"abc"}.get(kind, bodies[kind])
        assert (framing.body(), framing.is_chunked, framing.keeps_alive) == (body, kind == "chunked", keeps)


# --- whole exchanges -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver(use_kernel=False) as receiver:
        yield receiver


def exchanged(response: bytes, bounds: list[int], receiver: Receiver) -> Exchange:
    """What a client makes of a response in these reads, of which the first comes at 100, and of its end."""
    growing = Response()
    outcome, error = "ok", None
    try:
        for number, (start, end) in enumerate(pairwise(bounds)):
            if growing.add(b"", 100 + number, response[start:end]):
                break
        else:
            growing.close(100 + len(bounds))
    except ExchangeError as broken:
        outcome, error = broken.outcome, str(broken)
    except FramingError as wrong:
        outcome, error = "protocol_error", str(wrong)
    return growing.exchange(outcome, error, receiver)


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=4)
said = st.lists(words, min_size=1, max_size=5)


def sent(text: str) -> bytes:
    data = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False)
    return b"data: " + data.encode() + b"\n\n"


@given(said, st.data())
def test_an_answer_is_the_same_however_it_is_sent_and_cut(
    receiver: Receiver, parts: list[str], data: st.DataObject
) -> None:
    body = b"".join(map(sent, parts)) + b"data: [DONE]\n\n"
    bounds = data.draw(cuts(body))
    pieces = [body[start:end] for start, end in pairwise(bounds)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    in_chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    for response in (
        head + b"Content-Length: %d\r\n\r\n" % len(body) + body,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + in_chunks,
        head + b"\r\n" + body,
    ):
        read = data.draw(cuts(response))
        exchange = exchanged(response, read, receiver)
        assert (exchange.outcome, exchange.error, exchange.body) == ("ok", None, body)
        decoded = decode(exchange.body, exchange.read_ns, exchange.read_ends)
        assert (decoded.text, decoded.saw_done, decoded.malformed) == ("".join(parts), True, None)
        # Each part has the instant of the read with its last byte.
        ends = accumulate(len(sent(part)) for part in parts)
        reads = [bisect_left(exchange.read_ends, end) for end in ends]
        assert decoded.chunk_ns == tuple(exchange.read_ns[read] for read in reads)


SENT = CHUNKED + b'1a\r\ndata: {"choices": []}\r\n\r\n\r\n0\r\nX-Sum: 1\r\n\r\n'
HEADS = [
    b"Content-Length: " + b"9" * 5000, b"Content-Length: -1", b"Content-Length: 1, 1",
    b"HTTP/1.1 100 \r\n\r\n", b"\r\n\r\n", b"\n\n", b":", b"Transfer-Encoding: gzip, chunked",
    b"ffffffffffffffff\r\n", b"\xb2", b"\x00",
]  # fmt: skip


@given(damaged(SENT, HEADS), st.data())
@example(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", None)
@example(b"HTTP/1.1 100 \r\n\r\n" * 2000, None)
def test_any_bytes_of_a_server_are_an_exchange_with_an_outcome(
    receiver: Receiver, response: bytes, data: st.DataObject | None
) -> None:
    bounds = data.draw(cuts(response)) if data else [0, len(response)]
    exchange = exchanged(response, bounds, receiver)
    assert exchange.outcome in ("ok", "reset", "protocol_error")
    assert (exchange.error is None) == (exchange.outcome == "ok")
    assert list(exchange.read_ends) == sorted(exchange.read_ends)
    if exchange.outcome == "ok" and exchange.status == 200:
        whole = exchanged(response, [0, len(response)], receiver)
        assert (whole.body, whole.headers, whole.status) == (exchange.body, exchange.headers, exchange.status)
