"""An engine for tests, with every way of starting and every kind of install."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving_bench.engines.common.launching import environment_key, image_key
from serving_bench.harness.contracts import (
    ContainerSpec,
    Deployment,
    Fact,
    Fairness,
    Form,
    Hint,
    HttpCall,
    InstallSpec,
    Launcher,
    LaunchSpec,
    MemoryNeed,
    ModelFacts,
    NativeSpec,
    Place,
    Reason,
    Said,
    ServerMetric,
    ServerTerm,
    Stage,
    Tuned,
    Turn,
    Weights,
    key,
)
from serving_bench.harness.errors import UserError

PROGRAMS = ("first", "second")


@dataclass(frozen=True)
class Options:
    program: str = key("first", "The program.", foreign="program")
    environment: str | None = environment_key()
    image: str | None = image_key()
    batch: int | None = None

    def __post_init__(self) -> None:
        if self.program not in PROGRAMS and "/" not in self.program:
            listed = ", ".join(PROGRAMS)
            raise UserError(
                f"toy.program={self.program}: no such program; choose from {listed} or give a path"
            )


@dataclass
class Toy:
    """A harness.contracts.Engine whose members tests change.

    `installs`: (program, device) -> what `install` returns; for others it returns a Reason.
    """

    installs: Mapping[tuple[str | None, str], InstallSpec | None] = field(default_factory=dict)
    launchers: Sequence[Launcher] = ("native", "docker")
    tuned: Tuned | None = None
    name: str = "toy"
    description: str = "an engine of the tests"
    options: type = Options
    programs: Sequence[str | None] = PROGRAMS
    stages: Sequence[Stage] = ()
    hints: Sequence[Hint] = ()
    pages: Sequence[str] = ()
    metrics: Mapping[ServerTerm, ServerMetric] = field(default_factory=dict)
    resets: Sequence[HttpCall] | None = None
    logprobs: int = 0
    given_text: None = None
    kv_cache_types: None = None
    speculations: None = None
    prompt_tokens: None = None
    api: str = "openai"
    key_env: str = "OPENAI_API_KEY"
    why_no_adapters: str | None = None
    adapter_fields: None = None

    def why_not_answered(self, options: Options, forms: Sequence[Form], tokens: int | None) -> None:
        return None

    def weights(self, deployment: Deployment) -> Weights | Reason | None:
        quantization = deployment.quantization
        if quantization in ("fp16", "awq"):
            return Weights(deployment.model, quantization, "safetensors")
        return Reason("toys read no {quantization}", quantization=quantization)

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        url, model = f"http://127.0.0.1:{place.port}/v1", deployment.model
        if deployment.terms.launcher == "docker":
            image = deployment.options.image
            if image is None and not place.devices:
                raise UserError("toys have no image for the CPU; give toy.image=IMAGE")
            return ContainerSpec(image or "toy", (), url, model, "/health")
        return NativeSpec((str(place.program or place.python),), url, model, "/health")

    def install(self, program: str | None, device: str) -> InstallSpec | Reason | None:
        missing = Reason(f"there is no {program} toy for a {device} device")
        return self.installs.get((program, device), missing)

    def request_fields(self, turn: Turn, options: Any, fairness: Fairness) -> Mapping[str, Any]:
        return {}

    def forces_length(self, deployment: Deployment) -> bool:
        return True

    def unmatched(self, deployment: Deployment) -> Mapping[str, Fact]:
        given = deployment.terms.kv_cache_tokens is not None
        return {"kv_cache_tokens": Reason("toys remember nothing")} if given else {}

    def reset_cache(self, deployment: Deployment) -> Sequence[HttpCall] | Reason:
        return Reason("toys remember nothing") if self.resets is None else self.resets

    def said(self, log: str, pages: Mapping[str, Any]) -> Said:
        return Said()

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        return Reason("toys take no memory")
