"""Memory, and what a running server tells of itself: parts, needs, metrics. Standard library only; no
behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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
    """Where a server's Prometheus page has a term: the value of `sample`, plus those of `also` (the term is
    not known where one of them is missing), times `scale`. Of several label sets, of those that have all of
    `labels`, the values are added, or their `mean` is taken: of the shares of data-parallel engines' equal
    caches, the share of all of them. `absent`: what the term is while the page has no `sample`; some counters
    appear with what they count first."""

    sample: str
    scale: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    absent: float | None = None
    combine: Literal["sum", "mean"] = "sum"


@dataclass(frozen=True)
class MemoryNeed:
    """What a deployment takes beside its weights, reckoned from the model's shape, on all its devices
    together.

    `kv_cache_bytes`: of its KV cache as the terms ask for it; `kv_bytes_per_token`: of one more token where
    no layer has a full window. `overhead_bytes`: all else (the device's context, graphs, workspace, on a CPU
    the programs and libraries); `overhead_source`: where that was measured, or who says so. With
    `is_assumed` it was never measured on such a device, or not with a shape like this one.
    """

    kv_cache_bytes: int
    kv_bytes_per_token: int
    overhead_bytes: int
    overhead_source: str
    is_assumed: bool
