"""What TGI needs beside the weights. Pure.

TGI's KV cache takes whatever memory is left; what it needs is the tokens that were asked for, of which every
layer keeps all. Source: text_generation_server/models/flash_causal_lm.py, warmup.
"""

from __future__ import annotations

from engines.common.overhead import (
    ACTIVATION_SOURCE,
    CONTEXT_SOURCE,
    CUDA_CONTEXT_BYTES,
    MEBIBYTE,
    activation_bytes,
    cache_tokens,
)
from engines.model import sizes
from harness.contracts import Deployment, MemoryNeed, ModelFacts, Reason

_PREFILL_TOKENS = 4096  # of one step where TGI knows no better number for the device
# Graphs of 1 to 32 sequences. vLLM's of up to 256 or 512 take 0.67 GiB; no log of TGI's tells theirs.
_GRAPHS_BYTES = 300 * MEBIBYTE
# Of their one KV head each device has a copy: flash_rw_modeling.py, flash_santacoder_modeling.py.
_REPEAT_THEIR_HEAD = ("falcon", "gpt_bigcode")


def memory_needed(deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
    """See harness.contracts.Engine."""
    if device == "cpu":
        return Reason("TGI's image serves on a GPU; what it takes on a CPU was not measured")
    terms, options = deployment.terms, deployment.options
    # flash_llama_modeling.py and its like divide the KV heads and never repeat them. They also refuse devices
    # that do not divide the attention heads; those that divide the KV heads do.
    can_repeat = facts.architecture in _REPEAT_THEIR_HEAD
    if reason := sizes.why_not_shared(facts, terms.tensor_parallel, can_repeat=can_repeat):
        return reason
    tokens = cache_tokens(terms, facts)
    value_bytes = 1 if options.kv_cache_dtype else 2
    token_bytes = sizes.token_bytes(facts, value_bytes, terms.tensor_parallel)
    step = options.max_batch_prefill_tokens or min(_PREFILL_TOKENS, tokens)
    each = CUDA_CONTEXT_BYTES + activation_bytes(facts, step)
    if terms.graphs is not False:
        each += _GRAPHS_BYTES
    return MemoryNeed(
        kv_cache_bytes=tokens * token_bytes,
        kv_bytes_per_token=token_bytes,
        overhead_bytes=each * terms.tensor_parallel,
        overhead_source=f"assumed: {CONTEXT_SOURCE}; {ACTIVATION_SOURCE}",
        is_assumed=True,
    )
