"""Generate chats that begin with a long text that many users share: a system prompt or few-shot examples.

There are `prefixes` such texts. A conversation's group is its prefix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from random import Random

from harness.contracts import Conversation, Message, Scenario, Turn
from scenarios.lengths import MOST_ITEMS, length, lengths, most_together, need, places
from scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class SharedPrefixOptions(TextOptions):
    """Lengths in tokens, written as in `fixed`. `zipf`: how much rarer later prefixes are (see `places`)."""

    prefixes: int = 1
    zipf: float = 1.0
    prefix_tokens: int | str = 1024
    input_tokens: int | str = 64
    output_tokens: int | str = 64
    turns: int = 1
    think_time_s: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self, 1, MOST_ITEMS, "prefixes", "turns")
        need(self, 0, inf, "think_time_s")
        need(self, 0, 10, "zipf")


def conversations(options: SharedPrefixOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations without end. Each cell has its own prefixes."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    prefix_tokens, seed = length("prefix_tokens", options.prefix_tokens), rng.getrandbits(64)

    @lru_cache(maxsize=1024)
    def prefix(group: int) -> Message:
        own = Random(f"{seed} {group}")
        return Message("system", prose(own, options.words(prefix_tokens(own))))

    for group in places(rng, options.prefixes, options.zipf):
        turns = []
        for number in range(options.turns):
            asked = Message("user", prose(rng, options.words(inputs(rng))))
            messages = (asked,) if number else (prefix(group), asked)
            max_tokens, think_time_s = outputs(rng), options.think_time_s if number else 0.0
            answer = prose(rng, options.words(max_tokens))
            turns.append(Turn(messages, max_tokens, think_time_s, answer))
        yield Conversation(tuple(turns), group=group)


def largest(options: SharedPrefixOptions) -> int | None:
    """Return about how many tokens the longest last request and its answer have; None for no limit."""
    prefix, inputs, outputs = lengths(options, "prefix_tokens", "input_tokens", "output_tokens")
    return most_together((1, prefix), (options.turns, inputs), (options.turns, outputs))


SCENARIO = Scenario(
    "shared_prefix",
    "one long beginning for many users (scenario.prefixes=4 scenario.prefix_tokens=2048)",
    SharedPrefixOptions,
    conversations,
    largest=largest,
)
