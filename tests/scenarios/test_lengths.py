"""Lengths of prompts and answers: what is drawn, and what is refused."""

import tracemalloc
from math import log
from pathlib import Path
from random import Random
from statistics import mean, median, stdev

import pytest

from serving_bench.harness.errors import UserError
from serving_bench.scenarios.lengths import MOST_TOKENS, length


def drawn(given: int | str, count: int = 2000) -> list[int]:
    rng = Random(1)
    return [length("input_tokens", given)(rng) for _ in range(count)]


def test_a_number_is_always_drawn() -> None:
    assert set(drawn(512)) == set(drawn("512")) == {512}


def test_a_range_is_drawn_evenly_with_both_its_ends() -> None:
    found = drawn("3..6")
    assert set(found) == {3, 4, 5, 6}
    assert mean(found) == pytest.approx(4.5, abs=0.1)


def test_a_log_normal_length_has_its_median_and_its_spread() -> None:
    found = drawn("lognormal:500:0.5")
    assert median(found) == pytest.approx(500, rel=0.05)
    assert stdev(map(log, found)) == pytest.approx(0.5, rel=0.05)
    assert 1 <= min(drawn("lognormal:1:5")) <= max(drawn("lognormal:10000000:5")) == MOST_TOKENS


def test_a_column_of_a_file_is_drawn_as_it_is_without_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a trace.csv"
    path.write_text("TIMESTAMP,ContextTokens\n1,10\n2,0\n3,20.0\n4,20\n")
    found = drawn(f"{path}:ContextTokens")
    assert set(found) == {10, 20}
    assert found.count(20) == pytest.approx(2 * found.count(10), rel=0.2)


def test_a_column_of_millions_of_rows_is_kept_as_how_often_each_length_comes(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    path.write_text("tokens\n" + "".join(f"{number % 500}\n" for number in range(400_000)))
    tracemalloc.start()
    made = length("input_tokens", f"{path}:tokens")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert made.most == 499
    # A number for each row would be 3 MB at least.
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "given",
    [
        0, -3, "9..3", "0..3", "1.5", "lognormal:10", "lognormal:0:1", "lognormal:9:nan", "x",
        "lognormall:512:0.5", "normal:5", "512:",
    ],
)  # fmt: skip
def test_what_is_no_length_is_refused_with_what_would_be_one(given: int | str) -> None:
    with pytest.raises(UserError, match=r"^scenario\.input_tokens=.*: must be a number from 1 .*256\.\.1024"):
        length("input_tokens", given)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read \\(No such file"),
        (b"tokens\n", "has no length above 0"),
        (b"tokens\n0\n", "has no length above 0"),
        (b"other\n5\n", "no such column; choose from other"),
        (b"", "no such column; choose from none"),
        (b"tokens\n5\nfive\n", "line 3: five: must be a whole number"),
        (b"tokens\n-5\n", "line 2: -5: must be a whole number"),
        (b"\xff\xfe", "cannot be read \\(not UTF-8 text"),
    ],
)
def test_a_file_that_has_no_lengths_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "lengths.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"^scenario.input_tokens={path}:tokens.*{said}"):
        length("input_tokens", f"{path}:tokens")
