"""Generate single requests of given lengths, as in most published tables.

Every prompt has its own text, so that no cache has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from serving_bench.harness.contracts import Conversation, Message, Scenario, Turn
from serving_bench.scenarios.lengths import ANSWER, PROMPT, length_key, lengths, most_together
from serving_bench.scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class FixedOptions(TextOptions):
    input_tokens: int | str = length_key(512, PROMPT)
    output_tokens: int | str = length_key(128, ANSWER)


def conversations(options: FixedOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    while True:
        prompt = Message("user", prose(rng, options.words(inputs(rng))))
        yield Conversation((Turn((prompt,), outputs(rng)),))


def largest(options: object) -> int | None:
    """Return about how many tokens the longest prompt and answer have; None if there is no limit."""
    return most_together(*((1, each) for each in lengths(options, "input_tokens", "output_tokens")))


SCENARIO = Scenario(
    "fixed",
    "requests of given lengths (scenario.input_tokens=1024 scenario.output_tokens=128)",
    FixedOptions,
    conversations,
    largest=largest,
)
