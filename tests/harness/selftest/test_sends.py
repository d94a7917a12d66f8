"""Reading the record of send times: the documented bytes, a cut one, and other files."""

import struct
from pathlib import Path

import pytest

from serving_bench.harness.errors import StoreError
from serving_bench.harness.selftest.sends import ARRIVAL, END, Send, read_sends


def record(name: bytes, numbers: bytes) -> bytes:
    return name.ljust(36, b"\0") + numbers


def test_the_record_is_as_documented_and_a_cut_one_loses_its_last_row(tmp_path: Path) -> None:
    path = tmp_path / "sends.bin"
    header = b"RFSENDS\n" + struct.pack("<II", 2, 56)
    rows = [
        record(b"a", struct.pack("<IQQ", 0xFFFFFFFF, 0, 4)),
        record(b"a", struct.pack("<IQQ", 7, 5, 6)),
        record(b"a", struct.pack("<IQQ", 0xFFFFFFFE, 0, 9)),
    ]
    path.write_bytes(header + b"".join(rows))
    sends = read_sends(path)
    assert sends == [Send("a", ARRIVAL, 0, 4), Send("a", 7, due_ns=5, sent_ns=6), Send("a", END, 0, 9)]
    path.write_bytes(header + rows[0] + rows[1][:-1])
    assert read_sends(path) == sends[:1]
    for length in range(17):
        path.write_bytes(header[:length])
        assert read_sends(path) == []


def test_another_file_or_none_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "sends.bin"
    with pytest.raises(StoreError, match="No such file"):
        read_sends(path)
    for content in (b"PAR1" * 20, b"RF", b"RFSENDS\n" + struct.pack("<II", 1, 48)):
        path.write_bytes(content + b"?")
        with pytest.raises(StoreError, match="not a record of send times of version 2"):
            read_sends(path)
