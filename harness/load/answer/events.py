"""Take a body apart into server-sent events. Pure: it knows nothing of what they say.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

DATA, BLANK = b"data: ", b"\n\n"
_LINE = re.compile(rb"([^\r\n]*)(\r\n|\n|\r|\Z)")  # three kinds of line ends
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One server-sent event. `end`: the offset behind the byte that completed it."""

    kind: str
    data: bytes
    end: int


def events(body: bytes) -> Iterator[Event]:
    """Yield the events of a body, in order. One that the body's end cuts off comes last, if it holds data.

    `kind` is the event field, or `message` if there is none. A line `error: ...`, as older llama.cpp servers
    send it, gives the kind `error`.
    """
    kind, data = "message", list[bytes]()
    # The last line is empty wherever the body ends, so an event that the end cuts off comes out too.
    for line in _LINE.finditer(body, len(_BYTE_ORDER_MARK) if body.startswith(_BYTE_ORDER_MARK) else 0):
        start, stop = line.span(1)
        if start == stop:
            if data:
                # A blank line's CR completes the event; the LF behind it may come in another read.
                yield Event(kind, b"\n".join(data), min(stop + 1, len(body)))
            kind, data = "message", []
        elif body.startswith(DATA, start):
            data.append(body[start + len(DATA) : stop])
        else:
            name, _, value = body[start:stop].partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                data.append(value)
            elif name == b"event":
                kind = value.decode("utf-8", "replace")
            elif name == b"error":
                kind = "error"
                data.append(value)
