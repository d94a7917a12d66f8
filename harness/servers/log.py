"""Read a server's log without trusting it: it may be huge, and its lines may never end.

A server writes to the file itself. All of it is kept, as long as the disk has room.
"""

import os
import re
from pathlib import Path

# Only this much of a line is read: the time of a pattern may grow with the square of the length.
MOST_LINE_BYTES = 16 << 10
# This much of the beginning is read, where a server tells of its start, and of the end, where it tells of its
# load.
_MOST_PART_BYTES = 8 << 20
_LONG = re.compile(rb"^([^\n]{%d})[^\n]+" % MOST_LINE_BYTES, re.MULTILINE)
_ENDS = re.compile(rb"\r\n?")


def bytes_from(path: Path, offset: int, most: int) -> bytes:
    """Read up to `most` bytes from an offset, which counts from the log's end if negative. A missing log is
    like an empty one."""
    try:
        with path.open("rb") as log:
            log.seek(offset if offset >= 0 else max(0, log.seek(0, os.SEEK_END) + offset))
            return log.read(most)
    except FileNotFoundError:
        return b""


def head_and_end(path: Path) -> tuple[str, int]:
    """Return a log as text, and how many bytes are left out of the middle of a long one."""
    head = bytes_from(path, 0, _MOST_PART_BYTES)
    size = path.stat().st_size if len(head) == _MOST_PART_BYTES else 0
    skipped = max(0, size - 2 * _MOST_PART_BYTES)
    end = bytes_from(path, _MOST_PART_BYTES + skipped, _MOST_PART_BYTES)
    # The mark keeps the half lines on both sides of the gap from becoming one line.
    return text_of(b"\n[...]\n".join((head, end)) if skipped else head + end), skipped


def text_of(log: bytes) -> str:
    """Decode a log, with `\\n` for all kinds of line ends, and long lines cut."""
    return _LONG.sub(rb"\1", _ENDS.sub(b"\n", log)).decode(errors="replace")
