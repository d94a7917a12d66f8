"""Traces are replayed with their instants and lengths; blocks that are equal have equal text."""

import json
import tracemalloc
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from serving_bench.harness.contracts import Conversation
from serving_bench.harness.errors import UserError
from serving_bench.scenarios.trace import SCENARIO, TraceOptions


def jsonl(path: Path, *records: dict[str, Any]) -> TraceOptions:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return TraceOptions(path=str(path), tokens_per_word=1.0)


def mooncake(at_ms: int, tokens: int, *blocks: int, output: int = 4) -> dict[str, Any]:
    return {"timestamp": at_ms, "input_length": tokens, "output_length": output, "hash_ids": list(blocks)}


def played(options: TraceOptions, seed: int = 1) -> list[Conversation]:
    return list(SCENARIO.conversations(options, Random(seed)))


def prompts(options: TraceOptions, seed: int = 1) -> list[list[str]]:
    return [each.turns[0].messages[0].content.split(" ") for each in played(options, seed)]


def test_a_row_is_one_turn_at_its_instant_from_the_first(tmp_path: Path) -> None:
    options = jsonl(tmp_path / "t", mooncake(5000, 30, 1), mooncake(7500, 40, 2, output=9))
    first, second = played(options)
    assert (first.arrival_s, second.arrival_s) == (0.0, 2.5)
    assert [len(each.turns) for each in (first, second)] == [1, 1]
    assert (first.turns[0].max_tokens, second.turns[0].max_tokens) == (4, 9)
    assert [len(words) for words in prompts(options)] == [30, 40]
    assert list(SCENARIO.arrivals(options)) == [(0.0, 4), (2.5, 9)]


def test_prompts_share_the_text_of_shared_blocks_and_no_more(tmp_path: Path) -> None:
    options = jsonl(
        tmp_path / "t", mooncake(0, 1100, 1, 2, 3), mooncake(1, 1500, 1, 2, 4), mooncake(2, 600, 1, 5)
    )
    one, two, three = prompts(options)
    assert [len(words) for words in (one, two, three)] == [1100, 1500, 600]
    assert one[:1024] == two[:1024]
    assert one[1024:1100] != two[1024:1100]
    assert three[:512] == one[:512]
    assert three[512:600] != one[512:600]


def test_a_last_block_that_is_cut_is_the_beginning_of_the_whole_one(tmp_path: Path) -> None:
    cut, whole = prompts(jsonl(tmp_path / "t", mooncake(0, 100, 1), mooncake(1, 512, 1)))
    assert whole[:100] == cut


def test_a_prompt_longer_than_its_blocks_is_filled_up(tmp_path: Path) -> None:
    one, two = prompts(jsonl(tmp_path / "t", mooncake(0, 600, 1), mooncake(1, 600, 1)))
    assert len(one) == 600
    assert one[:512] == two[:512]
    assert one[512:] != two[512:]


def test_another_seed_gives_other_text_and_the_same_gives_the_same(tmp_path: Path) -> None:
    options = jsonl(tmp_path / "t", mooncake(0, 600, 1), mooncake(1, 20))
    assert prompts(options, 1) == prompts(options, 1)
    assert all(one != two for one, two in zip(prompts(options, 1), prompts(options, 2), strict=True))


def test_tokens_per_word_scales_prompts_and_blocks(tmp_path: Path) -> None:
    path = tmp_path / "t"
    jsonl(path, mooncake(0, 1000, 1, 2), mooncake(1, 1000, 1, 3))
    one, two = prompts(TraceOptions(path=str(path), tokens_per_word=2.0))
    assert len(one) == 500
    assert one[:256] == two[:256]
    assert one[256:] != two[256:]


def test_rows_without_output_are_left_out(tmp_path: Path) -> None:
    options = jsonl(tmp_path / "t", mooncake(0, 9), mooncake(1000, 9, output=0), mooncake(2000, 9))
    assert [each.arrival_s for each in played(options)] == [0.0, 2.0]


def test_a_trace_is_read_once_for_its_instants(tmp_path: Path) -> None:
    options = jsonl(tmp_path / "t", mooncake(0, 9), mooncake(1000, 9))
    first = list(SCENARIO.arrivals(options))
    (tmp_path / "t").unlink()
    assert list(SCENARIO.arrivals(options)) == first == [(0.0, 4), (1.0, 4)]


def test_a_limit_plays_the_first_rows(tmp_path: Path) -> None:
    path = tmp_path / "t"
    jsonl(path, *(mooncake(number * 1000, 9) for number in range(5)))
    options = TraceOptions(path=str(path), limit=2)
    assert len(played(options)) == 2
    assert [at_s for at_s, _ in SCENARIO.arrivals(options)] == [0.0, 1.0]


def test_a_large_trace_is_read_as_it_is_played(tmp_path: Path) -> None:
    path = tmp_path / "t"
    jsonl(path, *(mooncake(number, 9) for number in range(5)))
    with path.open("a") as file:
        file.write("no JSON at all\n")
    read = SCENARIO.conversations(TraceOptions(path=str(path)), Random(1))
    assert len(list(islice(read, 5))) == 5
    with pytest.raises(UserError, match="line 6: not JSON"):
        next(read)


def test_a_row_of_a_large_trace_takes_two_numbers(tmp_path: Path) -> None:
    path, rows = tmp_path / "t", 100_000
    path.write_text("timestamp,input_length,output_length\n" + "".join(f"{row},9,9\n" for row in range(rows)))
    tracemalloc.start()
    assert sum(1 for _ in SCENARIO.arrivals(TraceOptions(path=str(path)))) == rows
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two of 8 bytes, and what an array that grows has to spare.
    assert peak < 20 * rows + 500_000


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (TraceOptions(), "scenario=trace needs scenario.path=FILE"),
        (TraceOptions(path="x", limit=0), "scenario.limit=0: must be 1 or more"),
        (TraceOptions(path="/nowhere"), "scenario.path=/nowhere: cannot be read"),
    ],
)
def test_options_that_cannot_work_are_refused(options: TraceOptions, said: str) -> None:
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        played(options)


def test_a_trace_without_a_row_to_play_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no row with output tokens"):
        list(SCENARIO.arrivals(jsonl(tmp_path / "t", mooncake(0, 9, output=0))))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.jsonl", "not json\n", r"line 1: not JSON"),
        ("t.jsonl", " \n", r"t\.jsonl: is empty"),
        ("t.csv", "", r"t\.csv: is empty"),
        ("t.csv", "not,a,trace\n", r"the columns not, a, trace belong to no trace"),
    ],
)
def test_a_file_that_is_no_trace_is_said_to_be_none(tmp_path: Path, name: str, content: str, said: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        list(SCENARIO.arrivals(TraceOptions(path=str(tmp_path / name))))


def test_a_trace_without_a_row_to_play_has_no_first_conversation(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no row with output tokens"):
        played(jsonl(tmp_path / "t", mooncake(0, 9, output=0)))
