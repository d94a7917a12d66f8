"""Start llama.cpp on GGUF files: llama-server (xllamacpp's or compiled), or llama-cpp-python's server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from serving_bench.engines.common import llama_cpp_output
from serving_bench.engines.common.launching import (
    NO_CACHE_WITH_ADAPTERS,
    args_key,
    container,
    environment_key,
    given,
    image_key,
    seen_by_server,
    template_of,
    unmatched,
)
from serving_bench.engines.llama_cpp import log, quality
from serving_bench.engines.llama_cpp.flags import (
    erasable_slots,
    kv_cache_types,
    python_arguments,
    server_arguments,
)
from serving_bench.engines.llama_cpp.memory import memory_needed
from serving_bench.engines.model.weights.tools import LLAMA_SERVER, PYTHON, XLLAMACPP, environment
from serving_bench.engines.places import INSIDE
from serving_bench.harness import contracts
from serving_bench.harness.contracts import COUNT, NOT_NEGATIVE, Range, key
from serving_bench.harness.errors import UserError, refuse_first

_SCRIPTS = {XLLAMACPP: INSIDE / "xllamacpp_server.py", PYTHON: INSIDE / "llama_cpp_python_server.py"}
_STOP_GRACE_S = 5.0


@dataclass(frozen=True)
class Options:
    """The engine's own options; for None the program chooses."""

    program: str = key(XLLAMACPP, "The program that serves.", foreign="program")
    environment: str | None = environment_key()
    image: str | None = image_key()
    args: str | None = args_key()
    threads: int | None = key(None, "The threads on the CPU.", COUNT)
    batch: int | None = key(None, "The tokens of a logical batch.", COUNT)
    ubatch: int | None = key(None, "The tokens of a physical batch.", COUNT)
    flash_attention: bool | None = key(None, "Whether flash attention is used.")
    cache_ram_bytes: int | None = key(
        None, "Host memory for prompts that left the KV cache; none unless fairness=stock.", NOT_NEGATIVE
    )
    gpu_layers: int | None = key(
        None,
        "The layers on the GPU, the others are on the CPU; null: all on the GPU, if there is one.",
        Range(0, words="must not be negative; leave it out for all layers"),
    )

    def __post_init__(self) -> None:
        refuse_first(
            (
                self.program not in (XLLAMACPP, LLAMA_SERVER, PYTHON) and "/" not in self.program,
                f"llama_cpp.program={self.program}: no such program; choose from {XLLAMACPP}, "
                f"{LLAMA_SERVER}, {PYTHON}, or give the path of a llama-server",
            ),
            (
                self.cache_ram_bytes is not None and self.program == PYTHON,
                f"llama_cpp.cache_ram={self.cache_ram_bytes}: {PYTHON} keeps no such cache",
            ),
        )


def _weights(deployment: contracts.Deployment) -> contracts.Weights | contracts.Reason:
    quantization = deployment.quantization
    if quantization in ("fp16", "bf16") or quantization.startswith("gguf-"):
        return contracts.Weights(deployment.model, quantization, "gguf")
    why = "llama.cpp serves GGUF files; {quantization} is stored as safetensors"
    return contracts.Reason(why, quantization=quantization)


def _install(program: str | None, device: str) -> contracts.InstallSpec | contracts.Reason:
    program = program or XLLAMACPP
    if program == XLLAMACPP and device != "cpu":
        return contracts.Reason(
            f"the prebuilt xllamacpp wheel serves only on the CPU; {LLAMA_SERVER} and {PYTHON} can be "
            "built with CUDA"
        )
    return environment(program, device)


def _request_fields(
    turn: contracts.Turn, options: Options, fairness: contracts.Fairness
) -> Mapping[str, Any]:
    # llama-cpp-python knows no ignore_eos.
    is_python = options.program == PYTHON
    forced = {"min_tokens": turn.max_tokens} if is_python else {"ignore_eos": True}
    if fairness == "stock":
        return forced
    # llama.cpp takes defaults for these from flags and the model's file. Temperature 0 keeps one candidate.
    return {
        **forced,
        "top_k": 1,
        "top_p": 1.0,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        **({"mirostat_mode": 0} if is_python else {"mirostat": 0, "xtc_probability": 0.0}),
    }


def _unmatched(deployment: contracts.Deployment) -> Mapping[str, contracts.Fact]:
    terms = deployment.terms
    types = (
        "the GGUF file's types are used as they are; only the KV cache's can be set (engine.kv_cache_type)"
    )
    only: dict[str, tuple[object, str]] = {
        "dtype": (None, types),
        "trust_remote_code": (False, "a GGUF file comes without code"),
    }
    if deployment.options.program == PYTHON:
        one = f"{PYTHON} serves one request at a time"
        only |= {
            "concurrent_sequences": (1, one),
            "kv_cache_tokens": (
                terms.context_length or terms.kv_cache_tokens,
                f"{PYTHON} has a KV cache for one conversation",
            ),
            "prefix_cache": (False, f"{PYTHON} keeps only the tokens of its last request"),
            "chunked_prefill": (None, f"{one}, so there is nothing to interleave"),
        }
    else:
        in_parts = "it always reads prompts in parts of llama_cpp.batch tokens"
        only |= {"chunked_prefill": (True, in_parts)}
        only |= {"prefix_cache": (False, NO_CACHE_WITH_ADAPTERS)} if deployment.adapters else {}
    return unmatched(terms, only)


def _reset_cache(deployment: contracts.Deployment) -> Sequence[contracts.HttpCall] | contracts.Reason:
    if deployment.options.program == PYTHON:
        # It keeps only the last request, which this one replaces.
        message = {"role": "user", "content": "."}
        body = {"model": deployment.model, "messages": [message], "max_tokens": 1, "temperature": 0}
        return (contracts.HttpCall("POST", "/v1/chat/completions", body),)
    slots = erasable_slots(deployment)
    if isinstance(slots, contracts.Reason):
        return slots
    return [contracts.HttpCall("POST", f"/slots/{slot}?action=erase") for slot in range(slots)]


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    terms, program = deployment.terms, deployment.options.program
    shares, is_docker = terms.tensor_parallel, terms.launcher == "docker"
    if shares > 1 and len(place.devices) != shares:
        why = f"{{setting}}: llama_cpp was given {len(place.devices)} devices; name {shares} with device="
        raise UserError(contracts.Reason(why, setting=f"engine.tensor_parallel={shares}"))
    if deployment.options.args and program == XLLAMACPP and terms.launcher != "docker":
        raise UserError(
            f"llama_cpp.args={deployment.options.args}: the program {XLLAMACPP} takes no further arguments; "
            f"llama_cpp.program={LLAMA_SERVER} (`bench install llama_cpp --program {LLAMA_SERVER}`) and "
            "engine.launcher=docker do"
        )
    layers = deployment.options.gpu_layers
    if layers and not place.devices:
        why = "{setting}: there is no GPU here to hold layers"
        raise UserError(contracts.Reason(why, setting=f"llama_cpp.gpu_layers={layers}"))
    # Any value turns graphs off. Source: llama.cpp, ggml/src/ggml-cuda/common.cuh.
    graphs = {"GGML_CUDA_DISABLE_GRAPHS": "1"} if terms.graphs is False else {}
    given(place.weights, "llama_cpp needs a weights file")
    seen, mounts = seen_by_server(place, template_of(deployment, place), in_container=is_docker)
    if is_docker:
        return container(
            deployment,
            place,
            mounts,
            server_arguments(deployment, replace(seen, scratch=Path("/tmp"))),
            environment=graphs,
            stop_grace_s=_STOP_GRACE_S,
        )
    is_python, script = program == PYTHON, _SCRIPTS.get(program)
    starts = given(
        place.program if script is None else place.python,
        f"llama_cpp.program={program} needs its environment",
    )
    words = (python_arguments if is_python else server_arguments)(deployment, seen)
    # Without devices a build with CUDA must not use any.
    devices = ",".join(map(str, place.devices))
    return contracts.NativeSpec(
        argv=(str(starts), *(("-P", str(script)) if script else ()), *words),
        base_url=place.base_url,
        served_model=deployment.model,
        ready_path="/v1/models" if is_python else "/health",
        environment={"CUDA_VISIBLE_DEVICES": devices, "CUDA_DEVICE_ORDER": "PCI_BUS_ID", **graphs},
        stop_grace_s=_STOP_GRACE_S,
    )


# llama.cpp's prompt tokens leave out cached ones; it counts output tokens when their request has ended.
_PROMPTS = contracts.ServerMetric(
    "llamacpp:prompt_tokens_total", also=("llamacpp:prompt_tokens_cached_total",)
)
ENGINE = contracts.Engine(
    name="llama_cpp",
    description="llama.cpp's servers on GGUF files; llama-cpp-python's takes one request at a time",
    options=Options,
    programs=(XLLAMACPP, LLAMA_SERVER, PYTHON),
    launchers=("native", "docker"),
    weights=_weights,
    kv_cache_types=kv_cache_types,
    speculations=lambda deployment: (
        ("ngram",) if deployment.options.program == PYTHON else ("ngram", "draft")
    ),
    launch=_launch,
    install=_install,
    request_fields=_request_fields,
    why_no_adapters=lambda deployment: (
        contracts.Reason(
            f"{PYTHON} has one adapter for all requests; llama_cpp.program={XLLAMACPP} has one for each"
        )
        if deployment.options.program == PYTHON
        else None
    ),
    # Adapters that are not named are off. Requests for different adapters are computed one after the other.
    adapter_fields=lambda name, number: {"lora": [{"id": number, "scale": 1.0}]},
    # A llama-cpp-python server that others started suppresses only EOS, and an answer can end otherwise.
    forces_length=lambda deployment: not deployment.terms.base_url or deployment.options.program != PYTHON,
    unmatched=_unmatched,
    reset_cache=_reset_cache,
    pages=("/props",),
    said=llama_cpp_output.said,
    stages=log.STAGES,
    hints=log.HINTS,
    given_text=quality.given_text,
    prompt_tokens=quality.prompt_tokens,
    memory_needed=memory_needed,
    tuned=contracts.Tuned(
        "large batches",
        {"batch": 2048, "ubatch": 2048},
        "the example presets in llama.cpp's docs/preset.md (batch-size and ubatch-size 2048)",
    ),
    # tools/server/server-context.cpp; llama-cpp-python has no such page.
    metrics={
        "running": contracts.ServerMetric("llamacpp:requests_processing"),
        "waiting": contracts.ServerMetric("llamacpp:requests_deferred"),
        "prefix_query_tokens": _PROMPTS,
        "prefix_hit_tokens": contracts.ServerMetric("llamacpp:prompt_tokens_cached_total"),
        "prompt_tokens": _PROMPTS,
        "generated_tokens": contracts.ServerMetric("llamacpp:tokens_predicted_total"),
        "draft_steps": contracts.ServerMetric("llamacpp:spec_decode_num_drafts_total"),
        "drafted_tokens": contracts.ServerMetric("llamacpp:spec_decode_num_draft_tokens_total"),
        "accepted_tokens": contracts.ServerMetric("llamacpp:spec_decode_num_accepted_tokens_total"),
    },
)
