"""Reads sends.bin, the reference server's record of its true send times. Knows no client.

The format is described in engines/inside/reference_server.py, which writes it and cannot be imported.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import StoreError

# Chunk numbers that are none: the request was there whole; the end of its answer's body was sent.
ARRIVAL = 0xFFFFFFFF
END = 0xFFFFFFFE

_HEADER = struct.Struct("<8sII")
_MAGIC = b"RFSENDS\n"
# Version -> its records. Version 1 has content chunks only, without due_ns.
_RECORDS = {1: struct.Struct("<36sIQ"), 2: struct.Struct("<36sIQQ")}


class Send(NamedTuple):
    """`chunk`: number of the content chunk in its answer, ARRIVAL or END. Instants are CLOCK_MONOTONIC.

    `due_ns`: when the chunk should have been sent; 0 for ARRIVAL, END and all of version 1. `sent_ns`: just
    before it was handed to the kernel; for ARRIVAL, when the request had been read.
    """

    request_id: str
    chunk: int
    due_ns: int
    sent_ns: int


def read_sends(path: Path) -> list[Send]:
    """All rows in the order of writing: the order of sending.

    Ids are cut to 36 characters. Empty for an empty file; a last record that a kill cut short is left out.
    Raises StoreError for a file that is something else, or absent.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; the reference server writes it") from error
    for version, record in _RECORDS.items():
        header = _HEADER.pack(_MAGIC, version, record.size)
        if content.startswith(header) or header.startswith(content):
            end = len(content) - (len(content) - _HEADER.size) % record.size
            return list(_rows(version, content[_HEADER.size : end]))
    raise StoreError(f"{path}: not a record of send times of version {' or '.join(map(str, _RECORDS))}")


def chunk_sends(sends: list[Send]) -> list[Send]:
    """Those of content chunks alone."""
    return [send for send in sends if send.chunk < END]


def _rows(version: int, content: bytes) -> Iterator[Send]:
    for name, chunk, *instants in _RECORDS[version].iter_unpack(content):
        due_ns, sent_ns = instants if version > 1 else (0, *instants)
        yield Send(name.rstrip(b"\0").decode("ascii"), chunk, due_ns, sent_ns)
