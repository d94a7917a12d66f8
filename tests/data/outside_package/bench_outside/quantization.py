"""Two quantizations: one with a program that makes it, and a kind of GGUF that llama-quantize makes."""

from pathlib import Path

from serving_bench import InstallSpec, Quantization, Recipe

_HERE = Path(__file__).parent
W8A8 = Quantization(
    "w8a8",
    8.0,
    "safetensors",
    "8-bit weights and activations",
    recipe=Recipe(
        script=_HERE / "make_w8a8.py",
        environments={
            "cpu": InstallSpec("outside-w8a8-cpu", _HERE / "w8a8.txt", "import llmcompressor", 1_000_000)
        },
        package="llmcompressor",
    ),
    engines=("vllm",),
)
IQ4_XS = Quantization("gguf-iq4_xs", 4.25, "gguf", "4-bit, non-linear")
