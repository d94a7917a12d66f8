"""The table of quantizations. Which engine serves which of them, the engines say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Quantization:
    """What weights were reduced to.

    `bits_per_weight` counts scales; of the mixed kinds (_k_) it moves a little with the model. `file_format`
    is None for a precision, which each engine takes in its own format.
    """

    name: str
    bits_per_weight: float
    file_format: Literal["gguf", "safetensors"] | None
    description: str


# Bits of the mixed kinds: Llama 3.1 8B in llama.cpp's tools/quantize/README.md. Bits of the others: their
# block layout. Q8_0 is 32 weights of 8 bits and a scale of 16. AWQ and GPTQ are groups of 128 weights of 4
# bits, a scale of 16 and a zero of 4; W4A16 of compressed-tensors has no zero.
QUANTIZATIONS: Mapping[str, Quantization] = {
    row.name: row
    for row in (
        Quantization("fp16", 16.0, None, "16-bit floating point"),
        Quantization("bf16", 16.0, None, "16-bit floating point with the range of 32 bits"),
        Quantization("fp8", 8.0, "safetensors", "8-bit floating point (E4M3)"),
        Quantization("awq", 4.156, "safetensors", "4-bit, scaled by the activations (groups of 128)"),
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
        Quantization("gguf-q4_0", 4.5, "gguf", "4-bit blocks of 32"),
        Quantization("gguf-q2_k", 3.159, "gguf", "2-bit, some tensors at 3 and 4"),
    )
}

ALIASES = {"gguf": "gguf-q4_k_m"}

# Bits of a weight that is not quantized.
PLAIN_BITS: Mapping[str, int] = {"fp16": 16, "bf16": 16, "fp32": 32}
SIXTEEN_BIT = ("fp16", "bf16")
# Made by calibrating a 16-bit checkpoint.
CALIBRATED = ("awq", "w4a16")


def is_cast(stored: str, wanted: str) -> bool:
    """Return whether engines turn a checkpoint of this precision into the wanted one while they load it."""
    return wanted in SIXTEEN_BIT and stored in PLAIN_BITS
