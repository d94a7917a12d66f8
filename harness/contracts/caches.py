"""Prefix caches between cells. Standard library only; no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class HttpCall:
    """A request to a server of ours: `path` from its root, `body` as JSON (None: none)."""

    method: Literal["GET", "POST"]
    path: str
    body: str | None = None


@dataclass(frozen=True)
class CacheReset:
    """What was done so that a cell does not find prompts of an earlier one in the prefix cache.

    `how`: `reset` (and the probe prompt, cached before, was read anew after it), `failed` (it was still
    cached, or the call was refused), `none` (the engine cannot, or the server is not ours). `cached_tokens`:
    of the probe prompt's `prompt_tokens`, found cached after the reset; None where the server does not say,
    and `note` then says so.
    """

    how: Literal["reset", "failed", "none"]
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    note: str | None = None
