"""Whether the conversations of a plan fit into the context that its servers are told to have.

Counts a word as one token, which hardly a tokenizer beats, and nothing for the chat template: what does not
fit by that does not fit. Pure but for a scenario's file. Knows no engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

from harness.contracts import Conversation, Message, PlannedCell, PlannedStart
from harness.errors import UserError
from scenarios import SCENARIOS

# Of each scenario, the first that are played.
_LOOKED_AT = 8
# Common tokenizers make up to so many tokens of an English word, with the chat template's share.
_TOKENS_PER_WORD = 1.3


@dataclass(frozen=True)
class Sizes:
    """Of a conversation's largest request with its answer, in tokens. `least`: without the answers before it,
    unless they are scripted; `likely`: these as long as they may be."""

    least_tokens: int
    likely_tokens: int


@dataclass(frozen=True)
class Fit:
    """A context length, and the sizes of a scenario's first conversations."""

    context_length: int
    scenario: str
    sizes: tuple[Sizes, ...]

    @property
    def longest_tokens(self) -> int:
        return max(each.likely_tokens for each in self.sizes)

    @property
    def would_hold_tokens(self) -> int:
        """A power of two, with room for what is not counted."""
        return 1 << int(self.longest_tokens * _TOKENS_PER_WORD).bit_length()


def check_context(starts: Sequence[PlannedStart]) -> None:
    """Raise UserError where none of a scenario's first conversations can be held by a server."""
    for fit in _fits(starts):
        shortest = min(each.least_tokens for each in fit.sizes)
        if shortest > fit.context_length:
            raise UserError(
                f"engine.context_length={fit.context_length}: holds no conversation of {fit.scenario}: they "
                f"need {shortest} tokens or more, a word as one; give {fit.would_hold_tokens}, or shorter "
                "conversations"
            )


def context_lines(starts: Sequence[PlannedStart]) -> list[str]:
    """A line for each context that some of the conversations are too long for."""
    return [
        f"engine.context_length={fit.context_length}: {count} of the first {len(fit.sizes)} conversations of "
        f"{fit.scenario} are longer, up to about {fit.longest_tokens} tokens, a word as one: their last "
        f"requests fail or are cut; {fit.would_hold_tokens} would hold them"
        for fit in _fits(starts)
        if (count := sum(each.likely_tokens > fit.context_length for each in fit.sizes))
    ]


def _fits(starts: Sequence[PlannedStart]) -> Iterator[Fit]:
    """Each context length that bench tells a server, with each scenario that it is to hold."""
    terms = dict.fromkeys(start.deployment.terms for start in starts)
    lengths = {each.context_length for each in terms if each.base_url is None}
    cells = {cell.scenario.label: cell for start in starts[:1] for cell in reversed(start.cells)}
    for label, cell in cells.items():
        is_scripted = cell.scenario.options.history == "scripted"
        sizes = tuple(sizes_of(each, is_scripted=is_scripted) for each in _first(cell))
        yield from (Fit(length, label, sizes) for length in sorted(filter(None, lengths)))


def _first(cell: PlannedCell) -> Iterator[Conversation]:
    """As the cell's load will make them."""
    made = SCENARIOS[cell.scenario.name].conversations(cell.scenario.options, Random(cell.seed))
    return islice(made, min(_LOOKED_AT, cell.load.conversations or _LOOKED_AT))


def sizes_of(conversation: Conversation, *, is_scripted: bool) -> Sizes:
    """`is_scripted`: the scenario's own answers go back instead of the model's."""
    least = likely = least_before = likely_before = 0
    for turn in conversation.turns:
        words = _words(turn.messages)
        least_before, likely_before = least_before + words, likely_before + words
        least = max(least, least_before + turn.max_tokens)
        likely = max(likely, likely_before + turn.max_tokens)
        if is_scripted and turn.answer is not None:
            answer = len(turn.answer.split())
            least_before, likely_before = least_before + answer, likely_before + answer
        else:
            likely_before += turn.max_tokens
    return Sizes(least, likely)


def _words(messages: Sequence[Message]) -> int:
    return sum(len(message.content.split()) for message in messages)
