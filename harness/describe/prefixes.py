"""Find the longest prefix of a prompt that was sent before, as a prefix cache of unlimited size would. Pure.

Knows no scenario: a prompt is a sequence of tokens, and a token is anything that can be hashed.
"""

from collections.abc import Hashable, Iterable
from typing import NamedTuple


class Known(NamedTuple):
    """How many of a prompt's first tokens were sent before: first by others, and by the sender itself."""

    of_others: int
    own: int


class Prefix(NamedTuple):
    """The beginning of a prompt that was sent: its hash, its length, and how much others had sent first."""

    hash: int = 0
    tokens: int = 0
    of_others: int = 0


NOTHING = Prefix()


class Sent:
    """All that was sent so far, kept as a hash per prefix: about 100 bytes for a token.

    With a million tokens two prefixes have the same hash (of 61 bits) in one of some million runs.
    """

    def __init__(self) -> None:
        self._first: dict[int, int] = {}  # who sent it first, by the hash of a prefix

    def add(
        self,
        prompt: Iterable[Hashable],
        answer: Iterable[Hashable],
        sender: int,
        prefix: Prefix = NOTHING,
    ) -> tuple[Known, Prefix, Prefix]:
        """Keep a prompt and its answer, which the server has seen as well.

        `prompt` follows a `prefix` that the sender has sent before. Return how much of the whole prompt was
        known, the whole prompt, and the prompt with its answer. Every prefix of what was kept is kept, so the
        known tokens of a prompt are all at its beginning.
        """
        whole, new = self._extended(prefix, prompt, sender)
        answered, _ = self._extended(whole, answer, sender)
        return Known(whole.of_others, whole.tokens - whole.of_others - new), whole, answered

    def _extended(self, prefix: Prefix, tokens: Iterable[Hashable], sender: int) -> tuple[Prefix, int]:
        """Return the prefix followed by these tokens, and how many of them nobody had sent."""
        first, (key, length, of_others), new = self._first, prefix, 0
        for token in tokens:
            key = hash((key, token))
            length += 1
            owner = first.get(key)
            if owner is None:
                first[key] = sender
                new += 1
            elif owner != sender:
                of_others += 1
        return Prefix(key, length, of_others), new
