"""Start Hugging Face transformers behind engines/inside/transformers_server.py: one request at a time."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serving_bench.engines.common import overhead
from serving_bench.engines.common.launching import (
    DTYPES,
    checkpoint,
    environment_key,
    flags,
    given,
    kv_cache_types,
    unmatched,
)
from serving_bench.engines.common.output import from_page, hints, kv_cache_type
from serving_bench.engines.common.tokens import placed, tokenized
from serving_bench.engines.model import sizes
from serving_bench.engines.places import INSIDE, LOCKS
from serving_bench.harness import contracts
from serving_bench.harness.contracts import COUNT, key

SERVER = INSIDE / "transformers_server.py"
# From the peak PSS of its process, less weights and KV cache: 800 MiB with gemma3-270m, 300 to 370 with
# smollm2-135m. A line through both, over the size of the vocabulary.
_CPU_BYTES, _TOKEN_BYTES = 246 * overhead.MEBIBYTE, 2215
_GPU_SOURCE = f"assumed: {overhead.CONTEXT_SOURCE}; {overhead.ACTIVATION_SOURCE}"
# Common term -> the field of /info.
_INFO_TERMS = {
    "engine_version": "transformers",
    "torch_version": "torch",
    "context_length": "context_length",
    "concurrent_sequences": "concurrent_sequences",
    "dtype": "dtype",
    "weights_type": "dtype",
    "attention_backend": "attention",
    "threads": "threads",
    "seed": "seed",
    "speculative_tokens": "speculative_tokens",
    "chat_template": "chat_template",
}
_REMEDIES = {
    r"CUDA out of memory|can't allocate memory|MemoryError": "Memory ran out: lower engine.context_length, "
    "or take a smaller model.",
    r"finds no CUDA device|Found no NVIDIA driver": "The environment's PyTorch sees no GPU: check the "
    "driver, or use device=cpu.",
    r"does not recognize this architecture|Unrecognized (model|configuration class)": "This version of "
    "transformers does not know the model's architecture; trust_remote_code is not used.",
    r"computes NaN as float16": "The model overflows float16: take quantization=bf16.",
    r"has no chat template": "The checkpoint has no chat template: give one with engine.chat_template=FILE.",
    r"the model's context has \d+ tokens": "Lower engine.context_length to what the model was made for.",
    r"SafetensorError|no file named model\.safetensors|IncompleteMetadata": "The checkpoint is damaged or "
    "incomplete: remove it and run `bench prepare`.",
}
_HINTS = hints(_REMEDIES)


@dataclass(frozen=True)
class Options:
    environment: str | None = environment_key()
    threads: int | None = key(None, "The threads on the CPU; null: PyTorch chooses.", COUNT)
    attention: Literal["sdpa", "eager"] = key("sdpa", "The implementation of attention.")


def _weights(deployment: contracts.Deployment) -> contracts.Weights | contracts.Reason:
    quantization = deployment.quantization
    if quantization.startswith("gguf-"):
        return contracts.Reason("transformers converts a GGUF file back to 16 bits on load")
    if quantization not in DTYPES:
        return contracts.Reason(
            "the transformers baseline computes with plain 16-bit weights; {quantization} needs kernels "
            "from other packages",
            quantization=quantization,
        )
    return checkpoint(
        deployment,
        "transformers",
        # Seen with gemma3-270m: in float16 every logit of a prompt is NaN.
        ("gemma3", "gemma3_text"),
        "{} overflows float16 and answers with nothing; bf16 works",
        may_run_code=False,
    )


def _install(program: str | None, device: str) -> contracts.InstallSpec:
    return contracts.InstallSpec(
        environment=f"transformers-{device}",
        lock=LOCKS / f"transformers-{device}.txt",
        mend=(INSIDE / "add_torch_cpu.py",) if device == "cpu" else (),
        check="import torch; from transformers import AutoModelForCausalLM",
        size_bytes=1_050_000_000 if device == "cpu" else 4_900_000_000,
        needs="It needs torch 2.13.0. Where your pip settings offer PyTorch's own CPU build, a CPU "
        "environment is 1.1 GB; with PyPI's, which needs CUDA's libraries, 4.9 GB.",
    )


def _unmatched(deployment: contracts.Deployment) -> Mapping[str, contracts.Fact]:
    only = {
        "concurrent_sequences": (1, "it generates one answer at a time; other requests wait in order"),
        "kv_cache_tokens": (None, "its KV cache grows with the one conversation that it serves"),
        "prefix_cache": (False, "it keeps nothing between requests"),
        "chunked_prefill": (False, "it reads each prompt in one pass"),
        "tensor_parallel": (1, "it computes on one device"),
        "graphs": (False, "it runs generate eagerly"),
        "trust_remote_code": (False, "it never runs code that comes with a model"),
    }
    return unmatched(deployment.terms, only)


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    terms, options = deployment.terms, deployment.options
    values: dict[str, object] = {
        "model": given(place.weights, "transformers needs a checkpoint"),
        "alias": deployment.model,
        "host": place.host,
        "port": place.port,
        "device": "cuda" if place.devices else "cpu",
        "dtype": DTYPES[deployment.quantization],
        "attention": options.attention,
        "context-length": terms.context_length,
        "chat-template": terms.chat_template or place.chat_template,
        "threads": options.threads,
        "seed": terms.seed,
        "speculative-tokens": terms.speculative_tokens,
    }
    python = given(place.python, "transformers needs the Python of its environment")
    return contracts.NativeSpec(
        argv=(str(python), "-P", str(SERVER), *flags(values)),
        base_url=place.base_url,
        served_model=deployment.model,
        environment={"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        stop_grace_s=5.0,
    )


def _said(log: str, pages: Mapping[str, Any]) -> contracts.Said:
    weights = re.search(r"^weights take (\d+) bytes$", log, re.MULTILINE)
    terms = from_page(pages.get("/info"), _INFO_TERMS)
    never = {"prefix_cache": False, "chunked_prefill": False, "graphs": False} if terms else {}
    kept = {"kv_cache_type": kv_cache_type(str(terms["dtype"]))} if "dtype" in terms else {}
    return contracts.Said({**terms, **never, **kept}, {"weights": int(weights[1])} if weights else {})


def _memory_needed(
    deployment: contracts.Deployment, facts: contracts.ModelFacts, device: str
) -> contracts.MemoryNeed:
    context = deployment.terms.context_length or facts.context_length
    value_bytes = sizes.value_bytes(deployment.terms)
    is_cpu = device == "cpu"
    # The cache grows with the one conversation, whose prompt is read in one pass. Layers with a window keep
    # only that.
    on_gpu = overhead.CUDA_CONTEXT_BYTES + overhead.activation_bytes(facts, context)
    on_cpu = _CPU_BYTES + overhead.vocabulary_bytes(facts, _TOKEN_BYTES)
    on_cpu += overhead.wider_step_bytes(facts, context)
    source = overhead.cpu_source("transformers 5.24.0", facts, "what a step takes") if is_cpu else _GPU_SOURCE
    return contracts.MemoryNeed(
        kv_cache_bytes=sizes.kv_bytes(facts, 1, context, value_bytes),
        kv_bytes_per_token=sizes.token_bytes(facts, value_bytes),
        overhead_bytes=on_cpu if is_cpu else on_gpu,
        overhead_source=source,
        is_assumed=not is_cpu or not overhead.is_like_measured(facts),
    )


@dataclass(frozen=True)
class _Given:
    """A text's tokens, and for each position the token's log-probability and the likeliest tokens by id.

    The first position has neither.
    """

    tokens: Sequence[int]
    logprobs: Sequence[float | None]
    top: Sequence[Mapping[str, float]]


def _given_text(ask: contracts.Ask, model: str, text: str, most: int) -> Iterator[contracts.Token]:
    path = "/tokenize"
    call = contracts.HttpCall("POST", path, {"model": model, "prompt": text, "top_logprobs": most})
    given = ask(call, _Given)
    return placed(path, given.tokens, zip(given.logprobs, given.top, strict=False), most)


ENGINE = contracts.Engine(
    name="transformers",
    description="a baseline: transformers' generate behind a small server, one request at a time",
    options=Options,
    weights=_weights,
    kv_cache_types=kv_cache_types,
    speculations=lambda deployment: ("ngram",),
    launch=_launch,
    install=_install,
    # The server takes no sampling parameters from the model's files, and top_p and top_k are off.
    request_fields=lambda turn, options, fairness: {"ignore_eos": True},
    why_no_adapters=lambda deployment: contracts.Reason("bench's small server loads only the model"),
    forces_length=lambda deployment: True,
    why_not_answered=lambda options, forms, tokens: (
        "its server takes neither tools nor a JSON Schema" if forms else None
    ),
    unmatched=_unmatched,
    reset_cache=lambda deployment: contracts.Reason("it keeps nothing between requests"),
    pages=("/info",),
    said=_said,
    stages=(
        contracts.Stage("weights_begin", r"^loading weights$"),
        contracts.Stage("weights_loaded", r"^weights loaded: "),
        contracts.Stage("engine_ready", r"^ready to listen on "),
    ),
    hints=_HINTS,
    given_text=_given_text,
    prompt_tokens=tokenized,
    memory_needed=_memory_needed,
    # engines/inside/transformers_server.py.
    metrics={
        "running": contracts.ServerMetric("transformers:requests_running"),
        "waiting": contracts.ServerMetric("transformers:requests_waiting"),
        "prompt_tokens": contracts.ServerMetric("transformers:prompt_tokens_total"),
        "generated_tokens": contracts.ServerMetric("transformers:generated_tokens_total"),
        "queue_s": contracts.ServerMetric("transformers:queue_seconds_sum"),
        "queued_requests": contracts.ServerMetric("transformers:queue_seconds_count"),
    },
)
