"""Read what servers report in their logs and on their JSON pages, which may have any shape."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from serving_bench.harness.contracts import Hint, Scalar, at, number

# A term, a pattern whose first group is its text, and a function that reads that text.
LogTerm = tuple[str, str, Callable[[str], Scalar]]
# The pattern of a size in a log. A text of more digits is not read: no size is infinite.
SIZE = r"(?<![\d.])\d{1,12}(?:\.\d{1,9})?"


# Servers' names for types of a KV cache -> those of engine.kv_cache_type.
_KV_CACHE_TYPES = {
    "f32": "fp32", "float32": "fp32", "f16": "fp16", "float16": "fp16", "bfloat16": "bf16",
    "fp8_e4m3": "fp8", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8_e5m2",
}  # fmt: skip


def kv_cache_type(name: str) -> str:
    return _KV_CACHE_TYPES.get(name, name)


def hints(remedies: Mapping[str, str]) -> tuple[Hint, ...]:
    """Return the hints with these remedies, by pattern."""
    return tuple(Hint(pattern, remedy) for pattern, remedy in remedies.items())


def from_log(log: str, terms: Iterable[LogTerm]) -> dict[str, Scalar]:
    """Return the terms that the log has. If two rows match one term, the later row counts.

    A term whose text cannot be read is left out.
    """
    values: dict[str, Scalar] = {}
    for term, pattern, read in terms:
        if match := re.search(pattern, log, re.MULTILINE):
            with suppress(ValueError, OverflowError):
                values[term] = read(match[1])
    return values


def from_page(page: Any, terms: Mapping[str, str]) -> dict[str, Any]:
    """Return the terms whose field on the page is not null. `terms`: term -> name of its field."""
    return known({term: at(page, name) for term, name in terms.items()})


# Pages on which Ollama describes itself and its loaded models; the engines ollama and openai read them.
OLLAMA_PAGES = ("/api/version", "/api/ps")
_OLLAMA_TERMS = {"context_length": "context_length", "model_bytes": "size", "model_gpu_bytes": "size_vram"}


def from_ollama(pages: Mapping[str, Any]) -> dict[str, Any]:
    """Return the terms on Ollama's pages: only the version if several models are loaded.

    No page says which of them is measured.
    """
    version, running = map(pages.get, OLLAMA_PAGES)
    terms, loaded = from_page(version, {"engine_version": "version"}), at(running, "models")
    if isinstance(loaded, list) and len(loaded) == 1:
        terms |= from_page(loaded[0], _OLLAMA_TERMS)
        terms |= from_page(at(loaded[0], "details"), {"weights_type": "quantization_level"})
    return terms


def known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {term: value for term, value in values.items() if value is not None}


def times(value: Any, factor: int) -> Any:
    """Return a number times `factor`, rounded; return anything else unchanged."""
    numeric = number(value)
    return value if numeric is None else round(numeric * factor)


def is_true(text: str) -> bool:
    return text == "True"
