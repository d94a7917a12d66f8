"""Generate short puzzles that a model thinks about for long before it answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from serving_bench.harness.contracts import Conversation, Message, Scenario, Turn
from serving_bench.scenarios.lengths import length_key, lengths
from serving_bench.scenarios.text import TextOptions, prose

_PUZZLES = (
    "{a} boxes hold {b} lamps each. {c} lamps break, and the rest are packed in boxes of {d}. "
    "How many boxes are full?",
    "A train leaves every {b} minutes and a bus every {d} minutes. Both left together at noon. "
    "When do they leave together for the {a}th time after that?",
    "{a} people shake hands with each other once. Then {d} of them go, and {c} others come, who shake hands "
    "with all. How many handshakes were there?",
    "The digits of a number below {c} add up to {d}, and it leaves a rest of 1 when it is divided by {b}. "
    "Which is the largest such number?",
)


@dataclass(frozen=True)
class ReasoningOptions(TextOptions):
    input_tokens: int | str = length_key(32, "The tokens of a story before the puzzle.")
    output_tokens: int | str = length_key(512, "The most tokens of thoughts and answer together.")


def conversations(options: ReasoningOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    while True:
        puzzle = _PUZZLES[int(rng.random() * len(_PUZZLES))]
        a, b, d = (3 + int(rng.random() * 20) for _ in range(3))
        question = puzzle.format(a=a, b=b, c=30 + int(rng.random() * 400), d=d)
        prompt = f"{prose(rng, options.words(inputs(rng)))}\n\n{question} Think step by step."
        yield Conversation((Turn((Message("user", prompt),), outputs(rng)),))


SCENARIO = Scenario(
    "reasoning",
    "short puzzles, long thoughts (scenario.output_tokens=2048)",
    ReasoningOptions,
    conversations,
    ends_itself=True,
)
