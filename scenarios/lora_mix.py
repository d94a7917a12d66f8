"""Generate single requests for many LoRA adapters of one model, some of which are asked for more than others.

Each conversation's group is its adapter. Each prompt is another text, so that no cache knows it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from random import Random

from harness.contracts import Adapter, Conversation, Message, Scenario, Turn
from harness.errors import UserError
from scenarios.lengths import lengths, most_together, need, places
from scenarios.text import TextOptions, prose

# A server holds all of them, and some of their names stand in command lines.
MOST_ADAPTERS = 1000
# What a server's list of adapters has no meaning for: NAME=PATH, with commas or spaces between.
_PLAIN = re.compile(r"[^\s,=@:]+")


@dataclass(frozen=True)
class LoraMixOptions(TextOptions):
    """Lengths in tokens, as those of `fixed`. `zipf`: how much rarer later adapters are (see `places`).

    `adapters`: how many random ones; or directories in PEFT's layout, each with `/` behind it, with `:`
    between them; or a running server's names of its own.
    """

    adapters: str = "4"
    zipf: float = 1.0
    input_tokens: int | str = 256
    output_tokens: int | str = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self, 0, 10, "zipf")
        adapters(self)


def adapters(options: LoraMixOptions) -> tuple[Adapter, ...]:
    """Return the adapters that are asked for, the commonest first. Raise UserError for a list of none."""
    given = str(options.adapters)
    if re.fullmatch(r"-?\d+", given):
        if not 1 <= int(given) <= MOST_ADAPTERS:
            raise UserError(f"scenario.adapters={given}: must be from 1 to {MOST_ADAPTERS}")
        return tuple(Adapter(f"random-{number}") for number in range(int(given)))
    found = [_own(each) for each in given.split(":")]
    if len({each.name for each in found}) < len(found):
        raise UserError(
            f"scenario.adapters={given}: two have the same name, by which requests tell them apart"
        )
    for each in found:
        if not each.name or not _PLAIN.fullmatch(str(each.source)):
            raise UserError(
                f"scenario.adapters={given}: must be a number, or directories in PEFT's layout (of a running "
                "server names) with : between them, and no space, comma, = or @ in them"
            )
    return tuple(found)


def _own(text: str) -> Adapter:
    return Adapter(PurePath(text).name, text.rstrip("/")) if text.endswith("/") else Adapter(text, text)


def conversations(options: LoraMixOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    names = [each.name for each in adapters(options)]
    for group in places(rng, len(names), options.zipf):
        prompt = Message("user", prose(rng, options.words(inputs(rng))))
        yield Conversation((Turn((prompt,), outputs(rng), adapter=names[group]),), group=group)


def largest(options: LoraMixOptions) -> int | None:
    """Return the tokens of the longest prompt and answer, about; None if they have no end."""
    return most_together(*((1, each) for each in lengths(options, "input_tokens", "output_tokens")))


SCENARIO = Scenario(
    "lora_mix",
    "requests for many LoRA adapters (scenario.adapters=8, or DIR:DIR2)",
    LoraMixOptions,
    conversations,
    largest=largest,
    adapters=adapters,
)
