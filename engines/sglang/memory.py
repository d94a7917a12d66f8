"""Compute what SGLang needs beside the weights. Pure.

In every layer its pool has slots for engine.kv_cache_tokens and one more page. Sources, in 0.5.23:
mem_cache/memory_pool.py, model_executor/pool_configurator.py, arg_groups/memory_hook.py.
"""

from serving_bench.engines.common import overhead
from serving_bench.engines.model import sizes
from serving_bench.harness.contracts import Deployment, MemoryNeed, ModelFacts, Reason

# Model types whose windowed layers have their own pool. SGLang turns that off for Gemma 2 and 3.
_OWN_POOL = ("gpt_oss", "llama4", "llama4_text", "gemma4", "gemma4_text", "step3p5", "mimo_v2_flash")
_OWN_POOL_SHARE = 0.8  # of the tokens
# Measured with gemma3-270m on 2 cores: the peak PSS of all processes in a run, less weights and pool.
_CPU_BYTES = 3460 * overhead.MEBIBYTE
_GPU_SOURCE = "assumed: SGLang's own estimate (memory_hook.py); " + "; ".join(
    (overhead.CONTEXT_SOURCE, overhead.ACTIVATION_SOURCE)
)


def memory_needed(deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
    terms, options = deployment.terms, deployment.options
    shares, is_cpu = terms.tensor_parallel, device == "cpu"
    # QKVParallelLinear; on a CPU configs/update_config.py pads the heads. See vllm/memory.py.
    if not is_cpu and (reason := sizes.why_not_shared(facts, shares)):
        return reason
    value_bytes = sizes.value_bytes(terms)
    tokens, page = overhead.cache_tokens(terms, facts), options.page_size or 1
    in_windows = int(tokens * (_OWN_POOL_SHARE if facts.architecture in _OWN_POOL else 1.0))
    slots = sizes.full_layers(facts) * (tokens + page) + sizes.windowed_layers(facts) * (in_windows + page)
    return MemoryNeed(
        kv_cache_bytes=round(slots * sizes.layer_token_bytes(facts, value_bytes, shares)),
        kv_bytes_per_token=sizes.token_bytes(facts, value_bytes, shares),
        overhead_bytes=_overhead_bytes(deployment, facts, is_cpu=is_cpu),
        overhead_source=overhead.cpu_source(
            "sglang 0.5.23 without its kernels", facts, "what a step takes", overhead.GEMMA_MEASURED
        )
        if is_cpu
        else _GPU_SOURCE,
        is_assumed=not is_cpu or not overhead.is_like_measured(facts, overhead.GEMMA_MEASURED),
    )


def _overhead_bytes(deployment: Deployment, facts: ModelFacts, *, is_cpu: bool) -> int:
    terms, options, shares = deployment.terms, deployment.options, deployment.terms.tensor_parallel
    # SGLang's defaults: on a machine of 24 GiB, by its start log; on a GPU of 60 to 160 GiB.
    own_step = 4096 if is_cpu else 8192 if terms.chunked_prefill is not False else 16_384
    most, context = options.chunked_prefill_size or own_step, terms.context_length or facts.context_length
    # All requests with a full context, up to that limit.
    step = min(most, context * (terms.concurrent_sequences or most))
    if is_cpu:
        return _CPU_BYTES + overhead.wider_step_bytes(facts, step) * shares
    # SGLang's own estimate: 512 MiB for its backends, and 2 MiB for each sequence of a graph.
    each = overhead.CUDA_CONTEXT_BYTES + 512 * overhead.MEBIBYTE + overhead.activation_bytes(facts, step)
    if terms.graphs is not False:
        most = options.cuda_graph_max_bs_decode or 256
        each += min(most, terms.concurrent_sequences or most) * 2 * overhead.MEBIBYTE
    # For communication between devices.
    each += 128 * overhead.MEBIBYTE * shares if shares > 1 else 0
    return each * shares
