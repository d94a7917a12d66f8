"""Generate texts to extract JSON from. The server constrains the answer by a JSON Schema.

`constrained=true,false` measures with and without the constraint, on different texts of the same kind, to
show what it costs. The schema may be the user's.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from serving_bench.harness.contracts import COUNT, Conversation, Form, Message, Scenario, Turn, key
from serving_bench.scenarios.json_schema import object_of, read_schema
from serving_bench.scenarios.lengths import PROMPT, length, length_key
from serving_bench.scenarios.text import TextOptions, prose


@dataclass(frozen=True)
class StructuredOutputOptions(TextOptions):
    input_tokens: int | str = length_key(128, PROMPT)
    output_tokens: int = key(160, "The most tokens of an answer.", COUNT, foreign="length")
    constrained: bool = key(True, "Whether the server gets the schema, not only the prompt.")
    schema: str | None = key(None, "A file with the JSON Schema of all answers.", foreign="file")


def _listed(item: Any, most: int) -> dict[str, Any]:
    return {"type": "array", "items": item, "minItems": 1, "maxItems": most}


_TEXT, _NUMBER = {"type": "string", "maxLength": 40}, {"type": "integer"}
_SCHEMAS: dict[str, tuple[str, dict[str, Any]]] = {
    "person": (
        "the first person of the text, the place that is named with them, and whether they are alone",
        object_of(name=_TEXT, place=_TEXT, is_alone={"type": "boolean"}),
    ),
    "things": (
        "three things of the text, each with the word that describes it and a number",
        object_of(things=_listed(object_of(name=_TEXT, kind=_TEXT, count=_NUMBER), 3)),
    ),
    "report": (
        "a title for the text, its mood, the years that it names, and a score from 1 to 10",
        object_of(
            title=_TEXT,
            mood={"enum": ["glad", "sad", "neutral"]},
            years=_listed(_NUMBER, 4),
            score={"type": "integer", "minimum": 1, "maximum": 10},
        ),
    ),
}


def forms(options: StructuredOutputOptions) -> tuple[Form, ...]:
    """Return the forms of the answers, each a JSON Schema."""
    schemas = {name: schema for name, (_, schema) in _SCHEMAS.items()}
    if options.schema is not None:
        # The characters and length that APIs accept for a name.
        name = re.sub(r"[^A-Za-z0-9_-]", "_", Path(options.schema).stem)[:64]
        schemas = {name: read_schema(options.schema, f"scenario.schema={options.schema}")}
    return tuple(Form(name, schema=schema, is_forced=options.constrained) for name, schema in schemas.items())


def _wish(options: StructuredOutputOptions, form: Form) -> str:
    assert form.schema is not None
    if options.schema is not None:
        return f"what it says by this JSON Schema, as JSON and nothing else: {json.dumps(form.schema)}"
    return (
        f"{_SCHEMAS[form.name][0]}, as one JSON object with the keys {', '.join(form.schema['properties'])}."
    )


def conversations(options: StructuredOutputOptions, rng: Random) -> Iterator[Conversation]:
    """Yield conversations of one turn without end."""
    inputs, form_of = length("input_tokens", options.input_tokens), forms(options)
    while True:
        form = form_of[int(rng.random() * len(form_of))]
        prompt = f"{prose(rng, options.words(inputs(rng)))}\n\nGive {_wish(options, form)}"
        yield Conversation((Turn((Message("user", prompt),), options.output_tokens, form=form),))


SCENARIO = Scenario(
    "structured_output",
    "JSON by a schema (scenario.constrained=true,false shows what the constraint costs)",
    StructuredOutputOptions,
    conversations,
    forms=forms,
    ends_itself=True,
)
