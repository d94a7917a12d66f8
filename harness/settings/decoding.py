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
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from serving_bench.harness.contracts import Key, RunTerms, Scalar, text_of
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings import units

Section = TypeVar("Section")
Choices = Mapping[str, tuple[Scalar, ...]]  # a key's values, more than one where it is swept

# Strings that the grammar of overrides reads back as the same string without quotes.
_PLAIN = re.compile(
    r"[A-Za-z/][A-Za-z0-9_./:@%-]*|[0-9]+\.\.[0-9]+|[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|min|h|%|B|[KMGT]i?B)"
)
_WORDS = ("null", "true", "false", "nan", "inf")
# By the suffix of a field: how its value is read, and what it takes, in words.
_UNITS: Mapping[str, tuple[Callable[[str], float], str]] = {
    "_per_s": (units.rate_per_s, "a rate, such as 2/s or 90/min"),
    "_s": (units.duration_s, "a duration, such as 500ms or 20s"),
    "_bytes": (units.size_bytes, "a size, such as 24GiB"),
    "_share": (units.share, "a share, such as 10%"),
    "_nats": (units.nats, "a number of nats, such as 0.1"),
}
shown = text_of
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
_KEY_IS = "engine.api_key_env names the variable that holds a key"
_LENGTH = "a length: 512, 256..1024, lognormal:512:0.5 or FILE.csv:COLUMN"


@dataclass(frozen=True)
class Field:
    """One key's field in the dataclass of its section, with its declaration."""

    kind: Any
    name: str = ""
    suffix: str | None = None
    default: Any = None
    key: Key = Key()

    @property
    def is_list(self) -> bool:
        """Return whether several values of the key are one value, not a sweep."""
        return typing.get_origin(self.kind) is tuple

    @property
    def each(self) -> Any:
        """Return the type of one value."""
        return typing.get_args(self.kind)[0] if self.is_list else self.kind

    @property
    def parts(self) -> tuple[Any, ...]:
        """Return the types that a value may have, and the Literals of the words that it may be."""
        is_plain = isinstance(self.each, type) or _is_literal(self.each)
        return (self.each,) if is_plain else typing.get_args(self.each)

    @property
    def words(self) -> tuple[Any, ...]:
        return tuple(word for part in self.parts if _is_literal(part) for word in typing.get_args(part))

    @property
    def default_text(self) -> str:
        """Return its default as a person would give it; durations in seconds."""
        values = self.default if self.is_list else (self.default,)
        return self.key.otherwise or ",".join(text_of(value, self.suffix) for value in values)

    @property
    def takes(self) -> str:
        if self.key.takes:
            return self.key.takes
        if int in self.parts and str in self.parts:
            return _LENGTH
        if self.words:
            return units.either(map(str, self.words))
        first = next(part for part in self.parts if part is not type(None))
        return _UNITS[self.suffix][1] if self.suffix else _TYPE_NAMES.get(first, "text")


def _is_literal(part: Any) -> bool:
    return typing.get_origin(part) is typing.Literal


@dataclass(frozen=True)
class Varied:
    """One point of a section of keys: its dataclass, and the values here of those keys that are swept."""

    value: Any
    differs: Mapping[str, str]


def fields_by_key(prefix: str, kind: type) -> Mapping[str, Field]:
    """Return each dotted key of a dataclass with its field, without tuples that are not declared as keys, and
    without fields that lack a default.
    """
    return {f"{prefix}.{name}".lstrip("."): field for name, field in _fields(kind).items()}


@cache
def _fields(kind: type) -> Mapping[str, Field]:
    hints, fields_by_name = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        hint, key = hints[field.name], field.metadata.get("key")
        if field.default is dataclasses.MISSING or (key is None and typing.get_origin(hint) is tuple):
            continue
        # A field that is true or false has no unit: load.keep_bytes=true.
        suffix = next((s for s in _UNITS if hint is not bool and field.name.endswith(s)), None)
        key = key or Key()
        name = key.name or field.name.removesuffix(suffix or "")
        fields_by_name[name] = Field(hint, field.name, suffix, field.default, key)
    return fields_by_name


ALONE: Mapping[str, Field] = fields_by_key("", RunTerms)


def points(prefix: str, kind: type, choices: Choices, **fixed: Any) -> tuple[Varied, ...]:
    """Return the product of a section's values, decoded into `kind`. `fixed` sets fields by their names."""
    by_key = {
        key: field
        for key, field in fields_by_key(prefix, kind).items()
        if key in choices and field.name not in fixed
    }
    points_found = []
    typed = [decode_all(key, field, choices[key]) for key, field in by_key.items()]
    axes = [zip(choices[key], axis, strict=True) for key, axis in zip(by_key, typed, strict=True)]
    for values in itertools.product(*axes):
        chosen = dict(zip(by_key, values, strict=True))
        decoded = {field.name: chosen[key][1] for key, field in by_key.items()}
        differs = {key: shown(value) for key, (value, _) in chosen.items() if len(choices[key]) > 1}
        points_found.append(Varied(kind(**decoded, **fixed), differs))
    return tuple(points_found)


def single(prefix: str, kind: type[Section], choices: Choices, **fixed: Any) -> Section:
    """Return the value of a section that cannot be swept. Raises UserError for a key with several values."""
    for key, field in fields_by_key(prefix, kind).items():
        if not field.is_list:
            only_value(key, choices)
        elif key in choices:
            fixed.setdefault(field.name, decode_all(key, field, choices[key]))
    return cast(Section, points(prefix, kind, choices, **fixed)[0].value)


def decode_all(key: str, field: Field, values: Sequence[Scalar]) -> tuple[Any, ...]:
    """Return every value of a key as its type. Raises UserError like `decode`, also for a repeated value."""
    decoded = tuple(decode(key, field, value) for value in values)
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


def decode(key: str, of: Field | type, value: Scalar, before: str = "") -> Any:
    """Return one value as its type. A unit suffix makes it seconds, bytes, per second or a share.

    `of`: a type takes the field of a key without a section. Raises UserError with the key, the value with the
    text `before` it, and what would work.
    """
    field = of if isinstance(of, Field) else ALONE[key]
    given, parts, suffix = f"{key}={before}{shown(value)}", field.parts, field.suffix
    if value is False and "off" in field.words:
        value = "off"  # which YAML takes for false
    if value is None:
        if type(None) in parts:
            return None
        raise UserError(f"{key}=null: needs a value")
    if suffix and value in field.words:
        return value
    try:
        # Text stays text even if it looks like a number.
        text = value if isinstance(value, str) or str not in parts else as_text(value)
        plain = _UNITS[suffix][0](str(value)) if suffix else text
        if float not in parts and isinstance(plain, float) and plain.is_integer():
            plain = int(plain)  # 1e3 is a whole number
        decoded = msgspec.convert(plain, field.each, strict=not isinstance(plain, str))
    except msgspec.ValidationError as error:
        raise UserError(f"{given}: {_wanted(field)}") from error
    except ValueError as error:
        raise UserError(f"{given}: {error}") from error
    if isinstance(decoded, float) and not math.isfinite(decoded):
        raise UserError(f"{given}: must be a finite number")
    if isinstance(decoded, int | float) and not field.key.allowed.least <= decoded <= field.key.allowed.most:
        raise UserError(f"{given}: {_beyond(field, decoded)}")
    return decoded


def _beyond(field: Field, number: float) -> str:
    """Return what a number that is outside its key's range must be."""
    ends = field.key.allowed
    end, which = (ends.least, "more") if number < ends.least else (ends.most, "less")
    return ends.words or f"must be {_with_unit(end, field.suffix)} or {which}"


def _with_unit(number: float, suffix: str | None) -> str:
    if suffix == "_bytes":
        return units.size_text(round(number))
    scale, unit = {"_share": (100, "%"), "_s": (1, " s"), "_per_s": (1, "/s")}.get(suffix or "", (1, ""))
    return f"{scale * number:.12g}{unit}"


def _wanted(field: Field) -> str:
    if field.words:
        return f"choose from {', '.join(map(str, field.words))}"
    return "must be " + " or ".join(_TYPE_NAMES.get(part, "null (not given)") for part in field.parts)


def as_text(value: Scalar) -> str:
    """Return the value as text that means the same when given on a command line again."""
    if value is None or isinstance(value, bool):
        return shown(value)
    if not isinstance(value, str) or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS):
        return str(value)
    # In Hydra's quotes a backslash stands for itself, but before a quote it escapes and must be doubled.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'"{escaped}"'


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
