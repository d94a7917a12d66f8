"""Read files that others made: regular ones of bounded size, text in UTF-8, JSON whose values can be used.

By the standard library alone. What a file is for, and which fields it has, its reader says.
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

from harness.errors import UserError

# Of a file that is read at once; the largest collection of conversations in use has 0.7 GB.
MOST_BYTES = 1 << 30
# Of one that is read line by line: a week of a large service.
MOST_STREAMED_BYTES = 64 << 30
_MOST_LINE_CHARACTERS = 16 << 20
# The numbers of the errors that `opened` raises for a file that is there.
UNFIT = (EFBIG, EINVAL)
# No format here needs a tenth of it, and what later looks at a value may need a call for each level.
MOST_DEPTH = 200


def opened(path: Path, most_bytes: float = MOST_BYTES, flags: int = 0) -> BinaryIO:
    """Open a regular file of bounded size, and with O_NOFOLLOW no link. Raises OSError, whose strerror says
    why, for any other."""
    # Without O_NONBLOCK a pipe that nobody writes to would hold bench for ever.
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
    """Open a file in UTF-8, with or without a byte order mark. Raises UserError that begins with `where`,
    also for what the block finds wrong with its bytes, or its CSV."""
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
    """Return the text of a file. Raises as opened_text."""
    with opened_text(path, where, most_bytes, None) as file:
        return file.read()


def lines(file: TextIO) -> Iterable[str]:
    """Return the lines of an open file. One that is longer than any that is read comes in parts."""
    return iter(partial(file.readline, _MOST_LINE_CHARACTERS), "")


def json_of(text: str, where: str, *, is_finite: bool = True) -> Any:
    """Return the value of a text in JSON, as value_of. Raises UserError that begins with `where`."""
    try:
        return value_of(text, is_finite=is_finite)
    except ValueError as error:
        raise UserError(f"{where}: not JSON ({error})") from error


def value_of(text: str, *, is_finite: bool = True) -> Any:
    """Return the value of a text in JSON.

    Raises ValueError for what is no JSON, for halves of characters, for values nested more than MOST_DEPTH
    deep, and where all must be finite for numbers that are not.
    """
    hooks: dict[str, Any] = {"parse_float": _finite, "parse_constant": _finite} if is_finite else {}
    try:
        found = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError(f"nested more than {MOST_DEPTH} deep") from None
    level = [found]
    for _ in range(MOST_DEPTH):
        level = [part for each in level for part in _parts(each)]
    if level:
        raise ValueError(f"nested more than {MOST_DEPTH} deep")
    if "\\u" in text:
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text:.20} is no number")
    return number
