"""What vLLM's log says: what it uses, how far a start has come, and what went wrong. Patterns from 0.32.0."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from engines.common.checkpoints import served_length
from harness.contracts import Hint, MemoryPart, Scalar, Stage

STAGES: Sequence[Stage] = (
    Stage("weights_begin", r"Starting to load model "),
    Stage("weights_loaded", r"Loading weights took "),
    Stage("engine_ready", r"init engine \(profile, create kv cache, warmup model\) took "),
)

HINTS: Sequence[Hint] = (
    Hint(
        r"larger than the available KV cache memory",
        "The KV cache does not hold one conversation of engine.context_length tokens: lower that, or raise "
        "engine.kv_cache_tokens (or vllm.gpu_memory_utilization, where vLLM sizes the cache itself).",
    ),
    Hint(
        r"is less than desired (CPU memory|GPU memory) utilization",
        "Less memory is free than vLLM takes for itself: lower vllm.gpu_memory_utilization (on a CPU it is "
        "a share of the machine's memory), or end what else uses it.",
    ),
    Hint(
        r"is less than requested memory for kv|No available memory for the cache blocks"
        r"|(CUDA|HIP) out of memory|torch\.OutOfMemoryError|can't allocate memory",
        "Memory ran out: lower engine.context_length or engine.concurrent_sequences (they make "
        "engine.kv_cache_tokens), or vllm.max_num_batched_tokens, or take a smaller quantization.",
    ),
    Hint(
        r"Address already in use",
        "Another process took the port: run again.",
    ),
    Hint(
        r"Failed to infer device type|No CUDA GPUs are available|Found no NVIDIA driver"
        r"|libcuda\.so|libcudart\.so|driver on your system is too old",
        "vLLM finds no usable GPU: check the driver with nvidia-smi, or use device=cpu, whose build is "
        "another one (`bench install vllm`).",
    ),
    Hint(
        r"Model architectures \[.*\] (are not supported for now|failed to be inspected)"
        r"|does not recognize this architecture",
        "This vLLM does not know the model's architecture; a newer one may.",
    ),
    Hint(
        r"does not support float16",
        "vLLM refuses float16 for this model: use quantization=bf16, or engine.dtype=bfloat16.",
    ),
    Hint(
        r"greater than the derived max_model_len",
        "Lower engine.context_length: the model was not made for that many tokens.",
    ),
    Hint(
        r"No package metadata was found for vllm|No module named '?vllm",
        "The environment has no distribution named vllm: `bench install vllm` makes one that does, its own "
        "build for the CPU included.",
    ),
    Hint(
        r"InvalidCxxCompiler|No working C\+\+ compiler",
        "vLLM compiles on a CPU: install a C++ compiler (on Debian: apt-get install g++), or use "
        "engine.graphs=false.",
    ),
    Hint(
        r"No such file or directory: 'ninja'",
        "vLLM compiles kernels for this GPU with ninja: install it (on Debian: apt-get install ninja-build).",
    ),
    Hint(
        r"SafetensorError",
        "The checkpoint is damaged or cut short: remove it and run `bench prepare`.",
    ),
    Hint(
        r"Failed to find a kernel that can implement|is not supported for the current GPU"
        r"|quantization is currently not supported in",
        "vLLM has no kernel for this quantization on this device: take another quantization.",
    ),
    Hint(
        r"No valid attention backend found|Selected backend .* is not valid",
        "The attention backend does not work here: leave vllm.attention_backend to vLLM.",
    ),
)

# Common term -> what stands before it in the line that shows the engine's configuration.
CONFIG_TERMS: Mapping[str, str] = {
    "dtype": "dtype=torch.",
    "context_length": "max_seq_len=",
    "tensor_parallel": "tensor_parallel_size=",
    "kv_cache_type": "kv_cache_dtype=",
    "seed": "seed=",
    "prefix_cache": "enable_prefix_caching=",
    "chunked_prefill": "enable_chunked_prefill=",
}


def resolved(log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
    """See harness.contracts.Engine."""
    return {**_from_config(log), **_from_lines(log), **_from_facts(facts)}


def _from_config(log: str) -> dict[str, Scalar]:
    """Of the line in which the engine shows its configuration: `name=value, ...`."""
    line = re.search(r"Initializing a V1 LLM engine \(v(\S+)\) with config: (.*)", log)
    if line is None:
        return {}
    version, config = line[1], line[2]
    found: dict[str, Scalar] = {"engine_version": version}
    for term, before in CONFIG_TERMS.items():
        value = re.search(rf"\b{re.escape(before)}([^,)]+)", config)
        if value:
            found[term] = _value(value[1])
    quantization = re.search(r"\bquantization=([^,)]+)", config)
    if quantization:
        found["weights_type"] = found.get("dtype") if quantization[1] == "None" else quantization[1]
    if found.get("kv_cache_type") == "auto":
        found["kv_cache_type"] = found.get("dtype")
    eager = re.search(r"\benforce_eager=(True|False)", config)
    if eager:
        found["graphs"] = eager[1] == "False"
    speculative = re.search(r"SpeculativeConfig\(.*?num_spec_tokens=(\d+)", config)
    if speculative:
        found["speculative_tokens"] = int(speculative[1])
    return found


def _from_lines(log: str) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    arguments = _arguments(log)
    for term, name in (("concurrent_sequences", "max_num_seqs"), ("kv_cache_bytes", "kv_cache_memory_bytes")):
        if isinstance(arguments.get(name), int):
            found[term] = arguments[name]
    if arguments.get("chat_template"):  # else the checkpoint's own, if it has one: vLLM does not say
        found["chat_template"] = "given"
    tokens = re.search(r"KV cache size: ([\d,]+) tokens", log)
    if tokens:
        found["kv_cache_tokens"] = int(tokens[1].replace(",", ""))
    gibibytes = re.search(r"Auto set \(([\d.]+)/|Available KV cache memory: ([\d.]+) GiB", log)
    if gibibytes and "kv_cache_bytes" not in found:
        found["kv_cache_bytes"] = round(float(gibibytes[1] or gibibytes[2]) * 2**30)
    backend = re.search(r"Using (\w+) attention backend", log)
    if backend:
        found["attention_backend"] = backend[1]
    kernels = re.findall(r"Using (\w+Kernel) for ", log)
    if kernels:
        found["quantization_kernel"] = ", ".join(sorted(set(kernels)))
    cores = re.findall(r"local_rank=\d+, core ids=\[([\d, ]+)\]", log)
    if cores:
        found["threads"] = sum(len(ids.split(",")) for ids in cores)
    return found


# What each device takes, in GiB of 2^30 bytes with two digits after the point; the first one tells.
_PARTS: Mapping[MemoryPart, str] = {
    "weights": r"Model loading took ([\d.]+) GiB",
    "graphs": r"Graph capturing finished in .* took (-?[\d.]+) GiB",
    "workspace": r"([\d.]+) GiB for peak activation",
}
# Where vLLM sizes the cache itself it counts its estimate of the graphs to the peak of activations.
_GRAPHS_IN_PEAK = r"CUDA graph memory profiling is enabled"
_GRAPHS_ESTIMATE = r"CUDA graph pool memory: .* ([\d.]+) GiB \(estimated\)"
# On a CPU it says no more of the weights than this, of all devices.
_CHECKPOINT = r"Checkpoint size: ([\d.]+) GiB"


def memory_said(log: str) -> Mapping[MemoryPart, int]:
    """See harness.contracts.Engine. Workspace is said only where vLLM sizes the KV cache itself. What is not
    above zero (graphs are a difference of free memory, which others change as well) is left out."""
    terms = {**_from_config(log), **_from_lines(log)}
    devices = int(terms.get("tensor_parallel") or 1)
    found: dict[MemoryPart, int] = {}
    for part, pattern in _PARTS.items():
        if match := re.search(pattern, log):
            found[part] = _gibibytes(match[1]) * devices
    checkpoint = re.search(_CHECKPOINT, log)
    if checkpoint and "weights" not in found:
        found["weights"] = _gibibytes(checkpoint[1])
    estimate = re.search(_GRAPHS_ESTIMATE, log) if re.search(_GRAPHS_IN_PEAK, log) else None
    if estimate and "workspace" in found:
        found["workspace"] = max(0, found["workspace"] - _gibibytes(estimate[1]) * devices)
    if isinstance(terms.get("kv_cache_bytes"), int):
        found["kv_cache"] = int(terms["kv_cache_bytes"] or 0) * devices
    return {part: size for part, size in found.items() if size > 0}


def _gibibytes(text: str) -> int:
    return round(float(text) * 2**30)


def _arguments(log: str) -> Mapping[str, Any]:
    """What vLLM was told, as it lists it itself."""
    line = re.search(r"non-default args: (\{.*\})", log)
    try:
        found = ast.literal_eval(line[1]) if line else {}
    except (ValueError, SyntaxError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_facts(facts: Mapping[str, Any]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    version = facts.get("/version")
    if isinstance(version, Mapping) and isinstance(version.get("version"), str):
        found["engine_version"] = version["version"]
    length = served_length(facts.get("/v1/models"))
    return found if length is None else {**found, "context_length": length}


def _value(text: str) -> Scalar:
    if text in ("True", "False"):
        return text == "True"
    return int(text) if text.lstrip("-").isdigit() else text
