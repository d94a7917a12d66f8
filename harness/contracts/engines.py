"""The engine protocol. Standard library only; no behaviour."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.contracts.caches import HttpCall
from harness.contracts.deployments import (
    Deployment,
    Fairness,
    InstallSpec,
    Launcher,
    LaunchSpec,
    ModelFacts,
    Place,
    Weights,
)
from harness.contracts.memory import MemoryNeed, MemoryPart, ServerMetric, ServerTerm
from harness.contracts.scenarios import Turn
from harness.contracts.words import Reason, Scalar


@dataclass(frozen=True)
class Hint:
    """`pattern` (a regular expression) in a server's log means that `remedy` (a sentence) may help."""

    pattern: str
    remedy: str


@dataclass(frozen=True)
class Stage:
    """A step of a start: reached when the first line that `pattern` (a regular expression) is found in
    appears in the server's log. Among the names, in their order: `weights_begin` (what came before is the
    program), `weights_loaded`, `engine_ready` (graphs and KV cache)."""

    name: str
    pattern: str


@dataclass(frozen=True)
class Tuned:
    """A named set of an engine's own options for fairness=tuned; what the user gives wins. `source`: who
    recommends it."""

    name: str
    options: Mapping[str, Scalar]
    source: str


# Base URL, key, seconds for each -> what the server's pages say, by path, of those that answered.
ReadFacts = Callable[[str, str | None, float], Mapping[str, Any]]


class Engine(Protocol):
    """A serving program: one file in engines/, `ENGINE = ...`. All methods are pure.

    `options` is the frozen dataclass of this engine's own keys; sweeping one multiplies this engine only.
    Three of its fields mean the same everywhere: `program` (which of `programs`, or the path of the user's
    own), `environment` (a directory, instead of the one that bench installs), `image` (of a container).
    `programs`: what bench knows, the default first; just None where there is no choice. `launchers`: how it
    can be started, the default first; none where it can only be attached to. `fact_paths` are the server's
    JSON pages that `resolved` wants to see. `read_facts`
    reads them by the engine's own client; None: as JSON over HTTP. `metrics`: where the server's Prometheus
    page, at `metrics_path` from its root, has the common terms; empty where it has no page.
    """

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def options(self) -> type: ...
    @property
    def programs(self) -> Sequence[str | None]: ...
    @property
    def launchers(self) -> Sequence[Launcher]: ...
    @property
    def hints(self) -> Sequence[Hint]: ...
    @property
    def stages(self) -> Sequence[Stage]: ...
    @property
    def tuned(self) -> Tuned | None: ...
    @property
    def fact_paths(self) -> Sequence[str]: ...
    @property
    def read_facts(self) -> ReadFacts | None: ...
    @property
    def metrics_path(self) -> str: ...
    @property
    def metrics(self) -> Mapping[ServerTerm, ServerMetric]: ...

    def weights(self, deployment: Deployment) -> Weights | Reason | None:
        """The files it needs; None: needs none; Reason: why this engine x quantization does not exist."""
        ...

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec:
        """What to start; pure: a plan asks as well, with a place that stands for one. Never asked of a
        deployment with engine.base_url. Raises UserError where options cannot work together."""
        ...

    def install(self, program: str | None, device: str) -> InstallSpec | Reason | None:
        """Its environment on a `cpu` or `cuda` device; None where bench's own environment serves it.

        `program`: one of `programs`. Reason: there is no such build, and why.
        """
        ...

    def request_fields(self, turn: Turn, options: Any, fairness: Fairness) -> Mapping[str, Any]:
        """Fields of the chat request beyond model, messages, max_tokens, stream and temperature; among
        them what forces the output length and, unless `fairness` is stock, every sampling parameter whose
        default the engine or the model's files would choose. `options` is this engine's own dataclass."""
        ...

    def forces_length(self, deployment: Deployment) -> bool:
        """Whether each answer has as many tokens as was asked for."""
        ...

    def unmatched(self, deployment: Deployment) -> Mapping[str, str]:
        """Common terms that are asked for and that this engine cannot be told, or not exactly: name of the
        term -> a clause on why."""
        ...

    def reset_cache(self, deployment: Deployment) -> Sequence[HttpCall] | Reason:
        """Calls that empty the prefix cache of an idle server that `launch` described, in their order.
        Reason: they cannot, or it has none."""
        ...

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        """What the server says that it really uses, from its log and from `facts`: the JSON answers of
        `fact_paths` by path (those that answered).

        Keys are the fields of EngineTerms where there is one, else of these where they fit: engine_version,
        weights_type, kv_cache_bytes, kv_cache_type, quantization_kernel, attention_backend, threads,
        chat_template. kv_cache_tokens is the capacity for text, as the server counts it.
        """
        ...

    def memory_said(self, log: str, facts: Mapping[str, Any]) -> Mapping[MemoryPart, int]:
        """Bytes that the server says its parts take, on all devices together; `log` and `facts` as for
        `resolved`. What it does not say is left out."""
        ...

    def memory_needed(self, deployment: Deployment, facts: ModelFacts, device: str) -> MemoryNeed | Reason:
        """What a deployment whose common terms are filled takes on a `cpu` or `cuda` device. Reason: it is
        not known, or this engine does not serve it."""
        ...
