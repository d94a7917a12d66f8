"""Ask a server what it uses, by its pages and its log, and keep of that what has the right type."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec

from harness.contracts import Engine, EngineTerms, Said, scalar
from harness.servers.probe import request, root_of

_WHOLE = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # what records and tables can hold
_NUMBER = _WHOLE | None
_BYTES = Annotated[int, msgspec.Meta(ge=0, le=2**60)] | None
_SCALAR = str | _WHOLE | float | bool | None
# The types of the terms that must be more than any scalar.
_HINTS = {"kv_cache_bytes": int, "threads": int, **get_type_hints(EngineTerms)}
_KINDS: dict[str, Any] = {term: _NUMBER for term, hint in _HINTS.items() if hint in (int, int | None)}
_KINDS |= {term: bool | None for term, hint in _HINTS.items() if hint in (bool, bool | None)}


def fetch_facts(
    base_url: str, paths: Iterable[str], *, timeout_s: float = 5.0, key: str | None = None
) -> dict[str, Any]:
    """Return the JSON pages at `paths` (from the server's root) by path, without those that failed."""
    facts: dict[str, Any] = {}
    for path in paths:
        answer = request("GET", root_of(base_url) + path, timeout_s=timeout_s, key=key)
        if answer.status == 200:
            with suppress(ValueError, RecursionError):
                facts[path] = msgspec.json.decode(answer.body)
    return facts


def read_said(engine: Engine, base_url: str, log_path: Path, key: str | None) -> tuple[Said, list[str]]:
    """Ask a server for what it uses; return that as said_by. Blocks for up to 5 s for each page."""
    log = log_path.read_text(errors="replace") if log_path.is_file() else ""
    return said_by(engine, log, fetch_facts(base_url, engine.pages, key=key))


def said_by(engine: Engine, log: str, pages: Mapping[str, Any]) -> tuple[Said, list[str]]:
    """Return what a server reports that it uses, and a sentence on each value that was left out.

    A value of the wrong type ends no run.
    """
    try:
        said = engine.said(log, pages)
    except Exception as error:  # whatever an engine's reader raises for a page of another shape
        return Said(), [f"{engine.name}: what the server says of itself cannot be read: {error!r}"]
    terms: dict[Any, Any] = {}
    memory: dict[Any, Any] = {}
    problems = []
    for values, other, kept in ((said.terms, _SCALAR, terms), (said.memory, _BYTES, memory)):
        for name, value in values.items():
            kind: Any = _KINDS.get(name, other)
            try:
                kept[name] = scalar(msgspec.convert(value, kind))
            except msgspec.ValidationError as error:
                problems.append(f"{engine.name}: the server says {name}={value!r:.60}: left out ({error})")
    return Said(terms, memory), problems
