"""Framing against a parser that sees the whole response, whatever the bytes and however they were cut."""

from __future__ import annotations

import re
from array import array
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.load.client.framing import Framing, FramingError

quick = settings(derandomize=True, max_examples=400, deadline=None, database=None)

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


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    response = bytearray(draw(chunked))
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(len(CHUNKED), len(response)))
        response[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b"\r\n", b"0", b"\r\n0", b"z", b"1"])
        )
    return bytes(response)


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


def fed(response: bytes, bounds: list[int]) -> tuple[str, Framing, array[int]]:
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


@quick
@given(st.one_of(responses, mangled()), st.data())
def test_any_response_cut_anywhere_has_the_same_body(response: bytes, data: st.DataObject) -> None:
    breaks = [at + 1 for at, byte in enumerate(response) if byte in b"\r\n"]
    anywhere = st.one_of(st.integers(1, len(response)), st.sampled_from(breaks))
    bounds = sorted({0, len(response), *data.draw(st.lists(anywhere, max_size=12))})
    kind, framing, offsets = fed(response, bounds)
    expected, body = slow_parse(response)
    assert kind == expected
    assert framing.body() == body
    ends = framing.body_offsets(offsets)
    assert ends == sorted(ends)
    # Each read brought the body's bytes up to its end: those of the response cut off there.
    assert ends == [len(slow_parse(response[:offset])[1]) for offset in offsets]
