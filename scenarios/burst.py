"""Generate a steady stream of requests and, in the middle, a burst of others: how long does recovery take?

The scenario itself sets when conversations begin, as a trace does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from harness.contracts import Conversation, Message, Scenario, Turn
from harness.errors import UserError
from scenarios.lengths import MOST_ITEMS, length, lengths, need
from scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class BurstOptions(TextOptions):
    """Lengths in tokens, written as in `fixed`.

    Requests come evenly at `rate_per_s` for `quiet_s`, then `burst` of them at once, then evenly again for
    `after_s`. A conversation's `group` is 0 before the burst, 1 in it, 2 after it.
    """

    rate_per_s: float = 1.0
    quiet_s: float = 6.0
    burst: int = 16
    after_s: float = 12.0
    input_tokens: int | str = "64..192"
    output_tokens: int | str = "16..48"

    def __post_init__(self) -> None:
        super().__post_init__()
        need(self, 1, MOST_ITEMS, "burst")
        for key in ("rate_per_s", "quiet_s", "after_s"):
            if not 0 < getattr(self, key) <= MOST_ITEMS:
                name = key.removesuffix("_s").removesuffix("_per")
                raise UserError(
                    f"scenario.{name}={getattr(self, key):g}: must be above 0, and {MOST_ITEMS} or less"
                )


def instants(options: BurstOptions) -> Iterator[tuple[float, int]]:
    """Yield when each conversation begins, in seconds from the first, and its group."""
    before, after = (int(each * options.rate_per_s) for each in (options.quiet_s, options.after_s))
    yield from ((number / options.rate_per_s, 0) for number in range(before))
    yield from ((options.quiet_s, 1) for _ in range(options.burst))
    yield from ((options.quiet_s + (1 + number) / options.rate_per_s, 2) for number in range(after))


def conversations(options: BurstOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn, in the order of their instants."""
    inputs, outputs = lengths(options, "input_tokens", "output_tokens")
    for arrival_s, group in instants(options):
        prompt = Message("user", prose(rng, options.words(inputs(rng))))
        yield Conversation((Turn((prompt,), outputs(rng)),), arrival_s, group)


def arrivals(options: BurstOptions) -> Iterator[tuple[float, int]]:
    """See harness.contracts.Scenario."""
    outputs, rng = length("output_tokens", options.output_tokens), Random(0)
    return ((arrival_s, outputs(rng)) for arrival_s, _ in instants(options))


SCENARIO = Scenario(
    "burst",
    "a quiet stream, then many at once (scenario.burst=32)",
    BurstOptions,
    conversations,
    arrivals,
)
