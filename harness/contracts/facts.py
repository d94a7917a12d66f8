"""Read what servers, programs and machines say of themselves, in any shape and any characters."""

from collections.abc import Mapping
from typing import Any

from serving_bench.harness.contracts.records import Scalar
from serving_bench.harness.contracts.sentences import inert as inert

_TEXT_AT_MOST = 1000
_WHOLE_AT_MOST = 2**63 - 1  # what records and tables can hold


def at(page: Any, *path: str | int) -> Any:
    """Return what a JSON page has at `path` (keys and list indices); None if its shape differs."""
    for step in path:
        if isinstance(page, Mapping):
            page = page.get(step)
        elif isinstance(page, list) and isinstance(step, int) and step < len(page):
            page = page[step]
        else:
            return None
    return page


def number(value: object) -> int | float | None:
    """Return a finite number of 64 bits; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _WHOLE_AT_MOST else None  # neither infinite nor NaN


def scalar(value: object) -> Scalar:
    """Return a value that a record can hold: a short text, a number, true, false or None. Anything else
    becomes the beginning of its text."""
    if value is None or isinstance(value, bool):
        return value
    finite = number(value)
    return inert(str(value)[:_TEXT_AT_MOST]) if finite is None else finite


def scalars(facts: object) -> dict[str, Scalar]:
    return {str(name): scalar(value) for name, value in facts.items()} if isinstance(facts, Mapping) else {}


def counts(facts: object) -> dict[str, int]:
    """Return the facts that are whole numbers of at least 0."""
    numbers = scalars(facts)
    return {
        name: value
        for name, value in numbers.items()
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0
    }
