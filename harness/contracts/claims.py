"""Types for what a run says of a published sentence, in words: terminal and page have the same."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ToldPart:
    """What one predicate came to: what was asked, a row of texts for each case, and notes on them."""

    asked: str
    rows: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ToldClaim:
    """The content of claim.json: what the run says of the claim that it was judged by last.

    `answer`: `kv_waste: reproduced`, and why where it was not tested. `differs`: rows of texts, a condition
    of the original each. `again` is the command that judges it. `of_end`: when the run had ended that was
    judged; it may have gone on since.
    """

    sentence: str
    source: str
    reading: str
    answer: str
    parts: tuple[ToldPart, ...]
    differs: tuple[Mapping[str, str], ...]
    again: str = ""
    of_end: str | None = None
