"""Find the longest prefix of a prompt that was sent before, as a prefix cache without bounds would. Pure.

Knows no scenario: a prompt is a sequence of tokens, and a token is anything that has a hash.
"""

from collections.abc import Hashable, Iterable
from typing import NamedTuple


class Known(NamedTuple):
    """How many of a prompt's first tokens were sent before: first by others, and by the sender itself."""

    of_others: int
    own: int


class Sent:
    """All that was sent so far, kept as a hash per prefix: about 100 bytes for a token.

    With a million tokens two prefixes have the same hash, of 61 bits, once in some million runs.
    """

    def __init__(self) -> None:
        self._first: dict[int, int] = {}  # who sent it first, by the hash of a prefix

    def add(self, prompt: Iterable[Hashable], answer: Iterable[Hashable], sender: int) -> Known:
        """Return what of a prompt is known, and keep it with the answer, which the server has seen as well.

        Every prefix of what was kept is kept, so the known tokens of a prompt are all at its beginning.
        """
        first, prefix, known, own = self._first, 0, 0, 0
        for token in prompt:
            prefix = hash((prefix, token))
            owner = first.get(prefix)
            if owner is None:
                first[prefix] = sender
            elif owner == sender:
                own += 1
            else:
                known += 1
        for token in answer:
            prefix = hash((prefix, token))
            first.setdefault(prefix, sender)
        return Known(known, own)
