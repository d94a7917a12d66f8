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

    `how`: `reset` (and the probe prompt, cached before, was read anew after it), `unchecked` (the calls were
    answered, and the server's counts do not show what came of them), `failed` (the prompt was still cached,
    or a call was refused), `none` (the engine cannot, or the server is not ours); `note` says why it is not
    `reset`. `cached_tokens`: of the probe prompt's `prompt_tokens`, found cached after the reset; None where
    the server does not say.
    """

    how: Literal["reset", "unchecked", "failed", "none"]
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    note: str | None = None
