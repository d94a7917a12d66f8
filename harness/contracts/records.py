"""Types for outcomes and states, for what a run and its load processes exchange, and for a claim's result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from serving_bench.harness.contracts.deployments import Fairness
from serving_bench.harness.contracts.plans import Load

Scalar = str | int | float | bool | None

# What became of a request. `left` is not a failure.
Outcome = Literal[
    "ok",
    "connect_error",  # no connection could be made
    "http_error",  # an HTTP status of 400 or more
    "server_error",  # an error event in a stream under HTTP 200
    "protocol_error",  # bytes that are not the protocol: half a body, no content, not JSON
    "timeout",  # load.timeout passed
    "reset",  # the connection broke before the response's end
    "left",  # the user went away before its end, as the scenario says
    "cancelled",  # bench ended it on an interrupt
    "lost",  # a load worker died with it
    "failed",  # another tool measured it, whose file does not say how it failed
]
# What ended a cell's window.
EndedBy = Literal["duration", "conversations", "failures", "interrupted"]
CellStatus = Literal["completed", "failed", "interrupted", "skipped"]
Validity = Literal["valid", "suspect", "invalid"]
StartStatus = Literal["running", "completed", "failed", "interrupted"]
RunStatus = Literal["running", "completed", "interrupted"]


@dataclass(frozen=True)
class LoadJob:
    """Everything that a load process is told, written to a JSON file.

    `cell` prefixes request ids. In `directory`, `rows_path` receives one JSON line per RequestRow as requests
    end, `begun_path` one per BegunRow as they begin, `summary_path` the LoadSummary. All workers but the
    first write to files beside these. `api_key_env` is empty for a server that bench started: it gets no key.
    `steps_to_first`: how many steps the window may last while none of its requests has ended. `adapters`:
    their names in the server's order. `scenario_origin`: what the run has of a scenario that is not bench's
    own, its version or its file's SHA-256.
    """

    cell: str
    base_url: str
    model: str
    engine: str
    scenario: str
    scenario_options: Mapping[str, Any]
    load: Load
    seed: int
    directory: str
    api_key_env: str = ""
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    fairness: Fairness = "matched"
    steps_to_first: int = 0
    adapters: tuple[str, ...] = ()
    scenario_origin: str | None = None

    @property
    def rows_path(self) -> Path:
        return Path(self.directory, "rows.jsonl")

    @property
    def begun_path(self) -> Path:
        return Path(self.directory, "begun.jsonl")

    @property
    def summary_path(self) -> Path:
        return Path(self.directory, "summary.json")


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
    group: int | None = None
    form: str | None = None
    part: int = 0
    leave_after_s: float | None = None
    turns: int | None = None


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """One request as the client saw it. Instants are CLOCK_MONOTONIC nanoseconds.

    `request_id` was sent as X-Request-Id. `scheduled_ns`: when it was due; `sent_ns`: just before its first
    byte was handed to the kernel (None: never sent). `chunk_ns`: when each chunk with content arrived.
    `end_ns`: when the response body, or the attempt, ended. `token_source` says who counted `output_tokens`;
    the server counted the others. `tokenizer_tokens`: the tokens of `reasoning_text` and `output_text`.
    `is_resent`: whether it was sent a second time on a new connection. `raw_response`: the first 64 KiB of a
    failed response, or every response whole with load.keep_bytes. `group` is the conversation's. `form` names
    what its answer had to be; `calls` are the tool calls in the answer, as JSON. `first_answer_ns`: when the
    first chunk arrived that is not only reasoning; `reasoning_chunks`: how many chunks are. `part`: its
    place, from 0, among the requests that its user sent at once. `leave_after_s`: after how long its user
    would go away. `ideal_cached_tokens`: input tokens that a cache which keeps everything could have served;
    known once the cell has ended. `sent_words`: words in the request's body, separated by white space.
    `turns`: how many its conversation has if none fails.
    """

    request_id: str
    user: int
    conversation: int
    turn: int
    outcome: Outcome
    error: str | None
    http_status: int | None = None
    scheduled_ns: int
    sent_ns: int | None = None
    first_content_ns: int | None = None
    last_content_ns: int | None = None
    end_ns: int
    chunk_ns: tuple[int, ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    token_source: Literal["server", "tokenizer"] | None = None
    max_tokens: int
    finish_reason: str | None = None
    output_text: str = ""
    raw_response: str | None = None
    reasoning_text: str = ""
    tokenizer_tokens: int | None = None
    worker: int = 0
    is_resent: bool = False
    group: int | None = None
    form: str | None = None
    calls: str | None = None
    first_answer_ns: int | None = None
    reasoning_chunks: int | None = None
    part: int = 0
    leave_after_s: float | None = None
    ideal_cached_tokens: int | None = None
    sent_words: int | None = None
    turns: int | None = None

    @property
    def is_failed(self) -> bool:
        return self.outcome not in ("ok", "left")


def without_answer(begun: BegunRow, outcome: Outcome, error: str, end_ns: int) -> RequestRow:
    """Return the row of a request about whose response nothing is known."""
    return RequestRow(**vars(begun), outcome=outcome, error=error, end_ns=end_ns)


@dataclass(frozen=True)
class WorkerSummary:
    """What one load process reports about itself for one cell. LoadSummary explains the fields."""

    number: int
    pid: int
    requests: int
    stamp_source: Literal["kernel", "read"]
    clock_uncertainty_ns: int | None
    stamp_lag_s: tuple[float, float, float] | None
    loop_lag_s: tuple[float, float, float] | None
    cpu_s: float
    gc_pause_s: float
    stalled_s: float = 0.0


@dataclass(frozen=True)
class LoadSummary:
    """What the load processes report about one cell and about themselves.

    A request is in the window if window_start_ns <= sent_ns < window_end_ns. `users`: in open loop the most
    that were needed at once. `stamp_source`: `kernel` (SO_TIMESTAMPNS, mapped to CLOCK_MONOTONIC within
    `clock_uncertainty_ns`) or `read`. `stamp_lag_s` (from the kernel's stamp to our reading of it) and
    `loop_lag_s` (how late a 10 ms timer rings) are median, p99 and maximum of the worst worker; `stalled_s`
    is how long the loop of the worst worker stood still in the window, for 50 ms or more at a time. `cpu_s`
    and `gc_pause_s` are sums. `left_out`: conversations due before the window's end that never began.
    `cut_conversations`: conversations that were not finished within load.grace; `cut_turns`: their turns that
    were never sent.
    """

    started_ns: int
    window_start_ns: int
    window_end_ns: int
    ended_ns: int
    ended_by: EndedBy
    users: int | None
    conversations_begun: int
    requests: int
    stamp_source: Literal["kernel", "read"] | None = None
    clock_uncertainty_ns: int | None = None
    stamp_lag_s: tuple[float, float, float] | None = None
    loop_lag_s: tuple[float, float, float] | None = None
    cpu_s: float | None = None
    gc_pause_s: float | None = None
    workers: tuple[WorkerSummary, ...] = ()
    left_out: int = 0
    cut_conversations: int = 0
    cut_turns: int = 0
    stalled_s: float = 0.0

    @property
    def load_s(self) -> float | None:
        return (self.ended_ns - self.started_ns) / 1e9 if self.ended_ns > self.started_ns else None

    @property
    def cores_here(self) -> float | None:
        return None if self.load_s is None or self.cpu_s is None else self.cpu_s / self.load_s


@dataclass(frozen=True)
class ForeignSource:
    """Which other tool measured a run, and the SHA-256 of the files that it was read from, by name.

    `definitions`: which of its quantities differ from bench's of the same name. `missing`: what the files do
    not say.
    """

    tool: str
    version: str | None
    files: Mapping[str, str]
    definitions: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return `AIPerf 0.13.0`."""
        return " ".join(filter(None, (self.tool, self.version)))


def words_of(settings: Mapping[str, Sequence[str]]) -> list[str]:
    """Return `key=value,value` for each key of a run's settings. The values are texts that parse again."""
    return [f"{key}={','.join(values)}" for key, values in settings.items()]


@dataclass(frozen=True)
class ToldPart:
    """The result of one predicate: what was asked, a row of texts for each case, and notes on them."""

    asked: str
    rows: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ToldClaim:
    """The content of claim.json: what the run says about the claim that was judged last.

    `answer`: `kv_waste: reproduced`, and why if it was not tested. `differs`: a row of texts for each
    condition of the original that was not kept. `again` is the command that judges it. `of_end`: the end of
    the run at the time it was judged; it may have gone on since.
    """

    sentence: str
    source: str
    reading: str
    answer: str
    parts: tuple[ToldPart, ...]
    differs: tuple[Mapping[str, str], ...]
    again: str = ""
    of_end: str | None = None
