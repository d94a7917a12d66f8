"""Reads traces of requests row by row: when each came, how long its prompt and its answer were.

The columns of three public traces, each as CSV with a header or as JSON Lines. Knows no text of a prompt.

- Mooncake (github.com/kvcache-ai/Mooncake, FAST25-release/traces): timestamp in milliseconds, input_length,
  output_length, hash_ids: one number per 512 tokens of the prompt, equal where prompts share a beginning.
- Azure (github.com/Azure/AzurePublicDataset, AzureLLMInferenceDataset2023.md and 2024.md): TIMESTAMP as a
  date, ContextTokens, GeneratedTokens.
- BurstGPT (github.com/HPMLL/BurstGPT): Timestamp in seconds, Request tokens, Response tokens, 0 where the
  request failed; further columns are not used.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from harness.errors import UserError

BLOCK_TOKENS = 512
MOST_TOKENS = 10_000_000  # of one row; more is a mistake in the file


class Row(NamedTuple):
    """A request. `at_s`: seconds on the trace's own clock; `blocks`: the ids of its prompt's blocks."""

    at_s: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] | None


@dataclass(frozen=True)
class Layout:
    """Names of the columns, and how seconds come from the first one's values."""

    at: str
    input: str
    output: str
    blocks: str | None
    seconds: Callable[[Any], float]

    @property
    def needed(self) -> tuple[str, str, str]:
        return (self.at, self.input, self.output)


def _date_s(value: Any) -> float:
    """Return the seconds of a date in ISO 8601, UTC without an offset. Digits beyond microseconds are cut."""
    date = datetime.fromisoformat(str(value).strip())
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


LAYOUTS = {
    "mooncake": Layout(
        "timestamp", "input_length", "output_length", "hash_ids", lambda value: float(value) / 1e3
    ),
    "azure": Layout("TIMESTAMP", "ContextTokens", "GeneratedTokens", None, _date_s),
    "burstgpt": Layout("Timestamp", "Request tokens", "Response tokens", None, float),
}


def rows(path: Path, where: str, layout_name: str = "auto") -> Iterator[Row]:
    """Yield the rows of a trace, in its order, read as they are asked for.

    Raises UserError, which begins with `where`, and names the line and its value: a file that cannot be
    read, columns of no layout, a value that is none, a time before that of the row before.
    """
    last_s = -float("inf")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, values in _raw_rows(file, where, layout_name):
                row = _row(values, f"{where}, line {line}")
                if row.at_s < last_s:
                    raise UserError(f"{where}, line {line}: comes before the line above; sort it by time")
                last_s = row.at_s
                yield row
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: cannot be read (not UTF-8 text)") from error
    except csv.Error as error:
        raise UserError(f"{where}: not CSV ({error})") from error


class _Values(NamedTuple):
    """What a row holds, by the layout's columns, not yet checked."""

    layout: Layout
    at: Any
    input: Any
    output: Any
    blocks: Any


def _raw_rows(file: TextIO, where: str, layout_name: str) -> Iterator[tuple[int, _Values]]:
    start = file.read(4096).lstrip()
    file.seek(0)
    if not start:
        raise UserError(f"{where}: is empty")
    return (_of_json if start.startswith("{") else _of_csv)(file, where, layout_name)


def _of_csv(file: TextIO, where: str, layout_name: str) -> Iterator[tuple[int, _Values]]:
    reader = csv.reader(file)
    names = [name.strip() for name in next(reader)]
    layout, columns = _layout(names, f"{where}, line 1", layout_name)
    places = [names.index(name) if name is not None else None for name in columns]
    longest = max(place for place in places if place is not None)
    for record in reader:
        if not record:
            continue
        if len(record) <= longest:
            raise UserError(
                f"{where}, line {reader.line_num}: has {len(record)} values, not {len(names)} like the first"
            )
        yield (
            reader.line_num,
            _Values(layout, *(None if place is None else record[place] for place in places)),
        )


def _of_json(file: TextIO, where: str, layout_name: str) -> Iterator[tuple[int, _Values]]:
    layout: Layout | None = None
    columns: Sequence[str | None] = ()
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        record = _record(line, f"{where}, line {number}")
        if layout is None:
            layout, columns = _layout(list(record), f"{where}, line {number}", layout_name)
        for name in columns[:3]:
            if name not in record:
                raise UserError(f"{where}, line {number}: has no {name}")
        yield number, _Values(layout, *(None if name is None else record.get(name) for name in columns))


def _record(line: str, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise UserError(f"{where}: must be an object of columns")
    return record


def _layout(names: Sequence[str], where: str, layout_name: str) -> tuple[Layout, Sequence[str | None]]:
    """Return the layout of these columns, and its own (time, input, output, blocks) as spelt here."""
    spelt = {name.lower(): name for name in names}
    wanted = LAYOUTS if layout_name == "auto" else {layout_name: LAYOUTS[layout_name]}
    for layout in wanted.values():
        if all(name.lower() in spelt for name in layout.needed):
            blocks = spelt.get(layout.blocks.lower()) if layout.blocks else None
            return layout, [*(spelt[name.lower()] for name in layout.needed), blocks]
    known = "; ".join(f"{name}: {', '.join(layout.needed)}" for name, layout in wanted.items())
    raise UserError(f"{where}: the columns {', '.join(names)[:200]} are of no trace known here ({known})")


def _row(values: _Values, where: str) -> Row:
    layout = values.layout
    try:
        at_s = layout.seconds(values.at)
        if not isfinite(at_s):
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        kind = "a date such as 2023-11-16 18:15:46.68" if layout.seconds is _date_s else "a number"
        raise UserError(f"{where}: {layout.at}={_shown(values.at)}: must be {kind}") from error
    return Row(
        at_s,
        _tokens(values.input, layout.input, where),
        _tokens(values.output, layout.output, where),
        _blocks(values.blocks, layout.blocks, where),
    )


def _tokens(value: Any, name: str, where: str) -> int:
    try:
        number = float(value)
        if not (0 <= number <= MOST_TOKENS and number == int(number)):
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{where}: {name}={_shown(value)}: must be a whole number from 0 to {MOST_TOKENS}"
        ) from error
    return int(number)


def _blocks(value: Any, name: str | None, where: str) -> tuple[int, ...] | None:
    """Return the ids of a JSON list, or of text such as `[1, 2]` or `1 2`; None where there are none."""
    if value is None or value == "":
        return None
    found = re.findall(r"-?\d+", value) if isinstance(value, str) else value
    try:
        if isinstance(value, str) and re.sub(r"[\[\],;\s\d-]", "", value):
            raise ValueError
        return tuple(int(item) for item in found) or None
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {name}={_shown(value)}: must be a list of whole numbers") from error


def _shown(value: Any) -> str:
    return str(value)[:60]
