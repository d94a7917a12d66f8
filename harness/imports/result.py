"""Share what all readers need: types of requests and results, bounds of values, bounded reading."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from serving_bench.harness.contracts import Arrival, Load, Outcome, inert, masked
from serving_bench.harness.errors import UserError
from serving_bench.harness.foreign_files import opened

_Read = TypeVar("_Read")
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Users = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
# Instants count from 1970 or from the boot of the machine.
Nanoseconds = Annotated[int, msgspec.Meta(ge=0, le=4 * 10**18)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=4e9)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=4e12)]
NOT_KNOWN = "not known"
_MOST_TEXT = 2000
# AIPerf writes about 20 characters per chunk, so this is 13 million chunks.
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Request:
    """One request as a file has it, by the columns of requests.parquet; None if the file does not say it.

    Instants are on the tool's own clock. `counts`: whether the tool's own figures include it.
    """

    outcome: Outcome
    sent_ns: int | None
    end_ns: int | None
    request_id: str | None = None
    turn: int | None = None
    error: str | None = None
    http_status: int | None = None
    scheduled_ns: int | None = None
    first_content_ns: int | None = None
    first_answer_ns: int | None = None
    last_content_ns: int | None = None
    chunk_ns: Sequence[int] | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    tokenizer_tokens: int | None = None
    token_source: str | None = None
    counts: bool = True


@dataclass(frozen=True)
class Result:
    """The content of one file: the model, and each load with its requests.

    `definitions`: sentences on quantities that differ from bench's of the same name. `missing`: what other
    tools' files say and this one does not. `beside`: the SHA-256 of files that were read with it, by name.
    """

    tool: str
    version: str | None
    model: str
    loads: Sequence[tuple[Load, Sequence[Request]]]
    definitions: tuple[str, ...]
    missing: tuple[str, ...] = ()
    beside: dict[str, str] = field(default_factory=dict)

    @property
    def measured_by(self) -> str:
        return " ".join(filter(None, (self.tool, self.version)))


def content_of(path: Path) -> bytes:
    """Return a file's bytes. Raises OSError, also for a file that is too large or not regular."""
    with opened(path, _MOST_BYTES) as file:
        return file.read()


def decoded(content: bytes, kind: type[_Read], where: str) -> _Read:
    """Decode JSON. Raises UserError, which begins with `where` and names the field."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: cannot be read: {error}") from error


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def told(words: str | None) -> str:
    """Return a text of the file that is safe to store: clipped, masked, without control characters."""
    return masked(inert((words or "")[:_MOST_TEXT])).strip()


def ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e9)


def load_of(
    requests: int, users: int | None = None, rate_per_s: float | None = None, arrival: Arrival = "poisson"
) -> Load:
    """Return the load of `requests` requests, without a time limit.

    It has `users` (closed loop), a rate, or another arrival; for the last two `users` is the most at once.
    """
    bounds = Load(None, warmup_s=0.0, duration_s=None, conversations=requests, timeout_s=0.0)
    return replace(bounds, concurrency=users, rate_per_s=rate_per_s, arrival=arrival)
