"""Find the end of one HTTP/1.1 response in a growing buffer, cheaply enough to run once per read.

The chunks of a body are split once, when it has ended. Source of the rules: RFC 9112, section 6.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate

MAX_HEAD_BYTES = 65536
MAX_SIZE_LINE_BYTES = 1024
MAX_LENGTH_DIGITS = 15
CRLF = b"\r\n"
BLANK_LINE = b"\r\n\r\n"
# Where the last chunk begins: after the CRLF of the chunk before it, or of the head.
LAST_CHUNK_START = b"\r\n0"
# The line of a chunk's size, with the CRLF that ends the head or the chunk before it.
_SIZE_LINE = re.compile(rb"\r\n([0-9a-fA-F]{1,15})[ \t]*(?:;[^\r\n]*)?\r\n")
_PARTIAL_SIZE_LINE = re.compile(rb"(?:\r(?:\n(?:[0-9a-fA-F]{1,15}[ \t]*(?:;[^\r\n]*)?\r?)?)?)?")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?")
_HEADER_LINE = re.compile(r"([!#-'*+.^-z|~0-9A-Z-]+):([^\r\n\0]*)")
_FOLD = re.compile(rb"\r\n[ \t]+")  # a line that goes on with the one before it (obs-fold)


class FramingError(ValueError):
    """Bytes that are not an HTTP/1.1 response."""


class Framing:
    """Where one response's body lies in `raw`, to which its owner appends. `status` is None until the head
    has ended.

    `headers` have lower-case names. `searched`: no last chunk of a chunked body begins before this offset.
    """

    def __init__(self, raw: bytearray) -> None:
        self.raw = raw
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.is_complete = False
        self._keeps_alive = False
        self._body_start = 0
        self._length: int | None = None
        self.is_chunked = False
        self.searched = 0
        self._at = 0  # where the next head begins, or the CRLF before the next chunk's size
        self._starts: list[int] = []  # the chunks' payloads in raw
        self._sizes: list[int] = []
        self._end = 0

    def advance(self) -> bool:
        """Read what was added to `raw`. Return whether the response is complete. Raises FramingError."""
        is_first = self.status is None
        if is_first and not self._read_head():
            return False
        if self.is_chunked:
            if is_first or self.raw.find(LAST_CHUNK_START, self.searched) >= 0:
                return self._walk_chunks()
            self.searched = max(self.searched, len(self.raw) - 2)
        elif self._length is not None:
            self._end = self._body_start + self._length
            self.is_complete = len(self.raw) >= self._end
        return self.is_complete

    def close(self) -> bool:
        """Note that the connection has ended. Return whether that ends this response. Raises FramingError."""
        self.check()
        if self.status is not None and not self.is_chunked and self._length is None:
            self._end = len(self.raw)
            self.is_complete = True
        return self.is_complete

    def check(self) -> None:
        """Split the chunks of an unfinished body, so that `body` has them. Raises FramingError."""
        if self.is_chunked and not self.is_complete:
            self._walk_chunks()

    @property
    def keeps_alive(self) -> bool:
        """Return whether another request may follow: the response is complete, and nothing came after it."""
        return self._keeps_alive and self.is_complete and len(self.raw) == self._end

    def check_end(self) -> None:
        """Raise FramingError if something came behind the end of a response of status 200."""
        extra = bytes(self.raw[self._end :]) if self.is_complete and self.status == 200 else b""
        if extra.strip(CRLF):
            raise FramingError(f"{len(extra)} bytes behind the response's end: {extra[:30]!r}")

    def body(self) -> bytes:
        """Return the body so far, without chunk framing. Call `check` first if it is unfinished."""
        if self.status is None:
            return b""
        with memoryview(self.raw) as view:
            if not self.is_chunked:
                return bytes(view[self._body_start : self._end if self.is_complete else None])
            chunks = zip(self._starts, self._sizes, strict=True)
            return b"".join([view[start : start + size] for start, size in chunks])

    def body_offsets(self, raw_offsets: Sequence[int]) -> list[int]:
        """Return how many bytes of the body lie before each of the ascending offsets into `raw`."""
        if self.status is None:
            return [0] * len(raw_offsets)
        if not self.is_chunked:
            length = (self._end if self.is_complete else len(self.raw)) - self._body_start
            return [min(max(offset - self._body_start, 0), length) for offset in raw_offsets]
        before = list(accumulate(self._sizes, initial=0))
        chunks = zip(self._starts, self._sizes, before[1:], strict=True)
        ends = {start + size + 2: body_end for start, size, body_end in chunks}
        ends[self._body_start] = 0
        if self.is_complete:
            ends[self._end] = before[-1]
        # Most reads end where a chunk ends: servers send most events as one chunk in one segment.
        return [
            ends[offset] if offset in ends else self._offset_in_chunks(offset, before)
            for offset in raw_offsets
        ]

    def _offset_in_chunks(self, offset: int, before: list[int]) -> int:
        number = bisect_left(self._starts, offset) - 1  # the last chunk whose payload starts before it
        if number < 0:
            return 0
        return before[number] + min(offset - self._starts[number], self._sizes[number])

    def _read_head(self) -> bool:
        while (end := self.raw.find(BLANK_LINE, self._at)) >= 0:
            lines = _FOLD.sub(b" ", self.raw[self._at : end]).split(CRLF)
            line = _STATUS_LINE.fullmatch(lines[0])
            if line is None:
                raise FramingError(f"not an HTTP/1.1 response: {lines[0][:60]!r}")
            self._at = end + len(BLANK_LINE)
            if not line[2].startswith(b"1"):
                self._take_head(line, lines[1:])
                return True
        if not b"HTTP/1.".startswith(bytes(self.raw[self._at : self._at + 7])):
            raise FramingError(f"not an HTTP/1.1 response: {bytes(self.raw[self._at : self._at + 60])!r}")
        if len(self.raw) - self._at > MAX_HEAD_BYTES:
            raise FramingError(f"response headers longer than {MAX_HEAD_BYTES} bytes")
        return False

    def _take_head(self, status_line: re.Match[bytes], lines: list[bytes]) -> None:
        headers: dict[str, str] = {}
        for line in lines:
            if not (header := _HEADER_LINE.fullmatch(line.decode("latin-1"))):
                raise FramingError(f"not a header line: {line[:60]!r}")
            name, value = header[1].lower(), header[2].strip(" \t")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        self.headers, self.status, self._body_start = headers, int(status_line[2]), self._at
        self._at = self.searched = self._body_start - len(CRLF)
        codings, length = _elements(headers, "transfer-encoding"), headers.get("content-length")
        if self.status in (204, 304):
            codings, length = [], "0"
        if codings not in ([], ["chunked"]):
            raise FramingError(f"Transfer-Encoding: {', '.join(codings)[:60]} is not chunked")
        self.is_chunked = bool(codings)
        if length is not None and not self.is_chunked:
            if not (length.isascii() and length.isdigit() and len(length) <= MAX_LENGTH_DIGITS):
                raise FramingError(f"Content-Length: {length[:60]} is no length")
            self._length = int(length)
        options, is_new = _elements(headers, "connection"), status_line[1] == b"1"
        # Two headers, or a coding of another version, may disagree on where the next response begins.
        is_sure = (is_new and length is None) if self.is_chunked else length is not None
        self._keeps_alive = is_sure and "close" not in options and (is_new or "keep-alive" in options)

    def _walk_chunks(self) -> bool:
        """Go from size to size as far as the bytes reach. Return whether the last chunk is there."""
        raw, at = self.raw, self._at
        while (line := _SIZE_LINE.match(raw, at)) and (size := int(line[1], 16)):
            self._starts.append(line.end())
            self._sizes.append(size)
            at = line.end() + size
        self._at = self.searched = at
        if line:
            # After the last chunk come trailers, or at once the empty line that ends them.
            end = raw.find(BLANK_LINE, line.end() - len(CRLF))
            self.is_complete, self._end = end >= 0, end + len(BLANK_LINE)
            return self.is_complete
        rest = bytes(raw[at : at + MAX_SIZE_LINE_BYTES + 1])
        if not _PARTIAL_SIZE_LINE.fullmatch(rest) or len(rest) > MAX_SIZE_LINE_BYTES:
            raise FramingError(f"a chunk is longer than its size, or not a chunk size: {rest[:30]!r}")
        return False


def _elements(headers: Mapping[str, str], name: str) -> list[str]:
    """Return the elements of a header's list, in lower case, without the empty ones."""
    elements = (each.strip(" \t").lower() for each in headers.get(name, "").split(","))
    return [each for each in elements if each]
