"""One key's text -> one typed value, with its unit and its range; a section of keys -> its frozen dataclass.

A field's suffix is its unit and no part of its key: `load.duration=20s` sets Load.duration_s. Knows no
engine, and not which keys there are.
"""

from __future__ import annotations

import itertools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec

from harness.contracts import Scalar
from harness.errors import UserError
from harness.settings import units
from harness.settings.values import Choices, shown

_UNITS = {
    "_per_s": units.rate_per_s,
    "_s": units.duration_s,
    "_bytes": units.size_bytes,
    "_share": units.share,
}
_UNIT_EXAMPLES = {
    "_per_s": "a rate, such as 2/s or 90/min",
    "_s": "a duration, such as 500ms or 20s",
    "_bytes": "a size, such as 24GiB",
    "_share": "a share, such as 10%",
}
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
# What the fields' types cannot say: the smallest value that makes sense.
_MINIMUM = {
    "repeats": 1,
    "seed": 0,
    "load.concurrency": 1,
    "load.rate": 0.001,
    "load.burstiness": 0.01,
    "load.speedup": 0.001,
    "load.ramp_up": 0,
    "load.ramp_down": 0,
    "load.ramp_steps": 1,
    "load.max_failed": 0,
    "load.workers": 1,
    "load.warmup": 0,
    "load.duration": 0.1,
    "load.conversations": 1,
    "load.timeout": 0.1,
    "engine.context_length": 16,
    "engine.concurrent_sequences": 1,
    "engine.kv_cache_tokens": 16,
    "engine.tensor_parallel": 1,
    "engine.seed": 0,
    "engine.speculative_tokens": 1,
    "engine.memory_limit": 1 << 20,
    "engine.start_timeout": 0.1,
    "guard.wait": 0,
    "price.gpu_hour": 0,
    "fit.device_memory": 1 << 20,
}
_DAY_S = 86400
_MAXIMUM = {
    "repeats": 1000,
    "seed": 2**63 - 1,
    "load.concurrency": 100_000,
    "load.rate": 100_000,
    "load.burstiness": 1000,
    "load.speedup": 1_000_000,
    "load.ramp_up": _DAY_S,
    "load.ramp_down": _DAY_S,
    "load.ramp_steps": 1000,
    "load.max_failed": 1,
    "load.workers": 256,
    "load.warmup": _DAY_S,
    "load.duration": _DAY_S,
    "load.timeout": _DAY_S,
    "engine.start_timeout": _DAY_S,
    "guard.wait": _DAY_S,
}


@dataclass(frozen=True)
class Varied:
    """A decoded section of keys: `value` is its dataclass. `differs`: those of its keys that are swept, with
    this point's value."""

    value: Any
    differs: Mapping[str, str]


def option_keys(prefix: str, kind: type) -> list[str]:
    """`key=default` of each option of a dataclass whose fields all have defaults; durations in seconds."""
    defaults = kind()
    return [
        f"{key}={shown(getattr(defaults, name))}{'s' if suffix == '_s' else ''}"
        for key, (name, suffix) in fields_by_key(prefix, kind).items()
    ]


def fields_by_key(prefix: str, kind: type) -> dict[str, tuple[str, str | None]]:
    """Dotted key -> (field, unit suffix) of a dataclass."""
    hints = typing.get_type_hints(kind)
    found = {}
    for field in fields(kind):
        # A choice has no unit: load.keep_bytes=true.
        is_number = hints[field.name] is not bool
        suffix = next((s for s in _UNITS if is_number and field.name.endswith(s)), None)
        found[f"{prefix}.{field.name.removesuffix(suffix or '')}"] = (field.name, suffix)
    return found


def takes(kind: Any, suffix: str | None) -> str:
    """What a field of this type and unit suffix takes, in words: `a duration, such as 500ms or 20s`, `a whole
    number`, `native or docker`."""
    first = next(part for part in _parts(kind) if part is not type(None))
    if typing.get_origin(first) is typing.Literal:
        return " or ".join(map(str, typing.get_args(first)))
    return _UNIT_EXAMPLES[suffix] if suffix else _TYPE_NAMES.get(first, "text")


def points(prefix: str, kind: type, choices: Choices) -> tuple[Varied, ...]:
    """The product of a section's values, each decoded into `kind`."""
    keys = [key for key in fields_by_key(prefix, kind) if key in choices]
    return tuple(
        _point(prefix, kind, dict(zip(keys, values, strict=True)), choices)
        for values in itertools.product(*(dict.fromkeys(choices[key]) for key in keys))
    )


def _point(prefix: str, kind: type, values: Mapping[str, Scalar], choices: Choices) -> Varied:
    by_key = fields_by_key(prefix, kind)
    hints = typing.get_type_hints(kind)
    decoded = {}
    for key, value in values.items():
        name, suffix = by_key[key]
        decoded[name] = decode(key, hints[name], value, suffix)
    differs = {key: shown(value) for key, value in values.items() if len(set(choices[key])) > 1}
    return Varied(kind(**decoded), differs)


def decode(key: str, kind: Any, value: Scalar, suffix: str | None = None) -> Any:
    """One value as its type: with a unit suffix in seconds, bytes, per second or as a share; null only where
    the type has None. Raises UserError: the key, the value, and what would work."""
    optional = type(None) in _parts(kind)
    if value is None:
        if optional:
            return None
        raise UserError(f"{key}=null: needs a value")
    try:
        plain = _plain(kind, value, suffix, optional=optional)
        decoded = msgspec.convert(plain, kind, strict=not isinstance(plain, str))
    except (ValueError, msgspec.ValidationError) as error:
        raise UserError(f"{key}={shown(value)}: {_wanted(kind, error)}") from error
    if isinstance(decoded, float) and not math.isfinite(decoded):
        raise UserError(f"{key}={shown(value)}: must be a finite number")
    least = _MINIMUM.get(key)
    if least is not None and decoded < least:
        raise UserError(f"{key}={shown(value)}: must be {least} or more")
    most = _MAXIMUM.get(key)
    if most is not None and decoded is not None and decoded > most:
        raise UserError(f"{key}={shown(value)}: must be {most} or less")
    return decoded


def _plain(kind: Any, value: Scalar, suffix: str | None, *, optional: bool) -> Scalar:
    """The value as msgspec takes it: units read, text as text though it looks like a number."""
    if suffix is not None:
        return _UNITS[suffix](str(value))
    if kind is str or (optional and str in _parts(kind)):
        return value if isinstance(value, str) else shown(value)
    return value


def _wanted(kind: Any, error: Exception) -> str:
    if not isinstance(error, msgspec.ValidationError):
        return str(error)
    choices = [part for part in _parts(kind) if typing.get_origin(part) is typing.Literal]
    if choices:
        return f"choose from {', '.join(map(str, typing.get_args(choices[0])))}"
    return "must be " + " or ".join(_TYPE_NAMES.get(part, "null") for part in _parts(kind))


def _parts(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a type; a union with a Literal is another class than one of plain types."""
    is_union = typing.get_origin(kind) in (types.UnionType, typing.Union)
    return typing.get_args(kind) if is_union else (kind,)


def check_single(key: str, values: Sequence[Scalar]) -> None:
    """Raise UserError for a key that has several values and is no axis of a run."""
    if len(values) > 1:
        listed = ",".join(shown(value) for value in values)
        hint = f" (several devices for one server: '{key}=\"{listed}\"')" if key == "device" else ""
        raise UserError(f"{key}={listed}: cannot be swept; give one value{hint}")
