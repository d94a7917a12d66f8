"""Generate a steady stream of requests and, in the middle, a burst of others: how long does recovery take?

The scenario itself sets when conversations begin, as a trace does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from serving_bench.harness.contracts import (
    ABOVE_ZERO,
    Conversation,
    Message,
    Range,
    Scenario,
    Turn,
    key,
    within,
)
from serving_bench.scenarios.lengths import ANSWER, MOST_ITEMS, PROMPT, length, length_key, lengths
from serving_bench.scenarios.text import TextOptions, prose

_TIMES = Range(ABOVE_ZERO, MOST_ITEMS, f"must be above 0, and {MOST_ITEMS} or less")


@dataclass(frozen=True)
class BurstOptions(TextOptions):
    """Lengths in tokens, written as in `fixed`.

    Requests come evenly at `rate_per_s` for `quiet_s`, then `burst` of them at once, then evenly again for
    `after_s`. A conversation's `group` is 0 before the burst, 1 in it, 2 after it.
    """

    rate_per_s: float = key(1.0, "Conversations that begin per second, evenly.", _TIMES, ask_above=256)
    quiet_s: float = key(6.0, "How long before the burst.", _TIMES)
    burst: int = key(16, "How many begin at once.", within(1, MOST_ITEMS))
    after_s: float = key(12.0, "How long after the burst.", _TIMES)
    input_tokens: int | str = length_key("64..192", PROMPT)
    output_tokens: int | str = length_key("16..48", ANSWER)


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
