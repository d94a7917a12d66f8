"""Start SGLang: `python -m sglang.launch_server` on a checkpoint. Flags of 0.5.23 (lock) and 0.5.21 (image).

On a CPU it runs only in an environment that the user brings.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from serving_bench.engines.common import launching, tokens
from serving_bench.engines.places import LOCKS
from serving_bench.engines.sglang import log
from serving_bench.engines.sglang.memory import memory_needed
from serving_bench.harness import contracts
from serving_bench.harness.contracts import ABOVE_ZERO, BELOW_ONE, COUNT, POSITIVE, Range, key
from serving_bench.harness.errors import UserError

# The image's entrypoint only sets up CUDA's libraries, so the command names the interpreter.
_IN_IMAGE = ("python3", "-m", "sglang.launch_server")
# On SIGTERM it first finishes running requests. Without any it took 8 to 11 s on a busy CPU.
_STOP_GRACE_S = 30.0
# fp16 and fp32, which must be the dtype that the model computes in, are `auto`.
_KV_CACHE_TYPES = {"bf16": "bf16", "fp8": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"}


@dataclass(frozen=True)
class Options:
    """SGLang's own options. Each is the flag of the same name, left out if None."""

    environment: str | None = launching.environment_key()
    image: str | None = launching.image_key()
    args: str | None = launching.args_key()
    mem_fraction_static: float | None = key(
        None,
        "The memory's share for weights and KV cache, which engine.kv_cache_tokens can only make smaller.",
        Range(ABOVE_ZERO, BELOW_ONE, "must be between 0 and 1"),
    )
    attention_backend: str | None = key(None, "The kernels of attention.", foreign="word")
    sampling_backend: str | None = key(None, "The implementation of sampling.", foreign="word")
    schedule_policy: Literal["fcfs", "lpm", "lof", "random", "dfs-weight", "hrrn"] | None = key(
        None, "Which request is served next."
    )
    schedule_conservativeness: float | None = key(None, "How careful it is to begin requests.", POSITIVE)
    chunked_prefill_size: int | None = key(None, "The tokens of a part of a long prompt.", COUNT)
    max_prefill_tokens: int | None = key(None, "The most tokens of prompts in one batch.", COUNT)
    page_size: int | None = key(None, "The tokens of a page of the KV cache.", COUNT)
    num_continuous_decode_steps: int | None = key(None, "Steps between looks at waiting requests.", COUNT)
    cuda_graph_max_bs_decode: int | None = key(None, "The largest batch with a CUDA graph.", COUNT)
    quantization: str | None = key(None, "The method of quantization.", foreign="word")
    enable_mixed_chunk: bool = key(False, "Whether a batch mixes prompts and decoding.")
    enable_torch_compile: bool = key(False, "Whether the model is compiled.")


def _weights(deployment: contracts.Deployment) -> contracts.Weights | contracts.Reason:
    if deployment.quantization.startswith("gguf-"):
        return contracts.Reason(
            "SGLang reads GGUF files only on GPUs and as an experiment; llama_cpp serves them"
        )
    return launching.checkpoint(
        deployment,
        "SGLang",
        # Seen with gemma3-270m and 0.5.23: it starts, and every token is <pad>. vLLM refuses float16 for
        # them.
        ("gemma3", "gemma3_text"),
        "in float16 SGLang answers with nothing but padding for {}; bf16 works",
    )


def _install(program: str | None, device: str) -> contracts.InstallSpec | contracts.Reason:
    if device != "cuda":
        return contracts.Reason(
            "there is no CPU build of SGLang's kernels (sglang-kernel) to install; sglang.environment=DIR "
            "uses an environment of yours that has them"
        )
    # The size is the sum of the unpacked wheels, mostly CUDA's libraries.
    check = "import sgl_kernel, sglang.srt.server_args, torch, sys; torch.version.cuda or sys.exit('no CUDA')"
    return contracts.InstallSpec("sglang-cuda", LOCKS / "sglang-cuda.txt", check, 14_000_000_000)


def _request_fields(
    turn: contracts.Turn, options: Options, fairness: contracts.Fairness
) -> Mapping[str, Any]:
    # Without min_tokens: with it SGLang adds a penalty to each token's logits, which costs time.
    forced = {"ignore_eos": True}
    return forced if fairness == "stock" else {**forced, **launching.PLAIN_SAMPLING, "top_k": -1}


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    launching.given(place.weights, "sglang needs a checkpoint")
    template = launching.template_of(deployment, place)
    if template is not None and template.suffix != ".jinja":
        why = "{setting}: SGLang knows a Jinja file by its ending; name it .jinja"
        file = deployment.terms.chat_template or place.chat_template
        raise UserError(contracts.Reason(why, setting=f"engine.chat_template={file}"))
    is_docker = deployment.terms.launcher == "docker"
    seen, mounts = launching.seen_by_server(place, template, in_container=is_docker)
    words = _arguments(deployment, seen)
    if is_docker:
        return launching.container(
            deployment,
            place,
            mounts,
            (*_IN_IMAGE, *words),
            environment=_environment(place, launching.CACHE_IN_IMAGE),
            cache=str(launching.CACHE_IN_IMAGE),
            # The most that its processes may share (SGLang's docs, Install: --shm-size 32g).
            shm_bytes=32 * 2**30,
            stop_grace_s=_STOP_GRACE_S,
        )
    python = launching.given(place.python, "sglang needs the Python of its environment")
    return contracts.NativeSpec(
        argv=(str(python), "-P", *_IN_IMAGE[1:], *words),
        base_url=place.base_url,
        served_model=deployment.model,
        environment=_environment(place, place.cache),
        stop_grace_s=_STOP_GRACE_S,
    )


def _environment(place: contracts.Place, cache: Path | None) -> dict[str, str]:
    return {
        "HF_HUB_OFFLINE": "1",
        # Lets /health answer 200 once the warm-up is over, without generating a token.
        "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
        **({} if place.devices else {"SGLANG_USE_CPU_ENGINE": "1"}),
        **launching.compile_caches(cache, "SGLANG_CACHE_DIR", "FLASHINFER_WORKSPACE_BASE"),
    }


def _arguments(deployment: contracts.Deployment, place: contracts.Place) -> tuple[str, ...]:
    terms, options = deployment.terms, deployment.options
    if terms.chunked_prefill is False and options.chunked_prefill_size is not None:
        size = options.chunked_prefill_size
        why = f"{{setting}} and sglang.chunked_prefill_size={size}: leave out one of them"
        raise UserError(contracts.Reason(why, setting="engine.chunked_prefill=false"))
    tokens, is_cpu = terms.speculative_tokens, not place.devices
    draft = place.draft.path if place.draft else None
    values: dict[str, object] = {
        "model-path": place.weights,
        "served-model-name": deployment.model,
        "host": place.host,
        "port": place.port,
        "enable-metrics": True,
        # Without it no request says how many of its tokens came from the prefix cache.
        "enable-cache-report": True,
        "sampling-defaults": None if terms.fairness == "stock" else "openai",
        "chat-template": place.chat_template,
        "device": "cpu" if is_cpu else None,
        # The overlap scheduler is for GPUs (SGLang's docs, CPU servers).
        "disable-overlap-schedule": is_cpu,
        "attention-backend": _cpu_backend(deployment) if is_cpu else options.attention_backend,
        "dtype": terms.dtype or launching.DTYPES.get(deployment.quantization),
        "context-length": terms.context_length,
        "max-running-requests": terms.concurrent_sequences,
        "max-total-tokens": terms.kv_cache_tokens,
        "kv-cache-dtype": _KV_CACHE_TYPES.get(terms.kv_cache_type or ""),
        "random-seed": terms.seed,
        "tp-size": terms.tensor_parallel if terms.tensor_parallel > 1 else None,
        "disable-radix-cache": terms.prefix_cache is False,
        "chunked-prefill-size": -1 if terms.chunked_prefill is False else None,
        "disable-decode-cuda-graph": terms.graphs is False,
        "disable-prefill-cuda-graph": terms.graphs is False,
        "speculative-algorithm": None if tokens is None else "NGRAM" if draft is None else "STANDALONE",
        "speculative-draft-model-path": draft,
        # One draft token after the other, as other engines do it.
        "speculative-num-steps": tokens if draft else None,
        "speculative-eagle-topk": 1 if draft else None,
        # SGLang also counts the last token of the text, from which drafting goes on.
        "speculative-num-draft-tokens": None if tokens is None else tokens + 1,
        "trust-remote-code": terms.trust_remote_code,
    }
    options_given = launching.named(options, "environment", "image", "args", "attention_backend")
    return *launching.flags(values), *launching.flags(options_given), *_adapter_words(terms, place)


def _cpu_backend(deployment: contracts.Deployment) -> str | None:
    """Return the attention backend for a CPU. Raise UserError for what SGLang cannot serve there."""
    if deployment.adapters:
        raise UserError(
            "SGLang serves no LoRA adapters on a CPU: its layers for them pin memory, which PyTorch can do "
            "only for GPUs"
        )
    given: str | None = deployment.options.attention_backend
    if deployment.terms.launcher == "docker":
        return given
    backend = given or "torch_native"
    if backend == "torch_native" and deployment.quantization not in launching.DTYPES:
        raise UserError(
            f"SGLang on a CPU has no kernels for {deployment.quantization} with torch_native; bf16 "
            "works (sglang.attention_backend=intel_amx takes SGLang's own CPU build)"
        )
    return backend


def _adapter_words(terms: contracts.EngineTerms, place: contracts.Place) -> tuple[str, ...]:
    if not place.adapters:
        return ()
    at_once = launching.adapters_at_once(terms, place)
    # SGLang reads rank and layers from the adapters. Requests without an adapter count as one more in a
    # batch.
    values = {"enable-lora": True, "max-loras-per-batch": None if at_once is None else at_once + 1}
    return *launching.flags(values), "--lora-paths", *(f"{each.name}={each.path}" for each in place.adapters)


def _why_no_adapters(deployment: contracts.Deployment) -> contracts.Reason | None:
    if deployment.draft is None:
        return None
    return contracts.Reason("SGLang refuses adapters with a draft model; engine.speculation=ngram works")


# A log-probability (null for the first), the token's id, and its text or null.
_Scored = tuple[float | None, int, str | None]


@dataclass(frozen=True)
class _Meta:
    """The probabilities of a prompt: each token, and the likeliest at its position (null for the first)."""

    input_token_logprobs: Sequence[_Scored]
    input_top_logprobs: Sequence[Sequence[tuple[float, int, str | None]] | None]


@dataclass(frozen=True)
class _Generated:
    meta_info: _Meta


def _given_text(ask: contracts.Ask, model: str, text: str, most: int) -> Iterator[contracts.Token]:
    """Ask for a prompt's probabilities. Source of their form: srt/managers/tokenizer_manager.py."""
    path = "/generate"
    parameters = {"return_logprob": True, "logprob_start_len": 0, "top_logprobs_num": most}
    body = {"text": text, "sampling_params": {"max_new_tokens": 1, "temperature": 0}, **parameters}
    meta = ask(contracts.HttpCall("POST", path, body), _Generated).meta_info
    pairs = zip(meta.input_token_logprobs, meta.input_top_logprobs, strict=False)
    positions = (
        (of_token[0], {str(token): value for value, token, _ in top or ()}) for of_token, top in pairs
    )
    return tokens.placed(path, [token for _, token, _ in meta.input_token_logprobs], positions, most)


ENGINE = contracts.Engine(
    name="sglang",
    description="SGLang on Hugging Face checkpoints (on a CPU: in an environment that you bring)",
    options=Options,
    launchers=("native", "docker"),
    weights=_weights,
    kv_cache_types=partial(launching.kv_cache_types, others=_KV_CACHE_TYPES),
    speculations=lambda deployment: ("ngram", "draft"),
    launch=_launch,
    install=_install,
    request_fields=_request_fields,
    why_no_adapters=_why_no_adapters,
    # With `model` alone it would have to be MODEL:NAME.
    adapter_fields=lambda name, number: {"lora_path": name},
    forces_length=lambda deployment: True,
    # srt/entrypoints/http_server.py: it waits up to this many seconds for the last request to end.
    reset_cache=lambda deployment: (contracts.HttpCall("POST", "/flush_cache?timeout=5"),),
    pages=("/server_info", "/v1/models"),
    said=log.said,
    stages=log.STAGES,
    hints=log.HINTS,
    given_text=_given_text,
    # Without add_generation_prompt it renders as for a chat.
    prompt_tokens=tokens.tokenized,
    memory_needed=memory_needed,
    tuned=contracts.Tuned(
        "shared-prefixes",
        {"schedule_policy": "lpm"},
        "SGLang's docs, Hyperparameter Tuning: longest prefix match where prompts share much, as turns do",
    ),
    # srt/observability/metrics_collector.py. Tokens are counted when their request has ended; gauges may lag.
    metrics={
        "running": contracts.ServerMetric("sglang:num_running_reqs"),
        "waiting": contracts.ServerMetric("sglang:num_queue_reqs"),
        # That of the engine's fullest pool.
        "kv_cache_usage_share": contracts.ServerMetric("sglang:token_usage", combine="mean"),
        "prefix_query_tokens": contracts.ServerMetric("sglang:prompt_tokens_total"),
        "prefix_hit_tokens": contracts.ServerMetric("sglang:cached_tokens_total", absent=0.0),
        "preemptions": contracts.ServerMetric("sglang:num_retracted_requests_total", absent=0.0),
        "prompt_tokens": contracts.ServerMetric("sglang:prompt_tokens_total"),
        "generated_tokens": contracts.ServerMetric("sglang:generation_tokens_total"),
        "queue_s": contracts.ServerMetric("sglang:queue_time_seconds_sum"),
        "queued_requests": contracts.ServerMetric("sglang:queue_time_seconds_count"),
        # A step gives the accepted tokens and one more. SGLang does not count how many were drafted.
        "draft_steps": contracts.ServerMetric("sglang:spec_verify_calls_total", absent=0.0),
    },
)
