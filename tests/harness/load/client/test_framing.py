import time
from array import array

import pytest

from serving_bench.harness.load.client.framing import MAX_HEAD_BYTES, Framing, FramingError

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RESPONSES = {
    "chunked": (CHUNKED + b"3\r\nabc\r\n00A ;x=y\r\n0123\r\n6789\r\n0\r\n\r\n", b"abc0123\r\n6789"),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n", b"a"),
    "empty chunked": (CHUNKED + b"0\r\n\r\n", b""),
    "chunk that looks like the end": (CHUNKED + b"7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n0\r\n\r\n"),
    "length": (b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello", b"hello"),
    "no length at all": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "zero length": (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", b""),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x"),
    "after 100 continue": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"ok",
    ),
}


def fed(*parts: bytes) -> Framing:
    raw = bytearray()
    framing = Framing(raw)
    for part in parts:
        raw += part
        framing.advance()
    return framing


@pytest.mark.parametrize("name", RESPONSES)
def test_the_end_is_found_at_the_last_byte_and_not_before(name: str) -> None:
    response, body = RESPONSES[name]
    raw = bytearray()
    framing = Framing(raw)
    found = []
    for byte in response:
        raw.append(byte)
        found.append(framing.advance())
    assert found == [False] * (len(response) - 1) + [True]
    assert framing.body() == body
    assert framing.keeps_alive


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    framing = fed(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nhel", b"lo")
    assert not framing.is_complete
    assert framing.close()
    assert framing.body() == b"hello"
    assert not framing.keeps_alive


@pytest.mark.parametrize(
    "cut",
    [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", CHUNKED + b"3\r\nabc\r\n"],
)
def test_the_connections_end_does_not_end_an_unfinished_response(cut: bytes) -> None:
    assert not fed(cut).close()


def test_half_a_chunk_counts_as_far_as_it_came() -> None:
    framing = fed(CHUNKED + b"a\r\nhello")
    assert framing.body() == b"hello"
    assert framing.body_offsets(array("q", [len(CHUNKED), len(CHUNKED) + 5, len(CHUNKED) + 8])) == [0, 2, 5]


@pytest.mark.parametrize(
    ("head", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: close", False),
        (b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive", True),
        (b"HTTP/1.0 200 OK", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close", False),
        (b"HTTP/1.1 200 OK\r\nConnection: not-close", True),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked", True),
    ],
)
def test_the_connection_header_decides_on_reuse(head: bytes, keeps_alive: bool) -> None:
    assert fed(head + b"\r\nContent-Length: 0\r\n\r\n").keeps_alive is keeps_alive


@pytest.mark.parametrize("value", [b"chunked", b"CHUNKED", b"\t, chunked ,", b"\r\n chunked"])
def test_chunked_is_chunked_however_it_is_written(value: bytes) -> None:
    framing = fed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: " + value + b"\r\n\r\n1\r\na\r\n0\r\n\r\n")
    assert (framing.body(), framing.keeps_alive) == (b"a", True)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_two_ways_to_find_the_end_forbid_reuse(version: bytes) -> None:
    """RFC 9112, sections 6.1 and 6.3: the coding counts, and what follows may be smuggled."""
    head = b"HTTP/%b 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n" % version
    length = b"Content-Length: 1\r\n" if version == b"1.1" else b""
    framing = fed(head + length + b"\r\n1\r\na\r\n0\r\n\r\n")
    assert (framing.body(), framing.is_complete, framing.keeps_alive) == (b"a", True, False)


def test_a_folded_line_goes_on_with_the_one_before_it() -> None:
    framing = fed(b"HTTP/1.1 200 OK\r\nX: a\r\n\tTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\nx")
    assert framing.headers["x"] == "a Transfer-Encoding: chunked"
    assert framing.body() == b"x"


@pytest.mark.parametrize(("extra", "is_wrong"), [(b"", False), (b"\r\n", False), (b"HTTP/1.1", True)])
def test_bytes_behind_a_good_response_are_an_error_but_for_an_empty_line(extra: bytes, is_wrong: bool):
    head = b"\r\nContent-Length: 1\r\n\r\nx"
    fed(b"HTTP/1.1 500 Oops" + head + extra).check_end()  # it is a failure already
    good = fed(b"HTTP/1.1 200 OK" + head + extra)
    if is_wrong:
        with pytest.raises(FramingError, match="8 bytes behind the response's end"):
            good.check_end()
    else:
        good.check_end()


def test_bytes_behind_the_response_forbid_reuse() -> None:
    framing = fed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy")
    assert framing.is_complete
    assert framing.body() == b"x"
    assert not framing.keeps_alive


def test_a_second_end_behind_the_first_forbids_reuse() -> None:
    framing = fed(CHUNKED + b"0\r\n\r\n0\r\n\r\n")
    assert framing.is_complete
    assert not framing.keeps_alive


def test_a_wrong_chunk_is_found_at_the_latest_when_asked() -> None:
    framing = fed(CHUNKED + b"3\r\nabc\r\n", b"3\r\nabcdef\r\n")
    with pytest.raises(FramingError, match="longer than its size"):
        framing.check()
    assert framing.body() == b"abcabc"


def test_looking_for_the_end_costs_no_second_look_at_the_rest() -> None:
    """A body that seems to end with every read: each is looked at once, not all of them again and again."""
    part = b"d\r\nxx\r\n0\r\n\r\n\r\n\r\n\r\n"
    raw = bytearray(CHUNKED)
    framing = Framing(raw)
    framing.advance()
    began_s = time.process_time()
    for _ in range(20_000):
        raw += part
        assert not framing.advance()
    assert time.process_time() - began_s < 5
    raw += b"0\r\n\r\n"
    assert framing.advance()


@pytest.mark.parametrize(
    "wrong",
    [
        b"SSH-2.0-OpenSSH",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\x0b5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        CHUNKED + b"xyz\r\n",
        CHUNKED + b"-5\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"1" * 2000,
        CHUNKED + b"3\r\nabcdef\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (MAX_HEAD_BYTES + 1),
    ],
)
def test_other_bytes_are_refused(wrong: bytes) -> None:
    with pytest.raises(FramingError):
        fed(wrong)
