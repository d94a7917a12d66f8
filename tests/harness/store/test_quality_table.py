"""What a server said of its tokens is on disk as it was said."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.contracts import Asked, Token
from harness.errors import StoreError
from harness.store.quality_table import FILE_NAME, read_quality, write_quality

ROWS = [
    Asked(
        "chat",
        0,
        (Token("Hello", -0.25, {"Hello": -0.25, "\\xf0\\x9f": -1.5}), Token("!", None, {})),
        finish_reason="stop",
        prompt_tokens=12,
        answer="Hello!",
    ),
    Asked("text", 3, (Token("17"), Token("42", -2.0, {"42": -2.0})), error="HTTP 500"),
    Asked("load", 0),
]


def test_rows_are_read_back_as_they_were(tmp_path: Path) -> None:
    write_quality(tmp_path / FILE_NAME, ROWS)
    assert read_quality(tmp_path / FILE_NAME) == ROWS


def test_a_file_of_an_earlier_version_has_no_text_of_answers(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    write_quality(path, ROWS)
    pq.write_table(pq.read_table(path).drop_columns("answer"), path)
    assert read_quality(path) == [replace(row, answer=None) for row in ROWS]


def test_nothing_said_makes_no_file(tmp_path: Path) -> None:
    write_quality(tmp_path / FILE_NAME, [])
    assert not (tmp_path / FILE_NAME).exists()
    assert read_quality(tmp_path / FILE_NAME) == []


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    write_quality(path, ROWS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match="damaged"):
        read_quality(path)
