"""Requests of given lengths."""

from itertools import islice
from random import Random

from serving_bench.harness.contracts import Turn
from serving_bench.scenarios.fixed import SCENARIO, FixedOptions


def turns(options: FixedOptions, seed: int = 1, count: int = 50) -> list[Turn]:
    return [each.turns[0] for each in islice(SCENARIO.conversations(options, Random(seed)), count)]


def test_prompts_and_answers_are_as_long_as_asked_for() -> None:
    found = turns(FixedOptions(input_tokens=1000, output_tokens="8..12", tokens_per_word=2.0))
    assert {len(turn.messages[0].content.split(" ")) for turn in found} == {500}
    assert {turn.max_tokens for turn in found} == {8, 9, 10, 11, 12}


def test_no_two_prompts_begin_alike() -> None:
    found = [turn.messages[0].content for seed in (1, 2) for turn in turns(FixedOptions(), seed)]
    assert len({prompt[:200] for prompt in found}) == len(found)
