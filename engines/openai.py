"""Any running server that speaks the OpenAI protocol: attached to, never started or stopped.

Knows no server's own terms: a program that bench can start has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.contracts import AttachSpec, Deployment, Hint, LaunchSpec, Place, Scalar, Turn
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
    hints: Sequence[Hint] = ()
    fact_paths: Sequence[str] = ()

    def weights(self, deployment: Deployment) -> None:
        return None

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        """Raises UserError where engine.base_url is missing or no URL of HTTP."""
        base_url = deployment.terms.base_url
        example = "for example engine.base_url=http://127.0.0.1:8000/v1"
        if not base_url:
            raise UserError(f"engine=openai needs engine.base_url=URL of a running server; {example}")
        if not base_url.startswith(("http://", "https://")):
            raise UserError(f"engine.base_url={base_url}: must begin with http:// or https://; {example}")
        return AttachSpec(base_url=base_url.rstrip("/"), served_model=deployment.model)

    def install(self, program: str | None, device: str) -> None:
        return None

    def request_fields(self, turn: Turn, options: Options) -> Mapping[str, Any]:
        return {"ignore_eos": True, "min_tokens": turn.max_tokens} if options.ignore_eos else {}

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        return {}


ENGINE = OpenAI()
