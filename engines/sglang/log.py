"""What SGLang's log and its page /server_info say: what it uses, how far a start has come, what went wrong.

Patterns and keys are those of 0.5.23.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engines.common.checkpoints import served_length
from harness.contracts import Hint, MemoryPart, Scalar, Stage

# What the module that stands in for the CPU kernels prints when it is imported (tests/sglang_cpu).
STAND_IN = r"^sgl_kernel is bench's stand-in without kernels"

STAGES: Sequence[Stage] = (
    Stage("weights_begin", r"Load weight begin\."),
    Stage("weights_loaded", r"Load weight end\."),
    # Said once, after the KV cache and the graphs.
    Stage("engine_ready", r"max_total_num_tokens=\d+, "),
)

HINTS: Sequence[Hint] = (
    Hint(
        r"CUDA out of memory|torch\.OutOfMemoryError|Capture (cuda|prefill CUDA) graph failed",
        "GPU memory ran out: lower sglang.mem_fraction_static, engine.kv_cache_tokens or "
        "sglang.cuda_graph_max_bs_decode, or take a smaller quantization.",
    ),
    Hint(
        r"Loaded weights leave no GPU memory|Not enough memory\. Please try to increase --mem-frac",
        "The weights leave no room for a KV cache: raise sglang.mem_fraction_static, or take a smaller "
        "quantization.",
    ),
    Hint(
        r"DefaultCPUAllocator: (can't|not enough)|bad_alloc|\bMemoryError|Cannot allocate memory",
        "The machine's memory ran out: lower engine.kv_cache_tokens or sglang.mem_fraction_static.",
    ),
    Hint(
        r"User-specified context_length \(\d+\) is greater than the derived",
        "The model has a shorter context: lower engine.context_length.",
    ),
    Hint(
        r"bench's stand-in of sgl_kernel has no kernels|'sgl_kernel' is not a package",
        "This needs SGLang's compiled kernels, which the environment of `make sglang-cpu-env` has not.",
    ),
    Hint(
        r"No module named 'sgl_kernel'",
        "sglang.environment must be one with SGLang's kernels (sglang-kernel) in it; for a CPU "
        "`make sglang-cpu-env` makes one with what stands in for them.",
    ),
    Hint(
        r"No module named '?sglang",
        "sglang.environment must be one with SGLang in it; `bench install sglang` makes it.",
    ),
    Hint(
        r"No accelerator \(CUDA|has no attribute '_cuda_setDevice'|no CUDA-capable device|"
        r"CUDA driver version is insufficient|libcuda\.so",
        "CUDA was not found: check the driver with nvidia-smi, and that the environment's torch has CUDA.",
    ),
    Hint(
        r"is not supported for quantization|is not supported for the current GPU",
        "SGLang has no kernel for this quantization here: on a GPU engine.dtype=float16 may help, on a CPU "
        "it needs its own compiled kernels.",
    ),
    Hint(
        r"Model architectures .* are not supported",
        "This SGLang does not know the model's architecture; a newer one may.",
    ),
    Hint(
        r"(?i)address already in use",
        "Another program took the port in the meantime: run it again.",
    ),
    Hint(
        r"launch_server\.py: error: ",
        "This SGLang does not know one of its arguments: it may be older or newer than those that bench was "
        "written for (`bench list engines`).",
    ),
)

# Common term -> a field of /server_info that is it.
INFO_TERMS: Mapping[str, str] = {
    "engine_version": "version",
    "context_length": "context_length",
    "kv_cache_tokens": "max_total_num_tokens",
    "seed": "random_seed",
    "tensor_parallel": "tp_size",
    "schedule_policy": "schedule_policy",
    "page_size_tokens": "page_size",
    "sampling_backend": "sampling_backend",
}


# Common term -> where the log says it, and how to read that. The log has what was worked out at last.
LOG_TERMS: Mapping[str, tuple[str, Callable[[str], Scalar]]] = {
    "context_length": (r"max_total_num_tokens=.* context_len=(\d+)", int),
    "concurrent_sequences": (r"max_total_num_tokens=.* max_running_requests=(\d+)", int),
    "kv_cache_tokens": (r"max_total_num_tokens=(\d+), ", int),
    "kv_cache_type": (r"KV Cache is allocated\. dtype: torch\.(\w+)", str),
    "weights_type": (r"Load weight end\..* quant=([\w-]+)", str),
    "quantization_kernel": (r"convertible to \w+ during runtime\. Using (\w+) kernel\.", str),
    "chat_template": (r"Loading chat template from argument: (.+)", str),
    "threads": (r"local_omp_cpuid=([\d,]+)", lambda cores: len(cores.split(","))),
}


def resolved(log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
    """See harness.contracts.Engine. `kernel_stand_in` (true) is there only where a stand-in was imported."""
    info = facts.get("/server_info")
    info = info if isinstance(info, Mapping) else {}
    found = {**_from_models(facts.get("/v1/models")), **_from_info(info), **_from_log(log)}
    if "dtype" not in found and info.get("kv_cache_dtype") == "auto" and "kv_cache_type" in found:
        # Where neither is asked for, the cache has the type of the model.
        found["dtype"] = found["kv_cache_type"]
    if "dtype" in found:
        found.setdefault("weights_type", found["dtype"])
    return found


def memory_said(log: str, facts: Mapping[str, Any]) -> Mapping[MemoryPart, int]:
    """See harness.contracts.Engine. Its GB are 2^30 bytes; the page has thousandths, the log hundredths.

    Weights and graphs are the memory that was free before less that after: on a device each rank says its
    own. On a CPU that is the whole machine's, with what others took meanwhile, and counts for nothing here.
    """
    found: dict[MemoryPart, int] = {}
    kv_cache = resolved(log, facts).get("kv_cache_bytes")
    ranks = len(set(re.findall(r" (TP\d+)\] KV Cache is allocated", log))) or 1
    if isinstance(kv_cache, int):
        found["kv_cache"] = kv_cache * ranks
    else:
        # Keys and values, or a latent, which is one.
        sizes = _sizes(r"KV Cache is allocated\..* K size: ([\d.]+) GB, V size: ([\d.]+) GB", log)
        sizes += _sizes(r"KV Cache is allocated\..* KV size: ([\d.]+) GB", log)
        if sizes:
            found["kv_cache"] = sum(sizes)
    if "available_gpu_mem=" in log:
        for part, pattern in _ON_DEVICE.items():
            if (size := sum(_sizes(pattern, log))) > 0:  # others may have freed more than it took
                found[part] = size
    return found


_ON_DEVICE: Mapping[MemoryPart, str] = {
    "weights": r"Load weight end\..* mem usage=(-?[\d.]+) GB",
    "graphs": r"Capture .* end\..* mem usage=(-?[\d.]+) GB",
}


def _sizes(pattern: str, log: str) -> list[int]:
    numbers = [match.groups() for match in re.finditer(pattern, log)]
    return [round(float(number) * 2**30) for groups in numbers for number in groups]


def _from_info(info: Mapping[str, Any]) -> dict[str, Scalar]:
    """Of /server_info: what the server was told or chose itself, and at its end how that came out."""
    if "version" not in info:
        return {}
    found: dict[str, Scalar] = {
        term: info[key] for term, key in INFO_TERMS.items() if info.get(key) is not None
    }
    found["prefix_cache"] = not info.get("disable_radix_cache")
    found["chunked_prefill"] = (info.get("chunked_prefill_size") or 0) > 0
    found["attention_backend"] = _backend(info)
    if info.get("dtype") not in (None, "auto"):
        found["dtype"] = info["dtype"]
    if info.get("quantization") is not None:
        found["weights_type"] = found["quantization_kernel"] = info["quantization"]
    graphs = info.get("cuda_graph_config")
    if isinstance(graphs, Mapping):
        found["graphs"] = (graphs.get("decode") or {}).get("backend") != "disabled"
    if info.get("speculative_algorithm") and info.get("speculative_num_draft_tokens"):
        found["speculative_tokens"] = info["speculative_num_draft_tokens"] - 1
    return {**found, **_from_state(info.get("internal_states"))}


def _backend(info: Mapping[str, Any]) -> str | None:
    """SGLang may take one kind of kernel for prompts and another for the tokens after them."""
    both = info.get("attention_backend")
    prefill = info.get("prefill_attention_backend") or both
    decode = info.get("decode_attention_backend") or both
    return both if prefill == decode else f"{prefill} (prompts), {decode} (tokens)"


def _from_state(states: Any) -> dict[str, Scalar]:
    """Of the first of SGLang's data-parallel ranks; bench starts one."""
    state = states[0] if isinstance(states, list) and states and isinstance(states[0], Mapping) else {}
    found: dict[str, Scalar] = {}
    if state.get("effective_max_running_requests_per_dp") is not None:
        found["concurrent_sequences"] = state["effective_max_running_requests_per_dp"]
    kv_gibibytes = (state.get("memory_usage") or {}).get("kvcache")
    if kv_gibibytes:
        # Given in thousandths of a GiB.
        found["kv_cache_bytes"] = round(kv_gibibytes * 2**30)
    return found


def _from_models(models: Any) -> dict[str, Scalar]:
    length = served_length(models)
    return {} if length is None else {"context_length": length}


def _from_log(log: str) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for term, (pattern, read) in LOG_TERMS.items():
        match = re.search(pattern, log, re.MULTILINE)
        if match:
            found[term] = read(match[1])
    if re.search(STAND_IN, log, re.MULTILINE):
        found["kernel_stand_in"] = True
    return found
