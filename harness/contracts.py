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
# What ended a cell's window.
EndedBy = Literal["duration", "conversations", "failures", "interrupted"]
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
    """`arrival_s`: when it begins, in seconds from the start of the trace it comes from; None: whenever."""

    turns: tuple[Turn, ...]
    arrival_s: float | None = None


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

    def span_s(self, options: Any) -> float | None:
        """Seconds between the first and the last conversation's `arrival_s`; None where they have none.

        Reads the whole source, and raises UserError where it cannot be played to its end.
        """
        ...


@dataclass(frozen=True)
class ScenarioChoice:
    """A scenario with its options decoded into its own dataclass (a mapping when read back from a file).

    `span_s`: how long it goes on, for one that has arrival times.
    """

    name: str
    options: Any
    label: str
    span_s: float | None = None


# --- how they arrive -----------------------------------------------------------------------------


Arrival = Literal["constant", "poisson", "gamma", "trace"]


@dataclass(frozen=True)
class Load:
    """How conversations arrive; the field's unit is no part of its key (`load.rate=2/s`).

    Closed loop: `concurrency` users, each with at most one request in flight. Open loop: `rate_per_s`
    conversations begin per second, whether or not the server keeps up; `arrival` spaces them, and
    `burstiness` is the shape of `gamma` (1: Poisson; below: burstier; above: more even). With the arrival
    `trace` each conversation begins at its own `arrival_s`, divided by `speedup`. Exactly one of the three:
    `concurrency` is None in the other two.

    A cell is ramp-up, warm-up, window, ramp-down, drain. Over `ramp_up_s` users or rate grow from nothing
    to the load, over `ramp_down_s` they shrink again, `linear` or in `ramp_steps` equal `steps`. The window
    ends after `duration_s` (None: no bound), or when `conversations` (counted from its start) have begun and
    there are no more to begin, whichever comes first. A request that runs longer than `timeout_s` is ended
    as `timeout`. Once more than `max_failed_share` of the last requests failed, the cell is ended.

    `workers` load processes share the load; with `bind` (HOST:PORT) they are awaited there, started by
    `bench worker` on other machines. `tokenizer`: a tokenizer.json that counts output tokens beside the
    server. `keep_bytes` keeps each response as it came, not only failed ones.
    """

    concurrency: int | None = 1
    rate_per_s: float | None = None
    arrival: Arrival = "poisson"
    burstiness: float = 1.0
    speedup: float = 1.0
    ramp_up_s: float = 0.0
    ramp_down_s: float = 0.0
    ramp: Literal["linear", "steps"] = "linear"
    ramp_steps: int = 4
    warmup_s: float = 2.0
    duration_s: float | None = 8.0
    conversations: int | None = None
    timeout_s: float = 120.0
    max_failed_share: float | None = None
    workers: int = 1
    bind: str | None = None
    tokenizer: str | None = None
    keep_bytes: bool = False

    @property
    def kind(self) -> Literal["closed", "open", "trace"]:
        if self.arrival == "trace":
            return "trace"
        return "closed" if self.rate_per_s is None else "open"

    @property
    def label(self) -> str:
        """What people call it: `8 users`, `2.5/s poisson`, `trace x2`."""
        if self.kind == "trace":
            return f"trace x{self.speedup:g}"
        if self.rate_per_s is not None:
            shape = f" {self.burstiness:g}" if self.arrival == "gamma" else ""
            return f"{self.rate_per_s:g}/s {self.arrival}{shape}"
        return f"{self.concurrency} user" + ("" if self.concurrency == 1 else "s")


# --- what serves them ----------------------------------------------------------------------------


@dataclass(frozen=True)
class EngineTerms:
    """Terms common to all engines (`engine.*`); each engine's file maps them to its own flags.

    `context_length`: tokens of one conversation. `concurrent_sequences`: requests served at once (unless it
    is given, the plan sets it to the largest load.concurrency, for open loops and traces to a small fixed
    number). `base_url`: attach to this running server instead of starting one. `api_key_env`: name of the
    environment variable that holds its key.
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
    `scratch`: the start's own directory, for files that the server writes. `program`: what its environment
    was compiled to, None where nothing was."""

    python: Path | None
    weights: Path | None
    host: str
    port: int
    scratch: Path
    program: Path | None = None


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
    `environment` (a file name), then `check`, Python source that must run in it; None: no venv. `size_bytes`
    is roughly what lands on disk. `sources`: C files, and the headers beside them, that the system's
    compiler makes one program of, `bin/program` in the environment (made anew when they change); only ever
    when the user asks for it."""

    environment: str
    lock: Path | None
    check: str
    size_bytes: int
    sources: tuple[Path, ...] = ()


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

    def install(self, program: str | None, device: str) -> InstallSpec | Reason | None:
        """Its environment on a `cpu` or `cuda` device; None where bench's own environment serves it.

        `program`: a value of the engine's own option of that name, None where it has no such option.
        """
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
    `begun_path` one per BegunRow as they begin, `summary_path` the LoadSummary at the end. The key of
    `api_key_env` is read from the environment.
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
    begun_path: str


@dataclass(frozen=True)
class BegunRow:
    """A request that is about to be sent. One without a RequestRow was lost with its load process."""

    request_id: str
    worker: int
    user: int
    conversation: int
    turn: int
    scheduled_ns: int
    max_tokens: int


@dataclass(frozen=True)
class RequestRow:
    """One request as it was. Instants are CLOCK_MONOTONIC nanoseconds of the machine that runs `bench`.

    `request_id` was sent as X-Request-Id. `scheduled_ns`: when it was due; `sent_ns`: just before its first
    byte was handed to the kernel (None: never sent). `chunk_ns`: arrival of each chunk that bears content;
    `first_content_ns` and `last_content_ns` repeat its ends. `end_ns`: end of the response body, or of the
    attempt. `token_source` says whose count `output_tokens` is; the other counts are the server's, None
    where it gave none. `tokenizer_tokens`: of `reasoning_text` and `output_text`, where a tokenizer was
    given. `worker`: the load process. `is_resent`: sent a second time on a new connection. `raw_response`:
    the first 64 KiB of a failed response, or all with load.keep_bytes.
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
    token_source: Literal["server", "tokenizer"] | None
    max_tokens: int
    finish_reason: str | None
    output_text: str
    raw_response: str | None = None
    reasoning_text: str = ""
    tokenizer_tokens: int | None = None
    worker: int = 0
    is_resent: bool = False


@dataclass(frozen=True)
class WorkerSummary:
    """What one load process says of itself, for one cell.

    `stamp_source`, `clock_uncertainty_ns`, `stamp_lag_s`, `loop_lag_s`: see LoadSummary. `offset_ns` was
    added to its instants to bring them onto the clock of the machine that runs `bench`, within
    `offset_uncertainty_ns` (both 0 on that machine). `lost_ns`: when it was heard of last, None if it
    ended well; its numbers are then what it had said by then.
    """

    number: int
    host: str
    pid: int
    requests: int
    stamp_source: Literal["kernel", "read"]
    clock_uncertainty_ns: int | None
    stamp_lag_s: tuple[float, float, float] | None
    loop_lag_s: tuple[float, float, float] | None
    cpu_s: float
    gc_pause_s: float
    offset_ns: int = 0
    offset_uncertainty_ns: int = 0
    lost_ns: int | None = None


@dataclass(frozen=True)
class LoadSummary:
    """What the load processes say of one cell, themselves included.

    A request is in the window if window_start_ns <= sent_ns < window_end_ns. `ended_by` is what ended the
    window. `users`: of all workers; in open loop the most that were needed at once. `stamp_source`: `kernel`
    (SO_TIMESTAMPNS, mapped to CLOCK_MONOTONIC within `clock_uncertainty_ns`) or `read` (stamped after the
    read). `stamp_lag_s`: from the kernel's stamp to our reading of it: median, p99, maximum (None without
    kernel stamps). `loop_lag_s`: lateness of a 10 ms timer in the load process: median, p99, maximum. Of
    several workers these are the worst one's, `cpu_s` (from the start of the load on) and
    `gc_pause_s` are sums; `workers` has each. `left_out`: conversations of an open loop or a trace that were
    due before the window's end and never began.
    """

    started_ns: int
    window_start_ns: int
    window_end_ns: int
    ended_ns: int
    ended_by: EndedBy
    users: int
    conversations_begun: int
    requests: int
    stamp_source: Literal["kernel", "read"]
    clock_uncertainty_ns: int | None
    stamp_lag_s: tuple[float, float, float] | None
    loop_lag_s: tuple[float, float, float] | None
    cpu_s: float
    gc_pause_s: float
    workers: tuple[WorkerSummary, ...] = ()
    left_out: int = 0


# --- what bench knows of its own error -----------------------------------------------------------


@dataclass(frozen=True)
class SelfTestStep:
    """One load of the self-test: `streams` at once, each offered `chunks_per_s`, one event per segment.

    Errors are what the client reported minus what the server did, paired per request (ITL: per gap):
    (median, p99), both of the absolute value, in seconds; None where no request could be paired. TTFT and E2E
    count from each side's own start: the client's `sent_ns`, the request's arrival at the server. `failed`:
    of `requests`, those that went wrong or of which the server knows something else than the client.
    `server_late_s`: how late the server itself sent a chunk: median, p99. `server_kept_up`: it sent the
    median chunk before the next one was due. `cpu_s_per_chunk`: processor time of the load process, decoding
    and writing included.
    """

    streams: int
    chunks_per_s: float
    requests: int
    failed: int
    chunks: int
    reached_chunks_per_s: float
    ttft_error_s: tuple[float, float] | None
    itl_error_s: tuple[float, float] | None
    e2e_error_s: tuple[float, float] | None
    server_late_s: tuple[float, float] | None
    server_kept_up: bool
    cpu_s_per_chunk: float | None


@dataclass(frozen=True)
class SelfTest:
    """What `bench selftest` measured on this machine. `program` of the reference server: python or native.
    `steps`: what is kept holds each load as it was measured last, `created_at` is of the last time.

    `largest`: (streams, chunks per second of each) of the largest load at which, as at all smaller ones,
    the p99 error of TTFT stays under 1 ms; None where no load does. `stopped`: a sentence on why no larger
    load was tried, None at the ladder's end. `machine`: facts that must be the same for the result to hold.
    """

    created_at: str  # ISO 8601 with offset
    bench_version: str
    program: str
    stamp_source: Literal["kernel", "read"]
    machine: Mapping[str, Scalar]
    steps: tuple[SelfTestStep, ...]
    largest: tuple[int, float] | None
    stopped: str | None = None
