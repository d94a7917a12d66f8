"""Attach to a running server that speaks Anthropic's Messages API. Never start or stop it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engines.common.attached import attached_engine
from harness.contracts import Fairness, Turn


@dataclass(frozen=True)
class Options:
    """Own options, sent as they are. None: not sent, since some models refuse each of them.

    `thinking`: whether the model thinks before it answers, and whether for up to `thinking_tokens`
    (`enabled`) or as long as it sees fit (`adaptive`).
    """

    temperature: float | None = None
    thinking: Literal["adaptive", "disabled", "enabled"] | None = None
    thinking_tokens: int | None = None


def _request_fields(turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
    budget = {} if options.thinking_tokens is None else {"budget_tokens": options.thinking_tokens}
    # Thoughts that are left out of the stream would seem to be a long wait for the first token.
    shown = {"display": "summarized"} if options.thinking == "adaptive" else {}
    thinking = {"type": options.thinking, **budget, **shown} if options.thinking else None
    fields = {"temperature": options.temperature, "thinking": thinking}
    return {name: value for name, value in fields.items() if value is not None}


ENGINE = attached_engine(
    "anthropic",
    "any running server of Anthropic's Messages API",
    Options,
    "https://api.anthropic.com",
    api="anthropic",
    key_env="ANTHROPIC_API_KEY",
    logprobs=0,
    request_fields=_request_fields,
)
