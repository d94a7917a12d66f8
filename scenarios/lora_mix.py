"""Generate single requests for many LoRA adapters of one model, some more popular than others.

A conversation's group is its adapter. Every prompt has its own text, so that no cache has it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from random import Random

from serving_bench.harness.contracts import Adapter, Conversation, Message, Scenario, Turn, key, within
from serving_bench.harness.errors import UserError
from serving_bench.scenarios.fixed import largest
from serving_bench.scenarios.lengths import ANSWER, PROMPT, length_key, lengths, places
from serving_bench.scenarios.text import TextOptions, prose

# A server holds all of them, and command lines may name them.
MOST_ADAPTERS = 1000
# Characters without a meaning in a server's list of adapters: NAME=PATH, separated by commas or spaces.
_PLAIN = re.compile(r"[^\s,=@:]+")


@dataclass(frozen=True)
class LoraMixOptions(TextOptions):
    adapters: str = key(
        "4",
        "How many random ones; or directories in PEFT's layout, each ending in /, separated by :; or names "
        "that a running server has for its own.",
        foreign="adapters",
    )
    zipf: float = key(1.0, "How much rarer later ones are, by Zipf's law; 0: all alike.", within(0, 10))
    input_tokens: int | str = length_key(256, PROMPT)
    output_tokens: int | str = length_key(64, ANSWER)

    def __post_init__(self) -> None:
        _ = self.lora  # raises UserError

    @property
    def lora(self) -> tuple[Adapter, ...]:
        """Return them, the most popular first. Raise UserError for a malformed list."""
        given = str(self.adapters)
        if re.fullmatch(r"-?\d+", given):
            if not 1 <= int(given) <= MOST_ADAPTERS:
                raise UserError(f"scenario.adapters={given}: must be from 1 to {MOST_ADAPTERS}")
            return tuple(Adapter(f"random-{number}") for number in range(int(given)))
        mix = [_own(each) for each in given.split(":")]
        if len({each.name for each in mix}) < len(mix):
            raise UserError(
                f"scenario.adapters={given}: two have the same name, but requests choose an adapter by its "
                "name"
            )
        for each in mix:
            if not each.name or not _PLAIN.fullmatch(str(each.source)):
                raise UserError(
                    f"scenario.adapters={given}: must be a number, or directories in PEFT's layout (for a "
                    "running server: names) separated by :, without space, comma, = or @"
                )
        return tuple(mix)


def _own(text: str) -> Adapter:
    return Adapter(PurePath(text).name, text.rstrip("/")) if text.endswith("/") else Adapter(text, text)


def conversations(options: LoraMixOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    names = [each.name for each in options.lora]
    for group in places(rng, len(names), options.zipf):
        prompt = Message("user", prose(rng, options.words(inputs(rng))))
        yield Conversation((Turn((prompt,), outputs(rng), adapter=names[group]),), group=group)


SCENARIO = Scenario(
    "lora_mix",
    "requests for many LoRA adapters (scenario.adapters=8, or DIR:DIR2)",
    LoraMixOptions,
    conversations,
    largest=largest,
)
