"""A model's shape, without its weights: of bench's own table, a config.json, a GGUF file's header or the hub.

Reads one file, or of the hub two pages; loads and keeps nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from engines.model.gguf_file import gguf_facts, gguf_header
from engines.model.models import MODELS
from engines.model.weights.checkpoint import (
    PRECISIONS,
    check_shape,
    check_weights,
    config_of,
    facts_of,
    quantization_of,
)
from engines.model.weights.choosing import HUB_NAME
from engines.model.weights.hub_page import fetch_page
from engines.model.weights.shape import is_rope_scaled, parameters_of, text_part, ties_embeddings
from harness.contracts import ModelFacts
from harness.errors import UserError

_PART = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")


@dataclass(frozen=True)
class KnownFacts:
    """`facts.parameters` is known. `source` (a clause): where the shape is from, and who counted them.
    `origin`: bench's table, the hub, weights on this machine, or a shape alone (config.json)."""

    facts: ModelFacts
    source: str
    is_estimated: bool = False
    origin: Literal["table", "hub", "weights", "shape"] = "shape"


def known_facts(model: str) -> KnownFacts:
    """The shape of what `model=` names: a name of `bench list models`, a path, or hf:organisation/name.

    A path is a checkpoint's directory, with or without its weights, a config.json, or a GGUF file. Only
    hf: calls the hub, and blocks. Raises UserError where there is no such model, or its shape is not told,
    MissingError where the hub does not give it.
    """
    if model.startswith("hf:"):
        return _of_hub(model)
    if "/" in model or model.endswith((".gguf", ".json")):
        return _of_path(model, Path(model).expanduser().absolute())
    row = MODELS.get(model)
    if row is None:
        raise UserError(
            f"model={model}: no such model; choose from {', '.join(MODELS)}, or give a path (a config.json, "
            "a checkpoint's directory, a .gguf file) or hf:organisation/name"
        )
    return KnownFacts(row.facts, "bench's table of models", origin="table")


def most_context(model: str) -> int | None:
    """The most tokens of context that a listed model or a local one can; None where that is not told without
    the hub, or its positions are stretched, so that the number in its files need not be the most."""
    if model.startswith("hf:"):
        return None
    path = Path(model).expanduser().absolute()
    try:
        if "/" not in model and not model.endswith(".gguf"):
            row = MODELS.get(model)
            return None if row is None else row.facts.context_length
        if path.is_dir():
            config = config_of(path)
            facts = None if is_rope_scaled(config) else facts_of(config)
        elif path.is_file() and not _is_stretched(path):
            facts = gguf_facts(path)
        else:
            facts = None
    except UserError:
        return None  # what is wrong with it, is said where its weights are looked for
    return None if facts is None else facts.context_length


def _is_stretched(path: Path) -> bool:
    scalars = gguf_header(path).scalars
    kind = scalars.get(f"{scalars.get('general.architecture')}.rope.scaling.type", "none")
    return kind != "none"


def _of_path(model: str, path: Path) -> KnownFacts:
    if path.is_dir():
        return _of_config(model, _config(model, path), path)
    if path.exists() and not path.is_file():
        raise UserError(f"model={model}: neither a file nor a directory")
    if not path.is_file():
        raise UserError(
            f"model={model}: no such file or directory; give a config.json, a checkpoint's directory, a "
            ".gguf file, hf:organisation/name or a name of `bench list models`"
        )
    if path.suffix == ".json":
        return _of_config(model, _json(model, path), None)
    return _of_gguf(model, path)


def _config(model: str, folder: Path) -> Mapping[str, Any]:
    inside = next(iter(sorted(folder.glob("*.gguf"))), None)
    if inside is not None and not (folder / "config.json").is_file():
        raise UserError(f"model={model} is a directory; give a file in it, such as model={inside}")
    return config_of(folder)


def _json(model: str, path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"model={model}: cannot be read as JSON ({error})") from error
    if not isinstance(config, dict):
        raise UserError(f"model={model}: not an object, as a model's config.json is")
    check_shape(path, config)
    return config


def _of_config(model: str, config: Mapping[str, Any], folder: Path | None) -> KnownFacts:
    has_weights = folder is not None and _has_weights(folder)
    facts = facts_of(config, folder if has_weights else None)
    if facts is None:
        raise UserError(f"model={model}: {_UNTOLD}")
    counted_by = "its files" if has_weights and _is_plain(config) else None
    known = _whole(model, config, facts, "its config.json", counted_by)
    return replace(known, origin="weights" if has_weights else "shape")


def _of_hub(model: str) -> KnownFacts:
    match = HUB_NAME.fullmatch(model)
    if match is None or ".." in model:
        raise UserError(f"model={model}: write hf:organisation/name or hf:organisation/name@revision")
    page = fetch_page(match["repo"], match["revision"] or "main")
    check_shape(f"model={model}: config.json on the hub", page.config)
    facts = facts_of(page.config)
    if facts is None:
        raise UserError(f"model={model}: {_UNTOLD}")
    # Of a quantized checkpoint the hub counts packed numbers.
    if page.parameters and _is_plain(page.config):
        facts = replace(facts, parameters=page.parameters)
        known = _whole(model, page.config, facts, "config.json on the hub", "the hub")
    else:
        known = _whole(model, page.config, facts, "config.json on the hub", None)
    return replace(known, origin="hub")


_UNTOLD = (
    "its config.json tells no shape that bench can read (model_type, num_hidden_layers, num_attention_heads, "
    "hidden_size, max_position_embeddings)"
)


def _whole(
    model: str, config: Mapping[str, Any], facts: ModelFacts, source: str, counted_by: str | None
) -> KnownFacts:
    """With the parameters: counted, worked out from the shape, or else estimated from it."""
    if facts.parameters:
        how = f"counted by {counted_by}" if counted_by else "worked out from the shape"
        return KnownFacts(facts, f"{source}, parameters {how}")
    estimate = _as_llama(config)
    if estimate is None:
        raise UserError(f"model={model}: {_UNTOLD}")
    how = "parameters estimated as if it were built like Llama"
    return KnownFacts(replace(facts, parameters=estimate), f"{source}, {how}", is_estimated=True)


def _as_llama(config: Mapping[str, Any]) -> int | None:
    """Parameters of the text part: most decoders' matrices have the same shapes."""
    ties = {"model_type": "llama", "tie_word_embeddings": ties_embeddings(config)}
    return parameters_of({**text_part(config), **ties})


def _is_plain(config: Mapping[str, Any]) -> bool:
    return quantization_of(config) in PRECISIONS.values()


def _has_weights(folder: Path) -> bool:
    try:
        check_weights(folder)
    except UserError:
        return False
    return True


def _of_gguf(model: str, path: Path) -> KnownFacts:
    facts = gguf_facts(path)
    if facts is None:
        raise UserError(f"model={model}: its header does not tell the model's shape; give its config.json")
    parameters = facts.parameters or _parameters_of_parts(model, path)
    return KnownFacts(replace(facts, parameters=parameters), "the GGUF file's header", origin="weights")


def _parameters_of_parts(model: str, path: Path) -> int:
    match = _PART.fullmatch(path.name)
    count = int(match["count"]) if match else 0
    stem = match["stem"] if match else path.stem
    parts = [path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]
    if missing := next((part.name for part in parts if not part.is_file()), None):
        raise UserError(f"model={model}: {missing}, another part of it, is missing")
    total = sum(prod(shape) for part in parts for shape in gguf_header(part).tensors.values())
    if not total:
        raise UserError(f"model={model}: has no tensors; give the model's config.json")
    return total
