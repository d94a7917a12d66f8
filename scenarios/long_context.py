"""Generate questions at the end of long texts whose lengths (depths) double from the least to the most.

The depths come in turn, so that all have equally many requests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random

from serving_bench.harness.contracts import Conversation, Message, Scenario, Turn, key, within
from serving_bench.harness.errors import UserError
from serving_bench.scenarios.lengths import ANSWER, MOST_TOKENS, length, length_key, most_together
from serving_bench.scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class LongContextOptions(TextOptions):
    """Depths in tokens: `least_tokens`, twice that and so on, and at last `most_tokens`."""

    least_tokens: int = key(512, "The tokens of the shortest prompt.", within(1, MOST_TOKENS))
    most_tokens: int = key(3072, "The tokens of the longest prompt.", within(1, MOST_TOKENS))
    output_tokens: int | str = length_key(32, ANSWER)

    def __post_init__(self) -> None:
        if self.most_tokens < self.least_tokens:
            raise UserError(
                f"scenario.most_tokens={self.most_tokens}: less than "
                f"scenario.least_tokens={self.least_tokens}"
            )


def depths(options: LongContextOptions) -> list[int]:
    """Return the depths in tokens, from the least to the most."""
    steps, depth = [], options.least_tokens
    while depth < options.most_tokens:
        steps.append(depth)
        depth *= 2
    return [*steps, options.most_tokens]


def conversations(options: LongContextOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end. `group` is the depth's index."""
    outputs, ladder = length("output_tokens", options.output_tokens), depths(options)
    for place in cycle(range(len(ladder))):
        text = prose(rng, options.words(ladder[place]))
        prompt = Message("user", f"{text}\n\nWhich of these sentences matters most, and why?")
        yield Conversation((Turn((prompt,), outputs(rng)),), group=place)


def largest(options: LongContextOptions) -> int | None:
    """Return about how many tokens the deepest request and its answer have; None if there is no limit."""
    answer = most_together((1, length("output_tokens", options.output_tokens)))
    return None if answer is None else options.most_tokens + answer


SCENARIO = Scenario(
    "long_context",
    "questions at depths that double (scenario.least_tokens=1024 scenario.most_tokens=16384)",
    LongContextOptions,
    conversations,
    largest=largest,
)
