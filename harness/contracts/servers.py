"""Types for what a server is asked besides its load, and for what its metrics page tells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class HttpCall:
    """A request to a server: `path` from its root, `body` to be sent as JSON (None: no body)."""

    method: Literal["GET", "POST"]
    path: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CacheReset:
    """What was done so that a cell does not find prompts of an earlier one in the prefix cache.

    `how`: `reset` (the server had to read the probe prompt again), `unchecked` (the server's counts do not
    show it), `failed` (still cached, or a call was refused), `none` (the engine cannot, or the server is not
    bench's). `note` says why it is not `reset`. `cached_tokens` of `prompt_tokens` were cached after it.
    """

    how: Literal["reset", "unchecked", "failed", "none"]
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    note: str | None = None


# The terms that engines' metrics pages have in common. Three are gauges: running and waiting (requests),
# kv_cache_usage_share (0 to 1). The others are counters: prefix_hit_tokens is a part of prefix_query_tokens,
# queue_s is the sum over queued_requests, and of drafted_tokens draft_steps took the accepted_tokens.
ServerTerm = Literal[
    "running", "waiting", "kv_cache_usage_share", "prefix_query_tokens", "prefix_hit_tokens", "preemptions",
    "prompt_tokens", "generated_tokens", "queue_s", "queued_requests",
    "draft_steps", "drafted_tokens", "accepted_tokens",
]  # fmt: skip

METRICS_PATH = "/metrics"  # of a server's Prometheus page, from its root


@dataclass(frozen=True)
class ServerMetric:
    """How to read a term from a server's Prometheus page: `sample` plus the samples `also`, times `scale`.

    The values of all label sets that have `labels` are added, or their `mean` is taken (for the equal caches
    of data-parallel engines). `absent`: the term's value while the page has no `sample`, since some counters
    appear only once they have counted something.
    """

    sample: str
    scale: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    absent: float | None = None
    combine: Literal["sum", "mean"] = "sum"
