"""The reference engine: a server with known send times and faults on demand, the measuring standard.

The server is engines/inside/reference_server.py or, for rates that Python cannot keep, the C program beside
it. This file knows their command line, not how they work.
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from harness.contracts import (
    Deployment,
    Fairness,
    Hint,
    InstallSpec,
    Launcher,
    LaunchSpec,
    MemoryNeed,
    MemoryPart,
    ModelFacts,
    NativeSpec,
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

_INSIDE = Path(__file__).parent.parent / "inside"
_SERVER = _INSIDE / "reference_server.py"
_DEFAULT_SLOTS = 64
_DEFAULT_CONTEXT = 4096
# Common terms that mean nothing to a server without a model.
_NOT_A_MODEL = (
    "kv_cache_tokens",
    "prefix_cache",
    "chunked_prefill",
    "dtype",
    "seed",
    "graphs",
    "speculative_tokens",
    "chat_template",
)
_PYTHON_ONLY = ("fault", "role_chunk")
_FAULT = re.compile(
    r"((reset|stall|truncate|end|error|garbage|exit)@\d{1,9}|http@[45]\d\d|no_done|no_generation|ignore_term)"
    r"(/[1-9]\d{0,8})?"
)
_FAULTS = (
    "reset@K, stall@K, truncate@K, end@K, error@K, garbage@K, exit@K, http@STATUS, no_done, no_generation, "
    "ignore_term, each with /N or not"
)


@dataclass(frozen=True)
class Options:
    """The arguments of the server, which describes its faults. Only the Python program has `_PYTHON_ONLY`.

    `program`: `native` is the C program, which `bench install reference` builds. On one core of the machine
    in benchmarks/README.md, with 256 streams, `python` is punctual (p99 under 0.5 ms) up to 22,000 tokens/s,
    `native` up to 154,000.
    `ttft_s` counts from a request's start in a slot to its first chunk; `prefill_per_token_s` adds to it for
    each token of the prompt. `output_tokens` is the length of each answer, at most max_tokens (None:
    max_tokens). `slots` is the number of generations at once; further ones wait (None:
    engine.concurrent_sequences, else 64). `label` tells equal deployments apart. `memory_bytes` are held
    from the start. With `role_chunk` each stream begins at once with a chunk without content.
    """

    program: Literal["python", "native"] = "python"
    ttft_s: float = 0.05
    itl_s: float = 0.01
    output_tokens: int | None = None
    slots: int | None = None
    start_delay_s: float = 0.0
    fault: str | None = None
    label: str = ""
    tokens_per_chunk: int = 1
    prefill_per_token_s: float = 0.0
    memory_bytes: int = 0
    role_chunk: bool = False

    def __post_init__(self) -> None:
        if self.fault is not None and not _FAULT.fullmatch(self.fault):
            raise UserError(f"reference.fault={self.fault}: no such fault; choose from {_FAULTS}")
        for name in _PYTHON_ONLY:
            value = getattr(self, name)
            if self.program == "native" and value:
                given = f"reference.{name}={'true' if value is True else value}"
                raise UserError(f"{given}: the native program lacks it; reference.program=python has it")
        for name in ("output_tokens", "slots", "tokens_per_chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"reference.{name}={value}: must be 1 or more")
        for name in ("ttft_s", "itl_s", "start_delay_s", "prefill_per_token_s", "memory_bytes"):
            if getattr(self, name) < 0:
                key = name.removesuffix("_s").removesuffix("_bytes")
                raise UserError(f"reference.{key}={getattr(self, name)}: must not be negative")


METRICS: Mapping[ServerTerm, ServerMetric] = {
    "running": ServerMetric("reference:requests_running"),
    "waiting": ServerMetric("reference:requests_waiting"),
    "prompt_tokens": ServerMetric("reference:prompt_tokens_total"),
    "generated_tokens": ServerMetric("reference:output_tokens_total"),
}


class Reference:
    """See harness.contracts.Engine."""

    name: str = "reference"
    description: str = "a server with known send times and faults on demand; measures bench itself"
    options: type = Options
    programs: Sequence[str | None] = ("python", "native")
    launchers: Sequence[Launcher] = ("native",)
    stages: Sequence[Stage] = ()
    tuned: Tuned | None = None
    read_facts: ReadFacts | None = None
    metrics_path: str = "/metrics"
    metrics: Mapping[ServerTerm, ServerMetric] = METRICS
    hints: Sequence[Hint] = ()
    fact_paths: Sequence[str] = ("/info",)

    def weights(self, deployment: Deployment) -> None:
        return None

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        return NativeSpec(
            argv=(*_command(deployment.options.program, place), *_arguments(deployment, place)),
            base_url=f"http://127.0.0.1:{place.port}/v1",
            served_model=deployment.model,
            ready_path="/health",
        )

    def install(self, program: str | None, device: str) -> InstallSpec | Reason | None:
        if program != "native":
            return None
        if device != "cpu":
            return Reason("the reference server uses no device")
        if platform.system() != "Linux":
            return Reason("the native reference server needs Linux (epoll)")
        sources = sorted(path for path in _INSIDE.iterdir() if path.suffix in (".c", ".h"))
        return InstallSpec("reference-native-cpu", None, "", 1_000_000, tuple(sources))

    def request_fields(self, turn: Turn, options: Options, fairness: Fairness) -> Mapping[str, Any]:
        return {}

    def forces_length(self, deployment: Deployment) -> bool:
        return deployment.options.output_tokens is None

    def unmatched(self, deployment: Deployment) -> Mapping[str, str]:
        terms = deployment.terms
        asked = {name: getattr(terms, name) for name in _NOT_A_MODEL}
        return {name: "it has no model" for name, value in asked.items() if value is not None}

    def reset_cache(self, deployment: Deployment) -> Reason:
        return Reason("it has no prefix cache")

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        info = facts.get("/info")
        if not isinstance(info, Mapping):
            return {}
        return {"context_length": info.get("context_length"), "concurrent_sequences": info.get("slots")}

    def memory_said(self, log: str, facts: Mapping[str, Any]) -> Mapping[MemoryPart, int]:
        return {}

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        return Reason("it has no model; it holds reference.memory and little else")


def _command(program: str, place: Place) -> tuple[str, ...]:
    if program == "python":
        return str(place.python or sys.executable), "-P", str(_SERVER)
    if place.program is None:
        raise ValueError("reference.program=native needs the program of its environment")
    return (str(place.program),)


def _arguments(deployment: Deployment, place: Place) -> Iterator[str]:
    """The server's command line. One word per option, so that a value may begin with a dash."""
    terms, options = deployment.terms, deployment.options
    yield f"--model={deployment.model}"
    yield f"--port={place.port}"
    yield f"--sends={place.scratch}"
    yield f"--context-length={terms.context_length or _DEFAULT_CONTEXT}"
    for field in fields(options):
        if field.name == "program":
            continue
        value = getattr(options, field.name)
        if field.name == "slots":
            value = value or terms.concurrent_sequences or _DEFAULT_SLOTS
        argument = f"--{field.name.replace('_', '-')}"
        if value is True:
            yield argument
        elif value is not None and value is not False:
            yield f"{argument}={value}"


ENGINE = Reference()
