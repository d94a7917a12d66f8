"""Any running server that speaks the OpenAI protocol: attached to, never started or stopped.

Knows no server's own terms: a program that bench can start has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.contracts import (
    Deployment,
    Fairness,
    Hint,
    Launcher,
    LaunchSpec,
    MemoryNeed,
    MemoryPart,
    ModelFacts,
    Place,
    ReadFacts,
    Reason,
    Scalar,
    ServerMetric,
    ServerTerm,
    Stage,
    Tuned,
    Turn,
)
from harness.errors import UserError


@dataclass(frozen=True)
class Options:
    """`ignore_eos`: force each answer's length with ignore_eos and min_tokens. vLLM and SGLang know these
    fields; other servers may ignore or refuse them."""

    ignore_eos: bool = False


class OpenAI:
    """See harness.contracts.Engine."""

    name: str = "openai"
    description: str = "any running OpenAI-compatible server (engine.base_url=URL)"
    options: type = Options
    programs: Sequence[str | None] = (None,)
    launchers: Sequence[Launcher] = ()
    stages: Sequence[Stage] = ()
    tuned: Tuned | None = None
    read_facts: ReadFacts | None = None
    metrics_path: str = "/metrics"
    metrics: Mapping[ServerTerm, ServerMetric] = {}
    hints: Sequence[Hint] = ()
    fact_paths: Sequence[str] = ()

    def weights(self, deployment: Deployment) -> None:
        return None

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        """Raises UserError: there is nothing to start."""
        raise UserError(
            "engine=openai needs engine.base_url=URL of a running server; "
            "for example engine.base_url=http://127.0.0.1:8000/v1"
        )

    def install(self, program: str | None, device: str) -> None:
        return None

    def request_fields(self, turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
        return {"ignore_eos": True, "min_tokens": turn.max_tokens} if options.ignore_eos else {}

    def forces_length(self, deployment: Deployment) -> bool:
        return bool(deployment.options.ignore_eos)

    def unmatched(self, deployment: Deployment) -> Mapping[str, str]:
        return {}

    def reset_cache(self, deployment: Deployment) -> Reason:
        return Reason("a running server was started by others, and may serve them")

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        return {}

    def memory_said(self, log: str, facts: Mapping[str, Any]) -> Mapping[MemoryPart, int]:
        return {}

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        return Reason("a running server was started by others; its memory is theirs to know")


ENGINE = OpenAI()
