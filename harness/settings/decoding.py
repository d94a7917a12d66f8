"""Turn the text of a key into a typed value within its range, and back; and a section into its dataclass.

A field's suffix is its unit and not part of its key: `load.duration=20s` sets Load.duration_s.
"""

import dataclasses
import itertools
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec

from harness.contracts import Scalar
from harness.errors import UserError, refuse_first
from harness.settings import units

Section = TypeVar("Section")
Choices = Mapping[str, tuple[Scalar, ...]]  # a key's values, more than one where it is swept

# Strings that the grammar of overrides reads back as the same string without quotes.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./:@%-]*|[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|min|h|%|B|[KMGT]i?B)")
_WORDS = ("null", "true", "false", "nan", "inf")
# By the suffix of a field: how its value is read, and what it takes, in words.
_UNITS: Mapping[str, tuple[Callable[[str], float], str]] = {
    "_per_s": (units.rate_per_s, "a rate, such as 2/s or 90/min"),
    "_s": (units.duration_s, "a duration, such as 500ms or 20s"),
    "_bytes": (units.size_bytes, "a size, such as 24GiB"),
    "_share": (units.share, "a share, such as 10%"),
    "_nats": (units.nats, "a number of nats, such as 0.1"),
}
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_KEY_IS = "engine.api_key_env names the variable that holds a key"
_LENGTH = "a length: 512, 256..1024, lognormal:512:0.5 or FILE.csv:COLUMN"
_DAY_S = 86400
_PART = (1e-6, 1 - 1e-6)  # a share between 0 and 1, both excluded
# The smallest and the largest value that make sense, which the fields' types cannot say.
_RANGES: Mapping[str, tuple[float, float]] = {
    "repeats": (1, 1000),
    "seed": (0, 2**63 - 1),
    "load.concurrency": (1, 100_000),
    "load.rate": (0.001, 100_000),
    "load.burstiness": (0.01, 1000),
    "load.speedup": (0.001, 1_000_000),
    "load.ramp_up": (0, _DAY_S),
    "load.ramp_down": (0, _DAY_S),
    "load.ramp_steps": (1, 1000),
    "load.max_failed": (0, 1),
    "load.workers": (1, 256),
    "load.warmup": (0, _DAY_S),
    "load.duration": (0.1, _DAY_S),
    "load.steps": (1, 1000),
    "load.min_requests": (1, math.inf),
    "load.conversations": (1, math.inf),
    "load.grace": (0, _DAY_S),
    "load.timeout": (0.1, _DAY_S),
    "engine.context_length": (16, math.inf),
    "engine.concurrent_sequences": (1, math.inf),
    "engine.kv_cache_tokens": (16, math.inf),
    "engine.tensor_parallel": (1, math.inf),
    "engine.seed": (0, math.inf),
    "engine.speculative_tokens": (1, math.inf),
    "engine.memory_limit": (1 << 20, math.inf),
    "engine.start_timeout": (0.1, _DAY_S),
    "guard.wait": (0, _DAY_S),
    "price.gpu_hour": (0, math.inf),
    "price.input_tokens": (0, math.inf),
    "price.cached_tokens": (0, math.inf),
    "price.output_tokens": (0, math.inf),
    "fit.device_memory": (1 << 20, math.inf),
    "search.trials": (1, math.inf),
    "search.precision": _PART,
    "compare.margin": _PART,
    "gate.max_regression": (0, 1 - 1e-6),
    "slo.success": (1e-6, 1),
    "slo.kl_nats.mean": (0, math.inf),
    "slo.tasks.score": (0, 1),
    "until": _PART,
    "until.budget": (0.1, math.inf),
    "run.budget": (1, math.inf),
    "quality.budget": (0.1, _DAY_S),
    "quality.tasks_budget": (1, _DAY_S),
    "quality.limit": (0, math.inf),
    "quality.least_score": (0, 1),
}


@dataclass(frozen=True)
class Field:
    """One key's field in the dataclass of its section."""

    name: str
    kind: Any
    suffix: str | None
    default: Any

    @property
    def default_text(self) -> str:
        """Return its default as a person would give it; durations in seconds."""
        return shown(self.default) + ("s" if self.suffix == "_s" and self.default is not None else "")

    @property
    def takes(self) -> str:
        parts = kinds_of(self.kind)
        if int in parts and str in parts:
            return _LENGTH
        first = next(part for part in parts if part is not type(None))
        if typing.get_origin(first) is typing.Literal:
            return units.either(map(str, typing.get_args(first)))
        return _UNITS[self.suffix][1] if self.suffix else _TYPE_NAMES.get(first, "text")


@dataclass(frozen=True)
class Varied:
    """One point of a section of keys: its dataclass, and the values here of those keys that are swept."""

    value: Any
    differs: Mapping[str, str]


def fields_by_key(prefix: str, kind: type) -> Mapping[str, Field]:
    """Return each dotted key of a dataclass with its field, without tuples and fields that lack a default."""
    hints = typing.get_type_hints(kind)
    found = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if field.default is dataclasses.MISSING or typing.get_origin(hint) is tuple:
            continue
        # A field that is true or false has no unit: load.keep_bytes=true.
        suffix = next((s for s in _UNITS if hint is not bool and field.name.endswith(s)), None)
        key = f"{prefix}.{field.name.removesuffix(suffix or '')}"
        found[key] = Field(field.name, hint, suffix, field.default)
    return found


def points(prefix: str, kind: type, choices: Choices, **fixed: Any) -> tuple[Varied, ...]:
    """Return the product of a section's values, decoded into `kind`. `fixed` sets fields without a key."""
    by_key = {key: field for key, field in fields_by_key(prefix, kind).items() if key in choices}
    found = []
    typed = [decode_all(key, field.kind, choices[key], field.suffix) for key, field in by_key.items()]
    axes = [zip(choices[key], own, strict=True) for key, own in zip(by_key, typed, strict=True)]
    for values in itertools.product(*axes):
        chosen = dict(zip(by_key, values, strict=True))
        decoded = {field.name: chosen[key][1] for key, field in by_key.items()}
        differs = {key: shown(value) for key, (value, _) in chosen.items() if len(choices[key]) > 1}
        found.append(Varied(kind(**decoded, **fixed), differs))
    return tuple(found)


def single(prefix: str, kind: type[Section], choices: Choices, **fixed: Any) -> Section:
    """Return the value of a section that cannot be swept. Raises UserError for a key with several values."""
    for key in fields_by_key(prefix, kind):
        only_value(key, choices)
    return cast(Section, points(prefix, kind, choices, **fixed)[0].value)


def decode_all(key: str, kind: Any, values: Sequence[Scalar], suffix: str | None = None) -> tuple[Any, ...]:
    """Return every value of a key as its type. Raises UserError like `decode`, also for a repeated value."""
    decoded = tuple(decode(key, kind, value, suffix) for value in values)
    refuse_repeated(key, values, decoded)
    return decoded


def refuse_repeated(key: str, values: Sequence[Scalar], decoded: Sequence[Any]) -> None:
    """Raise UserError if two values of a key mean the same: `decoded` holds what each of them means."""
    for position, value in enumerate(decoded):
        first = decoded.index(value)
        if first < position:
            listed, one, other = ",".join(map(shown, values)), shown(values[first]), shown(values[position])
            what = f"{one} and {other} are the same" if one != other else f"{one} is given twice"
            raise UserError(f"{key}={listed}: {what}; give it once")


def only_value(key: str, choices: Choices) -> Scalar:
    """Return the value of a key that cannot be swept; None if it has none. Raises UserError for several."""
    values = choices.get(key, (None,))
    if len(values) > 1:
        listed = ",".join(shown(value) for value in values)
        hint = f" (several devices for one server: '{key}=\"{listed}\"')" if key == "device" else ""
        raise UserError(f"{key}={listed}: cannot be swept; give one value{hint}")
    return values[0]


def decode(key: str, kind: Any, value: Scalar, suffix: str | None = None, before: str = "") -> Any:
    """Return one value as its type. A unit suffix makes it seconds, bytes, per second or a share.

    Raises UserError with the key, the value with the text `before` it, and what would work.
    """
    given = f"{key}={before}{shown(value)}"
    parts = kinds_of(kind)
    if value is None:
        if type(None) in parts:
            return None
        raise UserError(f"{key}=null: needs a value")
    try:
        # Text stays text even if it looks like a number.
        text = value if isinstance(value, str) or str not in parts else as_text(value)
        plain = _UNITS[suffix][0](str(value)) if suffix else text
        if float not in parts and isinstance(plain, float) and plain.is_integer():
            plain = int(plain)  # 1e3 is a whole number
        decoded = msgspec.convert(plain, kind, strict=not isinstance(plain, str))
    except msgspec.ValidationError as error:
        raise UserError(f"{given}: {_wanted(parts)}") from error
    except ValueError as error:
        raise UserError(f"{given}: {error}") from error
    if isinstance(decoded, float) and not math.isfinite(decoded):
        raise UserError(f"{given}: must be a finite number")
    if key in _RANGES:
        least, most = _RANGES[key]
        low, high = (_with_unit(end, suffix) for end in (least, most))
        refuse_first(
            (decoded < least, f"{given}: must be {low} or more"),
            (decoded > most, f"{given}: must be {high} or less"),
        )
    return decoded


def _with_unit(number: float, suffix: str | None) -> str:
    if suffix == "_bytes":
        return units.size_text(round(number)) if math.isfinite(number) else str(number)
    scale, unit = {"_share": (100, "%"), "_s": (1, " s"), "_per_s": (1, "/s")}.get(suffix or "", (1, ""))
    return f"{scale * number:.12g}{unit}"


def _wanted(parts: Sequence[Any]) -> str:
    choices = [part for part in parts if typing.get_origin(part) is typing.Literal]
    if choices:
        return f"choose from {', '.join(map(str, typing.get_args(choices[0])))}"
    return "must be " + " or ".join(_TYPE_NAMES.get(part, "null (not given)") for part in parts)


def kinds_of(kind: Any) -> tuple[Any, ...]:
    is_plain = isinstance(kind, type) or typing.get_origin(kind) is typing.Literal
    return (kind,) if is_plain else typing.get_args(kind)


def as_text(value: Scalar) -> str:
    """Return the value as text that means the same when given on a command line again."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS):
        return str(value)
    # In Hydra's quotes a backslash stands for itself, but before a quote it escapes and must be doubled.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'"{escaped}"'


def shown(value: Scalar) -> str:
    """Return the value as a message shows it: text without quotes, a whole number without a point."""
    if isinstance(value, float):
        return f"{value:.15g}"
    return value if isinstance(value, str) else as_text(value)


def refuse_secrets(word: str) -> None:
    """Raise UserError if the URL in a word has a user, a password, a query or a fragment.

    `word`: key=value as somebody wrote it, whatever its form. The message repeats nothing of its value.
    """
    key = word.partition("=")[0]
    if "://" not in word and "url" not in key.lower():
        return
    name = key if re.fullmatch(r"[\w.]+", key) else "a URL"
    mark = re.search(r"[@?#]", word)
    if mark and mark[0] == "@":
        raise UserError(
            f"{name}: has a user or password in it, which would be stored with the run; {_KEY_IS}"
        )
    if mark:
        raise UserError(
            f"{name}: has a query or a fragment, after which no path can be added; leave it out; {_KEY_IS}"
        )
