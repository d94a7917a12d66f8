"""Hypothesis strategies that make valid values and damage them, by their structure or by their bytes."""

import json
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from serving_bench.harness.errors import BenchError

# Values that few fields may have.
STRANGE: tuple[Any, ...] = (
    None, "x", "", -1, 0, 1e308, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, True, [], {}, [[]],
    {"a": {"b": 1}}, "../../../etc", "\x1b[2J\n", "x" * 70_000, 10**300,
)  # fmt: skip
# Text that only a file can contain: json writes it for no value of Python.
NO_VALUES = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b'"\\ud800"',
    b"9" * 5000,
    b"[" * 100_000,
    b"[" * 600 + b"]" * 600,
)
LIES = tuple(
    struct.pack(code, number)
    for number in (0, 1, 7, 2**16, 2**31, 2**32 - 1, 2**60, 2**63, 2**64 - 1)
    for code in ("<I", "<Q")
    if number < 1 << 8 * struct.calcsize(code)
)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars | st.sampled_from(STRANGE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place (a tuple of keys and indices) of each value within a JSON value."""
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*place, key))


def put(whole: Any, place: Sequence[Any], value: Any) -> Any:
    """Return a copy of a JSON value with another value at a place."""
    copy = at = json.loads(json.dumps(whole))
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return copy


@st.composite
def altered(draw: st.DrawFn, whole: Any) -> Any:
    """Draw copies of a JSON value in which up to three values are replaced."""
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(whole))
        if found:
            whole = put(whole, draw(st.sampled_from(found)), draw(values))
    return whole


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, pieces: Sequence[bytes] = LIES, start: int = 0) -> bytes:
    """Draw copies in which up to three pieces replace bytes from `start` on, some with their end cut off."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(min(start, len(data)), len(data)))
        piece = draw(st.sampled_from(pieces) | st.binary(max_size=3))
        length = len(piece) if draw(st.booleans()) else draw(st.integers(0, 3))
        data[at : at + length] = piece
    if draw(st.booleans()):
        del data[draw(st.integers(min(start, len(data)), len(data))) :]
    return bytes(data)


def json_bytes(value: Any) -> st.SearchStrategy[bytes]:
    """Draw the bytes of a JSON value, sometimes with one of NO_VALUES in the place of a value in it."""
    whole = st.booleans().map(
        lambda is_ascii: json.dumps(value, ensure_ascii=is_ascii).encode(errors="ignore")
    )
    odd = [(place, said) for place in places(value) for said in NO_VALUES]
    if not odd:
        return whole
    return whole | st.sampled_from(odd).map(
        lambda each: json.dumps(put(value, each[0], "\0odd")).encode().replace(b'"\\u0000odd"', each[1])
    )


def assert_one_line(error: BenchError, *begins: object) -> None:
    """Assert that an error is one line that begins with one of these: the file, or what named it."""
    said = str(error)
    assert said.startswith(tuple(map(str, begins))), said
    assert "\n" not in said
    said.encode()
