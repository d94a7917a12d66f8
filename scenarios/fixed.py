"""Generate single requests of given lengths, as in most published tables.

Every prompt has its own text, so that no cache has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from harness.contracts import Conversation, Message, Scenario, Turn
from scenarios.lengths import lengths, most_together
from scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class FixedOptions(TextOptions):
    """Lengths in tokens: a number, a range (256..1024), or another form that scenarios/lengths.py reads."""

    input_tokens: int | str = 512
    output_tokens: int | str = 128


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
