"""Read values with units as people write them (`500ms`, `24GiB`, `5%`, `2/s`); write numbers for people."""

import re
from collections.abc import Iterable
from math import inf, isfinite

_DURATIONS_S = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SIZES_BYTES = {"B": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for suffix, base in (("B", 1000), ("iB", 1024))
}
# A smaller number of bytes probably lacks its unit: nothing that bench sizes is that small.
_LEAST_BARE_BYTES = 1 << 20
_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(/?[A-Za-z%]*)")


def duration_s(text: str) -> float:
    """Return the seconds of `20s`, `500ms`, `2m`, `1.5h`, or of 0. Raises ValueError, as all do.

    Refuses `5`, which some mean as seconds and others as milliseconds.
    """
    value, bare = _value(text, _DURATIONS_S, 1.0, "a duration such as 20s, 500ms or 2m"), text.strip()
    if value and bare[-1:] in "0123456789.":
        raise ValueError(f"needs a unit; write {bare}s, or {bare}ms for milliseconds")
    return value


def size_bytes(text: str) -> int:
    """Return the bytes of `24GiB`, `24gib` or `512MB`; a bare number is bytes, 0 or at least a mebibyte.

    Refuses `24G`, which some read as GB and others as GiB, and `24Gb`, which are bits.
    """
    match = _NUMBER.fullmatch(text.strip())
    unit = match[2] if match else ""
    if match and unit in (unit.lower(), unit.upper()):
        usual = next((each for each in _SIZES_BYTES if each != "B" and each.lower() == unit.lower()), unit)
        text = match[1] + usual
    size = round(_value(text, _SIZES_BYTES, 1, "a size such as 24GiB, 24GB or 512MiB"))
    if 0 < size < _LEAST_BARE_BYTES and not unit:
        raise ValueError(f"{size} bytes? write {size}GiB or {size}MiB")
    return size


def share(text: str) -> float:
    """Return 0.05 for `5%` or `0.05`. Raises ValueError for a bare number above 1."""
    value = _value(text, {"%": 0.01}, 1.0, "a share such as 5% or 0.05")
    if value > 1 and "%" not in text:
        raise ValueError(f"a share above 1 needs its percent sign; write {value:g}%")
    return value


def nats(text: str) -> float:
    """Return the nats of `0.1`."""
    return _value(text, {}, 1.0, "a number of nats, such as 0.1")


def rate_per_s(text: str) -> float:
    """Return the number per second of `2.5/s` or `120/min`; a bare number is per second."""
    return _value(text, {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600}, 1.0, "a rate such as 2.5/s or 120/min")


def _value(text: str, units: dict[str, float] | dict[str, int], bare: float, wanted: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    scale = None if match is None else bare if not match[2] else units.get(match[2])
    value = float(match[1]) * scale if match and scale is not None else inf
    if not isfinite(value):
        raise ValueError(f"must be {wanted}")
    return value


def size_text(size_bytes: int) -> str:
    """Return `2.0 MiB`, `412 MiB` or `38.6 GiB`: in GiB from 10 GiB on."""
    if size_bytes >= 10 << 30:
        return f"{size_bytes / 2**30:,.1f} GiB"
    return f"{size_bytes / 2**20:,.{1 if size_bytes < 10 << 20 else 0}f} MiB"


def duration_text(seconds: float) -> str:
    """Return `0.5 s`, `62 s`, `12.5 minutes` or `2 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{seconds / 60:.3g} minutes" if seconds < 5400 else f"{seconds / 3600:.3g} hours"


def number_text(value: float | None) -> str:
    """Return a number with three digits, or with every digit before the point; `-` for None."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def parameters_text(count: int | None) -> str:
    """Return `268 M` or `70.6 B`."""
    if count is None:
        return "-"
    return f"{number_text(count / 1e9)} B" if count >= 999.5e6 else f"{count / 1e6:.0f} M"


def either(names: Iterable[str]) -> str:
    """Return `a`, `a or b` or `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Group pairs of (text, name): each text once, in order, with the names that have it."""
    groups: dict[str, dict[str, None]] = {}
    for text, name in pairs:
        groups.setdefault(text, {})[name] = None
    return {text: list(names) for text, names in groups.items()}
