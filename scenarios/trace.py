"""Replay a trace of real traffic: its instants, prompt lengths and answer lengths. The text is made up.

A prompt has about as many tokens as its row says; the report gives the server's count. Prompts that share
blocks in the trace share text.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from random import Random
from typing import Literal

from serving_bench.harness.contracts import COUNT, Conversation, Message, Scenario, Turn, key
from serving_bench.harness.errors import UserError, expanded
from serving_bench.scenarios.text import TextOptions, prose
from serving_bench.scenarios.trace_rows import BLOCK_TOKENS, Row, rows

# How many blocks' texts are kept: about 25 MiB.
_KEPT_BLOCKS = 8192


@dataclass(frozen=True)
class TraceOptions(TextOptions):
    path: str | None = key(None, "The trace or the conversations: CSV or JSON.", foreign="file")
    format: Literal["auto", "mooncake", "azure", "burstgpt"] = key(
        "auto", "The layout of a trace; auto goes by the names of the columns."
    )
    limit: int | None = key(None, "How many rows are played; null: all.", COUNT)


def conversations(options: TraceOptions, rng: Random) -> Iterator[Conversation]:
    """Yield a conversation of one turn for each row, in the file's order, until its end.

    Skips rows without output tokens (mostly failures). Raises UserError with file and line.
    """
    prompts = _Prompts(options, rng)
    for arrival_s, row in _played(options):
        turn = Turn((Message("user", prompts.of(row)),), max_tokens=row.output_tokens)
        yield Conversation((turn,), arrival_s=arrival_s)


def arrivals(options: TraceOptions) -> Iterator[tuple[float, int]]:
    """See harness.contracts.Scenario. The file is read once: a million rows take some seconds."""
    # tokens_per_word changes no arrival, so it is no part of the cache's key.
    return zip(*_arrivals(replace(options, tokens_per_word=None)), strict=True)


@lru_cache(maxsize=4)
def _arrivals(options: TraceOptions) -> "tuple[array[float], array[int]]":
    at_s, output_tokens = array("d"), array("q")
    for arrival_s, row in _played(options):
        at_s.append(arrival_s)
        output_tokens.append(row.output_tokens)
    return at_s, output_tokens


def _played(options: TraceOptions) -> Iterator[tuple[float, Row]]:
    """Yield the rows to play, those with output tokens, each with its seconds since the first."""
    if options.path is None:
        raise UserError("scenario=trace needs scenario.path=FILE, a trace with instants and token lengths")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"scenario.limit={options.limit}: must be 1 or more")
    where = f"scenario.path={options.path}"
    first_s: float | None = None
    read = rows(expanded("scenario.path", options.path), where, options.format)
    for row in islice((row for row in read if row.output_tokens), options.limit):
        first_s = row.at_s if first_s is None else first_s
        yield row.at_s - first_s, row
    if first_s is None:
        raise UserError(f"{where}: has no row with output tokens")


class _Prompts:
    """The texts of one cell's prompts. Equal blocks have equal text.

    Another cell has other texts, so that its prompts are not in a server's cache yet.
    """

    def __init__(self, options: TraceOptions, rng: Random) -> None:
        self._words = options.words
        self._rng = rng
        seed = rng.getrandbits(64)
        words = self._words(BLOCK_TOKENS)
        self._block = lru_cache(_KEPT_BLOCKS)(lambda number: prose(Random(f"{seed} {number}"), words))

    def of(self, row: Row) -> str:
        """Return a prompt of the row's length: its blocks in order, the last one cut, then other words."""
        rng = Random(self._rng.getrandbits(64))
        length, whole = self._words(row.input_tokens), self._words(BLOCK_TOKENS)
        parts = []
        for number in row.blocks or ():
            if length <= 0:
                break
            text = self._block(number)
            parts.append(text if length >= whole else " ".join(text.split(" ", length)[:length]))
            length -= whole
        if length > 0:
            parts.append(prose(rng, length))
        return " ".join(parts)


SCENARIO = Scenario(
    "trace",
    "a trace's instants and lengths: Mooncake, Azure LLM or BurstGPT (scenario.path=FILE)",
    TraceOptions,
    conversations,
    arrivals,
)
