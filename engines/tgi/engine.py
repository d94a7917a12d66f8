"""Start Hugging Face's Text Generation Inference (in maintenance): as a container or by the user's launcher.

Facts are from its source as of 2026-01-08, after v3.3.7. It generates an answer of more than 1,024 tokens in
pieces, each with a prefill of all before it, and does not cut the last to max_tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from engines.common import overhead
from engines.common.launching import (
    DTYPES,
    QUANTIZED,
    checkpoint,
    container,
    flags,
    given,
    kv_cache_types,
    need_counts,
)
from engines.common.tokens import placed
from engines.model import sizes
from engines.tgi import log
from harness import contracts
from harness.errors import UserError, refuse_first

# Any other name in a request is taken for a LoRA adapter's.
_SERVED_MODEL = "tgi"
_STOP_GRACE_S = 30.0
_KV_CACHE_TYPES = {"fp8": "fp8_e4m3fn", "fp8_e5m2": "fp8_e5m2"}  # beside the type that it computes in
_NOT_INSTALLED = (
    "bench does not install TGI, which is published as a container image only: engine.launcher=docker runs "
    "that, tgi.program=/path/text-generation-launcher starts your own build, engine.base_url=URL measures a "
    "running one"
)


@dataclass(frozen=True)
class Options:
    """TGI's own options. `program`: path of the user's text-generation-launcher. `quantize`: TGI's method,
    by default the one in config.json. `max_concurrent_requests`: how many may run or wait; more are refused.
    """

    program: str | None = None
    image: str | None = None
    cuda_memory_fraction: float | None = None
    max_batch_prefill_tokens: int | None = None
    max_concurrent_requests: int | None = None
    quantize: Literal["awq", "compressed-tensors", "eetq", "fp8", "gptq", "marlin"] | None = None

    def __post_init__(self) -> None:
        program, fraction = self.program, self.cuda_memory_fraction
        refuse_first(
            (
                program is not None and "/" not in program,
                f"tgi.program={program}: give the path of a text-generation-launcher",
            ),
            (
                fraction is not None and not 0 < fraction <= 1,
                f"tgi.cuda_memory_fraction={fraction}: must be above 0 and at most 1",
            ),
        )
        need_counts("tgi", self, "max_batch_prefill_tokens", "max_concurrent_requests")


def _weights(deployment: contracts.Deployment) -> contracts.Weights | contracts.Reason:
    if deployment.terms.launcher == "native" and deployment.options.program is None:
        return contracts.Reason(_NOT_INSTALLED)
    if deployment.quantization.startswith("gguf-"):
        return contracts.Reason(
            f"TGI's own engine reads safetensors; {deployment.quantization} is stored as GGUF"
        )
    return checkpoint(
        deployment,
        "TGI",
        # TGI's own default for them is bfloat16 (server/text_generation_server/models/__init__.py).
        ("gemma", "gemma2", "gemma3", "gemma3_text"),
        "{} overflows float16 and TGI computes it in bfloat16 unless told; bf16 works",
        casts_quantized=False,
    )


def _unmatched(deployment: contracts.Deployment) -> Mapping[str, str]:
    terms, speculates = deployment.terms, deployment.terms.speculative_tokens is not None
    is_quantized = deployment.quantization in QUANTIZED
    # With chunked prefill a running batch takes in whatever fits the KV cache.
    grows = not (terms.chunked_prefill is False or speculates)
    untold = {
        "concurrent_sequences": (
            terms.concurrent_sequences is not None and grows,
            "--max-batch-size bounds a batch as it begins; more join it where prompts are read in parts, "
            "as TGI does unless told",
        ),
        "kv_cache_tokens": (
            terms.kv_cache_tokens is not None,
            "TGI takes tgi.cuda_memory_fraction of the memory, and ignores a limit in tokens",
        ),
        "prefix_cache": (
            terms.prefix_cache is True and bool(deployment.adapters),
            "with LoRA adapters it is off: it would reuse one adapter's KV cache for another",
        ),
        "chunked_prefill": (
            terms.chunked_prefill is True and speculates,
            "TGI turns it off when it speculates",
        ),
        "dtype": (
            terms.dtype is not None and is_quantized,
            "TGI chooses the dtype of quantized weights itself",
        ),
        "seed": (
            terms.seed is not None,
            "TGI takes one with each request only, and greedy answers need none",
        ),
        "chat_template": (
            terms.chat_template is not None,
            "TGI takes the one in the checkpoint's tokenizer_config.json or chat_template.json",
        ),
    }
    return {term: why for term, (is_asked, why) in untold.items() if is_asked}


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    weights, program = given(place.weights, "tgi needs a checkpoint"), place.program
    if deployment.terms.launcher != "native":
        if not place.devices and deployment.options.image is None:
            raise UserError(
                "engine=tgi: its image serves on a GPU; tgi.image= names another, such as its -intel-cpu one"
            )
        # The image's entrypoint splits its arguments at spaces; a mount has none in its name.
        return container(
            deployment,
            place,
            lambda seen, weights, *_: _arguments(deployment, seen, weights),
            template=None,
            environment=_environment(deployment),
            served_model=_SERVED_MODEL,
            shm_bytes=1 << 30,  # NCCL's, between shards
            stop_grace_s=_STOP_GRACE_S,
        )
    if program is None:
        raise UserError(_NOT_INSTALLED)
    # The router writes to ./out. The path of a shard's socket must be short, and its default is every TGI's.
    argv = ("/usr/bin/env", f"--chdir={place.scratch.absolute()}", str(program.absolute()))
    socket = "--shard-uds-path=/proc/self/cwd/shard"
    return contracts.NativeSpec(
        argv=(*argv, *_arguments(deployment, place, str(weights.absolute())), socket),
        base_url=place.base_url,
        served_model=_SERVED_MODEL,
        environment=_environment(deployment),
        stop_grace_s=_STOP_GRACE_S,
    )


def _environment(deployment: contracts.Deployment) -> dict[str, str]:
    """Return the settings that TGI has no flag for. The router tests LOG_COLORIZE inverted: 1 is off."""
    terms = deployment.terms
    # A block of its cache is known by its tokens alone, whichever adapter computed it (backends/v3/src).
    # It is on where the attention can have one; 1 would ask for it elsewhere, too, where the shard then dies.
    has_cache = False if deployment.adapters or terms.prefix_cache is False else None
    asked = {"PREFIX_CACHING": has_cache, "PREFILL_CHUNKING": terms.chunked_prefill}
    switches = {name: str(int(value)) for name, value in asked.items() if value is not None}
    return {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "LOG_COLORIZE": "1", **switches}


def _arguments(deployment: contracts.Deployment, place: contracts.Place, weights: str) -> Iterator[str]:
    terms, options = deployment.terms, deployment.options
    length = terms.context_length
    # Without chunked prefill the longest prompt must fit into one, else the router does not start.
    is_whole = terms.chunked_prefill is False or terms.speculative_tokens is not None
    # TGI refuses one request more than may run or wait (128), where other engines let it wait.
    queue = None if terms.fairness == "stock" else max(4096, terms.concurrent_sequences or 0)
    values: dict[str, object] = {
        "model-id": weights,
        "hostname": place.host,
        "port": place.port,
        # Unset, TGI takes every GPU that it sees.
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
        # For quantized weights TGI takes no --dtype.
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
    """Return what TGI needs; its KV cache takes all that is left (models/flash_causal_lm.py, warmup)."""
    if device == "cpu":
        return contracts.Reason("TGI's image serves on a GPU; what it takes on a CPU was not measured")
    terms, options = deployment.terms, deployment.options
    # flash_llama_modeling.py and its like divide the KV heads and never repeat them; of their one KV head
    # each device has a copy: flash_rw_modeling.py, flash_santacoder_modeling.py.
    can_repeat = facts.architecture in ("falcon", "gpt_bigcode")
    if reason := sizes.why_not_shared(facts, terms.tensor_parallel, can_repeat=can_repeat):
        return reason
    tokens = overhead.cache_tokens(terms, facts)
    value_bytes = sizes.KV_CACHE_BYTES[terms.kv_cache_type or "fp16"]
    token_bytes = sizes.token_bytes(facts, value_bytes, terms.tensor_parallel)
    # TGI reads 4,096 tokens in a step where it knows no better number for the device.
    step = options.max_batch_prefill_tokens or min(4096, tokens)
    each = overhead.CUDA_CONTEXT_BYTES + overhead.activation_bytes(facts, step)
    # Graphs of 1 to 32 sequences. vLLM's of up to 256 or 512 take 0.67 GiB; no log of TGI's tells theirs.
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
    """Ask for the probability of each token of a text. TGI names no others in its place.

    Seen with the Python shard of 3.3.6-dev0; with its llama.cpp backend the list is empty.
    """
    path = "/generate"
    asked = {"max_new_tokens": 1, "details": True, "decoder_input_details": True}
    call = contracts.HttpCall("POST", path, {"inputs": text, "parameters": asked})
    pieces = ask(call, _Generated).details.prefill
    return placed(path, [each.id for each in pieces], ((each.logprob, {}) for each in pieces), 0)


def _prompt_tokens(ask: contracts.Ask, model: str, messages: Sequence[contracts.Message]) -> Sequence[str]:
    body = {"model": model, "messages": [message.fields for message in messages]}
    pieces = ask(contracts.HttpCall("POST", "/chat_tokenize", body), _Tokenized).tokenize_response
    return [str(each.id) for each in pieces]


ENGINE = contracts.Engine(
    name="tgi",
    description="Hugging Face Text Generation Inference: its container, your own launcher, or attached; "
    "generates answers of more than 1,024 tokens in pieces, each with a prefill of its own",
    options=Options,
    launchers=("docker", "native"),
    weights=_weights,
    kv_cache_types=partial(kv_cache_types, others=_KV_CACHE_TYPES),
    speculations=lambda deployment: ("ngram",),
    launch=_launch,
    install=lambda program, device: contracts.Reason(_NOT_INSTALLED),
    why_no_adapters=lambda deployment: None,
    # No request_fields: TGI reads no sampling parameter from the model's files, and neutral ones would change
    # the answer: top_p=1 is refused, presence_penalty=0 becomes a repetition penalty of 2.
    unmatched=_unmatched,
    # router/src/server.rs has no such route.
    reset_cache=lambda deployment: contracts.Reason(
        "TGI has no way to empty its prefix cache but a new start"
    ),
    names=(_SERVED_MODEL,),
    pages=("/info",),
    said=log.said,
    stages=log.STAGES,
    hints=log.HINTS,
    # More than --max-top-n-tokens is refused. Tokens that are as likely as the last come beside it: 5 to 16
    # were seen. The llama.cpp backend refuses any.
    logprobs=5,
    given_text=_given_text,
    prompt_tokens=_prompt_tokens,
    memory_needed=_memory_needed,
    # router/src/server.rs, backends/v3/src. Histograms, of which a page has the sums. No prompt_tokens: a
    # long request has its input_length counted again for each 1,024.
    metrics={
        "running": contracts.ServerMetric("tgi_batch_current_size"),
        "waiting": contracts.ServerMetric("tgi_queue_size"),
        "generated_tokens": contracts.ServerMetric("tgi_request_generated_tokens_sum"),
        "queue_s": contracts.ServerMetric("tgi_request_queue_duration_sum"),
        "queued_requests": contracts.ServerMetric("tgi_request_queue_duration_count"),
    },
)
