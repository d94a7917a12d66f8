"""What values and states are called, wherever they cross a boundary."""

from dataclasses import dataclass
from typing import Literal

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
