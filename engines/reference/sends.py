"""Reads sends.bin, the reference server's record of its true send times. Knows no client.

The format is described in engines/inside/reference/reference_server.py, which writes it and cannot be
imported."""

import struct
from pathlib import Path
from typing import NamedTuple

from harness.errors import StoreError

# Chunk numbers that are none: the request was there whole; the end of its answer's body was sent.
ARRIVAL = 0xFFFFFFFF
END = 0xFFFFFFFE

_HEADER = struct.Struct("<8sII")
_MAGIC = b"RFSENDS\n"
_VERSION = 2
_RECORD = struct.Struct("<36sIQQ")


class Send(NamedTuple):
    """`chunk`: number of the content chunk in its answer, ARRIVAL or END. Instants are CLOCK_MONOTONIC.

    `due_ns`: when the chunk should have been sent; 0 for ARRIVAL and END. `sent_ns`: just
    before it was handed to the kernel; for ARRIVAL, when the request had been read.
    """

    request_id: str
    chunk: int
    due_ns: int
    sent_ns: int


def read_sends(path: Path) -> list[Send]:
    """Return all rows in the order of writing, which is the order of sending.

    Ids are cut to 36 characters. Empty for an empty file; a last record that a kill cut short is left out.
    Raise StoreError for a file that is something else, or absent.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; the reference server writes it") from error
    header = _HEADER.pack(_MAGIC, _VERSION, _RECORD.size)
    if not (content.startswith(header) or header.startswith(content)):
        raise StoreError(f"{path}: not a record of send times of version {_VERSION}")
    end = len(content) - (len(content) - len(header)) % _RECORD.size
    rows = _RECORD.iter_unpack(content[len(header) : end])
    return [Send(name.rstrip(b"\0").decode("ascii"), *numbers) for name, *numbers in rows]


def chunk_sends(sends: list[Send]) -> list[Send]:
    """Return those of content chunks alone."""
    return [send for send in sends if send.chunk < END]
