"""What holds for every engine that serves Hugging Face checkpoints. Their flags are in their own packages."""

from collections.abc import Collection, Mapping

from engines.model.models import MODELS
from harness.contracts import Deployment, Reason, Weights

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


def checkpoint(
    deployment: Deployment,
    engine: str,
    no_float16: Collection[str],
    why: str,
    *,
    casts_quantized: bool = True,
    may_run_code: bool = True,
) -> Weights | Reason:
    """Return the checkpoint that an engine needs, or why it does not serve it.

    `no_float16`: architectures that float16 does not do for, and `why`, with {} for the architecture. A plan
    reads no files, so the architecture is known of the models of bench's own table only. `casts_quantized`:
    engine.dtype is also what quantized weights compute in. `may_run_code`: it heeds engine.trust_remote_code.
    """
    quantization, dtype = deployment.quantization, deployment.terms.dtype
    served = (*DTYPES, *QUANTIZED)
    if quantization not in served:
        return Reason(f"{engine} has no {quantization} checkpoints; it serves {', '.join(served)}")
    if quantization in DTYPES and dtype not in (None, DTYPES[quantization]):
        return Reason(f"engine.dtype={dtype} would cast the weights: they would not be {quantization}")
    if may_run_code and deployment.terms.trust_remote_code and deployment.model.startswith("hf:"):
        return Reason(
            f"engine.trust_remote_code=true: of {deployment.model} bench downloads no Python code; give "
            "model=/path to a checkpoint with its code"
        )
    known = MODELS.get(deployment.model)
    is_float16 = "float16" in (dtype if casts_quantized else None, DTYPES.get(quantization))
    if known and is_float16 and known.facts.architecture in no_float16:
        return Reason(why.format(known.facts.architecture))
    return Weights(deployment.model, quantization, "safetensors")
