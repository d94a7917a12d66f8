"""The types that cross a boundary between folders. Standard library only; no behaviour.

Names carry their units: `_ns` is an instant on CLOCK_MONOTONIC, `_s` a duration in seconds, `_bytes` a size.
A value that is not known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

Scalar = str | int | float | bool | None

# What became of a request.
Outcome = Literal[
    "ok",
    "connect_error",  # no connection could be made
    "http_error",  # an HTTP status of 400 or more
    "server_error",  # an error event in a stream under HTTP 200
    "protocol_error",  # bytes that are not the protocol: half a body, no content, not JSON
    "timeout",  # load.timeout passed
    "reset",  # the connection broke before the response's end
    "cancelled",  # bench ended it on an interrupt
    "lost",  # a load worker died with it
]
CellStatus = Literal["completed", "failed", "interrupted", "skipped"]
Validity = Literal["valid", "suspect", "invalid"]
StartStatus = Literal["running", "completed", "failed", "interrupted"]
RunStatus = Literal["running", "completed", "interrupted"]


@dataclass(frozen=True)
class Reason:
    """A sentence on why something does not exist or cannot be done."""

    text: str


# --- what users say: scenarios -------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Turn:
    """One request of a conversation.

    `messages` are added to the history before the request is sent. `think_time_s` passes between the end of
    the turn before and the sending of this one. `answer` goes back into the history instead of the model's
    own text where the scenario's history is scripted.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    think_time_s: float = 0.0
    answer: str | None = None


@dataclass(frozen=True)
class Conversation:
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class ScenarioOptions:
    """Options that every scenario has. `history`: `model` sends the model's own answers back, `scripted`
    the scenario's."""

    history: Literal["model", "scripted"] = "model"


class Scenario(Protocol):
    """A seeded generator of conversations: one file in scenarios/, `SCENARIO = ...`."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def options(self) -> type[ScenarioOptions]: ...

    def conversations(self, options: Any, rng: Random) -> Iterator[Conversation]:
        """Yield conversations, without end unless the source ends; the same for the same rng state.

        Pure but for reading a file that an option names. Raises UserError where an option's value cannot
        work.
        """
        ...


@dataclass(frozen=True)
class ScenarioChoice:
    """A scenario with its options decoded into its own dataclass (a mapping when read back from a file)."""

    name: str
    options: Any
    label: str


# --- how they arrive -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """Closed loop: `concurrency` users, each with at most one request in flight.

    The cell ends `duration_s` after the warm-up, or when `conversations` (counted from the end of the
    warm-up) have begun and one user has no more to begin, whichever comes first. A request that runs longer
    than `timeout_s` is ended as `timeout`.
    """

    concurrency: int = 1
    warmup_s: float = 2.0
    duration_s: float = 8.0
    conversations: int | None = None
    timeout_s: float = 120.0


# --- what serves them ----------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineTerms:
    """Terms common to all engines (`engine.*`); each engine's file maps them to its own flags.

    `context_length`: tokens of one conversation. `concurrent_sequences`: requests served at once (the
    plan sets it to the largest load.concurrency unless it is given). `base_url`: attach to this running
    server instead of starting one. `api_key_env`: name of the environment variable that holds its key.
    """

    context_length: int = 4096
    concurrent_sequences: int | None = None
    start_timeout_s: float = 600.0
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"


@dataclass(frozen=True)
class Deployment:
    """One engine serving one model at one quantization with fixed options.

    `options` is the engine's own frozen dataclass (a mapping when read back from a file). `label` is unique
    in a plan, short, and shown to people; `slug` names files.
    """

    engine: str
    model: str
    quantization: str
    terms: EngineTerms
    options: Any
    label: str

    @property
    def slug(self) -> str:
        kept = (c if c.isalnum() or c in "._-" else "-" for c in self.label)
        return "".join(kept)[:80]


@dataclass(frozen=True)
class Weights:
    """Local files that an engine needs: a model at a quantization, as `gguf` or `safetensors`."""

    model: str
    quantization: str
    file_format: str


@dataclass(frozen=True)
class WeightsFile:
    """Weights found on this machine. `note` says what their origin means for a comparison, if anything."""

    path: Path
    size_bytes: int
    sha256: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a server runs. `python`: the interpreter of the engine's environment, None where it needs none.
    `scratch`: the start's own directory, for files that the server writes."""

    python: Path | None
    weights: Path | None
    host: str
    port: int
    scratch: Path


@dataclass(frozen=True)
class NativeSpec:
    """A server process. `base_url` ends in /v1; `served_model` goes into each request's `model`.

    `ready_path` (from the server's root) answers 200 once the server listens; readiness itself is a real
    generation. `environment` is added to a copy of ours.
    """

    argv: tuple[str, ...]
    base_url: str
    served_model: str
    ready_path: str
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_grace_s: float = 10.0


@dataclass(frozen=True)
class AttachSpec:
    """A server that is already running and that bench neither starts nor stops."""

    base_url: str
    served_model: str


LaunchSpec = NativeSpec | AttachSpec


@dataclass(frozen=True)
class InstallSpec:
    """How an engine's environment is made: `lock` (requirements with hashes) into a fresh venv called
    `environment` (a file name), then `check`, Python source that must run in it. `size_bytes` is roughly
    what lands on disk."""

    environment: str
    lock: Path
    check: str
    size_bytes: int


@dataclass(frozen=True)
class Hint:
    """`pattern` (a regular expression) in a server's log means that `remedy` (a sentence) may help."""

    pattern: str
    remedy: str


class Engine(Protocol):
    """A serving program: one file in engines/, `ENGINE = ...`. All methods are pure.

    `options` is the frozen dataclass of this engine's own keys; sweeping one multiplies this engine only.
    `fact_paths` are the server's JSON pages that `resolved` wants to see.
    """

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def options(self) -> type: ...
    @property
    def hints(self) -> Sequence[Hint]: ...
    @property
    def fact_paths(self) -> Sequence[str]: ...

    def weights(self, deployment: Deployment) -> Weights | Reason | None:
        """The files it needs; None: needs none; Reason: why this engine x quantization does not exist."""
        ...

    def launch(self, deployment: Deployment, place: Place) -> LaunchSpec: ...

    def install(self, device: str) -> InstallSpec | Reason | None:
        """Its environment on a `cpu` or `cuda` device; None where bench's own environment serves it."""
        ...

    def request_fields(self, turn: Turn, options: Any) -> Mapping[str, Any]:
        """Fields of the chat request beyond model, messages, max_tokens, stream and temperature; among
        them what forces the output length. `options` is this engine's own dataclass."""
        ...

    def resolved(self, log: str, facts: Mapping[str, Any]) -> Mapping[str, Scalar]:
        """What the server says that it really uses, by common term, from its log and from `facts`: the
        JSON answers of `fact_paths` by path (those that answered)."""
        ...


# --- the plan ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlannedCell:
    """The unit that is measured. `number` counts over the run; `seed` is the same for every deployment."""

    number: int
    scenario: ScenarioChoice
    load: Load
    repeat: int
    seed: int


@dataclass(frozen=True)
class PlannedStart:
    index: int
    deployment: Deployment
    repeat: int
    cells: tuple[PlannedCell, ...]

    @property
    def name(self) -> str:
        return f"{self.index:02d}-{self.deployment.slug}"


@dataclass(frozen=True)
class Skip:
    """A combination that was asked for and will not run, with its reason."""

    what: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Ordered starts with their cells, and what is left out. `estimate_s` is the expected duration."""

    starts: tuple[PlannedStart, ...]
    skips: tuple[Skip, ...]
    estimate_s: float


# --- between the run and the load process --------------------------------------------------------


@dataclass(frozen=True)
class LoadJob:
    """All that a load process is told; written to a JSON file.

    `cell` prefixes request ids. `rows_path` receives one JSON line per RequestRow as requests end,
    `summary_path` the LoadSummary at the end. The key of `api_key_env` is read from the environment.
    """

    cell: str
    base_url: str
    model: str
    api_key_env: str
    engine: str
    engine_options: Mapping[str, Any]
    scenario: str
    scenario_options: Mapping[str, Any]
    load: Load
    seed: int
    rows_path: str
    summary_path: str


@dataclass(frozen=True)
class RequestRow:
    """One request as it was. Instants are CLOCK_MONOTONIC nanoseconds.

    `request_id` was sent as X-Request-Id. `scheduled_ns`: when it was due; `sent_ns`: just before its first
    byte was handed to the kernel (None: never sent). `chunk_ns`: arrival of each chunk that bears content;
    `first_content_ns` and `last_content_ns` repeat its ends. `end_ns`: end of the response body, or of the
    attempt. Token counts are the server's, None where it gave none; `token_source` says where they come
    from. `raw_response`: the first 64 KiB of a failed response.
    """

    request_id: str
    user: int
    conversation: int
    turn: int
    outcome: Outcome
    error: str | None
    http_status: int | None
    scheduled_ns: int
    sent_ns: int | None
    first_content_ns: int | None
    last_content_ns: int | None
    end_ns: int
    chunk_ns: tuple[int, ...]
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    token_source: Literal["server"] | None
    max_tokens: int
    finish_reason: str | None
    output_text: str
    raw_response: str | None = None


@dataclass(frozen=True)
class LoadSummary:
    """What a load process says of one cell, itself included.

    A request is in the window if window_start_ns <= sent_ns < window_end_ns. `ended_by` is what ended the
    window. `stamp_source`: `kernel` (SO_TIMESTAMPNS, mapped to CLOCK_MONOTONIC within
    `clock_uncertainty_ns`) or `read` (stamped after the read). `stamp_lag_s`: from the kernel's stamp to
    our reading of it: median, p99, maximum (None without kernel stamps). `loop_lag_s`: lateness of a
    10 ms timer in the load process: median, p99, maximum.
    """

    started_ns: int
    window_start_ns: int
    window_end_ns: int
    ended_ns: int
    ended_by: Literal["duration", "conversations", "interrupted"]
    users: int
    conversations_begun: int
    requests: int
    stamp_source: Literal["kernel", "read"]
    clock_uncertainty_ns: int | None
    stamp_lag_s: tuple[float, float, float] | None
    loop_lag_s: tuple[float, float, float] | None
    cpu_s: float
    gc_pause_s: float
