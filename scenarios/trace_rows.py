"""Read traces of requests row by row: when each request came, and how long its prompt and answer were.

Knows the columns of three public traces, each as CSV with a header or as JSON Lines. None has prompts' texts.

- Mooncake (github.com/kvcache-ai/Mooncake, FAST25-release/traces): timestamp in milliseconds, input_length,
  output_length, hash_ids: one number per 512 tokens of the prompt, equal where prompts share a beginning.
- Azure (github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and 2024.md): TIMESTAMP as a
  date, ContextTokens, GeneratedTokens.
- BurstGPT (github.com/HPMLL/BurstGPT): Timestamp in seconds, Request tokens, Response tokens, 0 where the
  request failed; further columns are not used.
"""

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import json_of, lines, opened_text

BLOCK_TOKENS = 512
MOST_TOKENS = 10_000_000  # of one row; more is a mistake in the file


class Row(NamedTuple):
    """One request. `at_s`: seconds on the trace's own clock. `blocks`: the ids of its prompt's blocks."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] | None = None


class Column(NamedTuple):
    """A column: its name, a function that reads a value, and what values must be.

    `read` raises ValueError or TypeError for any other value.
    """

    name: str
    read: Callable[[Any], Any]
    must_be: str


def _seconds(value: Any) -> float:
    seconds = float(value)
    if not 0 <= seconds < inf:
        raise ValueError
    return seconds


def _milliseconds(value: Any) -> float:
    return _seconds(value) / 1e3


def _date(value: Any) -> float:
    """Return the seconds of an ISO 8601 date, in UTC without an offset. Cuts digits after microseconds."""
    date = datetime.fromisoformat(str(value).strip())
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _tokens(value: Any) -> int:
    number = float(value)
    if not (0 <= number <= MOST_TOKENS and number == int(number)):
        raise ValueError
    return int(number)


def _blocks(value: Any) -> tuple[int, ...] | None:
    """Return the ids in a JSON list, or in text such as `[1, 2]` or `1 2`; None if there are none."""
    if isinstance(value, str):
        if re.sub(r"[\[\],;\s\d-]", "", value):
            raise ValueError
        value = re.findall(r"-?\d+", value)
    return tuple(int(item) for item in value or ()) or None


_COUNT = f"a whole number from 0 to {MOST_TOKENS}"
# The fields of a Row, in its order. A file without the fourth has no blocks.
LAYOUTS = {
    "mooncake": (
        Column("timestamp", _milliseconds, "a number, 0 or more"),
        Column("input_length", _tokens, _COUNT),
        Column("output_length", _tokens, _COUNT),
        Column("hash_ids", _blocks, "a list of whole numbers"),
    ),
    "azure": (
        Column("TIMESTAMP", _date, "a date such as 2023-11-16 18:15:46.68"),
        Column("ContextTokens", _tokens, _COUNT),
        Column("GeneratedTokens", _tokens, _COUNT),
    ),
    "burstgpt": (
        Column("Timestamp", _seconds, "a number, 0 or more"),
        Column("Request tokens", _tokens, _COUNT),
        Column("Response tokens", _tokens, _COUNT),
    ),
}


def rows(path: Path, where: str, layout_name: str = "auto") -> Iterator[Row]:
    """Yield the rows of a trace in order, and read them one at a time.

    Raises UserError, which begins with `where` and names line and value, for a file that cannot be read, for
    columns of no known layout, for a value of the wrong type, and for a time before the previous row's.
    """
    layout: tuple[Column, ...] = ()
    last_s = -inf
    with opened_text(path, where) as file:
        for line, record in _records(file, path.suffix, where, layout_name):
            layout = layout or _layout(record, where, layout_name)
            place = f"{where}, line {line}"
            row = Row(*(_read(record, column, place) for column in layout))
            if row.at_s < last_s:
                raise UserError(f"{place}: comes before the line above; sort it by time")
            last_s = row.at_s
            yield row


def _records(
    file: TextIO, suffix: str, where: str, layout_name: str
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number of each line, and its values by the columns' names in lower case."""
    begin = file.read(4096).lstrip()
    if not begin:
        raise UserError(f"{where}: is empty")
    is_json = begin.startswith("{") or suffix in (".json", ".jsonl")
    file.seek(0)
    if not is_json:
        table = csv.reader(lines(file))
        names = [name.strip().lower() for name in next(table, ())]
        _layout(dict.fromkeys(names), where, layout_name)
        yield from ((table.line_num, dict(zip(names, row, strict=False))) for row in table if row)
        return
    for number, line in enumerate(lines(file), 1):
        if line.strip():
            place = f"{where}, line {number}"
            record = json_of(line, place)
            if not isinstance(record, dict):
                raise UserError(f"{place}: not a JSON object")
            yield number, {name.lower(): value for name, value in record.items()}


def _layout(record: Mapping[str, Any], where: str, layout_name: str) -> tuple[Column, ...]:
    wanted = LAYOUTS if layout_name == "auto" else {layout_name: LAYOUTS[layout_name]}
    needed = {name: [column.name for column in layout[:3]] for name, layout in wanted.items()}
    for name, columns in needed.items():
        if all(column.lower() in record for column in columns):
            return wanted[name]
    layouts = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in needed.items())
    raise UserError(
        f"{where}: the columns {', '.join(record)[:200]} belong to no trace that bench knows ({layouts})"
    )


def _read(record: Mapping[str, Any], column: Column, where: str) -> Any:
    value = record.get(column.name.lower())
    try:
        return column.read(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{where}: {column.name}={str(value)[:60]}: must be {column.must_be}") from error
