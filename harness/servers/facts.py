"""Asks a running server what it uses, and checks the answer before anything is stored.

Servers change the shape of their pages. A value that cannot be what it is said to be is left out and named.
It never ends a run.
"""

import re
from collections.abc import Collection
from math import isfinite
from pathlib import Path
from typing import Any, get_type_hints

from harness.contracts import Engine, EngineTerms, Said
from harness.servers import probe

_TIMEOUT_S = 5.0
_HINTS = get_type_hints(EngineTerms)
_NUMBERS = {"kv_cache_bytes", "threads"}
_NUMBERS |= {term for term, hint in _HINTS.items() if hint in (int, int | None)}
_SWITCHES = {term for term, hint in _HINTS.items() if hint in (bool, bool | None)}
_MOST = 2**63 - 1  # of an integer that records and tables can hold


def ask(engine: Engine, base_url: str, log_path: Path, key: str | None) -> tuple[Said, list[str]]:
    """Return what the server says, and a sentence on each thing that was left out.

    Block for up to 5 s for each of its pages. A server that was attached to has no log.
    """
    log = log_path.read_text(errors="replace") if log_path.is_file() else ""
    pages = dict(engine.read_pages(base_url, key, _TIMEOUT_S)) if engine.read_pages else {}
    missing = [page for page in engine.pages if page not in pages]
    pages |= probe.fetch_facts(base_url, missing, timeout_s=_TIMEOUT_S, key=key)
    try:
        said = engine.said(log, pages)
    except Exception as error:  # whatever an engine's reading makes of a page of another shape
        return Said(), [f"{engine.name}: what the server says of itself cannot be read: {error!r}"]
    terms: dict[Any, Any] = {}
    memory: dict[Any, Any] = {}
    problems = []
    for values, numbers, kept in ((said.terms, _NUMBERS, terms), (said.memory, said.memory, memory)):
        for name, value in values.items():
            if kind := _missed(name, value, numbers):
                what = f"{name}={value!r:.60}, which is not {kind}"
                problems.append(f"{engine.name}: the server says {what}: left out")
            else:
                kept[name] = value
    return Said(terms, memory), problems


def _missed(name: str, value: object, numbers: Collection[str]) -> str | None:
    """Return what a value should be and is not; None where it can be stored."""
    is_switch = isinstance(value, bool)
    is_number = isinstance(value, int) and not is_switch and abs(value) <= _MOST
    if value is None or (is_number and name not in _SWITCHES):
        return None
    if name in numbers:
        return "a whole number"
    if is_switch or name in _SWITCHES:
        return None if is_switch else "true or false"
    is_finite = isinstance(value, float) and isfinite(value)
    # JSON can have halves of characters, which no file can.
    is_text = isinstance(value, str) and not re.search("[\ud800-\udfff]", value)
    return None if is_finite or is_text else "text or a number"
