"""A schema of the user's own: what is sent of it, and what is no schema."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from serving_bench.harness.errors import UserError
from serving_bench.scenarios import SCENARIOS
from serving_bench.scenarios.json_schema import read_schema

SCENARIO = SCENARIOS["structured_output"]
ORDER: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1},
        "note": {"type": ["string", "null"], "maxLength": 80},
        "paid": {"anyOf": [{"type": "boolean"}, {"const": "later"}]},
    },
    "required": ["items"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "properties": {"count": {"type": "integer", "minimum": 1}}}},
    "x-of-ours": {"type": 3},
    "dependentSchemas": {"note": {"properties": {}}},
    "not": {"properties": {}},
}


def test_a_schema_of_ones_own_is_in_the_prompt_and_the_form(tmp_path: Path) -> None:
    path = tmp_path / "my order (2).json"
    path.write_text(json.dumps(ORDER))
    options = SCENARIO.options(schema=str(path))
    [form] = SCENARIO.forms(options)
    assert (form.name, form.schema, form.is_forced) == ("my_order__2_", ORDER, True)
    [turn] = next(SCENARIO.conversations(options, Random(1))).turns
    assert turn.form == form
    assert turn.messages[0].content.endswith(json.dumps(ORDER))


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"$ref": "#"}},
        {"anyOf": [{"type": "null"}, {"$ref": "#/anyOf/0"}]},
        {"$ref": "#/$defs/a~1b~0%20c", "$defs": {"a/b~ c": {"type": "null"}}},
        {"type": "string", "pattern": r"^(?<first>\p{L}+)$"},
        {"type": "number", "multipleOf": 0.5, "maximum": 10**400},
    ],
)
def test_what_is_a_schema_is_read(tmp_path: Path, schema: dict[str, Any]) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(schema))
    assert read_schema(str(path), "scenario.schema") == schema


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "not JSON (Expecting property name"),
        ("\udcff", "cannot be read (not UTF-8 text)"),
        ("[" * 100_000, "not JSON (nested more than 200 deep)"),
        ("[]", "#: []: must be a schema, an object"),
        ("true", "not a JSON Schema; it must be an object with one of type, properties"),
        ('{"name": "Ann", "age": 3}', "not a JSON Schema; it must be an object with one of type, properties"),
        ('{"type": "person"}', '#/type: "person": must be one of array, boolean, integer'),
        ('{"type": []}', "#/type: []: must be one of"),
        ('{"properties": ["a"]}', '#/properties: ["a"]: must be an object of schemas'),
        ('{"properties": {"a": "string"}}', '#/properties/a: "string": must be a schema, an object'),
        ('{"properties": {"a": {"items": {"type": 3}}}}', "#/properties/a/items/type: 3: must be one of"),
        ('{"type": "array", "items": 3}', "#/items: 3: must be a schema"),
        ('{"anyOf": []}', "#/anyOf: []: must be a list of schemas"),
        ('{"anyOf": [{"type": "null"}, 3]}', "#/anyOf/1: 3: must be a schema"),
        ('{"enum": []}', "#/enum: []: must be a list of values"),
        ('{"type": "object", "required": "a"}', '#/required: "a": must be a list of names'),
        ('{"type": "string", "maxLength": -1}', "#/maxLength: -1: must be a whole number, 0 or more"),
        ('{"type": "string", "minLength": true}', "#/minLength: true: must be a whole number"),
        ('{"type": "number", "minimum": "1"}', '#/minimum: "1": must be a number'),
        ('{"type": "string", "pattern": 3}', "#/pattern: 3: must be a regular expression"),
        ('{"type": "string", "pattern": "("}', '#/pattern: "(": must be a regular expression'),
        ('{"type": "string", "format": 3}', "#/format: 3: must be text"),
        ('{"type": "number", "minimum": NaN}', "not JSON (NaN is not a finite number)"),
        ('{"type": "number", "minimum": -1e999}', "not JSON (-1e999 is not a finite number)"),
        ('{"type": "number", "multipleOf": 0}', "#/multipleOf: 0: must be a number above 0"),
        ('{"$ref": 3}', "#/$ref: 3: must be a part of this file"),
        ('{"$ref": "http://h/s.json"}', '#/$ref: "http://h/s.json": must be a part of this file'),
        (
            '{"items": {"$ref": "#/$defs/x"}, "$defs": {}}',
            '#/items/$ref: "#/$defs/x": must be a part of this',
        ),
        ('{"anyOf": [{"$ref": "#/anyOf/1"}]}', '#/anyOf/0/$ref: "#/anyOf/1": must be a part of this file'),
    ],
)
def test_what_is_no_schema_is_one_line_with_its_place(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "schema.json"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as caught:
        read_schema(str(path), f"scenario.schema={path}")
    assert str(caught.value).startswith(f"scenario.schema={path}: {said}")
    assert "\n" not in str(caught.value)


def test_a_schema_nested_as_deeply_as_json_is_read_is_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    for depth in (50, 300, 900):
        path.write_text('{"not": ' * depth + "{}" + "}" * depth)
        with pytest.raises(UserError, match=r"not a JSON Schema|nested more than 200 deep"):
            read_schema(str(path), "scenario.schema=x")
