"""What a running server is asked and what it says: calls, caches, metrics, parts of its memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class HttpCall:
    """A request to a server of ours: `path` from its root, `body` as JSON (None: none)."""

    method: Literal["GET", "POST"]
    path: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class CacheReset:
    """What was done so that a cell does not find prompts of an earlier one in the prefix cache.

    `how` is one of: `reset` (the probe prompt, cached before, was read again after it), `unchecked` (the
    calls were answered, but the server's counts do not show what came of them), `failed` (the prompt was
    still cached, or a call was refused), `none` (the engine cannot, or the server is not ours). `note` says
    why it is not `reset`. `cached_tokens`: how many of the probe prompt's `prompt_tokens` were cached after
    the reset; None if the server does not say.
    """

    how: Literal["reset", "unchecked", "failed", "none"]
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    note: str | None = None


# What a server's memory is made of. `graphs`: captured or compiled ones; `workspace`: buffers of a step
# (activations, logits), which are there whether or not they are used; `kv_copies`: states of conversations
# that are saved beside the KV cache, under load.
MemoryPart = Literal["weights", "kv_cache", "graphs", "workspace", "kv_copies"]

# What engines' metrics pages have in common. Gauges: running, waiting (requests), kv_cache_usage_share
# (0 to 1). All others only ever grow: prefix_hit_tokens of prefix_query_tokens (tokens of prompts that were
# looked up), preemptions, prompt_tokens, generated_tokens, queue_s of queued_requests (waited, in all).
ServerTerm = Literal[
    "running",
    "waiting",
    "kv_cache_usage_share",
    "prefix_query_tokens",
    "prefix_hit_tokens",
    "preemptions",
    "prompt_tokens",
    "generated_tokens",
    "queue_s",
    "queued_requests",
]

METRICS_PATH = "/metrics"  # of a server's Prometheus page, from its root


@dataclass(frozen=True)
class ServerMetric:
    """Where a server's Prometheus page has a term.

    It is the value of `sample`, plus those of `also`, times `scale`; it is not known if one of them is
    missing. The values of all label sets that have all of `labels` are added, or their `mean` is taken: the
    mean share of data-parallel engines' equal caches is the share of all of them. `absent`: what the term is
    while the page has no `sample`, since some counters appear only with what they count first.
    """

    sample: str
    scale: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    absent: float | None = None
    combine: Literal["sum", "mean"] = "sum"


@dataclass(frozen=True)
class MemoryNeed:
    """What a deployment takes on all its devices together, computed from the model's shape.

    `weights_bytes`: its weights, which the plan adds; engines leave it out. `kv_cache_bytes`: its KV cache as
    the terms ask for it. `kv_bytes_per_token`: one more token, if no layer has a full window.
    `overhead_bytes`: all else (the device's context, graphs, workspace, on a CPU the programs and libraries).
    `overhead_source`: where that was measured, or who says so. `is_assumed`: it was never measured on such a
    device, or not with a shape like this one.
    """

    kv_cache_bytes: int
    kv_bytes_per_token: int
    overhead_bytes: int
    overhead_source: str
    is_assumed: bool
    weights_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        return self.weights_bytes + self.kv_cache_bytes + self.overhead_bytes
