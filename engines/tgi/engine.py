"""Hugging Face's Text Generation Inference: its container, a launcher of the user's own, or attached to.

Facts on its flags, log and pages are of its source as of 2026-01-08, after tag v3.3.7; upstream has it in
maintenance. It generates an answer of more than 1,024 tokens in pieces of that many: each begins with a
prefill of all before it, and the last is not cut to max_tokens. Must not know the harness: it says what to
start, and reads what the server says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Literal

from engines.common.checkpoints import DTYPES, QUANTIZED, architecture_of, cast_reason, code_reason
from engines.common.images import image_of
from engines.common.mounts import weights_mount
from engines.tgi import log as tgi_log
from engines.tgi import memory as tgi_memory
from harness.contracts import (
    ContainerSpec,
    Deployment,
    EngineTerms,
    Fairness,
    Hint,
    InstallSpec,
    Launcher,
    LaunchSpec,
    MemoryNeed,
    MemoryPart,
    ModelFacts,
    NativeSpec,
    Place,
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

# Any other name in a request is taken for a LoRA adapter's.
SERVED_MODEL = "tgi"
# TGI's own default for them is bfloat16 (server/text_generation_server/models/__init__.py).
OVERFLOW_FLOAT16 = ("gemma", "gemma2", "gemma3", "gemma3_text")
# Requests that run or wait; TGI refuses the next one, where other engines let it wait. Its default is 128.
QUEUE = 4096
SHUT_DOWN_S = 10
STOP_GRACE_S = 30.0
SHM_BYTES = 1 << 30  # NCCL's, between shards
NOT_INSTALLED = (
    "bench does not install TGI, which is published as a container image only: engine.launcher=docker runs "
    "that, tgi.program=/path/text-generation-launcher starts your own build, engine.base_url=URL measures a "
    "running one"
)


@dataclass(frozen=True)
class Options:
    """`program`: the path of a text-generation-launcher of the user's own; its text-generation-router and
    text-generation-server must be on PATH. `quantize`: TGI's own method; unless given it is the one that
    the checkpoint's config.json names. `max_concurrent_requests`: that run or wait; more are refused."""

    program: str | None = None
    image: str | None = None
    cuda_memory_fraction: float | None = None
    max_batch_prefill_tokens: int | None = None
    max_concurrent_requests: int | None = None
    kv_cache_dtype: Literal["fp8_e4m3fn", "fp8_e5m2"] | None = None
    quantize: Literal["awq", "compressed-tensors", "eetq", "fp8", "gptq", "marlin"] | None = None

    def __post_init__(self) -> None:
        if self.program is not None and "/" not in self.program:
            raise UserError(f"tgi.program={self.program}: give the path of a text-generation-launcher")
        fraction = self.cuda_memory_fraction
        if fraction is not None and not 0 < fraction <= 1:
            raise UserError(f"tgi.cuda_memory_fraction={fraction}: must be above 0 and at most 1")
        for name in ("max_batch_prefill_tokens", "max_concurrent_requests"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"tgi.{name}={value}: must be 1 or more")


# router/src/server.rs, backends/v3/src. Histograms, of which a page has the sums: of requests that went well.
# No prompt_tokens: a request for more than 1,024 tokens has its input_length counted again for each 1,024.
METRICS: Mapping[ServerTerm, ServerMetric] = {
    "running": ServerMetric("tgi_batch_current_size"),
    "waiting": ServerMetric("tgi_queue_size"),
    "generated_tokens": ServerMetric("tgi_request_generated_tokens_sum"),
    "queue_s": ServerMetric("tgi_request_queue_duration_sum"),
    "queued_requests": ServerMetric("tgi_request_queue_duration_count"),
}


class Tgi:
    """See harness.contracts.Engine."""

    name: str = "tgi"
    description: str = (
        "Hugging Face Text Generation Inference: its container, your own launcher, or attached; generates "
        "answers of more than 1,024 tokens in pieces, each with a prefill of its own"
    )
    options: type = Options
    programs: Sequence[str | None] = (None,)
    launchers: Sequence[Launcher] = ("docker", "native")
    stages: Sequence[Stage] = tgi_log.STAGES
    tuned: Tuned | None = None
    metrics_path: str = "/metrics"
    metrics: Mapping[ServerTerm, ServerMetric] = METRICS
    fact_paths: Sequence[str] = ("/info",)
    hints: Sequence[Hint] = tgi_log.HINTS

    def read_facts(self, base_url: str, key: str | None, timeout_s: float) -> Mapping[str, Any]:
        """/info by huggingface_hub's client; nothing where it does not answer within timeout_s."""
        # The client's own timeout does not hold for this page: it waits for as long as the server is silent.
        found: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        Thread(target=lambda: found.put(_info(base_url, key)), name="tgi /info", daemon=True).start()
        try:
            return found.get(timeout=timeout_s)
        except Empty:
            return {}

    def weights(self, deployment: Deployment) -> Weights | Reason:
        quantization = deployment.quantization
        if deployment.terms.launcher == "native" and deployment.options.program is None:
            return Reason(NOT_INSTALLED)
        if quantization not in (*DTYPES, *QUANTIZED):
            return Reason(f"TGI's own engine reads safetensors; {quantization} is stored as GGUF")
        if reason := cast_reason(deployment) or code_reason(deployment):
            return reason
        architecture = architecture_of(deployment.model)
        if quantization == "fp16" and architecture in OVERFLOW_FLOAT16:
            return Reason(
                f"{architecture} overflows float16 and TGI computes it in bfloat16 unless told; bf16 works"
            )
        return Weights(deployment.model, quantization, "safetensors")

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        if place.weights is None:
            raise ValueError("tgi needs a checkpoint")
        if deployment.terms.launcher == "native":
            return _native(deployment, place, place.weights)
        return _container(deployment, place, place.weights)

    def install(self, program: str | None, device: str) -> InstallSpec | Reason:
        return Reason(NOT_INSTALLED)

    def request_fields(self, turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
        # TGI reads no sampling parameter from the model's files, and neutral ones would change the answer:
        # top_p=1 is refused, presence_penalty=0 becomes a repetition penalty of 2. It has no ignore_eos.
        return {}

    def forces_length(self, deployment: Deployment) -> bool:
        return False

    def unmatched(self, deployment: Deployment) -> Mapping[str, str]:
        terms, is_quantized = deployment.terms, deployment.quantization in QUANTIZED
        # With chunked prefill a running batch takes in whatever fits the KV cache.
        is_capped = terms.chunked_prefill is False or terms.speculative_tokens is not None
        wrong = {
            "concurrent_sequences": terms.concurrent_sequences is not None and not is_capped,
            "kv_cache_tokens": terms.kv_cache_tokens is not None,
            "chunked_prefill": terms.chunked_prefill is True and terms.speculative_tokens is not None,
            "dtype": terms.dtype is not None and is_quantized,
            "seed": terms.seed is not None,
            "chat_template": terms.chat_template is not None,
        }
        return {term: UNMATCHED[term] for term, is_wrong in wrong.items() if is_wrong}

    def reset_cache(self, deployment: Deployment) -> Reason:
        # router/src/server.rs has no such route.
        return Reason("TGI has no way to empty its prefix cache but a new start")

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        info = facts.get("/info")
        return {**tgi_log.resolved(log), **_from_info(info if isinstance(info, Mapping) else {})}

    def memory_said(self, log: str, facts: Mapping[str, Any]) -> Mapping[MemoryPart, int]:
        return {}

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        return tgi_memory.memory_needed(deployment, facts, device)


UNMATCHED = {
    "concurrent_sequences": "--max-batch-size bounds a batch as it begins; more join it (chunked prefill)",
    "kv_cache_tokens": "TGI takes tgi.cuda_memory_fraction of the memory, and ignores a limit in tokens",
    "chunked_prefill": "TGI turns it off when it speculates",
    "dtype": "TGI chooses the dtype of quantized weights itself",
    "seed": "TGI takes one with each request only, and greedy answers need none",
    "chat_template": "TGI takes the one in the checkpoint's tokenizer_config.json or chat_template.json",
}


def _native(deployment: Deployment, place: Place, weights: Path) -> NativeSpec:
    if place.program is None:
        raise UserError(NOT_INSTALLED)
    # The router writes the tokenizer to ./out. The path of a shard's socket must be absolute and short, and
    # its default is every TGI's; the launcher's children have its working directory.
    argv = ["/usr/bin/env", f"--chdir={place.scratch.absolute()}", str(place.program.absolute())]
    socket = "--shard-uds-path=/proc/self/cwd/shard"
    return NativeSpec(
        argv=(*argv, *_arguments(deployment, place, str(weights.absolute())), socket),
        base_url=f"http://{place.host}:{place.port}/v1",
        served_model=SERVED_MODEL,
        ready_path="/health",
        environment=_environment(deployment.terms),
        stop_grace_s=STOP_GRACE_S,
    )


def _container(deployment: Deployment, place: Place, weights: Path) -> ContainerSpec:
    terms, options = deployment.terms, deployment.options
    if not place.devices and options.image is None:
        raise UserError(
            "engine=tgi: its image serves on a GPU; tgi.image= names another, such as its -intel-cpu one"
        )
    # The image's entrypoint splits its arguments at spaces; a mount has none in its name.
    mount, inside = weights_mount(weights)
    return ContainerSpec(
        image=options.image or image_of("tgi", "cuda"),
        arguments=tuple(_arguments(deployment, place, inside)),
        base_url=f"http://{place.host}:{place.port}/v1",
        served_model=SERVED_MODEL,
        ready_path="/health",
        environment=_environment(terms),
        mounts=(mount,),
        devices=place.devices,
        shm_bytes=SHM_BYTES,
        memory_limit_bytes=terms.memory_limit_bytes,
        stop_grace_s=STOP_GRACE_S,
    )


def _environment(terms: EngineTerms) -> dict[str, str]:
    """What TGI has no flag for. The router's own test of LOG_COLORIZE is inverted: 1 turns colours off."""
    asked = {"PREFIX_CACHING": terms.prefix_cache, "PREFILL_CHUNKING": terms.chunked_prefill}
    switches = {name: str(int(value)) for name, value in asked.items() if value is not None}
    return {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "LOG_COLORIZE": "1", **switches}


def _arguments(deployment: Deployment, place: Place, weights: str) -> Iterator[str]:
    """The launcher's command line. Long names: --port and --prometheus-port share their short one."""
    terms, options = deployment.terms, deployment.options
    length = terms.context_length
    values = {
        "model-id": weights,
        "hostname": place.host,
        "port": place.port,
        # Unset, TGI takes every GPU that it sees.
        "num-shard": terms.tensor_parallel,
        "max-input-tokens": None if length is None else length - 1,
        "max-total-tokens": length,
        "max-batch-prefill-tokens": options.max_batch_prefill_tokens or _one_pass_tokens(terms),
        "max-batch-size": terms.concurrent_sequences,
        "max-concurrent-requests": _queue(terms, options),
        "cuda-graphs": 0 if terms.graphs is False else None,
        "cuda-memory-fraction": options.cuda_memory_fraction,
        "kv-cache-dtype": options.kv_cache_dtype,
        "speculate": terms.speculative_tokens,
        "quantize": options.quantize,
        "dtype": _dtype(deployment),
        "usage-stats": "off",
        "graceful-termination-timeout": SHUT_DOWN_S,
    }
    yield from (f"--{name}={value}" for name, value in values.items() if value is not None)
    if terms.trust_remote_code:
        yield "--trust-remote-code"


def _one_pass_tokens(terms: EngineTerms) -> int | None:
    """Without chunked prefill the longest prompt must fit into one, else the router does not start."""
    is_whole = terms.chunked_prefill is False or terms.speculative_tokens is not None
    return terms.context_length if is_whole else None


def _queue(terms: EngineTerms, options: Options) -> int | None:
    if options.max_concurrent_requests is not None or terms.fairness == "stock":
        return options.max_concurrent_requests
    return max(QUEUE, terms.concurrent_sequences or 0)


def _dtype(deployment: Deployment) -> str | None:
    """None where TGI chooses: for quantized weights it takes no --dtype."""
    return None if deployment.options.quantize else DTYPES.get(deployment.quantization)


def _info(base_url: str, key: str | None) -> Mapping[str, Any]:
    """The page by its path; nothing where it cannot be had: bench then asks for it itself. Blocks without a
    limit."""
    from huggingface_hub import InferenceClient

    root = base_url.rstrip("/").removesuffix("/v1")
    # Without one, the client would send the hub token that the user is logged in with.
    token = key or "none"
    try:
        with InferenceClient(root, provider="hf-inference", token=token) as client:
            return {"/info": client.get_endpoint_info()}
    except Exception:  # of the HTTP library that this release of the client uses; which one, changes
        return {}


def _from_info(info: Mapping[str, Any]) -> dict[str, Scalar]:
    """Of /info. Releases 3.3.6 and 3.3.7 both say version 3.3.6-dev0: the label of the image, or the commit,
    tells them apart."""
    build = info.get("docker_label") or info.get("sha")
    version = info.get("version")
    found = {
        "engine_version": f"{version} ({build})" if version and build else version,
        "context_length": info.get("max_total_tokens"),
        "max_input_tokens": info.get("max_input_tokens"),
        "max_concurrent_requests": info.get("max_concurrent_requests"),
    }
    return {term: value for term, value in found.items() if value is not None}


ENGINE = Tgi()
