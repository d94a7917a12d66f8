"""Whether a value is what a JSON Schema allows, in the words that scenarios use.

No library: those that are quick run code made of the schema, and a results directory may be a stranger's.
"""

from collections.abc import Callable, Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
# What each word asks of a value; of one of another type it asks nothing, as the specification has it
# (JSON Schema 2020-12, Validation, section 6).
_WORDS: Mapping[str, tuple[type | tuple[type, ...], Callable[[Any, Any], bool]]] = {
    "enum": (object, lambda value, given: any(_is_same(value, each) for each in given)),
    "minimum": ((int, float), lambda value, given: value >= given),
    "maximum": ((int, float), lambda value, given: value <= given),
    "minLength": (str, lambda value, given: len(value) >= given),
    "maxLength": (str, lambda value, given: len(value) <= given),
    "minItems": (list, lambda value, given: len(value) >= given),
    "maxItems": (list, lambda value, given: len(value) <= given),
    "required": (dict, lambda value, given: value.keys() >= set(given)),
    "items": (list, lambda value, given: all(is_by(each, given) for each in value)),
    "properties": (dict, lambda value, given: all(is_by(value[k], given[k]) for k in given if k in value)),
}
_SAYING_NOTHING = ("title", "description", "$schema")


def is_by(value: Any, schema: Any) -> bool:
    """Return whether a schema allows a value. Raises ValueError for what is not read here, and
    TypeError for a word's value that is none."""
    if not isinstance(schema, dict):
        raise ValueError("a JSON Schema that is no object is not read")
    return all(_holds(value, schema, word, given) for word, given in schema.items())


def _holds(value: Any, schema: dict[str, Any], word: str, given: Any) -> bool:
    if word in _SAYING_NOTHING:
        return True
    if word == "type" and isinstance(given, str) and given in _TYPES:
        return _is_a(value, given)
    if word == "additionalProperties" and given is False:
        return not isinstance(value, dict) or value.keys() <= set(schema.get("properties", ()))
    if word not in _WORDS:
        raise ValueError(f"{word}: this word of JSON Schema, or its value, is not read")
    types, asks = _WORDS[word]
    is_asked = isinstance(value, types) and not (isinstance(value, bool) and word in ("minimum", "maximum"))
    return not is_asked or asks(value, given)


def _is_same(a: Any, b: Any) -> bool:
    """Return whether two values are the same JSON: to Python True is 1, in lists and objects, too."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_is_same(a[name], b[name]) for name in a)
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):  # to Python it is an integer
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) or (
        kind == "integer" and isinstance(value, float) and value % 1 == 0
    )
