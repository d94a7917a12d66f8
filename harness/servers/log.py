"""Read a server's log, of which nothing is trusted: not its size, nor that its lines ever end.

A server writes to the file itself: all of it is kept, as long as the disk has room.
"""

import os
import re
from pathlib import Path

# Of a line that is longer the beginning is read: patterns may take the square of its length.
MOST_LINE_BYTES = 16 << 10
# Of the beginning, which has what a server says as it starts, and of the end, which has what its load was.
_MOST_PART_BYTES = 8 << 20
_LONG = re.compile(rb"^([^\n]{%d})[^\n]+" % MOST_LINE_BYTES, re.MULTILINE)
_ENDS = re.compile(rb"\r\n?")


def bytes_from(path: Path, offset: int, most: int) -> bytes:
    """Read up to `most` bytes from an offset, counted from the log's end if negative. A missing log reads as
    an empty one."""
    try:
        with path.open("rb") as log:
            log.seek(offset if offset >= 0 else max(0, log.seek(0, os.SEEK_END) + offset))
            return log.read(most)
    except FileNotFoundError:
        return b""


def end_of(path: Path, most: int) -> str:
    """Return up to the last `most` bytes of a log as text."""
    return text_of(bytes_from(path, -most, most))


def head_and_end(path: Path) -> tuple[str, int]:
    """Return a log as text, and how many bytes of its middle are left out: those of a long one are."""
    head = bytes_from(path, 0, _MOST_PART_BYTES)
    size = path.stat().st_size if len(head) == _MOST_PART_BYTES else 0
    skipped = max(0, size - 2 * _MOST_PART_BYTES)
    end = bytes_from(path, _MOST_PART_BYTES + skipped, _MOST_PART_BYTES)
    # What is half a line on either side of a gap says nothing.
    return text_of(b"\n[...]\n".join((head, end)) if skipped else head + end), skipped


def text_of(log: bytes) -> str:
    """Return what a log says, with a newline at the end of each line, and of a long one the beginning."""
    return _LONG.sub(rb"\1", _ENDS.sub(b"\n", log)).decode(errors="replace")
