"""What servers take on a GPU beside weights and KV cache, from what others have published: assumed, not
measured by this project.

Pure. What engines take on a CPU was measured and stands in each engine's own file.
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
ACTIVATION_SOURCE = "vLLM's pull request 10511 (1.26 GiB for 8,192 tokens of Llama-3-8B)"
CONTEXT_SOURCE = "PyTorch's issue 109888 (CUDA context)"


def activation_bytes(facts: ModelFacts, tokens: int) -> int:
    """Of a step that reads so many tokens, where attention keeps no matrix of scores."""
    return _ACTIVATIONS_PER_TOKEN * tokens * (facts.hidden_size or _UNKNOWN_WIDTH) * 2


def step_tokens(terms: EngineTerms, facts: ModelFacts, most: int) -> int:
    """Tokens that a step can have at most: of all that are served at once, and of the engine's own limit."""
    context = terms.context_length or facts.context_length
    return min(most, context * terms.concurrent_sequences if terms.concurrent_sequences else most)
