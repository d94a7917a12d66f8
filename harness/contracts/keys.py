"""How a key is declared, once, on the field of the dataclass that holds its value.

The field's name, type and default are the key's, and a suffix of the name is its unit. Everything else that
bench knows about a key is here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf, nextafter
from typing import Any, Literal, TypeVar, get_type_hints

Value = TypeVar("Value")

# Which values of a key that takes text a stranger's file may give: see harness/settings/strangers.py. "file"
# is a path, which settings make absolute.
Foreign = Literal[
    "never", "file", "false", "program", "model", "device", "speculation", "adapters", "task", "label",
    "word", "currency", "length", "looked up",
]  # fmt: skip


@dataclass(frozen=True)
class Range:
    """The values that make sense, from `least` to `most`. `words`: what a value must be, for the message.

    Without `words` the message names the end that a value is beyond, with its unit.
    """

    least: float = -inf
    most: float = inf
    words: str = ""


ANY = Range()
ABOVE_ZERO, BELOW_ONE = nextafter(0, 1), nextafter(1, 0)
DAY_S = 86400
COUNT, POSITIVE = Range(1), Range(ABOVE_ZERO, words="must be above 0")
NOT_NEGATIVE = Range(0, words="must not be negative")
SHARE_OF_MEMORY = Range(ABOVE_ZERO, 1, "must be above 0 and at most 1")
PART = Range(1e-6, 1 - 1e-6)  # a share between 0 and 1, both excluded


def within(least: float, most: float) -> Range:
    return Range(least, most, f"must be from {least:g} to {most:g}")


@dataclass(frozen=True)
class Key:
    """What a key is besides its field's name, type and default.

    `about`: a sentence for `bench list keys`. `takes`: its values in words, where type and unit do not say
    them. `otherwise`: what holds where it is not given, if not the default. `name`: the key in its section,
    if not the field's name. A key that takes text needs `foreign`. `ask_above`: what a measurement may
    cost; a stranger's file that asks for more is asked about, and for less is told.
    """

    about: str = ""
    allowed: Range = ANY
    takes: str = ""
    otherwise: str = ""
    name: str = ""
    foreign: Foreign | None = None
    ask_above: float | None = None


def key(default: Value, about: str, allowed: Range = ANY, **more: Any) -> Value:
    """Return a field of a dataclass that is a key: `block_size: int | None = key(None, "...", COUNT)`.

    `more`: the other fields of Key, by name.
    """
    return field(default=default, metadata={"key": Key(about, allowed, **more)})


def listed_key(default: Value, about: str, names: str, **more: Any) -> Value:
    """Return a key that takes a name of one of the lists of `bench list`."""
    more.setdefault("takes", f"a name of `bench list {names}`")
    return key(default, about, foreign="looked up", **more)


# A field's suffix is its unit and not part of its key: `load.duration` is Load.duration_s.
SUFFIXES = ("_per_s", "_s", "_bytes", "_share", "_nats")


def text_of(value: Any, suffix: str | None = None) -> str:
    """Return a value as a message shows it: durations in seconds, text without quotes."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, float):
        return str(value)
    unit = {"_s": "s", "_share": "%"}.get(suffix or "", "")
    return f"{100 * value if unit == '%' else value:.15g}{unit}"


def values_in(section: Any, name: str) -> dict[Any, str]:
    """Return the values of a key of a section (a dataclass, or a mapping by its fields), each with its text.
    There are several if the key takes several at once, and none if the section does not have it."""
    values, keys = (section, {}) if isinstance(section, Mapping) else (vars(section), _keys(section))
    for suffix in ("", *SUFFIXES):
        for each, value in values.items():
            if (keys.get(each) or each.removesuffix(suffix)) == name:
                several = value if isinstance(value, tuple) else (value,)
                return {one: text_of(one, suffix) for one in several}
    return {}


def _keys(section: Any) -> dict[str, str]:
    return {each.name: each.metadata.get("key", Key()).name for each in fields(section)}


def check_section(kind: type) -> None:
    """Raise an error unless a class of another package can be a section of keys: a dataclass whose fields
    have defaults, and types that can be resolved."""
    fields(kind), get_type_hints(kind), kind()
