"""Attach to a running server that speaks the OpenAI protocol. Never start or stop it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving_bench.engines.common.launching import attached_engine
from serving_bench.engines.common.output import OLLAMA_PAGES, from_ollama, from_page
from serving_bench.harness.contracts import Said, at, key


@dataclass(frozen=True)
class Options:
    ignore_eos: bool = key(
        False,
        "Whether to force each answer's length with ignore_eos and min_tokens, if the server has these.",
    )


# TabbyAPI, which serves EXL2 and EXL3, describes here the model that it has loaded and serves, whatever model
# a request names. It reports no version. Source: endpoints/core/types/model.py of 2026-08-13.
_TABBY_PAGE = "/v1/model"
_TABBY_TERMS = {
    "context_length": "max_seq_len",
    "concurrent_sequences": "max_batch_size",
    "kv_cache_tokens": "cache_size",
    "kv_cache_type": "cache_mode",
    "chat_template": "prompt_template",
}


def _said(log: str, pages: Mapping[str, Any]) -> Said:
    page = pages.get(_TABBY_PAGE)
    if at(page, "owned_by") == "tabbyAPI":
        loaded = {"engine_version": "TabbyAPI, version not said", "loaded_model": at(page, "id")}
        return Said(loaded | from_page(at(page, "parameters"), _TABBY_TERMS))
    # Other servers may have both of these pages too, for Ollama's clients.
    ollama, is_ollama = from_ollama(pages), isinstance(at(pages.get(OLLAMA_PAGES[1]), "models"), list)
    if is_ollama and isinstance(version := ollama.get("engine_version"), str):
        return Said(ollama | {"engine_version": f"Ollama's API {version}"})
    return Said()


ENGINE = attached_engine(
    "openai",
    "any running OpenAI-compatible server",
    Options,
    "http://127.0.0.1:8000/v1",
    request_fields=lambda turn, options, fairness: (
        {"ignore_eos": True, "min_tokens": turn.max_tokens} if options.ignore_eos else {}
    ),
    forces_length=lambda deployment: bool(deployment.options.ignore_eos),
    pages=(_TABBY_PAGE, *OLLAMA_PAGES),
    said=_said,
)
