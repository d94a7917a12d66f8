"""What a cell's master and its workers say to each other, over Locust's connection (MessagePack).

Whatever arrives is checked against these types. The API key is in none of them: a worker reads it from its
own environment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from harness.contracts import EndedBy
from harness.load.pulse import Pulse

# A peer that says nothing for so long is gone. Heartbeats, their answers and a worker's state come once a
# second; a worker is lost unless it is heard of again before the cell's end.
SILENT_S = 10.0


# --- from a worker -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """Who is there; `version` is bench's, `boot_id` tells whether both read one clock."""

    version: str
    host: str
    pid: int
    boot_id: str


@dataclass(frozen=True)
class Ready:
    """All is made and imported; what is missing is Go."""


@dataclass(frozen=True)
class Pong:
    number: int
    at_ns: int


@dataclass(frozen=True)
class Begun:
    """JSON lines of BegunRow, on the worker's clock."""

    lines: bytes


@dataclass(frozen=True)
class Rows:
    """JSON lines of RequestRow, on the worker's clock."""

    lines: bytes


@dataclass(frozen=True)
class State:
    """How far a worker is, once a second; the last one stands for its summary if it is lost."""

    pulse: Pulse
    stamp_source: Literal["kernel", "read"]
    clock_uncertainty_ns: int | None
    cpu_s: float
    gc_pause_s: float


@dataclass(frozen=True)
class Closed:
    """It begins no more requests."""

    ended_by: EndedBy


@dataclass(frozen=True)
class Failed:
    """It cannot play the job, or not to its end; `line` says why."""

    line: str
    exit_code: int


@dataclass(frozen=True)
class Done:
    """Its load has ended. `summary`: JSON of its LoadSummary; how many lines it has sent before."""

    summary: bytes
    begun: int
    rows: int


# --- from the master -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Refused:
    """Not this worker: never (`is_final`), or not for this cell."""

    line: str
    is_final: bool


@dataclass(frozen=True)
class Play:
    """`job`: JSON of the LoadJob; `worker`: the number that is played."""

    worker: int
    job: bytes


@dataclass(frozen=True)
class Ping:
    number: int


@dataclass(frozen=True)
class Go:
    """When to begin, on the worker's clock."""

    start_ns: int


@dataclass(frozen=True)
class Close:
    """Begin no more requests; with `interrupted`, end those in flight too."""

    ended_by: Literal["failures", "interrupted"]


@dataclass(frozen=True)
class End:
    """All has arrived; the worker may go."""


# How a worker process ends where it has not played: this cell has its workers, no cell will ever want it,
# a signal came.
NOT_NEEDED, NEVER_NEEDED, INTERRUPTED = 3, 4, 130
FROM_WORKER: tuple[type, ...] = (Hello, Ready, Pong, Begun, Rows, State, Closed, Failed, Done)
FROM_MASTER: tuple[type, ...] = (Refused, Play, Ping, Go, Close, End)


def name_of(kind: type) -> str:
    """The type of Locust's message that carries it; Locust has its own under other names."""
    return f"bench_{kind.__name__.lower()}"


def to_data(message: Any) -> Any:
    """What Locust packs."""
    return msgspec.to_builtins(message, builtin_types=(bytes,))


def from_data(kind: type, data: Any) -> Any:
    """The message that was packed. Raises msgspec.ValidationError where it is not one."""
    return msgspec.convert(data, kind)
