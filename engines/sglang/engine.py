"""SGLang: `python -m sglang.launch_server` on a Hugging Face checkpoint, in an environment or an image.

Knows SGLang's command line, not how it works; what its log and pages say is in sglang_log.py. The flags are
those of 0.5.23, which the lock pins; 0.5.21, the image's, has the same. On a CPU it runs only in an
environment of the user's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from engines.sglang import log as sglang_log
from engines.sglang import memory as sglang_memory
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
MODULE = ("-P", "-m", "sglang.launch_server")
# The image has no interpreter in its entrypoint, which only sets up CUDA's libraries.
IN_IMAGE = ("python3", "-m", "sglang.launch_server")
# Seen with gemma3-270m and 0.5.23: it starts, and each token is <pad>. vLLM refuses float16 for them.
OVERFLOW_FLOAT16 = frozenset({"gemma3", "gemma3_text"})
# On SIGTERM it first lets the requests end that are running; without any it took 8 to 11 s on a busy CPU.
STOP_GRACE_S = 30.0
# Whatever user an image has may write there.
CACHE_IN_IMAGE = Path("/var/tmp")
# What its processes talk through, at most (SGLang's docs, Install: --shm-size 32g).
SHM_BYTES = 32 * 2**30
# The sum of the wheels, of which CUDA's libraries are the most, unpacked.
SIZE_BYTES = 14_000_000_000
CHECK = "import sgl_kernel, sglang.srt.server_args, torch, sys; torch.version.cuda or sys.exit('no CUDA')"
NO_CPU_BUILD = (
    "there is no CPU build of SGLang's kernels (sglang-kernel) to install; sglang.environment=DIR uses an "
    "environment that has them"
)


@dataclass(frozen=True)
class Options:
    """Each is SGLang's flag of the same name, left out where it is None.

    `mem_fraction_static`: share of the memory for weights and KV cache; engine.kv_cache_tokens, which
    fairness=matched sets, can only make the cache smaller than that. `attention_backend`: on a CPU
    torch_native unless it is given; intel_amx needs SGLang's own CPU kernels.
    """

    environment: str | None = None
    image: str | None = None
    mem_fraction_static: float | None = None
    attention_backend: str | None = None
    sampling_backend: str | None = None
    schedule_policy: Literal["fcfs", "lpm", "lof", "random", "dfs-weight", "hrrn"] | None = None
    schedule_conservativeness: float | None = None
    chunked_prefill_size: int | None = None
    max_prefill_tokens: int | None = None
    page_size: int | None = None
    num_continuous_decode_steps: int | None = None
    cuda_graph_max_bs_decode: int | None = None
    kv_cache_dtype: Literal["auto", "bf16", "fp8_e4m3", "fp8_e5m2"] | None = None
    quantization: str | None = None
    enable_mixed_chunk: bool = False
    enable_torch_compile: bool = False

    def __post_init__(self) -> None:
        share = self.mem_fraction_static
        if share is not None and not 0 < share < 1:
            raise UserError(f"sglang.mem_fraction_static={share}: must be between 0 and 1")
        for name in COUNTS:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"sglang.{name}={value}: must be 1 or more")
        if self.schedule_conservativeness is not None and self.schedule_conservativeness <= 0:
            raise UserError(
                f"sglang.schedule_conservativeness={self.schedule_conservativeness}: must be above 0"
            )


COUNTS = (
    "chunked_prefill_size",
    "max_prefill_tokens",
    "page_size",
    "num_continuous_decode_steps",
    "cuda_graph_max_bs_decode",
)
VALUES = (
    "mem_fraction_static",
    "sampling_backend",
    "schedule_policy",
    "schedule_conservativeness",
    *COUNTS,
    "kv_cache_dtype",
    "quantization",
)
TORCH_NATIVE = "torch_native"
SWITCHES = ("enable_mixed_chunk", "enable_torch_compile")


# srt/observability/metrics_collector.py. Tokens are counted when their request has ended, and gauges are as
# of the last prefill or 40th decode step (--decode-log-interval): on a CPU that is seconds ago.
METRICS: Mapping[ServerTerm, ServerMetric] = {
    "running": ServerMetric("sglang:num_running_reqs"),
    "waiting": ServerMetric("sglang:num_queue_reqs"),
    # Of the fullest of an engine's pools.
    "kv_cache_usage_share": ServerMetric("sglang:token_usage", combine="mean"),
    "prefix_query_tokens": ServerMetric("sglang:prompt_tokens_total"),
    "prefix_hit_tokens": ServerMetric("sglang:cached_tokens_total", absent=0.0),
    "preemptions": ServerMetric("sglang:num_retracted_requests_total", absent=0.0),
    "prompt_tokens": ServerMetric("sglang:prompt_tokens_total"),
    "generated_tokens": ServerMetric("sglang:generation_tokens_total"),
    "queue_s": ServerMetric("sglang:queue_time_seconds_sum"),
    "queued_requests": ServerMetric("sglang:queue_time_seconds_count"),
}


class Sglang:
    """See harness.contracts.Engine."""

    name: str = "sglang"
    description: str = "SGLang on Hugging Face checkpoints (on a CPU: in an environment of your own)"
    options: type = Options
    programs: Sequence[str | None] = (None,)
    launchers: Sequence[Launcher] = ("native", "docker")
    stages: Sequence[Stage] = sglang_log.STAGES
    tuned: Tuned | None = Tuned(
        "shared-prefixes",
        {"schedule_policy": "lpm"},
        "SGLang's docs, Hyperparameter Tuning: longest prefix match where prompts share much, as turns do",
    )
    read_facts: ReadFacts | None = None
    metrics_path: str = "/metrics"
    metrics: Mapping[ServerTerm, ServerMetric] = METRICS
    fact_paths: Sequence[str] = ("/server_info", "/v1/models")
    hints: Sequence[Hint] = sglang_log.HINTS

    def weights(self, deployment: Deployment) -> Weights | Reason:
        quantization, dtype = deployment.quantization, deployment.terms.dtype
        if quantization.startswith("gguf-"):
            return Reason("SGLang reads GGUF files on GPUs only and as an experiment; llama_cpp serves them")
        if quantization not in (*DTYPES, *QUANTIZED):
            served = ", ".join((*DTYPES, *QUANTIZED))
            return Reason(f"SGLang has no {quantization} checkpoints; it serves {served}")
        if reason := cast_reason(deployment) or code_reason(deployment):
            return reason
        architecture = architecture_of(deployment.model)
        if "float16" in (dtype, DTYPES.get(quantization)) and architecture in OVERFLOW_FLOAT16:
            return Reason(f"in float16 SGLang answers with padding alone for {architecture}; bf16 works")
        return Weights(deployment.model, quantization, "safetensors")

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        if place.weights is None:
            raise ValueError("sglang needs a checkpoint")
        template = _template(deployment, place)
        if deployment.terms.launcher == "docker":
            return _container(deployment, place, place.weights, template)
        if place.python is None:
            raise ValueError("sglang needs the Python of its environment")
        arguments = _arguments(deployment, place, str(place.weights), str(template) if template else None)
        return NativeSpec(
            argv=(str(place.python), *MODULE, *arguments),
            base_url=f"http://{place.host}:{place.port}/v1",
            served_model=deployment.model,
            ready_path="/health",
            environment={**_environment(place), **_caches(place.cache)},
            stop_grace_s=STOP_GRACE_S,
        )

    def install(self, program: str | None, device: str) -> InstallSpec | Reason:
        if device != "cuda":
            return Reason(NO_CPU_BUILD)
        return InstallSpec(
            environment="sglang-cuda",
            lock=HERE / "locks" / "sglang-cuda.txt",
            check=CHECK,
            size_bytes=SIZE_BYTES,
        )

    def request_fields(self, turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
        # No min_tokens: it makes SGLang add a penalty to each token's logits, which costs time.
        forced = {"ignore_eos": True}
        return forced if fairness == "stock" else {**forced, **PLAIN_SAMPLING, "top_k": -1}

    def forces_length(self, deployment: Deployment) -> bool:
        return True

    def unmatched(self, deployment: Deployment) -> Mapping[str, str]:
        return {}

    def reset_cache(self, deployment: Deployment) -> Sequence[HttpCall]:
        # srt/entrypoints/http_server.py: it waits this many seconds for the last request to be over.
        return (HttpCall("POST", "/flush_cache?timeout=5"),)

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        return sglang_log.resolved(log, facts)

    def memory_said(self, log: str, facts: Mapping[str, Any]) -> Mapping[MemoryPart, int]:
        return sglang_log.memory_said(log, facts)

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        return sglang_memory.memory_needed(deployment, facts, device)


def _template(deployment: Deployment, place: Place) -> Path | None:
    """The Jinja file for --chat-template. UserError where SGLang would take it for something else."""
    given = deployment.terms.chat_template or place.chat_template
    if given is None:
        return None
    template = Path(given).absolute()
    if template.suffix != ".jinja":
        raise UserError(
            f"engine.chat_template={given}: SGLang takes a Jinja file by its ending: name it .jinja"
        )
    return template


def _container(deployment: Deployment, place: Place, weights: Path, template: Path | None) -> ContainerSpec:
    options = deployment.options
    mount, inside = weights_mount(weights)
    mounts = [mount]
    template_inside = f"/templates/{template.name}" if template else None
    if template and template_inside:
        mounts.append((template, template_inside))
    return ContainerSpec(
        image=options.image or image_of("sglang", "cuda" if place.devices else "cpu"),
        arguments=(*IN_IMAGE, *_arguments(deployment, place, inside, template_inside)),
        base_url=f"http://{place.host}:{place.port}/v1",
        served_model=deployment.model,
        ready_path="/health",
        environment={**_environment(place), **_caches(CACHE_IN_IMAGE)},
        mounts=tuple(mounts),
        cache=str(CACHE_IN_IMAGE),
        devices=place.devices,
        shm_bytes=SHM_BYTES,
        memory_limit_bytes=deployment.terms.memory_limit_bytes,
        stop_grace_s=STOP_GRACE_S,
    )


def _environment(place: Place) -> dict[str, str]:
    """Nothing is fetched. /health answers 200 once its warm-up is over, without one more generation."""
    found = {"HF_HUB_OFFLINE": "1", "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0"}
    return found if place.devices else {**found, "SGLANG_USE_CPU_ENGINE": "1"}


def _caches(folder: Path | None) -> dict[str, str]:
    """What was compiled is kept for later starts."""
    if folder is None:
        return {}
    return {
        "SGLANG_CACHE_DIR": str(folder),
        "FLASHINFER_WORKSPACE_BASE": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }


def _arguments(deployment: Deployment, place: Place, weights: str, template: str | None) -> tuple[str, ...]:
    terms, options = deployment.terms, deployment.options
    return (
        f"--model-path={weights}",
        f"--served-model-name={deployment.model}",
        *(f"--host={place.host}", f"--port={place.port}"),
        # Without the second no request says how many of its tokens came from the prefix cache.
        *("--enable-metrics", "--enable-cache-report"),
        *([] if terms.fairness == "stock" else ["--sampling-defaults=openai"]),
        *([f"--chat-template={template}"] if template else []),
        *_device_flags(deployment, place),
        *_term_flags(deployment),
        *_option_flags(options),
    )


def _device_flags(deployment: Deployment, place: Place) -> Iterator[str]:
    backend = deployment.options.attention_backend
    if not place.devices:
        # The overlapping scheduler is for GPUs (SGLang's docs, CPU servers).
        yield from ("--device=cpu", "--disable-overlap-schedule")
        if deployment.terms.launcher != "docker":
            backend = backend or TORCH_NATIVE
            if backend == TORCH_NATIVE and deployment.quantization not in DTYPES:
                raise UserError(
                    f"SGLang on a CPU has no kernels for {deployment.quantization} with torch_native; bf16 "
                    "works (sglang.attention_backend=intel_amx takes SGLang's own CPU build)"
                )
    if backend is not None:
        yield f"--attention-backend={backend}"


def _term_flags(deployment: Deployment) -> Iterator[str]:
    terms = deployment.terms
    values = {
        "--dtype": terms.dtype or DTYPES.get(deployment.quantization),
        "--context-length": terms.context_length,
        "--max-running-requests": terms.concurrent_sequences,
        "--max-total-tokens": terms.kv_cache_tokens,
        "--random-seed": terms.seed,
        "--tp-size": terms.tensor_parallel if terms.tensor_parallel > 1 else None,
    }
    yield from (f"{flag}={value}" for flag, value in values.items() if value is not None)
    if terms.prefix_cache is False:
        yield "--disable-radix-cache"
    if terms.chunked_prefill is False:
        if deployment.options.chunked_prefill_size is not None:
            raise UserError(
                f"engine.chunked_prefill=false and sglang.chunked_prefill_size="
                f"{deployment.options.chunked_prefill_size}: leave out one of them"
            )
        yield "--chunked-prefill-size=-1"
    if terms.graphs is False:
        yield from ("--disable-decode-cuda-graph", "--disable-prefill-cuda-graph")
    if terms.speculative_tokens is not None:
        # SGLang counts the last token of the text, from which the proposals go on.
        yield "--speculative-algorithm=NGRAM"
        yield f"--speculative-num-draft-tokens={terms.speculative_tokens + 1}"
    if terms.trust_remote_code:
        yield "--trust-remote-code"


def _option_flags(options: Options) -> Iterator[str]:
    for name in VALUES:
        value = getattr(options, name)
        if value is not None:
            yield f"--{name.replace('_', '-')}={value}"
    for name in SWITCHES:
        if getattr(options, name):
            yield f"--{name.replace('_', '-')}"


ENGINE = Sglang()
