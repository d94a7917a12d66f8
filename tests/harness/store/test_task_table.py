"""Each answer to an item of a task is on disk with its score."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from harness.contracts import Item
from harness.errors import StoreError
from harness.store.task_table import FILE_NAME, read_items, write_items

ITEMS = [
    Item("bench-basics", "choice-00", 1.0, "B", "ab" * 32),
    Item("bench-basics", "choice-01", None, "", "cd" * 32, error="HTTP 500: overloaded"),
    Item("ifeval", "ifeval/7", 0.5, "né\n", "ef" * 32),
]


def test_items_are_read_back_as_they_were(tmp_path: Path) -> None:
    write_items(tmp_path / FILE_NAME, ITEMS)
    assert read_items(tmp_path / FILE_NAME) == ITEMS


def test_no_items_make_no_file(tmp_path: Path) -> None:
    write_items(tmp_path / FILE_NAME, [])
    assert not (tmp_path / FILE_NAME).exists()
    assert read_items(tmp_path / FILE_NAME) == []


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    write_items(path, ITEMS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match="damaged"):
        read_items(path)


@pytest.mark.parametrize("score", [-math.inf, math.inf, math.nan])
def test_a_score_that_is_not_finite_is_none(tmp_path: Path, score: float) -> None:
    write_items(tmp_path / FILE_NAME, [replace(ITEMS[0], score=score), ITEMS[2]])
    assert [each.score for each in read_items(tmp_path / FILE_NAME)] == [None, 0.5]
