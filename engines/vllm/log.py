"""Read vLLM's log: values in use, stages of a start, errors with a remedy. Patterns from 0.32.0."""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from serving_bench.engines.common.output import (
    SIZE,
    LogTerm,
    from_log,
    from_page,
    hints,
    is_true,
    known,
    kv_cache_type,
)
from serving_bench.harness.contracts import Hint, MemoryPart, Said, Scalar, Stage, at


def _gibibytes(text: str) -> int:
    return round(float(text) * 2**30)


STAGES: Sequence[Stage] = (
    Stage("weights_begin", r"Starting to load model "),
    Stage("weights_loaded", r"Loading weights took "),
    Stage("engine_ready", r"init engine \(profile, create kv cache, warmup model\) took "),
)

_REMEDIES = {
    r"larger than the available KV cache memory": "The KV cache does not hold one conversation of "
    "engine.context_length tokens: lower that, or raise engine.kv_cache_tokens (or "
    "vllm.gpu_memory_utilization, where vLLM sizes the cache itself).",
    r"is less than desired (CPU memory|GPU memory) utilization": "Less memory is free than vLLM wants: "
    "lower vllm.gpu_memory_utilization (on a CPU it is a share of the machine's memory), or end other "
    "programs that use it.",
    r"is less than requested memory for kv|No available memory for the cache blocks"
    r"|(CUDA|HIP) out of memory|torch\.OutOfMemoryError|can't allocate memory": "Memory ran out: lower "
    "engine.context_length or engine.concurrent_sequences (they determine engine.kv_cache_tokens), or "
    "vllm.max_num_batched_tokens, or take a smaller quantization.",
    r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver"
    r"|libcuda\.so|libcudart\.so|driver on your system is too old": "vLLM finds no usable GPU: check the "
    "driver with nvidia-smi, or use device=cpu, which needs another build (`bench install vllm`).",
    r"Model architectures \[.*\] (are not supported for now|failed to be inspected)"
    r"|does not recognize this architecture": "This vLLM does not know the model's architecture; a newer "
    "one may.",
    r"does not support float16": "vLLM refuses float16 for this model: use quantization=bf16, or "
    "engine.dtype=bfloat16.",
    r"Target and draft model should have the same vocabulary size": "vLLM needs a draft model with an "
    "equally large vocabulary: choose another for engine.speculation.",
    r"greater than the derived max_model_len": "Lower engine.context_length: the model was not made for "
    "that many tokens.",
    r"No package metadata was found for vllm|No module named '?vllm": "The environment has no distribution "
    "named vllm: `bench install vllm` makes one that has it, for the CPU too.",
    r"InvalidCxxCompiler|No working C\+\+ compiler": "vLLM compiles on a CPU: install a C++ compiler (on "
    "Debian: apt-get install g++), or use engine.graphs=false.",
    r"No such file or directory: 'ninja'": "vLLM compiles kernels for this GPU with ninja: install it (on "
    "Debian: apt-get install ninja-build).",
    r"Failed to find a kernel that can implement|is not supported for the current GPU"
    r"|quantization is currently not supported in": "vLLM has no kernel for this quantization on this "
    "device: take another quantization.",
    r"No valid attention backend found|Selected backend .* is not valid": "The attention backend does not "
    "work here: leave out vllm.attention_backend, so that vLLM chooses.",
}
HINTS = (
    *hints(_REMEDIES),
    Hint(
        r"Engine core initialization failed|Worker proc \S+ died unexpectedly"
        r"|\braise \w+Error\(|Traceback \(most recent call last\)",
        "",
        is_effect=True,
    ),
    Hint(
        r"SafetensorError",
        "The checkpoint is damaged or cut short: remove it and run `bench prepare`.",
        "The checkpoint is damaged or cut short: give a whole one.",
    ),
)

# The line in which the engine shows its configuration: `name=value, ...`.
_CONFIG = r"Initializing a V1 LLM engine \(v\S+\) with config: .*?\b"
_TERMS: Sequence[LogTerm] = (
    ("engine_version", r"Initializing a V1 LLM engine \(v(\S+)\) with config: ", str),
    ("dtype", _CONFIG + r"dtype=torch\.([^,)]+)", str),
    ("context_length", _CONFIG + r"max_seq_len=(\d+)", int),
    ("tensor_parallel", _CONFIG + r"tensor_parallel_size=(\d+)", int),
    ("kv_cache_type", _CONFIG + r"kv_cache_dtype=([^,)]+)", str),
    ("seed", _CONFIG + r"seed=(\d+)", int),
    ("prefix_cache", _CONFIG + r"enable_prefix_caching=(True|False)", is_true),
    ("chunked_prefill", _CONFIG + r"enable_chunked_prefill=(True|False)", is_true),
    ("weights_type", _CONFIG + r"quantization=([^,)]+)", str),
    ("graphs", _CONFIG + r"enforce_eager=(True|False)", lambda text: text == "False"),
    ("speculative_tokens", _CONFIG + r"SpeculativeConfig\(.*?num_spec_tokens=(\d+)", int),
    ("kv_cache_bytes", rf"Auto set \(({SIZE})/", _gibibytes),
    ("kv_cache_bytes", rf"Available KV cache memory: ({SIZE}) GiB", _gibibytes),
    ("kv_cache_tokens", r"KV cache size: ([\d,]+) tokens", lambda text: int(text.replace(",", ""))),
    ("attention_backend", r"Using (\w+) attention backend", str),
)
# What each device needs, in GiB with two decimals. The first device logs it.
_PARTS: Mapping[MemoryPart, str] = {
    "weights": rf"Model loading took ({SIZE}) GiB",
    "graphs": rf"Graph capturing finished in .* took (-?{SIZE}) GiB",
    "workspace": rf"({SIZE}) GiB for peak activation",
}


def said(log: str, pages: Mapping[str, Any]) -> Said:
    terms = {**from_log(log, _TERMS), **_told(log)}
    for term, unsaid in (("weights_type", "None"), ("kv_cache_type", "auto")):
        if terms.get(term) == unsaid:
            terms[term] = terms.get("dtype")
    if "kv_cache_type" in terms:
        terms["kv_cache_type"] = kv_cache_type(str(terms["kv_cache_type"]))
    if kernels := re.findall(r"Using (\w+Kernel) for ", log):
        terms["quantization_kernel"] = ", ".join(sorted(set(kernels)))
    if cores := re.findall(r"local_rank=\d+, core ids=\[([\d, ]+)\]", log):
        terms["threads"] = sum(len(ids.split(",")) for ids in cores)
    from_pages = {
        "engine_version": at(pages, "/version", "version"),
        "context_length": at(pages, "/v1/models", "data", 0, "max_model_len"),
    }
    return Said({**terms, **known(from_pages)}, _memory(log, terms))


def _memory(log: str, terms: Mapping[str, Scalar]) -> Mapping[MemoryPart, int]:
    """Return bytes by part, without empty parts. A workspace is known only if vLLM sizes the KV cache."""
    devices = int(terms.get("tensor_parallel") or 1)
    parts: dict[MemoryPart, int] = {}
    for part, pattern in _PARTS.items():
        if match := re.search(pattern, log):
            parts[part] = _gibibytes(match[1]) * devices
    # On a CPU this is the only line on weights: first those of all devices, then the draft's.
    checkpoints = re.findall(rf"^(\([^)]*\))?.*Checkpoint size: ({SIZE}) GiB", log, re.MULTILINE)
    if checkpoints and "weights" not in parts:
        first = checkpoints[0][0]
        parts["weights"] = sum(_gibibytes(size) for worker, size in checkpoints if worker == first)
    # If vLLM sizes the cache itself, its peak of activations includes an estimate of the graphs.
    estimate = re.search(rf"CUDA graph pool memory: .* ({SIZE}) GiB \(estimated\)", log)
    if estimate and "workspace" in parts and "CUDA graph memory profiling is enabled" in log:
        parts["workspace"] -= _gibibytes(estimate[1]) * devices
    if isinstance(kv_cache := terms.get("kv_cache_bytes"), int):
        parts["kv_cache"] = kv_cache * devices
    return {part: size for part, size in parts.items() if size > 0}


def _told(log: str) -> dict[str, Scalar]:
    line = re.search(r"non-default args: (\{.*\})", log)
    try:
        config = ast.literal_eval(line[1]) if line else {}
    except (ValueError, SyntaxError):
        return {}
    numbers = {"concurrent_sequences": "max_num_seqs", "kv_cache_bytes": "kv_cache_memory_bytes"}
    terms: dict[str, Scalar] = {
        term: value for term, value in from_page(config, numbers).items() if isinstance(value, int)
    }
    # Otherwise it is the checkpoint's template, if that has one: vLLM does not say.
    return {**terms, "chat_template": "given"} if at(config, "chat_template") else terms
