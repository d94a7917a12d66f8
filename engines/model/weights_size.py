"""How many bytes a model's weights take at a quantization, from its shape alone.

Pure. Knows no engine and no file. The embedding, and an output layer of its own, are counted apart: most
quantizations leave them wider, and of a small model they are the greater part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engines.model.quantization import QUANTIZATIONS
from harness.contracts import ModelFacts

PRECISIONS: Mapping[str, float] = {"fp16": 16.0, "bf16": 16.0, "fp32": 32.0}
# Quantized checkpoints keep these layers in 16 bits. Source: AutoAWQ and GPTQModel quantize the layers of the
# blocks only; llm-compressor's recipes and Qwen's and Meta's FP8 checkpoints name lm_head under `ignore`.
_UNQUANTIZED_BITS = 16.0


@dataclass(frozen=True)
class _GgufKind:
    """Bits of a number in the blocks on average, in the embedding, and in the output layer; `narrow`: what
    tensors get whose rows are no multiple of 256 (None: rows of 32 are enough)."""

    blocks: float
    embedding: float
    output: float = 6.5625
    narrow: float | None = None


# Which tensor gets which kind: llama.cpp, src/llama-quant.cpp, llama_tensor_get_type_impl (an embedding that
# is the output layer too is treated as that: Q6_K, and Q8_0 where rows are no multiple of 256) and
# tensor_type_fallback. Bits of a kind: its block layout in ggml-common.h. `blocks` of the mixed kinds: the
# bits of Llama 3.1 8B in tools/quantize/README.md, less its embedding and output layer.
_GGUF_KINDS: Mapping[str, _GgufKind] = {
    "gguf-q8_0": _GgufKind(8.5, 8.5, output=8.5),
    "gguf-q6_k": _GgufKind(6.5625, 6.5625, narrow=8.5),
    "gguf-q5_k_m": _GgufKind(5.654, 5.5, narrow=6.0),
    "gguf-q5_k_s": _GgufKind(5.501, 5.5, narrow=6.0),
    "gguf-q5_0": _GgufKind(5.5, 5.5),
    "gguf-q4_k_m": _GgufKind(4.799, 4.5, narrow=5.5),
    "gguf-q4_k_s": _GgufKind(4.537, 4.5, narrow=5.5),
    "gguf-iq4_xs": _GgufKind(4.317, 4.25, narrow=4.5),
    "gguf-q4_0": _GgufKind(4.5, 4.5),
    "gguf-q3_k_m": _GgufKind(3.845, 3.4375, narrow=4.5),
    "gguf-q2_k": _GgufKind(2.943, 2.625, narrow=4.5),
}
_ROWS_OF_K_KINDS = 256
_NARROW_OUTPUT_BITS = 8.5
# Of the numbers in a block's matrices: those whose rows are as long as the model is wide (of attention all
# but the output, of the MLP two of three).
NARROW_SHARE = 2 / 3


def weights_bytes(facts: ModelFacts, quantization: str, file_format: str) -> int | None:
    """Bytes of all tensors, without the tokenizer; None where the parameters are not known, or nothing is of
    this quantization in this format.

    Within 10 % of published files, most within 3 %.
    """
    parameters = facts.parameters
    if parameters is None:
        return None
    if quantization in PRECISIONS:
        return round(parameters * PRECISIONS[quantization] / 8)
    if file_format == "gguf":
        return _gguf_bytes(facts, quantization)
    known = QUANTIZATIONS.get(quantization)
    if known is None or known.file_format != file_format:
        return None
    kept = _embedding(facts) * (1 if facts.ties_embeddings else 2)
    return round(((parameters - kept) * known.bits_per_weight + kept * _UNQUANTIZED_BITS) / 8)


def gguf_blocks_bytes(facts: ModelFacts, quantization: str) -> int | None:
    """Of a GGUF file's tensors other than the embedding and the output layer; None as for `weights_bytes`."""
    kind = _GGUF_KINDS.get(quantization)
    if kind is None or facts.parameters is None:
        return None
    bits = kind.blocks
    if is_narrow(facts) and kind.narrow is not None:
        bits = NARROW_SHARE * kind.narrow + (1 - NARROW_SHARE) * bits
    outside = _embedding(facts) * (1 if facts.ties_embeddings else 2)
    return round((facts.parameters - outside) * bits / 8)


def is_narrow(facts: ModelFacts) -> bool:
    """Whether rows as long as the model is wide are too short for the K kinds."""
    return bool((facts.hidden_size or 0) % _ROWS_OF_K_KINDS)


def _gguf_bytes(facts: ModelFacts, quantization: str) -> int | None:
    kind, blocks = _GGUF_KINDS.get(quantization), gguf_blocks_bytes(facts, quantization)
    if kind is None or blocks is None:
        return None
    # Rows must be a multiple of the kind's block, which is 32 for Q8_0 and Q4_0 and 256 for Q6_K.
    bits = _NARROW_OUTPUT_BITS if is_narrow(facts) else kind.output
    if not facts.ties_embeddings:
        bits += kind.narrow if is_narrow(facts) and kind.narrow is not None else kind.embedding
    return blocks + round(_embedding(facts) * bits / 8)


def _embedding(facts: ModelFacts) -> int:
    """Numbers of the embedding's matrix; 0 where its shape is not known: all is then counted alike."""
    return (facts.vocabulary or 0) * (facts.hidden_size or 0)
