"""What the conversations of a run need of a server: how many are under way at once, and how long a context.

Looks at the first conversations of each scenario, and at all of a trace. Pure but for a scenario's file;
knows no engine. A run says what it told its servers and why, since requests wait in a server that may serve
too few at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice
from math import ceil
from random import Random

from harness.contracts import Conversation, Load, PlannedStart, ScenarioChoice
from harness.errors import UserError
from scenarios import SCENARIOS

# --- requests at once -------------------------------------------------------------------------------------

# How fast one answer comes, at the slowest that is thought of: about as fast as a person reads. Faster
# servers need fewer sequences than they are told.
ANSWER_TOKENS_PER_S = 10.0
# Of an open loop. Fewer would make bursts wait; some engines reserve a whole engine.context_length for each:
# llama.cpp at 64 and 4,096 tokens takes 2.2 GiB at 270M parameters.
FEWEST, MOST = 8, 256
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
    pace = f"at {ANSWER_TOKENS_PER_S:g} output tokens/s"
    arrivals = SCENARIOS[scenario.name].arrivals(scenario.options)
    if load.rate_per_s is None and arrivals is not None:
        count = _busiest(arrivals, load.speedup)
        why = f"the busiest moment of {load.label}, {pace}"
    else:
        assert load.rate_per_s is not None
        found = _first(scenario, Random(0), _LOOKED_AT)
        each_s = sum(map(_duration_s, found)) / len(found)
        count = ceil(load.rate_per_s * each_s)
        why = f"load.rate={load.rate_per_s:g}/s x {each_s:.3g} s, a conversation of {scenario.name} {pace}"
    kept = min(max(count, FEWEST), MOST)
    bound = "" if kept == count else f", but {kept} at the {'least' if count < kept else 'most'}"
    return AtOnce(kept, why + bound)


def _first(scenario: ScenarioChoice, rng: Random, count: int) -> list[Conversation]:
    return list(islice(SCENARIOS[scenario.name].conversations(scenario.options, rng), count))


def _duration_s(conversation: Conversation) -> float:
    return sum(turn.max_tokens / ANSWER_TOKENS_PER_S + turn.think_time_s for turn in conversation.turns)


def _busiest(arrivals: Iterable[tuple[float, int]], speedup: float) -> int:
    """Return the most conversations of a trace that are under way at once."""
    changes = []
    for arrival_s, output_tokens in arrivals:
        begun_s = arrival_s / speedup
        changes += [(begun_s, 1), (begun_s + output_tokens / ANSWER_TOKENS_PER_S, -1)]
    return max(accumulate(change for _, change in sorted(changes)))


# --- context ----------------------------------------------------------------------------------------------

# A word counts as one token, which hardly a tokenizer beats, and the chat template as nothing: what does not
# fit by that does not fit. Common tokenizers make up to 1.3 tokens of an English word, with the chat
# template's share.
_TOKENS_PER_WORD = 1.3
# Of each scenario, the first that are played.
_MEASURED = 8


def sizes_of(conversation: Conversation, *, is_scripted: bool) -> tuple[int, int]:
    """Return the tokens of a conversation's largest request with its answer: at least, and likely.

    At least: without the answers before it, unless they are scripted; likely: these as long as they may be.
    `is_scripted`: the scenario's own answers go back instead of the model's.
    """
    least = likely = least_before = likely_before = 0
    for turn in conversation.turns:
        words = sum(len(message.content.split()) for message in turn.messages)
        least = max(least, least_before + words + turn.max_tokens)
        likely = max(likely, likely_before + words + turn.max_tokens)
        scripted = len(turn.answer.split()) if is_scripted and turn.answer is not None else None
        least_before += words + (scripted or 0)
        likely_before += words + (turn.max_tokens if scripted is None else scripted)
    return least, likely


def check_context(starts: Sequence[PlannedStart]) -> None:
    """Raise UserError where none of a scenario's first conversations can be held by a server."""
    for line, is_hopeless in _too_short(starts):
        if is_hopeless:
            raise UserError(line)


def context_lines(starts: Sequence[PlannedStart]) -> list[str]:
    """Return a line for each context that some of the conversations are too long for."""
    return [line for line, _ in _too_short(starts)]


def _too_short(starts: Sequence[PlannedStart]) -> Iterator[tuple[str, bool]]:
    """Yield a line for each context that bench tells a server and that some conversations of a scenario are
    too long for, and whether all of them are."""
    terms = {start.deployment.terms for start in starts}
    lengths = sorted({each.context_length for each in terms if each.context_length and not each.base_url})
    cells = {cell.scenario.label: cell for start in starts[:1] for cell in reversed(start.cells)}
    for label, cell in cells.items():
        is_scripted = cell.scenario.options.history == "scripted"
        # As the cell's load will make them.
        first = _first(cell.scenario, Random(cell.seed), min(_MEASURED, cell.load.conversations or _MEASURED))
        least, likely = zip(*(sizes_of(each, is_scripted=is_scripted) for each in first), strict=True)
        would_hold = 1 << int(max(likely) * _TOKENS_PER_WORD).bit_length()
        for length in lengths:
            line, count = f"engine.context_length={length}: ", sum(tokens > length for tokens in likely)
            if min(least) > length:
                line += f"holds no conversation of {label}: they need {min(least)} tokens or more, a word as "
                yield f"{line}one; give {would_hold}, or shorter conversations", True
            elif count:
                line += (
                    f"{count} of the first {len(likely)} conversations of {label} are longer, up to about "
                )
                line += f"{max(likely)} tokens, a word as one: their last requests fail or are cut; "
                yield f"{line}{would_hold} would hold them", False
