"""List quantizations, and compute the bytes of a model's weights and KV cache from its shape."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serving_bench.harness.contracts import EngineTerms, Fact, InstallSpec, ModelFacts, Reason, because
from serving_bench.harness.errors import UserError
from serving_bench.harness.plugins import Table

HALF_BYTES = 2.0  # of a number in float16 and bfloat16
# Bytes per number in a KV cache. Types with a q include the scales of their blocks of 32 numbers.
KV_CACHE_BYTES: Mapping[str, float] = {
    "fp32": 4.0, "fp16": HALF_BYTES, "bf16": HALF_BYTES, "fp8": 1.0, "fp8_e5m2": 1.0, "q8_0": 34 / 32,
    "q5_1": 24 / 32, "q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32,
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How another package makes a quantized checkpoint of a 16-bit one.

    The program is called with the checkpoint, an empty directory for the result, a calibration text and a
    seed. `environments`: those that it runs in, by `cpu` and `cuda`, each with the `package` whose version is
    recorded.
    """

    script: Path
    environments: Mapping[str, InstallSpec]
    package: str


@dataclass(frozen=True)
class Quantization:
    """A format that weights are reduced to.

    `bits_per_weight` includes scales; for mixed kinds (_k_) it is that of Llama 3.1 8B. `file_format` is None
    for a precision, which each engine takes in its own format. Of another package: a checkpoint's `recipe`,
    and those `engines` of bench that serve it; a GGUF file is made by llama-quantize, whose kind follows
    `gguf-` in its name.
    """

    name: str
    bits_per_weight: float
    file_format: Literal["gguf", "safetensors"] | None
    description: str
    recipe: Recipe | None = None
    engines: tuple[str, ...] = ()


# Sources of the bits. Mixed kinds: llama.cpp's tools/quantize/README.md. The others: their block layout
# (Q8_0: 32 weights of 8 bits, a scale of 16; AWQ and GPTQ: 128 of 4 bits, a scale of 16, a zero of 4; W4A16:
# no zero).
_OWN: Mapping[str, Quantization] = {
    row.name: row
    for row in (
        Quantization("fp16", 16.0, None, "16-bit floating point"),
        Quantization("bf16", 16.0, None, "16-bit floating point with the range of 32 bits"),
        Quantization("fp8", 8.0, "safetensors", "8-bit floating point (E4M3)"),
        Quantization("awq", 4.156, "safetensors", "4-bit, scaled by the activations (groups of 128, or 64)"),
        Quantization(
            "gptq", 4.156, "safetensors", "4-bit, errors corrected column by column (groups of 128)"
        ),
        Quantization(
            "w4a16",
            4.125,
            "safetensors",
            "4-bit, scaled by the activations (groups of 128, as compressed-tensors)",
        ),
        Quantization("gguf-q8_0", 8.5, "gguf", "8-bit blocks of 32"),
        Quantization("gguf-q6_k", 6.563, "gguf", "6-bit"),
        Quantization("gguf-q5_k_m", 5.704, "gguf", "5-bit, some tensors at 6"),
        Quantization("gguf-q4_k_m", 4.894, "gguf", "4-bit, some tensors at 6"),
        Quantization("gguf-q4_k_s", 4.667, "gguf", "4-bit, few tensors at 5"),
        Quantization("gguf-q4_1", 5.0, "gguf", "4-bit blocks of 32, each with a minimum"),
        Quantization("gguf-q4_0", 4.5, "gguf", "4-bit blocks of 32"),
        Quantization("gguf-q2_k", 3.159, "gguf", "2-bit, some tensors at 3 and 4"),
    )
}


def _check(row: Quantization) -> None:
    is_gguf = row.name.startswith("gguf-") and row.file_format == "gguf"
    if not re.fullmatch(r"[a-z][a-z0-9._-]*", row.name) or is_gguf == bool(row.recipe):
        raise UserError("give a `recipe`, or name a GGUF file's kind: gguf-...")
    if row.recipe:
        locks = [each.lock for each in row.recipe.environments.values() if each.lock]
        for path in (row.recipe.script, *locks):
            if not path.is_file():
                raise UserError(f"{path}: no such file; does the package take it along (package-data)?")


QUANTIZATIONS = Table("quantizations", _OWN, _check)

# ExLlama's, with any number of bits per weight. Bench starts no engine that serves them, and makes none.
ONLY_ATTACHED = re.compile(r"exl[23]-[\d.]+bpw")

# Bits of a weight that is not quantized.
PLAIN_BITS: Mapping[str, int] = {"fp16": 16, "bf16": 16, "fp32": 32}
# Steps that calibrate a 16-bit checkpoint.
CALIBRATED = ("awq", "w4a16", "recipe")


def is_cast(stored: str, wanted: str) -> bool:
    """Return whether engines cast a checkpoint of this precision to the wanted one on load."""
    return wanted in ("fp16", "bf16") and stored in PLAIN_BITS


# Quantized checkpoints keep the embedding and the output layer in 16 bits: AutoAWQ, GPTQModel,
# llm-compressor.
_UNQUANTIZED_BITS = 16.0
_ROWS_OF_K_KINDS = 256
_NARROW_OUTPUT_BITS = 8.5
# The share of a layer's weights in rows as long as the model is wide: all but attention's output and one
# matrix of the MLP.
NARROW_SHARE = 2 / 3


@dataclass(frozen=True)
class _GgufKind:
    """Average bits per weight in each part of a model. `narrow`: in rows that 256 does not divide.

    `narrow` is None if the kind's blocks are of 32.
    """

    blocks: float
    embedding: float
    output: float = 6.5625
    narrow: float | None = None


# Which tensor gets which kind: llama.cpp, src/llama-quant.cpp, llama_tensor_get_type_impl and
# tensor_type_fallback. `blocks` of the mixed kinds: the bits of Llama 3.1 8B, less its embedding and output
# layer.
_GGUF_KINDS: Mapping[str, _GgufKind] = {
    "gguf-q8_0": _GgufKind(8.5, 8.5, output=8.5),
    "gguf-q6_k": _GgufKind(6.5625, 6.5625, narrow=8.5),
    "gguf-q5_k_m": _GgufKind(5.654, 5.5, narrow=6.0),
    "gguf-q5_k_s": _GgufKind(5.501, 5.5, narrow=6.0),
    "gguf-q5_0": _GgufKind(5.5, 5.5),
    "gguf-q4_k_m": _GgufKind(4.799, 4.5, narrow=5.5),
    "gguf-q4_k_s": _GgufKind(4.537, 4.5, narrow=5.5),
    "gguf-iq4_xs": _GgufKind(4.317, 4.25, narrow=4.5),
    "gguf-q4_1": _GgufKind(5.0, 5.0),
    "gguf-q4_0": _GgufKind(4.5, 4.5),
    "gguf-q3_k_m": _GgufKind(3.845, 3.4375, narrow=4.5),
    "gguf-q2_k": _GgufKind(2.943, 2.625, narrow=4.5),
}


def weights_bytes(facts: ModelFacts, quantization: str, file_format: str) -> int | None:
    """Return the bytes of all tensors; None if not known. For most published files it is within 3 %."""
    parameters = facts.parameters
    if parameters is None:
        return None
    if quantization in PLAIN_BITS:
        return round(parameters * PLAIN_BITS[quantization] / 8)
    if file_format == "gguf":
        return _gguf_bytes(facts, quantization)
    listed = QUANTIZATIONS.get(quantization)
    if listed is None or listed.file_format != file_format:
        return None
    kept = _outside_blocks(facts)
    return round(((parameters - kept) * listed.bits_per_weight + kept * _UNQUANTIZED_BITS) / 8)


def gguf_blocks_bytes(facts: ModelFacts, quantization: str) -> int | None:
    """Return the bytes of a GGUF file's tensors without the embedding and the output layer."""
    kind = _GGUF_KINDS.get(quantization)
    if kind is None or facts.parameters is None:
        return None
    bits = kind.blocks
    if is_narrow(facts) and kind.narrow is not None:
        bits = NARROW_SHARE * kind.narrow + (1 - NARROW_SHARE) * bits
    return round((facts.parameters - _outside_blocks(facts)) * bits / 8)


def is_narrow(facts: ModelFacts) -> bool:
    """Return whether rows as long as the model is wide are not a whole number of the K kinds' blocks."""
    return bool((facts.hidden_size or 0) % _ROWS_OF_K_KINDS)


def mixed_kinds(facts: ModelFacts, quantization: str) -> Fact | None:
    """Return what llama-quantize does if rows do not fit a K kind; None if they do."""
    kind = _GGUF_KINDS.get(quantization)
    if kind is None or kind.narrow is None or not is_narrow(facts):
        return None
    return because("mixed_kinds", width=facts.hidden_size, block=_ROWS_OF_K_KINDS)


def _gguf_bytes(facts: ModelFacts, quantization: str) -> int | None:
    kind, blocks = _GGUF_KINDS.get(quantization), gguf_blocks_bytes(facts, quantization)
    if kind is None or blocks is None:
        return None
    # A row must be a multiple of the kind's block: 32 for Q8_0 and Q4_0, 256 for Q6_K.
    bits = _NARROW_OUTPUT_BITS if is_narrow(facts) else kind.output
    if not facts.ties_embeddings:
        bits += kind.narrow if is_narrow(facts) and kind.narrow is not None else kind.embedding
    return blocks + round(_embedding(facts) * bits / 8)


def _outside_blocks(facts: ModelFacts) -> int:
    return _embedding(facts) * (1 if facts.ties_embeddings else 2)


def _embedding(facts: ModelFacts) -> int:
    return (facts.vocabulary or 0) * (facts.hidden_size or 0)


def value_bytes(terms: EngineTerms) -> float:
    """Return the bytes per number in the KV cache: of the type asked for, else of the activations."""
    return KV_CACHE_BYTES[terms.kv_cache_type or ("fp32" if terms.dtype == "float32" else "fp16")]


# States of fixed size (linear attention, Mamba) are small and not counted below.


def layer_token_bytes(facts: ModelFacts, value_bytes: float = HALF_BYTES, tensor_parallel: int = 1) -> float:
    """Return the bytes of one token in one layer that keeps it, over all devices.

    Each device has the same number of KV heads, at least one, so some may exist twice. A latent is on each
    device.
    """
    if facts.latent_size is not None:
        return facts.latent_size * tensor_parallel * value_bytes
    return 2 * -(-facts.kv_heads // tensor_parallel) * tensor_parallel * facts.head_size * value_bytes


def why_not_shared(facts: ModelFacts, tensor_parallel: int, *, can_repeat: bool = True) -> Reason | None:
    """Return why devices cannot divide the KV heads equally, if so. `can_repeat`: several may have a head."""
    heads = facts.kv_heads
    if facts.latent_size is not None or heads % tensor_parallel == 0:
        return None
    if can_repeat and tensor_parallel % heads == 0:
        return None
    would = f"a divisor or a multiple of {heads}" if can_repeat else f"a divisor of {heads}"
    return Reason(
        "{setting}: its {heads} KV heads cannot be divided equally; give {would}",
        setting=f"engine.tensor_parallel={tensor_parallel}",
        heads=heads,
        would=would,
    )


def full_layers(facts: ModelFacts) -> int:
    """Return the number of layers that keep every token of a conversation."""
    return facts.layers - facts.linear_layers - windowed_layers(facts)


def windowed_layers(facts: ModelFacts) -> int:
    """Return the number of layers that keep only the tokens of a window."""
    return facts.sliding_layers if facts.sliding_window else 0


def token_bytes(facts: ModelFacts, value_bytes: float = HALF_BYTES, tensor_parallel: int = 1) -> int:
    """Return the bytes of one more token in all layers while no window is full."""
    layers = full_layers(facts) + windowed_layers(facts)
    return round(layers * layer_token_bytes(facts, value_bytes, tensor_parallel))


def kv_bytes(facts: ModelFacts, sequences: int, tokens: int, value_bytes: float = HALF_BYTES) -> int:
    """Return the bytes of `sequences` conversations of `tokens` tokens each that share nothing."""
    kept = full_layers(facts) * tokens + windowed_layers(facts) * min(tokens, facts.sliding_window or 0)
    return round(sequences * kept * layer_token_bytes(facts, value_bytes))
