"""Read files that others made: only regular files of bounded size, UTF-8 text, and JSON with usable values.

Uses only the standard library. Knows neither what a file is for nor which fields it has.
"""

import csv
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from errno import EFBIG, EINVAL, ELOOP
from functools import partial
from io import TextIOWrapper
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from serving_bench.harness.errors import UserError

# The limit for a file that is read at once. The largest collection of conversations in use has 0.7 GB.
MOST_BYTES = 1 << 30
# The limit for a file that is read line by line: a week of a large service.
MOST_STREAMED_BYTES = 64 << 30
_MOST_LINE_CHARACTERS = 16 << 20
# The errno values with which `opened` refuses a file that exists.
UNFIT = (EFBIG, EINVAL)
# No format here needs a tenth of it, and code that walks a value may recurse once per level.
MOST_DEPTH = 200


def opened(path: Path, most_bytes: float = MOST_BYTES, flags: int = 0) -> BinaryIO:
    """Open a regular file of bounded size. Raises OSError, whose strerror says why, for anything else; with
    O_NOFOLLOW in `flags` also for a link."""
    # Without O_NONBLOCK a pipe that nobody writes to would block bench for ever.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    except OSError as error:
        if error.errno == ELOOP and flags & os.O_NOFOLLOW:
            raise OSError(EINVAL, "a link", path) from error
        raise
    status = os.fstat(descriptor)
    is_regular = stat.S_ISREG(status.st_mode)
    if is_regular and status.st_size <= most_bytes:
        return open(descriptor, "rb")
    os.close(descriptor)
    if is_regular:
        raise OSError(EFBIG, f"{status.st_size:,} bytes, more than the {most_bytes:,} that are read", path)
    raise OSError(EINVAL, "not a regular file", path)


@contextmanager
def opened_text(
    path: Path, where: str, most_bytes: int = MOST_STREAMED_BYTES, newline: str | None = ""
) -> Iterator[TextIO]:
    """Open a UTF-8 file, with or without a byte order mark. Raises a UserError that begins with `where`, also
    if the block meets bytes that are not UTF-8, or a csv.Error."""
    try:
        with TextIOWrapper(opened(path, most_bytes), encoding="utf-8-sig", newline=newline) as file:
            yield file
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: cannot be read (not UTF-8 text)") from error
    except csv.Error as error:
        raise UserError(f"{where}: not CSV ({error})") from error


def read_text(path: Path, where: str, most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a file. Raises what opened_text raises."""
    with opened_text(path, where, most_bytes, None) as file:
        return file.read()


def lines(file: TextIO) -> Iterable[str]:
    """Return the lines of an open file. A line of more than 16 Mi characters comes in parts."""
    return iter(partial(file.readline, _MOST_LINE_CHARACTERS), "")


def json_of(text: str, where: str, *, is_finite: bool = True) -> Any:
    """Parse JSON as value_of does. Raises a UserError that begins with `where`."""
    try:
        return value_of(text, is_finite=is_finite)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from error


def value_of(text: str, *, is_finite: bool = True) -> Any:
    """Parse JSON.

    Raises ValueError for text that is not JSON, for half of a surrogate pair, for values nested more than
    MOST_DEPTH deep and, with `is_finite`, for a number that is not finite.
    """
    hooks: dict[str, Any] = {"parse_float": _finite, "parse_constant": _finite} if is_finite else {}
    try:
        value = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError(f"nested more than {MOST_DEPTH} deep") from None
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [part for each in level for part in _parts(each)]
    if level:
        raise ValueError(f"nested more than {MOST_DEPTH} deep")
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text:.20} is not a finite number")
    return number
