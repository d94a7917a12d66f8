"""Check whether answers have the form that was asked for: JSON by a schema, or calls of the given tools.

JSON Schema is read here without a library. The fast libraries generate code from the schema and run it, and a
results directory may come from a stranger.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from serving_bench.harness.contracts import Fact, Form, ToolCall, because, quoted
from serving_bench.reports.data import Cell, Run, once, row_batches
from serving_bench.reports.measures.metrics import Value

# --- JSON Schema: the keywords that scenarios use ---------------------------------------------------


_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
# What each keyword requires of a value. As specified, it requires nothing of a value of another type
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
    """Return whether a schema allows a value. Raises ValueError for a schema that is not supported here, and
    TypeError for a keyword with a value of the wrong type."""
    if not isinstance(schema, dict):
        raise ValueError("a JSON Schema that is not an object is not supported")
    return all(_holds(value, schema, word, given) for word, given in schema.items())


def _holds(value: Any, schema: dict[str, Any], word: str, given: Any) -> bool:
    if word in _SAYING_NOTHING:
        return True
    if word == "type" and isinstance(given, str) and given in _TYPES:
        return _is_a(value, given)
    if word == "additionalProperties" and given is False:
        return not isinstance(value, dict) or value.keys() <= set(schema.get("properties", ()))
    if word not in _WORDS:
        raise ValueError(f"{word}: this JSON Schema keyword, or its value, is not supported")
    types, asks = _WORDS[word]
    is_asked = isinstance(value, types) and not (isinstance(value, bool) and word in ("minimum", "maximum"))
    return not is_asked or asks(value, given)


def _is_same(a: Any, b: Any) -> bool:
    """Return whether two values are the same JSON. Python takes True as 1, also inside lists and objects."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_is_same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_is_same(a[name], b[name]) for name in a)
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _is_a(value: Any, kind: str) -> bool:
    if isinstance(value, bool):  # an int in Python
        return kind == "boolean"
    return isinstance(value, _TYPES[kind]) or (
        kind == "integer" and isinstance(value, float) and value % 1 == 0
    )


# --- answers ----------------------------------------------------------------------------------------


VALID, CUT = "valid", "cut at max_tokens"
# The kinds of answers that are not valid.
KINDS = (CUT, "not JSON", "not by the schema", "no call", "no such tool")
_COLUMNS = ("outcome", "in_window", "form", "calls", "output_text", "finish_reason")


def kind_of(form: Form, row: Mapping[str, Any]) -> str:
    """Return `valid`, or the first thing that is wrong with an answer. Raises as `is_by` does."""
    text = row["output_text"]
    calls = msgspec.json.decode(row["calls"] or "[]", type=list[ToolCall])
    kind = _of_calls(form, calls) if form.tools else _of_text(text, form.schema or {})
    # Prose is not JSON that was cut, however long it is.
    has_begun = not text or bool(calls) or text.lstrip().startswith(("{", "["))
    return CUT if kind != VALID and has_begun and row["finish_reason"] == "length" else kind


def _of_text(text: str, schema: Mapping[str, Any]) -> str:
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return "not JSON"
    return VALID if is_by(value, schema) else "not by the schema"


def _of_calls(form: Form, calls: list[ToolCall]) -> str:
    parameters = {tool.name: tool.parameters for tool in form.tools}
    if not calls:
        return "no call"
    if not all(call.name in parameters for call in calls):
        return "no such tool"
    kinds = [_of_text(call.arguments, parameters[call.name]) for call in calls]
    return next((kind for kind in kinds if kind != VALID), VALID)


def kinds_of(run: Run, cell: Cell) -> Counter[str]:
    """Return how many of the window's ok answers of a completed cell are of each kind; empty if a schema is
    not supported."""
    return _judged(run, cell)[0]


def why_not_judged(run: Run, cell: Cell) -> Fact | None:
    """Return why a cell's answers were not judged; None if they were."""
    return _judged(run, cell)[1]


@once
def _judged(run: Run, cell: Cell) -> tuple[Counter[str], Fact | None]:
    try:
        return Counter(_kinds(run, cell)), None
    except ValueError as error:
        return Counter(), quoted(str(error))
    except TypeError:
        return Counter(), because("schema_of_wrong_type")


def _kinds(run: Run, cell: Cell) -> Iterator[str]:
    forms = {form.name: form for form in cell.record.forms} if cell.record else {}
    for batch in row_batches(run.path, cell.number, _COLUMNS) if forms else ():
        for row in batch:
            if row["outcome"] == "ok" and row["in_window"] and row["form"] in forms:
                yield kind_of(forms[row["form"]], row)


def valid_values(run: Run, cell: Cell) -> dict[str, Value]:
    """Return the share of a cell's answers that are valid."""
    counts = kinds_of(run, cell)
    n = counts.total()
    return {"valid_share": Value(counts[VALID] / n if n else None, n)}
