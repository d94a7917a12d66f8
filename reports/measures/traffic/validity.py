"""Whether answers have the form that was asked for: JSON by a schema, or calls of the tools there are."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from harness.contracts import Form, ToolCall
from reports.data import Cell, Run, once, row_batches
from reports.measures.metrics import Value
from reports.measures.traffic.schema import is_by

VALID, CUT = "valid", "cut at max_tokens"
# What answers are that are not valid, as they are counted.
KINDS = (CUT, "not JSON", "not by the schema", "no call", "no such tool")
_COLUMNS = ("outcome", "in_window", "form", "calls", "output_text", "finish_reason")


def kind_of(form: Form, row: Mapping[str, Any]) -> str:
    """Return `valid`, or the first thing that is wrong with an answer. Raises ValueError for a schema that is
    not read here."""
    text = row["output_text"]
    calls = msgspec.json.decode(row["calls"] or "[]", type=list[ToolCall])
    found = _of_calls(form, calls) if form.tools else _of_text(text, form.schema or {})
    # Prose is no JSON that was cut, however long it is.
    has_begun = not text or bool(calls) or text.lstrip().startswith(("{", "["))
    return CUT if found != VALID and has_begun and row["finish_reason"] == "length" else found


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
    """Return how many of the window's ok answers of a completed cell are of each kind; none where a schema
    has words that are not read, or values that no such word can have."""
    return _judged(run, cell)[0]


def why_not_judged(run: Run, cell: Cell) -> str:
    """Return which word of a schema is not read; empty where all are."""
    return _judged(run, cell)[1]


@once
def _judged(run: Run, cell: Cell) -> tuple[Counter[str], str]:
    try:
        return Counter(_kinds(run, cell)), ""
    except ValueError as error:
        return Counter(), str(error)
    except TypeError:
        return Counter(), "a word of its JSON Schema has a value that is not read"


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
