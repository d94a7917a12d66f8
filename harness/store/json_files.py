"""Read JSON files that anyone may have written, and write none that could not be read again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.contracts import counts, scalars
from harness.errors import StoreError
from harness.store.foreign import MOST_RECORD_BYTES, opened
from harness.whole_files import write_whole

_Read = TypeVar("_Read")
# Fields of a start that hold what others said, of any shape, each with what makes its type of it.
_SAID: Mapping[str, Callable[[object], object]] = {
    "resolved": scalars,
    "sampler": scalars,
    "weights": scalars,
    "memory_said": counts,
    "prompt_tokens": counts,
}


def read_json(path: Path, kind: type[_Read]) -> _Read:
    """Read a file as `kind`. Raises StoreError, in one line, for one of another shape."""
    try:
        with opened(path) as file:
            return _decoded(file.read(), kind)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: damaged ({error})") from error


def write_record(path: Path, record: object) -> None:
    """Write a record, indented, whole or not at all.

    Raises StoreError, and leaves what is there, for one that could not be read again.
    """
    try:
        data = msgspec.json.encode(record)
    except UnicodeEncodeError:  # the name of a path, a process or a variable may be any bytes
        data = msgspec.json.encode(_in_unicode(msgspec.to_builtins(record)))
    data = msgspec.json.format(data, indent=1) + b"\n"
    try:
        _decoded(data, type(record))
    except ValueError as error:
        raise StoreError(f"{path}: not written, since it could not be read again ({error})") from error
    if len(data) > MOST_RECORD_BYTES:
        raise StoreError(f"{path}: not written: {len(data):,} bytes, more than bench reads; plan fewer cells")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def _decoded(data: bytes, kind: type[_Read]) -> _Read:
    said = _SAID.keys() & getattr(kind, "__annotations__", {}).keys()
    if not said:
        return msgspec.json.decode(data, type=kind)
    stored = msgspec.json.decode(data, type=dict[str, Any])
    known = {name: _SAID[name](stored[name]) for name in said & stored.keys()}
    return msgspec.convert({**stored, **known}, kind)


def _in_unicode(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_in_unicode(key): _in_unicode(each) for key, each in value.items()}
    return [*map(_in_unicode, value)] if isinstance(value, list | tuple) else value
