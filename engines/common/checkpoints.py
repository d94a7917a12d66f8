"""What holds for every engine that serves Hugging Face checkpoints. Their flags are in their own packages."""

from __future__ import annotations

from collections.abc import Mapping

from engines.model.models import MODELS
from harness.contracts import Deployment, Reason

# Quantizations that are one 16-bit checkpoint, cast as it is loaded.
DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
# Quantized checkpoints that all of them serve, by the method that config.json names.
QUANTIZED = ("fp8", "awq", "gptq", "w4a16")
# A model's generation_config may set each of these, and top_k, whose `all` differs from engine to engine; an
# attached server takes them from there.
PLAIN_SAMPLING: Mapping[str, float] = {
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


def architecture_of(model: str) -> str | None:
    """Return the architecture of a model of bench's own table; None for others: a plan reads no files."""
    known = MODELS.get(model)
    return known.facts.architecture if known else None


def cast_reason(deployment: Deployment) -> Reason | None:
    """Return why a 16-bit quantization and engine.dtype contradict each other, if they do."""
    quantization, dtype = deployment.quantization, deployment.terms.dtype
    if quantization in DTYPES and dtype not in (None, DTYPES[quantization]):
        return Reason(f"engine.dtype={dtype} would cast the weights: they would not be {quantization}")
    return None


def code_reason(deployment: Deployment) -> Reason | None:
    """Return why a model's own code is not there to run, if it is asked for."""
    if deployment.terms.trust_remote_code and deployment.model.startswith("hf:"):
        return Reason(
            f"engine.trust_remote_code=true: of {deployment.model} bench downloads no Python code; give "
            "model=/path to a checkpoint with its code"
        )
    return None
