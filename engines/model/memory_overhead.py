"""What servers take beside weights and KV cache, where this project has not measured it: on a GPU from what
others have published, on a CPU from what one small model took.

Pure. What that model took on a CPU stands in each engine's own file.
"""

from __future__ import annotations

from harness.contracts import EngineTerms, ModelFacts

MEBIBYTE = 2**20

# Driver, kernels and libraries of one process on one device. Sources: PyTorch's issue 109888 ("around
# 400MB"); vLLM's start logs on an H100, which find 78.66 of 79.19 GiB free once the context is there.
CUDA_CONTEXT_BYTES = 540 * MEBIBYTE
# Activations at once, as numbers of the model's width and two bytes, for each token of a step: 1.26 GiB for
# 8,192 tokens of Llama-3-8B (vLLM's pull request 10511), 1.97 GiB for 16,384 tokens of a model of 7 billion
# parameters and width 3,584 (a start log on an H100).
_ACTIVATIONS_PER_TOKEN = 20
_UNKNOWN_WIDTH = 4096
_MEASURED_WIDTH, _MEASURED_VOCABULARY = 640, 262_144  # of gemma3-270m
ACTIVATION_SOURCE = "vLLM's pull request 10511 (1.26 GiB for 8,192 tokens of Llama-3-8B)"
CONTEXT_SOURCE = "PyTorch's issue 109888 (CUDA context)"


def activation_bytes(facts: ModelFacts, tokens: int) -> int:
    """Of a step that reads so many tokens, where attention keeps no matrix of scores."""
    return _ACTIVATIONS_PER_TOKEN * tokens * (facts.hidden_size or _UNKNOWN_WIDTH) * 2


def is_like_measured(facts: ModelFacts) -> bool:
    """Whether what was measured on a CPU holds for a model: its width and its vocabulary are within a factor
    of two of gemma3-270m's, which was measured."""
    if facts.hidden_size is None or facts.vocabulary is None:
        return False
    ratios = (facts.hidden_size / _MEASURED_WIDTH, facts.vocabulary / _MEASURED_VOCABULARY)
    return all(0.5 <= ratio <= 2 for ratio in ratios)


def wider_step_bytes(facts: ModelFacts, tokens: int) -> int:
    """What a step of so many tokens takes more than gemma3-270m's; 0 for a narrower model."""
    width = facts.hidden_size or _UNKNOWN_WIDTH
    return _ACTIVATIONS_PER_TOKEN * tokens * max(0, width - _MEASURED_WIDTH) * 2


def cpu_source(program: str, facts: ModelFacts, scaled: str) -> str:
    """MemoryNeed.overhead_source on a CPU; `scaled`: the part that follows the model's shape."""
    if is_like_measured(facts):
        return f"measured: {program}, gemma3-270m, 2 cores; {scaled} by the model's shape"
    return (
        f"assumed: as {program} took with gemma3-270m on 2 cores, whose shape is far from this one; "
        f"{scaled} by the model's shape"
    )


def step_tokens(terms: EngineTerms, facts: ModelFacts, most: int) -> int:
    """Tokens that a step can have at most: of all that are served at once, and of the engine's own limit."""
    context = terms.context_length or facts.context_length
    return min(most, context * terms.concurrent_sequences if terms.concurrent_sequences else most)
