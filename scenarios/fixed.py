"""Generate single requests of given lengths, as the tables that everybody publishes have them.

Each prompt is another text, so that no cache knows it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from harness.contracts import Conversation, Message, Scenario, Turn
from scenarios.lengths import lengths, most_together
from scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class FixedOptions(TextOptions):
    """Lengths in tokens: a number, a range (256..1024), or what else scenarios/lengths.py reads."""

    input_tokens: int | str = 512
    output_tokens: int | str = 128


def conversations(options: FixedOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    while True:
        prompt = Message("user", prose(rng, options.words(inputs(rng))))
        yield Conversation((Turn((prompt,), outputs(rng)),))


def largest(options: FixedOptions) -> int | None:
    """Return the tokens of the longest prompt and answer, about; None if they have no end."""
    return most_together(*((1, each) for each in lengths(options, "input_tokens", "output_tokens")))


SCENARIO = Scenario(
    "fixed",
    "requests of given lengths (scenario.input_tokens=1024 scenario.output_tokens=128)",
    FixedOptions,
    conversations,
    largest=largest,
)
