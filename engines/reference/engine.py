"""Start the reference server, which has known send times and faults on demand, to measure bench itself."""

import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving_bench.engines.common.launching import flags, given, named, unmatched
from serving_bench.engines.common.output import from_page
from serving_bench.engines.places import INSIDE
from serving_bench.harness import contracts
from serving_bench.harness.contracts import COUNT, NOT_NEGATIVE, key
from serving_bench.harness.errors import UserError

_FOLDER = INSIDE / "reference"
# Common terms that have no meaning for a server without a model.
_NOT_A_MODEL = (
    "kv_cache_tokens", "kv_cache_type", "prefix_cache", "chunked_prefill", "dtype", "seed", "graphs",
    "speculation", "speculative_tokens", "chat_template",
)  # fmt: skip
_FAULT = re.compile(
    r"((reset|stall|truncate|end|error|garbage|exit)@\d{1,9}|http@[45]\d\d|no_done|no_generation|ignore_term)"
    r"(/[1-9]\d{0,8})?"
)
_FAULTS = (
    "reset@K, stall@K, truncate@K, end@K, error@K, garbage@K, exit@K, http@STATUS, no_done, no_generation, "
    "ignore_term, each with an optional /N"
)


@dataclass(frozen=True)
class Options:
    """The arguments of the reference server. engines/inside/reference/reference_server.py lists its faults.

    Only `python` has `fault`, `role_chunk` and `thinking_chunks`.
    """

    program: Literal["python", "native"] = key(
        "python",
        "The C program is punctual (p99 under 0.5 ms) up to 154,000 tokens/s, Python up to 22,000.",
        foreign="program",
    )
    ttft_s: float = key(0.05, "The TTFT, from a request's start in a slot.", NOT_NEGATIVE)
    itl_s: float = key(0.01, "The time between chunks.", NOT_NEGATIVE)
    output_tokens: int | None = key(None, "The length of each answer, at most max_tokens.", COUNT)
    slots: int | None = key(None, "The generations at once; null: engine.concurrent_sequences, or 64.", COUNT)
    start_delay_s: float = key(0.0, "How long it takes to start.", NOT_NEGATIVE)
    fault: str | None = key(None, f"What goes wrong: {_FAULTS}.", foreign="word")
    label: str = key("", "Distinguishes equal deployments.", foreign="word")
    tokens_per_chunk: int = key(1, "The tokens of a chunk.", COUNT)
    prefill_per_token_s: float = key(0.0, "The time that it reads each token of a prompt.", NOT_NEGATIVE)
    memory_bytes: int = key(0, "The memory that it takes.", NOT_NEGATIVE, ask_above=1 << 30)
    role_chunk: bool = key(False, "Whether each stream begins at once with a chunk without content.")
    thinking_chunks: int | None = key(None, "How many of a stream's first chunks are reasoning.", COUNT)

    def __post_init__(self) -> None:
        if self.fault is not None and not _FAULT.fullmatch(self.fault):
            raise UserError(f"reference.fault={self.fault}: no such fault; choose from {_FAULTS}")
        of_python = {
            f"fault={self.fault}": self.fault,
            "role_chunk=true": self.role_chunk,
            f"thinking_chunks={self.thinking_chunks}": self.thinking_chunks,
        }
        option = next((given for given, value in of_python.items() if value), None)
        if self.program == "native" and option:
            raise UserError(
                f"reference.{option}: the native program lacks it; reference.program=python has it"
            )


def _install(program: str | None, device: str) -> contracts.InstallSpec | contracts.Reason | None:
    if program != "native":
        return None
    if device != "cpu":
        return contracts.Reason("the reference server uses no device")
    if platform.system() != "Linux":
        return contracts.Reason("the native reference server needs Linux (epoll)")
    sources = sorted(path for path in _FOLDER.iterdir() if path.suffix in (".c", ".h"))
    return contracts.InstallSpec("reference-native-cpu", None, "", 1_000_000, tuple(sources))


def _unmatched(deployment: contracts.Deployment) -> Mapping[str, contracts.Fact]:
    return unmatched(deployment.terms, dict.fromkeys(_NOT_A_MODEL, (None, "it has no model")))


def _launch(deployment: contracts.Deployment, place: contracts.Place) -> contracts.LaunchSpec:
    terms, options = deployment.terms, deployment.options
    command = [str(place.python or sys.executable), "-P", str(_FOLDER / "reference_server.py")]
    if options.program == "native":
        command = [str(given(place.program, "reference.program=native needs the program of its environment"))]
    values: dict[str, object] = {
        "model": deployment.model,
        "port": place.port,
        "sends": place.scratch,
        "context-length": terms.context_length or 4096,
        **named(options, "program"),
        "slots": options.slots or terms.concurrent_sequences or 64,
        "adapters": ",".join(each.name for each in deployment.adapters) or None,
    }
    return contracts.NativeSpec((*command, *flags(values)), place.base_url, deployment.model)


ENGINE = contracts.Engine(
    name="reference",
    description="a server with known send times and faults on demand; measures bench itself",
    options=Options,
    programs=("python", "native"),
    launch=_launch,
    install=_install,
    why_no_adapters=lambda deployment: (
        None
        if deployment.options.program == "python"
        else contracts.Reason("the native program has no adapters; reference.program=python has them")
    ),
    forces_length=lambda deployment: deployment.options.output_tokens is None,
    unmatched=_unmatched,
    reset_cache=lambda deployment: contracts.Reason("it has no prefix cache"),
    pages=("/info",),
    said=lambda log, pages: contracts.Said(
        from_page(pages.get("/info"), {"context_length": "context_length", "concurrent_sequences": "slots"})
    ),
    logprobs=0,
    bytes_per_token=4,
    memory_needed=lambda deployment, facts, device: contracts.Reason(
        "it has no model; it takes reference.memory and little else"
    ),
    metrics={
        "running": contracts.ServerMetric("reference:requests_running"),
        "waiting": contracts.ServerMetric("reference:requests_waiting"),
        "prompt_tokens": contracts.ServerMetric("reference:prompt_tokens_total"),
        "generated_tokens": contracts.ServerMetric("reference:output_tokens_total"),
    },
)
