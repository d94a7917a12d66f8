"""An answer in words: what stands out of it, the rest, and the same in one short line. Knows no run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HEADLINE_AT_MOST = 160


@dataclass(frozen=True)
class Said:
    """`lead` names what comes out of it ("vllm awq", "No winner"), `text` goes on in full sentences;
    `headline` is all of it in a few words."""

    lead: str
    text: str
    headline: str

    @property
    def plain(self) -> str:
        return f"{self.lead}. {self.text}".rstrip()


def clipped(text: str, most: int) -> str:
    """At most so many characters: cut between words, with an ellipsis in place of the rest."""
    if len(text) <= most:
        return text
    head, space, _ = text[:most].rpartition(" ")
    return f"{(head if space and len(head) > most // 2 else text[: most - 1]).rstrip(' ,;:(')}…"


def one_of(names: Sequence[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *before, last = names
    return f"{', '.join(before)} or {last}" if before else last


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    whole = text[:1].upper() + text[1:]
    return whole if whole.endswith((".", "!", "?")) else f"{whole}."
