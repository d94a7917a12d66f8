"""What is opened of a file that somebody else made."""

import os
from pathlib import Path

import pytest

from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import lines, opened, opened_text, read_text


def test_only_regular_files_are_opened_and_none_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless", "."):
        with pytest.raises(UserError, match=r"^x: cannot be read \(not a regular file\)$"):
            read_text(tmp_path / name, "x")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(OSError, match="5 bytes, more than the 4 that are read"):
        opened(tmp_path / "large", 4)
    with opened(tmp_path / "large", 5) as file:
        assert file.read() == b"12345"


def test_a_mark_is_no_text_and_line_ends_are_one_where_all_is_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfa\r\nb")
    assert read_text(tmp_path / "text", "x") == "a\nb"
    with opened_text(tmp_path / "text", "x") as file:
        assert list(lines(file)) == ["a\r\n", "b"]


def test_a_line_without_an_end_comes_in_parts(tmp_path: Path) -> None:
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 30)
    with opened_text(tmp_path / "hole", "x") as file:
        assert len(next(iter(lines(file)))) == 16 << 20
