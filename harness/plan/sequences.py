"""How many requests a server is told to serve at once, from the loads of a run. Pure but for a scenario's
file.

Knows no engine. A run says what it told and why, since a bound that is too low makes requests wait in the
server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice
from math import ceil
from random import Random

from harness.contracts import Conversation, Load, ScenarioChoice
from scenarios import SCENARIOS

# How fast one answer comes, at the slowest that is thought of: about as fast as a person reads. Servers that
# are faster need fewer sequences than they are told.
ANSWER_TOKENS_PER_S = 10.0
# Of an open loop. Fewer would make bursts wait; some engines reserve a whole engine.context_length for each
# of them: llama.cpp at 64 and 4,096 tokens takes 2.2 GiB at 270M parameters.
FEWEST, MOST = 8, 256
# Of each scenario, the first conversations.
_LOOKED_AT = 100


@dataclass(frozen=True)
class AtOnce:
    """A number of requests that are served at once. `why` is a clause for people."""

    count: int
    why: str


def at_once(loads: Sequence[Load], scenarios: Sequence[ScenarioChoice]) -> AtOnce:
    """Return what the largest of these loads needs."""
    return max((needed(load, each) for load in loads for each in scenarios), key=lambda each: each.count)


@cache
def needed(load: Load, scenario: ScenarioChoice) -> AtOnce:
    """Return what one load needs: its users, or the conversations that are under way at once in an open loop.

    These are the rate times the seconds that a conversation takes at ANSWER_TOKENS_PER_S, think times
    included; of a trace, those at its busiest moment.
    """
    if load.concurrency is not None:
        return AtOnce(load.concurrency, "the largest load.concurrency")
    made = SCENARIOS[scenario.name].conversations(scenario.options, Random(0))
    found = list(islice(made, _LOOKED_AT))
    pace = f"at {ANSWER_TOKENS_PER_S:g} output tokens/s"
    if load.rate_per_s is None:
        count = _busiest(found, load.speedup)
        why = f"the busiest moment of {load.label}, {pace}"
    else:
        each_s = sum(map(_duration_s, found)) / len(found)
        count = ceil(load.rate_per_s * each_s)
        why = f"load.rate={load.rate_per_s:g}/s x {each_s:.3g} s, a conversation of {scenario.name} {pace}"
    bound = (
        f", but {FEWEST} at the least"
        if count < FEWEST
        else f", but {MOST} at the most"
        if count > MOST
        else ""
    )
    return AtOnce(min(max(count, FEWEST), MOST), why + bound)


def _duration_s(conversation: Conversation) -> float:
    return sum(turn.max_tokens / ANSWER_TOKENS_PER_S + turn.think_time_s for turn in conversation.turns)


def _busiest(conversations: Sequence[Conversation], speedup: float) -> int:
    """Return the most conversations of a trace that are under way at once."""
    begun = [((each.arrival_s or 0.0) / speedup, each) for each in conversations]
    changes = [(at_s, 1) for at_s, _ in begun] + [(at_s + _duration_s(each), -1) for at_s, each in begun]
    return max(accumulate(change for _, change in sorted(changes)))
