"""Reading the record of send times: the documented bytes, a cut one, and other files."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from engines.reference_sends import read_sends
from harness.errors import StoreError


def test_the_record_is_as_documented_and_a_cut_one_loses_its_last_row(tmp_path: Path) -> None:
    path = tmp_path / "sends.bin"
    header = b"RFSENDS\n" + struct.pack("<II", 1, 48)
    rows = [
        name.ljust(36, b"\0") + struct.pack("<IQ", *numbers)
        for name, *numbers in ((b"a", 0, 5), (b"b", 7, 9))
    ]
    path.write_bytes(header + rows[0] + rows[1])
    assert read_sends(path) == [("a", 0, 5), ("b", 7, 9)]
    path.write_bytes(header + rows[0] + rows[1][:-1])
    assert read_sends(path) == [("a", 0, 5)]
    path.write_bytes(b"")
    assert read_sends(path) == []


def test_another_file_or_none_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "sends.bin"
    with pytest.raises(StoreError, match="No such file"):
        read_sends(path)
    for content in (b"PAR1" * 20, b"RF", b"RFSENDS\n" + struct.pack("<II", 2, 48)):
        path.write_bytes(content + b"?")
        with pytest.raises(StoreError, match="not a record of send times of version 1"):
            read_sends(path)
