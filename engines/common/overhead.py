"""Estimate the memory that servers need beside weights and KV cache.

The figures for CPUs were measured; those for GPUs are from published sources.
"""

from serving_bench.harness.contracts import EngineTerms, ModelFacts

MEBIBYTE = 2**20

# One process on one device. Sources: PyTorch's issue 109888 ("around 400MB"), vLLM's start logs on an H100.
CUDA_CONTEXT_BYTES = 540 * MEBIBYTE
# Vectors as wide as the model, of two bytes per number, for each token of a step: 1.26 GiB for 8,192 tokens
# of Llama-3-8B (vLLM's pull request 10511), 1.97 GiB for 16,384 of width 3,584 (a start log on an H100).
_ACTIVATIONS_PER_TOKEN = 20
_UNKNOWN_WIDTH = 4096
# The shapes of the two models that were measured: smollm2-135m and gemma3-270m.
_MEASURED_WIDTHS = (576, 640)
Vocabularies = tuple[int, int]
BOTH_MEASURED: Vocabularies = (49_152, 262_144)
GEMMA_MEASURED: Vocabularies = (262_144, 262_144)
ACTIVATION_SOURCE = "vLLM's pull request 10511 (1.26 GiB for 8,192 tokens of Llama-3-8B)"
CONTEXT_SOURCE = "PyTorch's issue 109888 (CUDA context)"


def activation_bytes(facts: ModelFacts, tokens: int) -> int:
    """Return the bytes of a step over `tokens` tokens, if attention does not store its matrix of scores."""
    return _ACTIVATIONS_PER_TOKEN * tokens * (facts.hidden_size or _UNKNOWN_WIDTH) * 2


def is_like_measured(facts: ModelFacts, vocabularies: Vocabularies = BOTH_MEASURED) -> bool:
    """Return whether width and vocabulary are within a factor of two of the measured models'."""
    pairs = ((facts.hidden_size, _MEASURED_WIDTHS), (facts.vocabulary, vocabularies))
    return all(size is not None and least / 2 <= size <= most * 2 for size, (least, most) in pairs)


def wider_step_bytes(facts: ModelFacts, tokens: int) -> int:
    """Return how many bytes a step needs beyond those with gemma3-270m; 0 for a narrower model."""
    width = facts.hidden_size or _UNKNOWN_WIDTH
    return _ACTIVATIONS_PER_TOKEN * tokens * max(0, width - _MEASURED_WIDTHS[1]) * 2


def vocabulary_bytes(facts: ModelFacts, each_bytes: int) -> int:
    """Return the bytes of a vocabulary's tables. An unknown vocabulary counts as the largest."""
    return (facts.vocabulary or BOTH_MEASURED[1]) * each_bytes


def cpu_source(
    program: str, facts: ModelFacts, scaled: str, vocabularies: Vocabularies = BOTH_MEASURED
) -> str:
    """Return MemoryNeed.overhead_source on a CPU. `scaled` names the part that the model's shape scales."""
    models = "smollm2-135m and gemma3-270m" if vocabularies == BOTH_MEASURED else "gemma3-270m"
    if is_like_measured(facts, vocabularies):
        return f"measured: {program}, {models}, 2 cores; {scaled} by the model's shape"
    return (
        f"assumed: as {program} needed with {models} on 2 cores, whose shape is far from this one; "
        f"{scaled} by the model's shape"
    )


def cache_tokens(terms: EngineTerms, facts: ModelFacts) -> int:
    """Return the tokens that a KV cache must hold: those asked for, else a full context per sequence."""
    context = terms.context_length or facts.context_length
    return terms.kv_cache_tokens or context * (terms.concurrent_sequences or 1)
