"""Start Hugging Face's Text Generation Inference (in maintenance): as a container or by the user's launcher.

Facts are from its source as of 2026-01-08, after v3.3.7. It generates an answer of more than 1,024 tokens in
pieces, prefilling everything before each piece, and does not cut the last piece to max_tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from serving_bench.engines.common import overhead
from serving_bench.engines.common.launching import (
    DTYPES,
    NO_CACHE_WITH_ADAPTERS,
    QUANTIZED,
    args_key,
    checkpoint,
    container,
    flags,
    given,
    image_key,
    kv_cache_types,
    seen_by_server,
    unmatched,
)
from serving_bench.engines.common.tokens import placed
from serving_bench.engines.model import sizes
from serving_bench.engines.tgi import log
from serving_bench.harness import contracts
from serving_bench.harness.contracts import COUNT, SHARE_OF_MEMORY, key
from serving_bench.harness.errors import UserError

# TGI takes any other model name in a request for a LoRA adapter.
_SERVED_MODEL = "tgi"
_STOP_GRACE_S = 30.0
_KV_CACHE_TYPES = {"fp8": "fp8_e4m3fn", "fp8_e5m2": "fp8_e5m2"}  # beside the dtype that it computes in
_NOT_INSTALLED = (
    "bench does not install TGI, which is published only as a container image: engine.launcher=docker runs "
    "the image, tgi.program=/path/text-generation-launcher your own build, and engine.base_url=URL measures "
    "a running server"
)


@dataclass(frozen=True)
class Options:
    program: str | None = key(None, "Your text-generation-launcher.", foreign="program")
    image: str | None = image_key()
    args: str | None = args_key()
    cuda_memory_fraction: float | None = key(None, "The share of the GPU's memory.", SHARE_OF_MEMORY)
    max_batch_prefill_tokens: int | None = key(None, "The most tokens of prompts in one batch.", COUNT)
    max_concurrent_requests: int | None = key(None, "The most that run or wait; TGI refuses more.", COUNT)
    quantize: Literal["awq", "compressed-tensors", "eetq", "fp8", "gptq", "marlin"] | None = key(
        None, "TGI's method of quantization; null: the one in config.json."
    )

    def __post_init__(self) -> None:
        if self.program is not None and "/" not in self.program:
            raise UserError(f"tgi.program={self.program}: give the path of a text-generation-launcher")


def _weights(deployment: contracts.Deployment) -> contracts.Weights | contracts.Reason:
    if deployment.terms.launcher == "native" and deployment.options.program is None:
        return contracts.Reason(_NOT_INSTALLED)
    if deployment.quantization.startswith("gguf-"):
        return contracts.Reason(
            "TGI's own engine reads safetensors; {quantization} is stored as GGUF",
            quantization=deployment.quantization,
        )
    return checkpoint(
        deployment,
        "TGI",
        # TGI's own default for them is bfloat16 (server/text_generation_server/models/__init__.py).
        ("gemma", "gemma2", "gemma3", "gemma3_text"),
        "{} overflows float16, so TGI computes it in bfloat16 by default; bf16 works",
        casts_quantized=False,
    )


def _unmatched(deployment: contracts.Deployment) -> Mapping[str, contracts.Fact]:
    terms, speculates = deployment.terms, deployment.terms.speculative_tokens is not None
    only: dict[str, tuple[object, str]] = {
        "kv_cache_tokens": (
            None,
            "TGI takes tgi.cuda_memory_fraction of the memory, and ignores a limit in tokens",
        ),
        "seed": (None, "TGI takes a seed only with each request, and greedy answers need none"),
        "chat_template": (
            None,
            "TGI uses the one in the checkpoint's tokenizer_config.json or chat_template.json",
        ),
    }
    # With chunked prefill a running batch admits whatever fits into the KV cache.
    if not (terms.chunked_prefill is False or speculates):
        why = "--max-batch-size bounds only a new batch; with chunked prefill, TGI's default, more requests "
        only["concurrent_sequences"] = (None, why + "join it later")
    if deployment.adapters:
        only["prefix_cache"] = (False, NO_CACHE_WITH_ADAPTERS)
    if speculates:
        only["chunked_prefill"] = (False, "TGI turns it off when it speculates")
    if deployment.quantization in QUANTIZED:
        only["dtype"] = (None, "TGI chooses the dtype of quantized weights itself")
    return unmatched(terms, only)


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    program, is_native = place.program, deployment.terms.launcher == "native"
    seen, mounts = seen_by_server(place, None, in_container=not is_native)
    if not is_native:
        if not place.devices and deployment.options.image is None:
            why = "{setting}: its image needs a GPU; tgi.image= names another, such as its -intel-cpu one"
            raise UserError(contracts.Reason(why, setting="engine=tgi"))
        # The image's entrypoint splits its arguments at spaces; the name of a mount has none.
        return container(
            deployment,
            place,
            mounts,
            _arguments(deployment, seen),
            environment=_environment(deployment),
            served_model=_SERVED_MODEL,
            shm_bytes=1 << 30,  # for NCCL between shards
            stop_grace_s=_STOP_GRACE_S,
        )
    if program is None:
        raise UserError(_NOT_INSTALLED)
    # The router writes to ./out. A shard's socket needs a short path; the default is the same for every TGI.
    argv = ("/usr/bin/env", f"--chdir={place.scratch.absolute()}", str(program.absolute()))
    socket = "--shard-uds-path=/proc/self/cwd/shard"
    return contracts.NativeSpec(
        argv=(*argv, *_arguments(deployment, place), socket),
        base_url=place.base_url,
        served_model=_SERVED_MODEL,
        environment=_environment(deployment),
        stop_grace_s=_STOP_GRACE_S,
    )


def _environment(deployment: contracts.Deployment) -> dict[str, str]:
    """Return variables for settings without a flag. The router reads LOG_COLORIZE inverted: 1 is off."""
    terms = deployment.terms
    # TGI finds a cached block by its tokens, whichever adapter computed it (backends/v3/src). The cache is on
    # by default where the attention kernel supports it; 1 would ask for it elsewhere too, and the shard dies.
    has_cache = False if deployment.adapters or terms.prefix_cache is False else None
    variables = {"PREFIX_CACHING": has_cache, "PREFILL_CHUNKING": terms.chunked_prefill}
    switches = {name: str(int(value)) for name, value in variables.items() if value is not None}
    return {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "LOG_COLORIZE": "1", **switches}


def _arguments(deployment: contracts.Deployment, place: contracts.Place) -> Iterator[str]:
    terms, options = deployment.terms, deployment.options
    length = terms.context_length
    # Without chunked prefill the longest prompt must fit into one prefill, or the router does not start.
    is_whole = terms.chunked_prefill is False or terms.speculative_tokens is not None
    # By default TGI refuses a request when 128 run or wait. Other engines let it wait.
    queue = None if terms.fairness == "stock" else max(4096, terms.concurrent_sequences or 0)
    values: dict[str, object] = {
        "model-id": given(place.weights, "tgi needs a checkpoint").absolute(),
        "hostname": place.host,
        "port": place.port,
        # Unset, TGI uses every GPU that it sees.
        "num-shard": terms.tensor_parallel,
        "max-input-tokens": None if length is None else length - 1,
        "max-total-tokens": length,
        "max-batch-prefill-tokens": options.max_batch_prefill_tokens or (length if is_whole else None),
        "max-batch-size": terms.concurrent_sequences,
        "max-concurrent-requests": options.max_concurrent_requests or queue,
        "cuda-graphs": 0 if terms.graphs is False else None,
        "cuda-memory-fraction": options.cuda_memory_fraction,
        "kv-cache-dtype": _KV_CACHE_TYPES.get(terms.kv_cache_type or ""),
        "speculate": terms.speculative_tokens,
        "quantize": options.quantize,
        # TGI accepts no --dtype together with --quantize.
        "dtype": None if options.quantize else DTYPES.get(deployment.quantization),
        "lora-adapters": ",".join(f"{each.name}={each.path}" for each in place.adapters) or None,
        "usage-stats": "off",
        "graceful-termination-timeout": 10,
        "trust-remote-code": terms.trust_remote_code,
    }
    return flags(values)


def _memory_needed(
    deployment: contracts.Deployment, facts: contracts.ModelFacts, device: str
) -> contracts.MemoryNeed | contracts.Reason:
    """Return what TGI needs. Its KV cache then takes all that is left (models/flash_causal_lm.py, warmup)."""
    if device == "cpu":
        return contracts.Reason("TGI's image needs a GPU; what it takes on a CPU was not measured")
    terms, options = deployment.terms, deployment.options
    # flash_llama_modeling.py and similar files divide the KV heads and never repeat them. Models with a
    # single KV head have a copy on each device: flash_rw_modeling.py, flash_santacoder_modeling.py.
    can_repeat = facts.architecture in ("falcon", "gpt_bigcode")
    if reason := sizes.why_not_shared(facts, terms.tensor_parallel, can_repeat=can_repeat):
        return reason
    tokens = overhead.cache_tokens(terms, facts)
    value_bytes = sizes.KV_CACHE_BYTES[terms.kv_cache_type or "fp16"]
    token_bytes = sizes.token_bytes(facts, value_bytes, terms.tensor_parallel)
    # TGI reads 4,096 tokens in a step unless it knows a better number for the device.
    step = options.max_batch_prefill_tokens or min(4096, tokens)
    each = overhead.CUDA_CONTEXT_BYTES + overhead.activation_bytes(facts, step)
    # A guess: graphs of 1 to 32 sequences, which no log of TGI's tells. vLLM's, up to 256 or 512, take 0.67
    # GiB.
    each += 300 * overhead.MEBIBYTE if terms.graphs is not False else 0
    return contracts.MemoryNeed(
        kv_cache_bytes=tokens * token_bytes,
        kv_bytes_per_token=token_bytes,
        overhead_bytes=each * terms.tensor_parallel,
        overhead_source=f"assumed: {overhead.CONTEXT_SOURCE}; {overhead.ACTIVATION_SOURCE}",
        is_assumed=True,
    )


@dataclass(frozen=True)
class _Piece:
    id: int
    logprob: float | None = None


@dataclass(frozen=True)
class _Details:
    prefill: Sequence[_Piece]


@dataclass(frozen=True)
class _Generated:
    details: _Details


@dataclass(frozen=True)
class _Tokenized:
    tokenize_response: Sequence[_Piece]


def _given_text(ask: contracts.Ask, model: str, text: str, most: int) -> Iterator[contracts.Token]:
    """Ask for the probability of each token of a text. TGI names no alternatives.

    Seen with the Python shard of 3.3.6-dev0. With its llama.cpp backend the list is empty.
    """
    path = "/generate"
    parameters = {"max_new_tokens": 1, "details": True, "decoder_input_details": True}
    call = contracts.HttpCall("POST", path, {"inputs": text, "parameters": parameters})
    pieces = ask(call, _Generated).details.prefill
    return placed(path, [each.id for each in pieces], ((each.logprob, {}) for each in pieces), 0)


def _prompt_tokens(ask: contracts.Ask, model: str, messages: Sequence[contracts.Message]) -> Sequence[str]:
    body = {"model": model, "messages": [message.fields for message in messages]}
    pieces = ask(contracts.HttpCall("POST", "/chat_tokenize", body), _Tokenized).tokenize_response
    return [str(each.id) for each in pieces]


ENGINE = contracts.Engine(
    name="tgi",
    description="Hugging Face Text Generation Inference: its container, your own launcher, or attached; "
    "generates answers of more than 1,024 tokens in pieces, each with its own prefill",
    options=Options,
    launchers=("docker", "native"),
    weights=_weights,
    kv_cache_types=partial(kv_cache_types, others=_KV_CACHE_TYPES),
    speculations=lambda deployment: ("ngram",),
    launch=_launch,
    install=lambda program, device: contracts.Reason(_NOT_INSTALLED),
    why_no_adapters=lambda deployment: None,
    # No request_fields: TGI reads no sampling parameters from the model's files, and neutral values do harm:
    # top_p=1 is refused, and presence_penalty=0 becomes a repetition penalty of 2.
    unmatched=_unmatched,
    # router/src/server.rs has no such route.
    reset_cache=lambda deployment: contracts.Reason("only a new start empties TGI's prefix cache"),
    names=(_SERVED_MODEL,),
    pages=("/info",),
    said=log.said,
    stages=log.STAGES,
    hints=log.HINTS,
    # TGI refuses more than --max-top-n-tokens. It adds tokens that are as likely as the last one: 5 to 16
    # were seen. The llama.cpp backend refuses any.
    logprobs=5,
    given_text=_given_text,
    prompt_tokens=_prompt_tokens,
    memory_needed=_memory_needed,
    # router/src/server.rs, backends/v3/src. Sums of histograms. No prompt_tokens: TGI counts
    # input_length again for each piece of a long answer.
    metrics={
        "running": contracts.ServerMetric("tgi_batch_current_size"),
        "waiting": contracts.ServerMetric("tgi_queue_size"),
        "generated_tokens": contracts.ServerMetric("tgi_request_generated_tokens_sum"),
        "queue_s": contracts.ServerMetric("tgi_request_queue_duration_sum"),
        "queued_requests": contracts.ServerMetric("tgi_request_queue_duration_count"),
    },
)
