"""Reads sends.bin, the reference server's record of its true send times. Knows no client.

The format is described in engines/inside/reference_server.py, which writes it and cannot be imported.
"""

from __future__ import annotations

import struct
from pathlib import Path

from harness.errors import StoreError

_HEADER = struct.Struct("<8sII")
_RECORD = struct.Struct("<36sIQ")
_MAGIC = b"RFSENDS\n"
_VERSION = 1


def read_sends(path: Path) -> list[tuple[str, int, int]]:
    """(request id, number of the content chunk, sent_ns) in the order of sending; sent_ns is CLOCK_MONOTONIC.

    Ids are cut to 36 characters. Empty for an empty file; a last record that a kill cut short is left out.
    Raises StoreError for a file that is something else, or absent.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; the reference server writes it") from error
    if len(content) < _HEADER.size and _is_cut_header(content):
        return []
    if _HEADER.unpack_from(content.ljust(_HEADER.size)) != (_MAGIC, _VERSION, _RECORD.size):
        raise StoreError(f"{path}: not a record of send times of version {_VERSION}")
    end = len(content) - (len(content) - _HEADER.size) % _RECORD.size
    records = _RECORD.iter_unpack(content[_HEADER.size : end])
    return [(name.rstrip(b"\0").decode("ascii"), chunk, sent_ns) for name, chunk, sent_ns in records]


def _is_cut_header(content: bytes) -> bool:
    return _HEADER.pack(_MAGIC, _VERSION, _RECORD.size).startswith(content)
