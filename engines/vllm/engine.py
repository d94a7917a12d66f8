"""vLLM: `vllm serve` on a Hugging Face checkpoint, in bench's environment or an image.

Knows vLLM's command line, not how it works: how much cache a number of tokens takes is in vllm_cache.py, what
its log says in vllm_log.py. The flags are those of 0.32.0, which both locks pin.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

from engines.common.checkpoints import (
    DTYPES,
    PLAIN_SAMPLING,
    QUANTIZED,
    architecture_of,
    cast_reason,
    code_reason,
)
from engines.common.images import image_of
from engines.common.mounts import weights_mount
from engines.vllm import log as vllm_log
from engines.vllm import memory as vllm_memory
from engines.vllm.cache import cache_blocks, cache_bytes, cache_shape
from harness.contracts import (
    ContainerSpec,
    Deployment,
    Fairness,
    Hint,
    HttpCall,
    InstallSpec,
    Launcher,
    LaunchSpec,
    MemoryNeed,
    MemoryPart,
    ModelFacts,
    NativeSpec,
    Place,
    ReadFacts,
    Reason,
    Scalar,
    ServerMetric,
    ServerTerm,
    Stage,
    Tuned,
    Turn,
    Weights,
)
from harness.errors import UserError

HERE = Path(__file__).parent.parent
# The module, not bin/vllm: a script's first line holds a path, which may be too long for the kernel.
MODULE = ("-P", "-m", "vllm.entrypoints.cli.main")
# vllm/config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS: "Numerical instability."
REFUSE_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4"})
# Its processes end within 6 s of SIGTERM; it gives them 5 s before it kills them.
STOP_GRACE_S = 20.0
# Whatever user an image has may write there.
CACHE_IN_IMAGE = Path("/var/tmp")
# What its processes talk through; the 64 MiB of a container are too little (vLLM's docs, Using Docker).
SHM_BYTES = 4 * 2**30
# Measured for the CPU; for CUDA an estimate from the sizes of its wheels.
SIZE_BYTES = {"cpu": 3_400_000_000, "cuda": 11_000_000_000}
CHECK_CPU = (
    "import vllm.entrypoints.cli.serve, vllm._C; from vllm.platforms import current_platform as platform; "
    "import sys; platform.is_cpu() or sys.exit(f'vllm takes {platform} for its platform')"
)
CHECK_CUDA = (
    "import torch, vllm.entrypoints.cli.serve, sys; torch.version.cuda or sys.exit('torch has no CUDA')"
)
NEEDS_CPU = (
    "It needs torch 2.13.0+cpu and torchvision 0.28.0+cpu, which PyPI does not serve: name PyTorch's index "
    "of CPU builds, or a folder with the two wheels, in pip's settings (extra-index-url, find-links)."
)


@dataclass(frozen=True)
class Options:
    """Each is vLLM's flag of the same name, left out where it is None, but for these.

    `threads_bind` (CPU only): cores of each worker, as VLLM_CPU_OMP_THREADS_BIND takes them (`0-7`, of
    several workers `0-7|8-15`); vLLM keeps one core free for its other processes unless it is given. While
    engine.kv_cache_tokens is set, which fairness=matched does, `gpu_memory_utilization` does not size the KV
    cache.
    """

    environment: str | None = None
    image: str | None = None
    gpu_memory_utilization: float | None = None
    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    attention_backend: str | None = None
    kv_cache_dtype: Literal["auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"] | None = None
    quantization: str | None = None
    performance_mode: Literal["balanced", "interactivity", "throughput"] | None = None
    async_scheduling: bool | None = None
    threads_bind: str | None = None

    def __post_init__(self) -> None:
        share = self.gpu_memory_utilization
        if share is not None and not 0 < share <= 1:
            raise UserError(f"vllm.gpu_memory_utilization={share}: must be above 0, and 1 at most")
        for name in ("max_num_batched_tokens", "block_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"vllm.{name}={value}: must be 1 or more")


# vllm/v1/metrics/loggers.py; the prefix cache is counted in tokens.
METRICS: Mapping[ServerTerm, ServerMetric] = {
    "running": ServerMetric("vllm:num_requests_running"),
    "waiting": ServerMetric("vllm:num_requests_waiting"),
    # 1 is full, whatever its name says.
    "kv_cache_usage_share": ServerMetric("vllm:kv_cache_usage_perc", combine="mean"),
    "prefix_query_tokens": ServerMetric("vllm:prefix_cache_queries_total"),
    "prefix_hit_tokens": ServerMetric("vllm:prefix_cache_hits_total"),
    "preemptions": ServerMetric("vllm:num_preemptions_total"),
    "prompt_tokens": ServerMetric("vllm:prompt_tokens_total"),
    "generated_tokens": ServerMetric("vllm:generation_tokens_total"),
    "queue_s": ServerMetric("vllm:request_queue_time_seconds_sum"),
    "queued_requests": ServerMetric("vllm:request_queue_time_seconds_count"),
}


class Vllm:
    """See harness.contracts.Engine."""

    name: str = "vllm"
    description: str = "vLLM on Hugging Face checkpoints (on a CPU: its vllm-cpu build)"
    options: type = Options
    programs: Sequence[str | None] = (None,)
    launchers: Sequence[Launcher] = ("native", "docker")
    stages: Sequence[Stage] = vllm_log.STAGES
    tuned: Tuned | None = Tuned(
        "throughput",
        {"max_num_batched_tokens": 16384, "performance_mode": "throughput"},
        "vLLM's docs, Optimization and Tuning (more than 8192 batched tokens), and its own throughput mode",
    )
    read_facts: ReadFacts | None = None
    metrics_path: str = "/metrics"
    metrics: Mapping[ServerTerm, ServerMetric] = METRICS
    fact_paths: Sequence[str] = ("/version", "/v1/models")
    hints: Sequence[Hint] = vllm_log.HINTS

    def weights(self, deployment: Deployment) -> Weights | Reason:
        quantization, dtype = deployment.quantization, deployment.terms.dtype
        if quantization.startswith("gguf-"):
            return Reason("vLLM reads GGUF files only with a plugin that is no part of it")
        if quantization not in (*DTYPES, *QUANTIZED):
            served = ", ".join((*DTYPES, *QUANTIZED))
            return Reason(f"vLLM has no {quantization} checkpoints; it serves {served}")
        if reason := cast_reason(deployment) or code_reason(deployment):
            return reason
        architecture = architecture_of(deployment.model)
        if "float16" in (dtype, DTYPES.get(quantization)) and architecture in REFUSE_FLOAT16:
            return Reason(f"vLLM refuses float16 for {architecture} as unstable; bf16 works")
        return Weights(deployment.model, quantization, "safetensors")

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        if place.weights is None:
            raise ValueError("vllm needs a checkpoint")
        if deployment.terms.launcher == "docker":
            return _container(deployment, place, place.weights)
        if place.python is None:
            raise ValueError("vllm needs the Python of its environment")
        template = deployment.terms.chat_template or place.chat_template
        arguments = _arguments(deployment, place, str(place.weights), str(template) if template else None)
        return NativeSpec(
            argv=(*_own_cache_size(deployment, place), str(place.python), *MODULE, "serve", *arguments),
            base_url=f"http://{place.host}:{place.port}/v1",
            served_model=deployment.model,
            ready_path="/health",
            environment={**_environment(deployment, place), **_caches(place.cache)},
            stop_grace_s=STOP_GRACE_S,
        )

    def install(self, program: str | None, device: str) -> InstallSpec | Reason:
        is_cpu = device == "cpu"
        return InstallSpec(
            environment=f"vllm-{device}",
            lock=HERE / "locks" / f"vllm-{device}.txt",
            mend=(HERE / "inside" / "mend_vllm.py",) if is_cpu else (),
            check=CHECK_CPU if is_cpu else CHECK_CUDA,
            size_bytes=SIZE_BYTES[device],
            needs=NEEDS_CPU if is_cpu else None,
        )

    def request_fields(self, turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
        # Without min_tokens an answer with too little room left in the context ends early and looks whole.
        forced = {"ignore_eos": True, "min_tokens": turn.max_tokens}
        return forced if fairness == "stock" else {**forced, **PLAIN_SAMPLING, "top_k": 0}

    def forces_length(self, deployment: Deployment) -> bool:
        return True

    def unmatched(self, deployment: Deployment) -> Mapping[str, str]:
        return {}

    def reset_cache(self, deployment: Deployment) -> Sequence[HttpCall]:
        return (HttpCall("POST", "/reset_prefix_cache"),)

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        return vllm_log.resolved(log, facts)

    def memory_said(self, log: str, facts: Mapping[str, Any]) -> Mapping[MemoryPart, int]:
        return vllm_log.memory_said(log)

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        return vllm_memory.memory_needed(deployment, facts, device)


def _container(deployment: Deployment, place: Place, weights: Path) -> ContainerSpec:
    terms, options = deployment.terms, deployment.options
    mount, inside = weights_mount(weights)
    mounts = [mount]
    template = terms.chat_template or place.chat_template
    if template is not None:
        template = Path(template).absolute()
        mounts.append((template, f"/templates/{template.name}"))
    return ContainerSpec(
        image=options.image or image_of("vllm", "cuda" if place.devices else "cpu"),
        # Images differ in theirs: the program, the program and `serve`, or an older module.
        entrypoint="vllm",
        arguments=("serve", *_arguments(deployment, place, inside, mounts[1][1] if template else None)),
        base_url=f"http://{place.host}:{place.port}/v1",
        served_model=deployment.model,
        ready_path="/health",
        environment={**_environment(deployment, place), **_caches(CACHE_IN_IMAGE)},
        mounts=tuple(mounts),
        cache=str(CACHE_IN_IMAGE),
        devices=place.devices,
        shm_bytes=SHM_BYTES,
        memory_limit_bytes=terms.memory_limit_bytes,
        stop_grace_s=STOP_GRACE_S,
    )


def _environment(deployment: Deployment, place: Place) -> dict[str, str]:
    """Nothing is fetched, and nothing is told to anyone."""
    found = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    # vLLM's own limit of a start, 600 s, must not come before the user's.
    found["VLLM_ENGINE_READY_TIMEOUT_S"] = str(max(600, ceil(deployment.terms.start_timeout_s)))
    if deployment.terms.prefix_cache is not False:
        # Else there is no /reset_prefix_cache. It adds other routes too (sleep, new weights, collective_rpc),
        # for whoever reaches the port, which bench binds to 127.0.0.1. What computes stays the same, and
        # compiled graphs are found again: vllm/envs.py leaves it out of their key.
        found["VLLM_SERVER_DEV_MODE"] = "1"
    if not place.devices:
        # 0.32.0 compiles anew at each start otherwise: what it saves ahead of time cannot be loaded on a CPU.
        found["VLLM_USE_AOT_COMPILE"] = "0"
    if deployment.options.threads_bind is not None:
        found["VLLM_CPU_OMP_THREADS_BIND"] = deployment.options.threads_bind
    return found


def _own_cache_size(deployment: Deployment, place: Place) -> tuple[str, ...]:
    """The user's VLLM_CPU_KVCACHE_SPACE would win over the flag; empty, it ends 0.32.0 with a ValueError."""
    if place.devices or deployment.terms.kv_cache_tokens is None:
        return ()
    return ("/usr/bin/env", "--unset=VLLM_CPU_KVCACHE_SPACE")


def _caches(folder: Path | None) -> dict[str, str]:
    """What was compiled is kept for later starts."""
    if folder is None:
        return {}
    return {
        "VLLM_CACHE_ROOT": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }


def _arguments(deployment: Deployment, place: Place, weights: str, template: str | None) -> tuple[str, ...]:
    terms = deployment.terms
    return (
        weights,
        *(f"--served-model-name={deployment.model}", f"--host={place.host}", f"--port={place.port}"),
        # Without it no request says how many of its tokens came from the prefix cache.
        "--enable-prompt-tokens-details",
        *([] if terms.fairness == "stock" else ["--generation-config=vllm"]),
        *([f"--chat-template={template}"] if template else []),
        *_term_flags(deployment),
        *_cache_flags(deployment, place),
        *_option_flags(deployment.options),
    )


def _term_flags(deployment: Deployment) -> Iterator[str]:
    terms = deployment.terms
    values = {
        "--dtype": terms.dtype or DTYPES.get(deployment.quantization),
        "--max-model-len": terms.context_length,
        "--max-num-seqs": terms.concurrent_sequences,
        "--seed": terms.seed,
        "--tensor-parallel-size": terms.tensor_parallel if terms.tensor_parallel > 1 else None,
    }
    yield from (f"{flag}={value}" for flag, value in values.items() if value is not None)
    yield from _switch("enable-prefix-caching", terms.prefix_cache)
    yield from _switch("enable-chunked-prefill", terms.chunked_prefill)
    yield from _switch("enforce-eager", None if terms.graphs is None else not terms.graphs)
    if terms.speculative_tokens is not None:
        speculative = {"method": "ngram", "num_speculative_tokens": terms.speculative_tokens}
        yield f"--speculative-config={json.dumps(speculative)}"
    if terms.trust_remote_code:
        yield "--trust-remote-code"


def _cache_flags(deployment: Deployment, place: Place) -> tuple[str, ...]:
    """The KV cache in bytes, where the model's shape is known: on a CPU vLLM then does not ask for most of
    the machine's memory first. Else in blocks, which is right for a model without sliding windows."""
    tokens = deployment.terms.kv_cache_tokens
    if tokens is None:
        return ()
    shape = cache_shape(deployment.terms, deployment.options, is_cpu=not place.devices)
    if place.facts is None:
        blocks = cache_blocks(tokens, shape.block_tokens)
        return f"--block-size={shape.block_tokens}", f"--num-gpu-blocks-override={blocks}"
    return (f"--kv-cache-memory-bytes={cache_bytes(tokens, place.facts, shape)}",)


def _option_flags(options: Options) -> Iterator[str]:
    for name in (
        "gpu_memory_utilization",
        "max_num_batched_tokens",
        "block_size",
        "attention_backend",
        "kv_cache_dtype",
        "quantization",
        "performance_mode",
    ):
        value = getattr(options, name)
        if value is not None:
            yield f"--{name.replace('_', '-')}={value}"
    yield from _switch("async-scheduling", options.async_scheduling)


def _switch(name: str, is_on: bool | None) -> Iterator[str]:
    if is_on is not None:
        yield f"--{name}" if is_on else f"--no-{name}"


ENGINE = Vllm()
