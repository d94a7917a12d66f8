"""Start Ollama's server with a model made from bench's GGUF file, or read a running one's pages.

Facts are from its source as of 2026-08-21 (v0.33.0-rc2). Ollama is a scheduler and a proxy in front of
llama.cpp's llama-server, which it starts at the first request.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving_bench.engines.common import llama_cpp_output
from serving_bench.engines.common.launching import container, given, image_key, seen_by_server, unmatched
from serving_bench.engines.common.output import OLLAMA_PAGES, from_ollama, hints
from serving_bench.engines.model.files import split_parts
from serving_bench.engines.model.models import MODELS
from serving_bench.harness import contracts
from serving_bench.harness.contracts import key
from serving_bench.harness.errors import UserError

_PROGRAM = "ollama"
_KV_CACHE_TYPES = {"fp16": "f16", "q8_0": "q8_0", "q4_0": "q4_0"}
_NOT_INSTALLED = (
    "there is no program ollama on PATH, and bench does not install it: ollama.program=/path/ollama names "
    "yours, engine.launcher=docker runs its image, engine.base_url=URL measures a running server"
)
# Starts the server, and in the background, once it answers, creates the model unless an earlier start did; if
# that fails, it ends the server. Nothing starts if another Ollama has the port: that one would get the model.
# The two parentheses leave no zombie. Arguments: the program, the model's name, its Modelfile.
_SERVE = """\
if "$0" list >/dev/null 2>&1; then echo "Error: address already in use: $OLLAMA_HOST" >&2; exit 1; fi
( (until "$0" list; do kill -0 $$ || exit; sleep 0.1; done >/dev/null 2>&1
"$0" show "$1" >/dev/null 2>&1 || printf %s "$2" | "$0" create "$1" -f /dev/stdin || kill $$) &)
exec "$0" serve"""


@dataclass(frozen=True)
class Options:
    """Ollama's own options; for None Ollama chooses."""

    program: str = key(_PROGRAM, "The program, on PATH unless it is a path.", foreign="program")
    image: str | None = image_key()
    flash_attention: bool | None = key(None, "Whether flash attention is used.")

    def __post_init__(self) -> None:
        if self.program != _PROGRAM and "/" not in self.program:
            raise UserError(
                f"ollama.program={self.program}: no such program; give {_PROGRAM}, or the path of yours"
            )


def _weights(deployment: contracts.Deployment) -> contracts.Weights | contracts.Reason:
    quantization, listed = deployment.quantization, MODELS.get(deployment.model)
    if quantization not in ("fp16", "bf16") and not quantization.startswith("gguf-"):
        why = "Ollama serves GGUF files; {quantization} is stored as safetensors"
        return contracts.Reason(why, quantization=quantization)
    if listed and listed.chat_template:
        return contracts.Reason(
            f"{deployment.model}'s files have no chat template, and Ollama takes no Jinja file beside them: "
            "its prompts would differ from other engines'"
        )
    return contracts.Weights(deployment.model, quantization, "gguf")


def _install(program: str | None, device: str) -> contracts.Reason | None:
    return None if shutil.which(program or _PROGRAM) else contracts.Reason(_NOT_INSTALLED)


def _kv_cache_types(deployment: contracts.Deployment) -> Sequence[str]:
    """Return the possible values of engine.kv_cache_type. Quantized ones need flash attention."""
    return ["fp16"] if deployment.options.flash_attention is False else list(_KV_CACHE_TYPES)


def _unmatched(deployment: contracts.Deployment) -> Mapping[str, contracts.Fact]:
    terms = deployment.terms
    product = (terms.context_length or 0) * (terms.concurrent_sequences or 0)
    only = {
        "kv_cache_tokens": (
            product,
            "its KV cache always holds the context length times the concurrent sequences",
        ),
        "prefix_cache": (True, "it always lets llama.cpp keep a slot's last prompt"),
        "chunked_prefill": (True, "llama.cpp always reads prompts in parts"),
        "dtype": (None, "the GGUF file's types are used as they are"),
        "tensor_parallel": (1, "it uses another GPU only if a model does not fit into one"),
        "seed": (None, "it takes a seed only with each request, and greedy answers need none"),
        "chat_template": (None, "it uses the GGUF file's, or one in Go's template language"),
        "trust_remote_code": (False, "a GGUF file comes without code"),
    }
    return unmatched(terms, only)


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    weights = given(place.weights, "ollama needs a weights file")
    model = re.sub(r"[^\w.-]", "-", Path(deployment.model).name)[:80]
    fields: dict[str, Any] = {
        "served_model": f"{model}:{deployment.quantization}-{_mark_of(place, weights)}",
        "ready_path": "/api/version",
        "environment": _environment(deployment, place),
        "stop_grace_s": 10.0,
    }
    is_docker = deployment.terms.launcher == "docker"
    seen, mounts = seen_by_server(place, None, in_container=is_docker)
    modelfile = "".join(f"FROM {part}\n" for part in split_parts((seen.weights or weights).absolute()))
    if is_docker:
        words = ("-c", _SERVE, _PROGRAM, fields["served_model"], modelfile)
        return container(
            deployment,
            place,
            mounts,
            words,
            entrypoint="/bin/sh",
            **fields,
        )
    program = str(place.program or deployment.options.program)
    # Keep its store, with a copy of the weights, and the key that it generates out of the user's home.
    folder = (place.cache or place.scratch).absolute()
    fields["environment"] |= {"HOME": str(folder), "OLLAMA_MODELS": str(folder / "models")}
    return contracts.NativeSpec(
        argv=("/bin/sh", "-c", _SERVE, program, fields["served_model"], modelfile),
        base_url=place.base_url,
        **fields,
    )


def _mark_of(place: contracts.Place, weights: Path) -> str:
    """Return 8 hexadecimal digits that change with the weights: no name stands for a model of other ones."""
    if place.weights_sha256:
        return place.weights_sha256[:8]
    # A plan is made before the files are.
    states = [part.stat() for part in split_parts(weights) if part.exists()]
    of = [(state.st_size, state.st_mtime_ns) for state in states]
    return hashlib.sha256(str(of).encode()).hexdigest()[:8]


def _environment(deployment: contracts.Deployment, place: contracts.Place) -> dict[str, str]:
    terms, is_flash = deployment.terms, deployment.options.flash_attention
    if terms.kv_cache_type not in (None, "fp16"):
        is_flash = True
    values = {
        "OLLAMA_HOST": f"{place.host}:{place.port}",
        "OLLAMA_KEEP_ALIVE": -1,
        "OLLAMA_MAX_LOADED_MODELS": 1,
        "OLLAMA_NO_CLOUD": 1,
        # Otherwise Ollama may replace the file's template by a similar one of its own.
        "OLLAMA_GO_TEMPLATE": None if terms.fairness == "stock" else 0,
        "OLLAMA_NUM_PARALLEL": terms.concurrent_sequences,
        "OLLAMA_CONTEXT_LENGTH": terms.context_length,
        "OLLAMA_KV_CACHE_TYPE": _KV_CACHE_TYPES.get(terms.kv_cache_type or ""),
        "OLLAMA_FLASH_ATTENTION": None if is_flash is None else int(is_flash),
        # docs/gpu.mdx: -1 means no GPU.
        "CUDA_VISIBLE_DEVICES": None if place.devices else -1,
        # llama.cpp inherits it; any value turns graphs off.
        "GGML_CUDA_DISABLE_GRAPHS": 1 if terms.graphs is False else None,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def _said(log: str, pages: Mapping[str, Any]) -> contracts.Said:
    # Its llama-servers write into the log too. The last one answers.
    inside = llama_cpp_output.said(log[max(0, log.rfind("starting llama-server")) :], {})
    return contracts.Said({**inside.terms, **from_ollama(pages)}, inside.memory)


_REMEDIES = {
    r"llama-server binary not found": "This ollama was built without its llama-server: take a release, whose "
    "lib/ollama has it.",
    r"llama-quantize (unavailable|failed)|start llama-quantize": "Ollama copies a GGUF file with its "
    "llama-quantize, which failed: the log says why before that.",
    r"unknown (command|flag|shorthand)": "This program lacks a command or flag that bench uses: bench was "
    "written for Ollama 0.33.",
    r"(?i)out of memory|requires more system memory": "Memory ran out: lower engine.context_length or "
    "engine.concurrent_sequences, or take a smaller quantization.",
}
ENGINE = contracts.Engine(
    name="ollama",
    description="Ollama in front of llama.cpp's server, on GGUF files, of which it keeps a copy",
    options=Options,
    programs=(_PROGRAM,),
    launchers=("native", "docker"),
    weights=_weights,
    kv_cache_types=_kv_cache_types,
    speculations=lambda deployment: (),
    launch=_launch,
    install=_install,
    # It has no ignore_eos. A running server's Modelfile may set these, and repeat_penalty, which has no
    # field.
    request_fields=lambda turn, options, fairness: (
        {} if fairness == "stock" else {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    ),
    why_no_adapters=lambda deployment: contracts.Reason(
        "an Ollama model has one adapter, set in its Modelfile, and bench serves one model"
    ),
    unmatched=_unmatched,
    reset_cache=lambda deployment: contracts.Reason(
        "Ollama empties its prefix cache only by unloading the model, and reports no cached tokens"
    ),
    pages=OLLAMA_PAGES,
    said=_said,
    stages=(
        contracts.Stage("weights_begin", r"starting llama-server"),
        contracts.Stage("weights_loaded", r"llama-server started in "),
        contracts.Stage("engine_ready", r"loaded runners"),
    ),
    hints=hints(_REMEDIES),
    # /v1/completions ignores logprobs and echo, and applies the chat template to its text.
    given_text=None,
)
