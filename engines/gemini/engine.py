"""Attach to a running server that speaks Google's Gemini API. Never start or stop it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving_bench.engines.common.launching import attached_engine
from serving_bench.harness.contracts import Fairness, Turn, key


@dataclass(frozen=True)
class Options:
    """The engine's own options. None is not sent, since some models refuse the option."""

    temperature: float | None = key(None, "The temperature of sampling.")
    thinking_tokens: int | None = key(None, "The most tokens of its thoughts; 0: none; -1: as it sees fit.")


def _request_fields(turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
    fields: dict[str, Any] = {}
    if options.temperature is not None:
        fields["temperature"] = options.temperature
    if options.thinking_tokens is not None:
        budget, is_on = options.thinking_tokens, options.thinking_tokens != 0
        fields["thinkingConfig"] = {"thinkingBudget": budget, "includeThoughts": is_on}
    return fields


ENGINE = attached_engine(
    "gemini",
    "any running server of Google's Gemini API",
    Options,
    "https://generativelanguage.googleapis.com",
    api="gemini",
    key_env="GEMINI_API_KEY",
    logprobs=0,
    request_fields=_request_fields,
)
