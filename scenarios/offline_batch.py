"""Generate single requests of many lengths, as a job that runs over a data set sends them: all at once.

Their lengths are spread about as those of ShareGPT's chats, but shorter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from harness.contracts import Conversation, Message, Scenario, Turn
from scenarios.lengths import length
from scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class OfflineBatchOptions(TextOptions):
    """Lengths in tokens, as those of `fixed`."""

    input_tokens: int | str = "lognormal:100:0.9"
    output_tokens: int | str = "lognormal:48:0.7"


def conversations(options: OfflineBatchOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, outputs = (length(key, getattr(options, key)) for key in ("input_tokens", "output_tokens"))
    while True:
        prompt = Message("user", prose(rng, options.words(inputs(rng))))
        yield Conversation((Turn((prompt,), outputs(rng)),))


SCENARIO = Scenario(
    "offline_batch",
    "requests of many lengths (load.arrival=batch load.conversations=64: all at once)",
    OfflineBatchOptions,
    conversations,
)
