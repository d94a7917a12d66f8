"""Attach to a running server that speaks Anthropic's Messages API. Never start or stop it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serving_bench.engines.common.launching import attached_engine
from serving_bench.harness.contracts import COUNT, Fairness, Form, Turn, key
from serving_bench.harness.errors import refuse_first


@dataclass(frozen=True)
class Options:
    """The engine's own options, sent as they are. None is not sent, since some models refuse the option."""

    temperature: float | None = key(None, "The temperature of sampling.")
    thinking: Literal["adaptive", "disabled", "enabled"] | None = key(
        None, "Whether it thinks before it answers; adaptive: as it sees fit."
    )
    thinking_tokens: int | None = key(None, "How many tokens it may think, if that is enabled.", COUNT)

    def __post_init__(self) -> None:
        is_enabled, budget = self.thinking == "enabled", self.thinking_tokens
        refuse_first(
            (
                is_enabled and budget is None,
                "anthropic.thinking=enabled: give anthropic.thinking_tokens too, such as 2048",
            ),
            (
                budget is not None and not is_enabled,
                f"anthropic.thinking_tokens={budget}: needs anthropic.thinking=enabled",
            ),
        )


def _why_not_answered(options: Options, forms: Sequence[Form], tokens: int | None) -> str | None:
    """Return why the API would refuse thinking with these answers; None if it would not.

    Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking.
    """
    budget = options.thinking_tokens
    if options.thinking in ("adaptive", "enabled") and any(form.tools for form in forms):
        return (
            f"anthropic.thinking={options.thinking}: the API then allows no forced tool calls; give disabled"
        )
    if budget is not None and tokens is not None and budget >= tokens:
        return (
            f"anthropic.thinking_tokens={budget}: must be less than an answer's tokens, and one has "
            f"{tokens}; give more scenario.output_tokens"
        )
    return None


def _request_fields(turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
    budget = {} if options.thinking_tokens is None else {"budget_tokens": options.thinking_tokens}
    # Without it thoughts are left out of the stream and look like a long wait for the first token.
    display = {"display": "summarized"} if options.thinking == "adaptive" else {}
    thinking = {"type": options.thinking, **budget, **display} if options.thinking else None
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
    why_not_answered=_why_not_answered,
)
