"""Generate chats that begin with a long text that many users share: a system prompt or few-shot examples.

There are `prefixes` such texts. A conversation's group is its prefix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from serving_bench.harness.contracts import Conversation, Message, Range, Scenario, Turn, key, within
from serving_bench.scenarios.lengths import (
    ANSWER,
    MOST_ITEMS,
    PROMPT,
    THINK_TIME,
    length,
    length_key,
    lengths,
    most_together,
    places,
)
from serving_bench.scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class SharedPrefixOptions(TextOptions):
    prefixes: int = key(1, "How many different beginnings prompts have.", within(1, MOST_ITEMS))
    zipf: float = key(1.0, "How much rarer later ones are, by Zipf's law; 0: all alike.", within(0, 10))
    prefix_tokens: int | str = length_key(1024, "The tokens of a prompt's beginning.")
    input_tokens: int | str = length_key(64, PROMPT)
    output_tokens: int | str = length_key(64, ANSWER)
    turns: int = key(1, "The turns of a conversation.", within(1, MOST_ITEMS), ask_above=32)
    think_time_s: float = key(0.2, THINK_TIME, Range(0))


def conversations(options: SharedPrefixOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations without end. Each cell has its own prefixes."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    prefix_tokens, seed = length("prefix_tokens", options.prefix_tokens), rng.getrandbits(64)

    @lru_cache(maxsize=1024)
    def prefix(group: int) -> Message:
        own_rng = Random(f"{seed} {group}")
        return Message("system", prose(own_rng, options.words(prefix_tokens(own_rng))))

    for group in places(rng, options.prefixes, options.zipf):
        turns = []
        for number in range(options.turns):
            message = Message("user", prose(rng, options.words(inputs(rng))))
            messages = (message,) if number else (prefix(group), message)
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
