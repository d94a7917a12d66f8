"""Generate long texts to summarise in a few words."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from serving_bench.harness.contracts import Conversation, Message, Scenario, Turn
from serving_bench.scenarios.lengths import ANSWER, PROMPT, length_key, lengths
from serving_bench.scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class SummariseOptions(TextOptions):
    input_tokens: int | str = length_key("lognormal:1200:0.4", PROMPT)
    output_tokens: int | str = length_key("48..96", ANSWER)


def conversations(options: SummariseOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    while True:
        text = prose(rng, options.words(inputs(rng)))
        prompt = Message("user", f"{text}\n\nSummarise the text above in three sentences.")
        yield Conversation((Turn((prompt,), outputs(rng)),))


SCENARIO = Scenario(
    "summarise",
    "long texts in, short answers out (scenario.input_tokens=lognormal:2000:0.5)",
    SummariseOptions,
    conversations,
)
