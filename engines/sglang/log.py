"""Read SGLang 0.5.23's log and /server_info: values in use, stages of a start, errors with a remedy."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from serving_bench.engines.common.output import (
    SIZE,
    LogTerm,
    from_log,
    from_page,
    hints,
    known,
    kv_cache_type,
    times,
)
from serving_bench.harness.contracts import Hint, MemoryPart, Said, Stage, at

# What the stand-in for the CPU kernels (tests/sglang_cpu) prints when it is imported.
STAND_IN = r"^sgl_kernel is bench's stand-in without kernels"

STAGES: Sequence[Stage] = (
    Stage("weights_begin", r"Load weight begin\."),
    Stage("weights_loaded", r"Load weight end\."),
    # Logged once, after the KV cache and the graphs.
    Stage("engine_ready", r"max_total_num_tokens=\d+, "),
)

_REMEDIES = {
    r"CUDA out of memory|torch\.OutOfMemoryError|Capture (cuda|prefill CUDA) graph failed": "GPU memory ran "
    "out: lower sglang.mem_fraction_static, engine.kv_cache_tokens or sglang.cuda_graph_max_bs_decode, or "
    "take a smaller quantization.",
    r"Loaded weights leave no GPU memory|Not enough memory\. Please try to increase --mem-frac": "The "
    "weights leave no room for a KV cache: raise sglang.mem_fraction_static, or take a smaller "
    "quantization.",
    r"DefaultCPUAllocator: (can't|not enough)|bad_alloc|\bMemoryError|Cannot allocate memory": "The "
    "machine's memory ran out: lower engine.kv_cache_tokens or sglang.mem_fraction_static.",
    r"User-specified context_length \(\d+\) is greater than the derived": "The model has a shorter context: "
    "lower engine.context_length.",
    r"the draft model to share the same vocabulary": "SGLang needs a draft model with the same vocabulary: "
    "choose another for engine.speculation.",
    r"bench's stand-in of sgl_kernel has no kernels|'sgl_kernel' is not a package": "This needs SGLang's "
    "compiled kernels, which the environment of `make sglang-cpu-env` lacks.",
    r"No module named 'sgl_kernel'": "sglang.environment must contain SGLang's kernels (sglang-kernel); for "
    "a CPU `make sglang-cpu-env` makes one with a stand-in for them.",
    r"No module named '?sglang": "sglang.environment must contain SGLang; `bench install sglang` makes one.",
    r"No accelerator \(CUDA|has no attribute '_cuda_setDevice'|no CUDA-capable device|"
    r"CUDA driver version is insufficient|libcuda\.so": "CUDA was not found: check the driver with "
    "nvidia-smi, and that the environment's torch has CUDA.",
    r"is not supported for quantization|is not supported for the current GPU": "SGLang has no kernel for "
    "this quantization here: on a GPU engine.dtype=float16 may help, on a CPU it needs its own compiled "
    "kernels.",
    r"Model architectures .* are not supported": "This SGLang does not know the model's architecture; a "
    "newer one may.",
    r"launch_server\.py: error: ": "This SGLang does not know one of its arguments: it may be older or "
    "newer than the versions that bench was written for (`bench list engines`).",
}
HINTS = (*hints(_REMEDIES), Hint(r"Received sigquit from a child process", "", is_effect=True))

# Term -> its field in /server_info.
_INFO_TERMS: Mapping[str, str] = {
    "engine_version": "version",
    "context_length": "context_length",
    "kv_cache_tokens": "max_total_num_tokens",
    "seed": "random_seed",
    "tensor_parallel": "tp_size",
    "schedule_policy": "schedule_policy",
    "page_size_tokens": "page_size",
    "sampling_backend": "sampling_backend",
    "weights_type": "quantization",
    "quantization_kernel": "quantization",
}
# How to read a term from the log, which has the values in use.
_LOG_TERMS: Sequence[LogTerm] = (
    ("context_length", r"max_total_num_tokens=.* context_len=(\d+)", int),
    ("concurrent_sequences", r"max_total_num_tokens=.* max_running_requests=(\d+)", int),
    ("kv_cache_tokens", r"max_total_num_tokens=(\d+), ", int),
    ("kv_cache_type", r"KV Cache is allocated\. dtype: torch\.(\w+)", str),
    ("weights_type", r"Load weight end\..* quant=([\w-]+)", str),
    ("quantization_kernel", r"convertible to \w+ during runtime\. Using (\w+) kernel\.", str),
    ("chat_template", r"Loading chat template from argument: (.+)", str),
    ("threads", r"local_omp_cpuid=([\d,]+)", lambda cores: len(cores.split(","))),
    ("kernel_stand_in", f"({STAND_IN})", lambda text: True),
)


def said(log: str, pages: Mapping[str, Any]) -> Said:
    info = pages.get("/server_info")
    length = at(pages, "/v1/models", "data", 0, "max_model_len")
    terms = {**known({"context_length": length}), **_from_info(info), **from_log(log, _LOG_TERMS)}
    if "dtype" not in terms and at(info, "kv_cache_dtype") == "auto" and "kv_cache_type" in terms:
        # If neither was asked for, the cache has the model's dtype.
        terms["dtype"] = terms["kv_cache_type"]
    if "kv_cache_type" in terms:
        terms["kv_cache_type"] = kv_cache_type(str(terms["kv_cache_type"]))
    if "dtype" in terms:
        terms.setdefault("weights_type", terms["dtype"])
    return Said(terms, _memory(log, terms.get("kv_cache_bytes")))


def _memory(log: str, kv_cache_bytes: Any) -> Mapping[MemoryPart, int]:
    """Return bytes by part. SGLang's GB are 2^30 bytes.

    On a CPU it logs the machine's free memory, from which no part but the KV cache can be told.
    """
    parts: dict[MemoryPart, int] = {}
    ranks = len(set(re.findall(r" (TP\d+)\] KV Cache is allocated", log))) or 1
    # Keys and values; with latent attention both are one.
    sizes = _sizes(rf"KV Cache is allocated\..* K size: ({SIZE}) GB, V size: ({SIZE}) GB", log)
    sizes += _sizes(rf"KV Cache is allocated\..* KV size: ({SIZE}) GB", log)
    if isinstance(kv_cache_bytes, int):
        parts["kv_cache"] = kv_cache_bytes * ranks
    elif sizes:
        parts["kv_cache"] = sum(sizes)
    if "available_gpu_mem=" in log:
        parts["weights"] = sum(_sizes(rf"Load weight end\..* mem usage=(-?{SIZE}) GB", log))
        parts["graphs"] = sum(_sizes(rf"Capture .* end\..* mem usage=(-?{SIZE}) GB", log))
    return {part: size for part, size in parts.items() if size > 0}


def _sizes(pattern: str, log: str) -> list[int]:
    numbers = [match.groups() for match in re.finditer(pattern, log)]
    return [round(float(number) * 2**30) for groups in numbers for number in groups]


def _from_info(info: Any) -> dict[str, Any]:
    if at(info, "version") is None:
        return {}
    # The state of the first data-parallel rank; bench starts only one.
    state = at(info, "internal_states", 0)
    dtype, graphs = at(info, "dtype"), at(info, "cuda_graph_config")
    chunk, uncached = at(info, "chunked_prefill_size") or 0, at(info, "disable_radix_cache")
    drafted = at(info, "speculative_algorithm") and at(info, "speculative_num_draft_tokens")
    is_graph = at(graphs, "decode", "backend") != "disabled"
    # It may use one attention backend for prompts and another for the tokens after them.
    backend = at(info, "prefill_attention_backend") or at(info, "attention_backend")
    decode = at(info, "decode_attention_backend") or at(info, "attention_backend")
    if backend != decode and isinstance(backend, str) and isinstance(decode, str):
        backend = f"{backend} (prompts), {decode} (tokens)"
    return known(
        {
            **from_page(info, _INFO_TERMS),
            "prefix_cache": not uncached if isinstance(uncached, bool | None) else uncached,
            "chunked_prefill": chunk > 0 if isinstance(chunk, int) else chunk,
            "attention_backend": backend,
            "dtype": None if dtype == "auto" else dtype,
            "graphs": is_graph if isinstance(graphs, Mapping) else graphs,
            "speculative_tokens": drafted - 1 if drafted and isinstance(drafted, int) else drafted or None,
            "concurrent_sequences": at(state, "effective_max_running_requests_per_dp"),
            # In GiB, with three decimals.
            "kv_cache_bytes": times(at(state, "memory_usage", "kvcache") or None, 2**30),
        }
    )
