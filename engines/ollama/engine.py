"""Start Ollama's server with a model made of bench's GGUF file, or read what a running one says of itself.

Facts are from its source as of 2026-08-21 (v0.33.0-rc2). It is a scheduler and a proxy in front of
llama.cpp's llama-server, which it starts when the first request comes.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.common.launching import container, given
from engines.common.said import OLLAMA_PAGES, LogTerm, from_log, from_ollama, kv_cache_type
from engines.model.models import MODELS
from harness import contracts
from harness.errors import UserError

_PROGRAM = "ollama"
_KV_CACHE_TYPES = {"fp16": "f16", "q8_0": "q8_0", "q4_0": "q4_0"}
_NOT_INSTALLED = (
    "no program ollama on PATH, and bench does not install it: ollama.program=/path/ollama names yours, "
    "engine.launcher=docker runs its image, engine.base_url=URL measures a running one"
)
# Serves, and beside that makes the model once the server answers; if it cannot, it ends the server. The two
# parentheses leave no zombie behind. Arguments: the program, the model's name, its Modelfile.
_SERVE = """\
( (until "$0" list; do kill -0 $$ || exit; sleep 0.1; done >/dev/null 2>&1
printf %s "$2" | "$0" create "$1" -f /dev/stdin || kill $$) &)
exec "$0" serve"""


@dataclass(frozen=True)
class Options:
    """Ollama's own options. `program`: `ollama`, which is looked for on PATH, or a path. `flash_attention`:
    None is Ollama's choice.
    """

    program: str = _PROGRAM
    image: str | None = None
    flash_attention: bool | None = None

    def __post_init__(self) -> None:
        if self.program != _PROGRAM and "/" not in self.program:
            raise UserError(
                f"ollama.program={self.program}: no such program; give {_PROGRAM}, or the path of yours"
            )


def _weights(deployment: contracts.Deployment) -> contracts.Weights | contracts.Reason:
    quantization, known = deployment.quantization, MODELS.get(deployment.model)
    if quantization not in ("fp16", "bf16") and not quantization.startswith("gguf-"):
        return contracts.Reason(f"Ollama serves GGUF files; {quantization} is stored as safetensors")
    if known and known.chat_template:
        return contracts.Reason(
            f"{deployment.model}'s files have no chat template, and Ollama takes none in Jinja beside them: "
            "its prompts would not be the other engines'"
        )
    return contracts.Weights(deployment.model, quantization, "gguf")


def _install(program: str | None, device: str) -> contracts.Reason | None:
    return None if shutil.which(program or _PROGRAM) else contracts.Reason(_NOT_INSTALLED)


def _kv_cache_types(deployment: contracts.Deployment) -> Sequence[str]:
    """Return what engine.kv_cache_type can be: quantized values need flash attention."""
    return ["fp16"] if deployment.options.flash_attention is False else list(_KV_CACHE_TYPES)


def _unmatched(deployment: contracts.Deployment) -> Mapping[str, str]:
    terms = deployment.terms
    product = (terms.context_length or 0) * (terms.concurrent_sequences or 0)
    untold = {
        "kv_cache_tokens": (
            terms.kv_cache_tokens not in (None, product),
            "its KV cache is the context length times the sequences at once",
        ),
        "prefix_cache": (terms.prefix_cache is False, "it always has llama.cpp keep a slot's last prompt"),
        "chunked_prefill": (
            terms.chunked_prefill is False,
            "llama.cpp always reads prompts in parts",
        ),
        "dtype": (terms.dtype is not None, "the GGUF file's types are used as they are"),
        "tensor_parallel": (
            terms.tensor_parallel > 1,
            "it takes another GPU only where a model does not fit into one",
        ),
        "seed": (
            terms.seed is not None,
            "it takes one with each request only, and greedy answers need none",
        ),
        "chat_template": (
            terms.chat_template is not None,
            "it takes the GGUF file's, or one in Go's template language",
        ),
        "trust_remote_code": (terms.trust_remote_code, "a GGUF file has no code with it"),
    }
    return {term: why for term, (is_asked, why) in untold.items() if is_asked}


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    weights = given(place.weights, "ollama needs a weights file")
    model = re.sub(r"[^\w.-]", "-", Path(deployment.model).name)[:80]
    fields: dict[str, Any] = {
        "served_model": f"{model}:{deployment.quantization}",
        "ready_path": "/api/version",
        "environment": _environment(deployment, place),
        "stop_grace_s": 10.0,
    }
    if deployment.terms.launcher == "docker":
        return container(
            deployment,
            place,
            lambda seen, weights, *_: ("-c", _SERVE, _PROGRAM, fields["served_model"], _modelfile(weights)),
            template=None,
            entrypoint="/bin/sh",
            **fields,
        )
    program = str(place.program or deployment.options.program)
    # Neither its store, with a copy of the weights, nor the key that it makes itself is in the user's home.
    folder = (place.cache or place.scratch).absolute()
    fields["environment"] |= {"HOME": str(folder), "OLLAMA_MODELS": str(folder / "models")}
    modelfile = _modelfile(str(weights.absolute()))
    return contracts.NativeSpec(
        argv=("/bin/sh", "-c", _SERVE, program, fields["served_model"], modelfile),
        base_url=place.base_url,
        **fields,
    )


def _modelfile(weights: str) -> str:
    """Return what a model is made of: one GGUF file, or all parts of a split one."""
    parts = re.fullmatch(r"(.*)-00001-of-(\d{5})\.gguf", weights, re.DOTALL)
    if parts is None:
        return f"FROM {weights}\n"
    return "".join(f"FROM {parts[1]}-{part:05d}-of-{parts[2]}.gguf\n" for part in range(1, int(parts[2]) + 1))


def _environment(deployment: contracts.Deployment, place: contracts.Place) -> dict[str, str]:
    terms, is_flash = deployment.terms, deployment.options.flash_attention
    if terms.kv_cache_type not in (None, "fp16"):
        is_flash = True
    values = {
        "OLLAMA_HOST": f"{place.host}:{place.port}",
        "OLLAMA_KEEP_ALIVE": -1,
        "OLLAMA_MAX_LOADED_MODELS": 1,
        "OLLAMA_NO_CLOUD": 1,
        # Else a template of Ollama's own may stand for the file's that is like it.
        "OLLAMA_GO_TEMPLATE": None if terms.fairness == "stock" else 0,
        "OLLAMA_NUM_PARALLEL": terms.concurrent_sequences,
        "OLLAMA_CONTEXT_LENGTH": terms.context_length,
        "OLLAMA_KV_CACHE_TYPE": _KV_CACHE_TYPES.get(terms.kv_cache_type or ""),
        "OLLAMA_FLASH_ATTENTION": None if is_flash is None else int(is_flash),
        # What docs/gpu.mdx has for "no GPU".
        "CUDA_VISIBLE_DEVICES": None if place.devices else -1,
        # Any value turns them off, in llama.cpp, which inherits it.
        "GGML_CUDA_DISABLE_GRAPHS": 1 if terms.graphs is False else None,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


# The command line of llama-server, of which the last is the server's that answers.
_STARTED = "starting llama-server"
_LOG_TERMS: Sequence[LogTerm] = (
    ("concurrent_sequences", rf"{_STARTED}.* -np (\d+)", int),
    ("kv_cache_type", rf"{_STARTED}.* --cache-type-k (\w+)", kv_cache_type),
    ("attention_backend", rf"{_STARTED}.* --flash-attn (\w+)", "flash attention {}".format),
)


def _said(log: str, pages: Mapping[str, Any]) -> contracts.Said:
    started = log[max(0, log.rfind(_STARTED)) :]
    return contracts.Said({**from_log(started, _LOG_TERMS), **from_ollama(pages)})


ENGINE = contracts.Engine(
    name="ollama",
    description="Ollama in front of llama.cpp's server, on GGUF files, which it copies at each start",
    options=Options,
    programs=(_PROGRAM,),
    launchers=("native", "docker"),
    weights=_weights,
    kv_cache_types=_kv_cache_types,
    speculations=lambda deployment: (),
    launch=_launch,
    install=_install,
    # It knows no ignore_eos. A running one's Modelfile may set these, and repeat_penalty, which has no field.
    request_fields=lambda turn, options, fairness: (
        {} if fairness == "stock" else {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    ),
    why_no_adapters=lambda deployment: contracts.Reason(
        "a model of Ollama's has one adapter, by its Modelfile, and bench serves one model"
    ),
    unmatched=_unmatched,
    reset_cache=lambda deployment: contracts.Reason(
        "Ollama empties its prefix cache only with the model, and tells no cached tokens to check it by"
    ),
    pages=OLLAMA_PAGES,
    said=_said,
    stages=(
        contracts.Stage("weights_begin", r"starting llama-server"),
        contracts.Stage("weights_loaded", r"llama-server started in "),
        contracts.Stage("engine_ready", r"loaded runners"),
    ),
    hints=(
        contracts.Hint(
            r"llama-server binary not found",
            "This ollama was built without its llama-server: take a release, whose lib/ollama has it.",
        ),
        contracts.Hint(
            r"llama-quantize (unavailable|failed)|start llama-quantize",
            "Ollama copies a GGUF file with its llama-quantize: the log says before that why it failed.",
        ),
        contracts.Hint(
            r"unknown (command|flag|shorthand)",
            "This program has no such command: bench knows those of Ollama 0.33.",
        ),
        contracts.Hint(
            r"(?i)out of memory|requires more system memory",
            "Memory ran out: lower engine.context_length or engine.concurrent_sequences, or take a smaller "
            "quantization.",
        ),
    ),
    # /v1/completions ignores logprobs and echo and puts its text through the chat template.
    given_text=None,
)
