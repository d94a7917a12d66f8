"""Attach to a running server that speaks the OpenAI protocol. Never start or stop it."""

from dataclasses import dataclass

from harness.contracts import Deployment, Engine, LaunchSpec, Place, Reason
from harness.errors import UserError


@dataclass(frozen=True)
class Options:
    """Own options. `ignore_eos`: force each answer's length with ignore_eos and min_tokens, if it can."""

    ignore_eos: bool = False


def _launch(deployment: Deployment, place: Place) -> LaunchSpec:
    raise UserError(
        "engine=openai needs engine.base_url=URL of a running server; "
        "for example engine.base_url=http://127.0.0.1:8000/v1"
    )


ENGINE = Engine(
    name="openai",
    description="any running OpenAI-compatible server (engine.base_url=URL)",
    options=Options,
    launchers=(),
    launch=_launch,
    request_fields=lambda turn, options, fairness: (
        {"ignore_eos": True, "min_tokens": turn.max_tokens} if options.ignore_eos else {}
    ),
    forces_length=lambda deployment: bool(deployment.options.ignore_eos),
    reset_cache=lambda deployment: Reason("a running server was started by others, and may serve them"),
    memory_needed=lambda deployment, facts, device: Reason(
        "a running server was started by others; its memory is theirs to know"
    ),
)
