"""Make a JSON Schema, or read one from a file and refuse one that no server would accept.

Reading checks the values of the most common keywords (JSON Schema 2020-12, Core, section 10, and Validation,
section 6), and ignores others.
"""

import json
import re
from collections.abc import Callable
from math import inf
from typing import Any
from urllib.parse import unquote

from serving_bench.harness.errors import UserError, expanded
from serving_bench.harness.foreign_files import json_of, read_text

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
# A file with none of these is more likely an example of an answer.
_ANY_OF = ("type", "properties", "items", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")


def object_of(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has all of these properties, and no others."""
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def read_schema(path: str, where: str) -> dict[str, Any]:
    """Return the schema in a file. Raises UserError, which begins with `where` and names the place."""
    schema = json_of(read_text(expanded("scenario.schema", path), where), where)
    _check(schema, where, "#", schema)
    if not isinstance(schema, dict) or not schema.keys() & set(_ANY_OF):
        raise UserError(f"{where}: not a JSON Schema; it must be an object with one of {', '.join(_ANY_OF)}")
    return schema


def _check(schema: Any, where: str, place: str, root: Any) -> None:
    if isinstance(schema, bool):  # anything, or nothing
        return
    if not isinstance(schema, dict):
        raise UserError(f"{where}: {place}: {_shown(schema)}: must be a schema, an object")
    for word, value in schema.items():
        here = f"{place}/{word}"
        if word in _SCHEMA:
            _check(value, where, here, root)
        elif word in _SCHEMAS:
            kind, must_be = _SCHEMAS[word]
            if not isinstance(value, kind) or value == []:
                raise UserError(f"{where}: {here}: {_shown(value)}: must be {must_be}")
            parts = value if isinstance(value, dict) else dict(enumerate(value))
            for name, part in parts.items():
                _check(part, where, f"{here}/{name}", root)
        elif word == "$ref" and not (isinstance(value, str) and _is_part(value, root)):
            raise UserError(
                f"{where}: {here}: {_shown(value)}: must be a part of this file, as #/$defs/NAME is"
            )
        elif word in _VALUES:
            is_right, must_be = _VALUES[word]
            if not is_right(value):
                raise UserError(f"{where}: {here}: {_shown(value)}: must be {must_be}")


def _is_part(reference: str, root: Any) -> bool:
    """Return whether a reference is a JSON pointer to a part of the schema (RFC 6901, section 6)."""
    start, *names = unquote(reference).split("/")
    part = root
    for name in names:
        parts = {str(place): each for place, each in enumerate(part)} if isinstance(part, list) else part
        key = name.replace("~1", "/").replace("~0", "~")
        if not isinstance(parts, dict) or key not in parts:
            return False
        part = parts[key]
    return start == "#"


def _shown(value: Any) -> str:
    return f"{json.dumps(value):.60}"


def _is_type(value: Any) -> bool:
    names = value if isinstance(value, list) and value else [value]
    return all(isinstance(name, str) and name in _TYPES for name in names)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < inf


def _is_above_0(value: Any) -> bool:
    return _is_number(value) and bool(value > 0)


def _is_pattern(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(re.compile(value))
    except re.error as error:
        # A schema's patterns are JavaScript, which has more escapes and kinds of groups.
        return error.msg.startswith(("bad escape", "unknown extension"))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


_SCHEMA = ("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else")
_BY_NAME = (dict, "an object of schemas")
_LIST = (list, "a list of schemas")
_SCHEMAS: dict[str, tuple[type[Any], str]] = {
    **dict.fromkeys(("properties", "patternProperties", "$defs", "definitions"), _BY_NAME),
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), _LIST),
}
_COUNT = (_is_count, "a whole number, 0 or more")
_NUMBER = (_is_number, "a number")
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_is_type, f"one of {', '.join(_TYPES)}, or a list of them"),
    "enum": (lambda value: isinstance(value, list) and bool(value), "a list of values"),
    "required": (_is_texts, "a list of names"),
    "pattern": (_is_pattern, "a regular expression"),
    "format": (lambda value: isinstance(value, str), "text"),
    "multipleOf": (_is_above_0, "a number above 0"),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
    **dict.fromkeys(("minProperties", "maxProperties"), _COUNT),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
}
