"""Draw lengths in tokens, and places by Zipf's law.

A length is written as `512`, `256..1024`, `lognormal:512:0.5` (median, sigma of the logarithm) or
`azure.csv:Column`, which draws from a file's column.
"""

import csv
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import isfinite, log
from random import Random

from serving_bench.harness.contracts import key
from serving_bench.harness.errors import UserError, expanded
from serving_bench.harness.foreign_files import lines, opened_text

# The most tokens of one prompt or answer; more is a mistake.
MOST_TOKENS = 10_000_000
# The most prefixes, turns or requests at once; more take too long to make.
MOST_ITEMS = 100_000


@dataclass(frozen=True)
class Length:
    """A distribution of lengths of 1 or more tokens, from `least` to `most`; None is no limit."""

    draw: Callable[[Random], int]
    most: int | None
    least: int | None

    def __call__(self, rng: Random) -> int:
        return self.draw(rng)


def most_together(*parts: tuple[int, Length]) -> int | None:
    """Return the most tokens of all parts, each a count and a length; None if a length has no limit."""
    if any(each.most is None for _, each in parts):
        return None
    return sum(count * (each.most or 0) for count, each in parts)


# What options mean that several scenarios have.
THINK_TIME = "How long a user waits before a further turn."
PROMPT, ANSWER = "The tokens of a prompt.", "The tokens of an answer."


def length_key(default: int | str, about: str) -> int | str:
    """Return an option of a scenario that is a length: `input_tokens: int | str = length_key(64, PROMPT)`."""
    return key(default, about, foreign="length")


def places(rng: Random, count: int, zipf: float) -> Iterator[int]:
    """Yield places from 0 to `count` - 1 without end, by Zipf's law.

    The k-th place is k to the power of `zipf` times rarer than the first. With 0 all are equally likely.
    """
    weights = list(accumulate((1 + place) ** -zipf for place in range(count)))
    while True:
        yield min(bisect(weights, rng.random() * weights[-1]), count - 1)


def lengths(options: object, *keys: str) -> list[Length]:
    """Return the Length of each of these options. Raises as `length`."""
    return [length(key, getattr(options, key)) for key in keys]


@lru_cache(maxsize=64)
def length(key: str, given: int | str) -> Length:
    """Return the Length that a key's value describes. Raises UserError, which begins with the key."""
    if is_column(str(given)):
        path, _, column = str(given).rpartition(":")
        return _of_column(f"scenario.{key}={given}", path, column)
    name, colon, rest = str(given).partition(":")
    least, dots, most = name.partition("..")
    try:
        if name == "lognormal":
            median, _, sigma = rest.partition(":")
            return _lognormal(float(median), float(sigma))
        if colon:
            raise ValueError
        return _range(int(least), int(most if dots else least))
    except ValueError as error:
        raise UserError(
            f"scenario.{key}={given}: must be a number from 1 to {MOST_TOKENS}, a range such as "
            "256..1024, lognormal:MEDIAN:SIGMA such as lognormal:512:0.5, or FILE.csv:COLUMN"
        ) from error


def _range(least: int, most: int) -> Length:
    if not 1 <= least <= most <= MOST_TOKENS:
        raise ValueError
    return Length(lambda rng: least + int(rng.random() * (most - least + 1)), most, least)


def _lognormal(median: float, sigma: float) -> Length:
    if not (1 <= median <= MOST_TOKENS and isfinite(sigma) and 0 <= sigma <= 5):
        raise ValueError
    return Length(
        lambda rng: min(MOST_TOKENS, max(1, round(rng.lognormvariate(log(median), sigma)))), None, None
    )


def is_column(given: str) -> bool:
    """Return whether a length is FILE.csv:COLUMN."""
    path, colon, _ = given.rpartition(":")
    return bool(colon) and (path.endswith(".csv") or "/" in path)


def _of_column(where: str, path: str, column: str) -> Length:
    """Return lengths as frequent as in the column. Keeps only counts: a trace may have millions of rows."""
    counts = Counter(_values(where, path, column))
    del counts[0]  # failed requests
    if not counts:
        raise UserError(f"{where}: has no length above 0")
    values = sorted(counts)
    until = list(accumulate(counts[value] for value in values))
    return Length(lambda rng: values[bisect(until, int(rng.random() * until[-1]))], values[-1], values[0])


def _values(where: str, path: str, column: str) -> Iterator[int]:
    with opened_text(expanded(where.partition("=")[0], path), where) as file:
        rows = csv.reader(lines(file))
        names = next(rows, ["none"])
        if column not in names:
            raise UserError(f"{where}: no such column; choose from {', '.join(names)}")
        place = names.index(column)
        for row in rows:
            if row:
                yield _count(where, rows.line_num, row[place] if place < len(row) else None)


def _count(where: str, line: int, value: str | None) -> int:
    with suppress(ValueError, OverflowError):
        number = float(value or "")
        if 0 <= number <= MOST_TOKENS and number == int(number):
            return int(number)
    raise UserError(f"{where}, line {line}: {value!s:.60}: must be a whole number from 0 to {MOST_TOKENS}")
