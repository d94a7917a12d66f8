"""Read TGI's log and /info: values in use, stages of a start, errors with a remedy.

Patterns from its source as of 2026-01-08.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from serving_bench.engines.common.output import LogTerm, from_log, from_page, hints, is_true
from serving_bench.harness.contracts import Fact, Hint, Reason, Said, Stage, at

STAGES: Sequence[Stage] = (
    # A shard logs this as it begins, once its libraries are loaded.
    Stage("weights_begin", r"Using Attention = "),
    Stage("weights_loaded", r"Shard ready in "),
    Stage("engine_ready", r"Setting max batch total tokens to \d+"),
)
_REMEDIES = {
    r"Not enough memory to handle \d+ prefill tokens": "Memory ran out while TGI tried its largest prefill: "
    "lower tgi.max_batch_prefill_tokens.",
    r"NotEnoughMemory\(|must be <= `max_batch_total_tokens`": "The KV cache is smaller than one "
    "conversation: lower engine.context_length, or raise tgi.cuda_memory_fraction.",
    r"CUDA out of memory|Not enough VRAM to run the model": "Memory ran out: lower engine.context_length or "
    "tgi.max_batch_prefill_tokens, take a smaller quantization, or free the GPU; NCCL also needs shared "
    "memory.",
    r"`max_batch_prefill_tokens` must be >= `max_input_tokens`": "TGI reads this model's prompts in one "
    "piece: tgi.max_batch_prefill_tokens must be engine.context_length or more.",
    r"Prefix caching is only supported with flashinfer": "This GPU or model has no attention kernel with a "
    "prefix cache: engine.prefix_cache=false.",
    r"text-generation-(server|router) not found in PATH": "Put the directories of text-generation-server "
    "and text-generation-router on PATH.",
    r"requires Flash Attention enabled models|(quantization|sharded) is not supported for": "This TGI has "
    "no kernels for the model on this device; engine=vllm or sglang may serve it.",
    # With the exception's name: the source lines in a traceback have the same words.
    r"RuntimeError: Only 1 can be set between `dtype` and `quantize`": "Leave out tgi.quantize: TGI chooses "
    "the dtype of quantized weights itself.",
    r"Found no NVIDIA driver|could not select device driver|NotEnoughCUDADevices": "TGI sees too few GPUs: "
    "check the driver, the container toolkit and engine.tensor_parallel.",
    r"Download encountered an error|OfflineModeIsEnabled|LocalEntryNotFoundError": "TGI runs offline and a "
    "file of the checkpoint is missing: remove the checkpoint and run `bench prepare`.",
    r"smaller than\s+sliding_window=": "Without flash attention TGI has no sliding window: "
    "engine.context_length must not exceed the window, which the log gives as sliding_window=.",
    r"Shard process was signaled to shutdown with signal 9\b": "The shard was ended by signal 9: probably "
    "memory ran out. Take a smaller quantization.",
}
HINTS = (
    *hints(_REMEDIES),
    Hint(
        r"Error: Shard(CannotStart|Failed)|Shard \d+ (failed to start|crashed)"
        r"|Shard complete standard error output:",
        "A shard died: if it wrote an error of its own, the log has that before this line.",
        is_effect=True,
    ),
)


# How to read a term from the log. Each message comes after a time, a level and a source.
_LOG_TERMS: Sequence[LogTerm] = (
    ("attention_backend", r"Using Attention = ([\w-]+)", str),
    ("prefix_cache", r"Using prefix caching = (True|False)", is_true),
    ("chunked_prefill", r"Using prefill chunking = (True|False)", is_true),
    ("graphs", r"Cuda Graphs are (enabled|disabled)", lambda text: text == "enabled"),
    ("graph_batch_sizes", r"Cuda Graphs are enabled for sizes \[([\d, ]+)\]", str),
    ("weights_type", r"Auto selecting quantization method ([\w-]+)", str),
    ("max_batch_total_tokens", r"Setting max batch total tokens to (\d+)", int),
    ("max_batch_prefill_tokens", r"Default `max_batch_prefill_tokens` to (\d+)", int),
    ("tensor_parallel", r"Sharding model on (\d+) processes", int),
    ("weights_revision", r"Serving revision (\S+) of model", str),
)
_INFO_TERMS: Mapping[str, str] = {
    "engine_version": "version",
    "context_length": "max_total_tokens",
    "max_input_tokens": "max_input_tokens",
    "max_concurrent_requests": "max_concurrent_requests",
}


def said(log: str, pages: Mapping[str, Any]) -> Said:
    info = pages.get("/info")
    terms = {**from_log(log, _LOG_TERMS), **from_page(info, _INFO_TERMS)}
    if blocks := re.search(r"KV-cache blocks: (\d+), size: (\d+)", log):
        terms["kv_cache_tokens"] = int(blocks[1]) * int(blocks[2])
    unmatched: dict[str, Fact | None] = {}
    # A shard logs what it would use before it finds that the kernels are missing.
    if "Could not import Flash Attention enabled models" in log:
        terms |= {"attention_backend": "no flash attention", "prefix_cache": False}
        unmatched["prefix_cache"] = Reason("without flash attention TGI has none")
    if "Model does not support automatic max batch total tokens" in log:
        bound = f", to {most:,}" if isinstance(most := terms.get("max_batch_total_tokens"), int) else ""
        unmatched["kv_cache_tokens"] = Reason(
            f"without flash attention TGI only bounds the tokens of a batch{bound}"
        )
    # No page names the backend. llama.cpp's takes no best_of, v3's at least 1.
    if at(info, "max_best_of") == 0:
        terms["backend"] = "llama.cpp"
    # Releases 3.3.6 and 3.3.7 both report 3.3.6-dev0; the image's label or the commit tells them apart.
    version, build = terms.get("engine_version"), at(info, "docker_label") or at(info, "sha")
    if isinstance(version, str) and isinstance(build, str):
        terms["engine_version"] = f"{version} ({build})"
    # If prompts are read whole, no request joins beyond --max-batch-size (backends/v3/src/backend.rs).
    is_bounded = terms.get("chunked_prefill") is False
    unmatched |= {"concurrent_sequences": None} if is_bounded else {}
    return Said(terms, unmatched=unmatched)
