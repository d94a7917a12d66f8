"""The values of keys before they are typed, and as text that the grammar of overrides reads back."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.contracts import Scalar

Choices = Mapping[str, tuple[Scalar, ...]]  # a key's values, more than one where it is swept

# Strings that the grammar reads back as the same string without quotes.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./:@%-]*|[0-9]+(ns|us|ms|s|m|min|h|%|B|[KMGT]i?B)")
_WORDS = ("null", "true", "false", "nan", "inf")


def as_text(value: Scalar) -> str:
    """Return the value as it can be given on a command line again, with the same meaning."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or (_PLAIN.fullmatch(value) and value.lower() not in _WORDS):
        return str(value)
    # In Hydra's quotes a backslash is itself, but before a quote it escapes, and is escaped by another.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ('\\"' if m[2] else ""), value)
    return f'"{escaped}"'


def shown(value: Scalar) -> str:
    """Return the value as a message shows it: text without quotes."""
    return value if isinstance(value, str) else as_text(value)
