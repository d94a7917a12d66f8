"""What a server said beside its load is on disk as it was said, each answer to an item with its score."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from serving_bench.harness.contracts import Asked, Item, Token
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store.named_files import QUALITY_FILE, TASKS_FILE
from serving_bench.harness.store.quality_table import read_items, read_quality, write_items, write_quality

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
ITEMS = [
    Item("bench-basics", "choice-00", 1.0, "B", "ab" * 32),
    Item("bench-basics", "choice-01", None, "", "cd" * 32, error="HTTP 500: overloaded"),
    Item("ifeval", "ifeval/7", 0.5, "né\n", "ef" * 32),
]


BOTH = pytest.mark.parametrize(
    ("write", "read", "rows"), [(write_quality, read_quality, ROWS), (write_items, read_items, ITEMS)]
)


@BOTH
def test_rows_are_read_back_as_they_were(tmp_path: Path, write: Any, read: Any, rows: list[Any]) -> None:
    write(tmp_path / "rows.parquet", rows)
    assert read(tmp_path / "rows.parquet") == rows


def test_a_file_of_an_earlier_version_has_no_text_of_answers(tmp_path: Path) -> None:
    path = tmp_path / QUALITY_FILE
    write_quality(path, ROWS)
    pq.write_table(pq.read_table(path).drop_columns("answer"), path)
    assert read_quality(path) == [replace(row, answer=None) for row in ROWS]


@BOTH
def test_nothing_said_makes_no_file(tmp_path: Path, write: Any, read: Any, rows: list[Any]) -> None:
    write(tmp_path / "rows.parquet", [])
    assert not (tmp_path / "rows.parquet").exists()
    assert read(tmp_path / "rows.parquet") == []


@BOTH
def test_a_torn_file_is_named(tmp_path: Path, write: Any, read: Any, rows: list[Any]) -> None:
    path = tmp_path / "rows.parquet"
    write(path, rows)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match="damaged"):
        read(path)


@pytest.mark.parametrize("score", [-math.inf, math.inf, math.nan, 1e300, -1e20])
def test_a_score_that_is_not_finite_or_absurd_is_none(tmp_path: Path, score: float) -> None:
    write_items(tmp_path / TASKS_FILE, [replace(ITEMS[0], score=score), ITEMS[2]])
    assert [each.score for each in read_items(tmp_path / TASKS_FILE)] == [None, 0.5]
