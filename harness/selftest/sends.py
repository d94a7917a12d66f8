"""Read what the reference server recorded: when each request arrived, and each chunk was due and sent."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from serving_bench.harness.errors import StoreError

# In place of a chunk's number: the whole request had arrived; the end of the answer's body was sent.
ARRIVAL = 0xFFFFFFFF
END = 0xFFFFFFFE
# The server keeps no more of a request's id.
ID_LENGTH = 36
_RECORD = struct.Struct(f"<{ID_LENGTH}sIQQ")


class Send(NamedTuple):
    """One row of the server's record: when a content chunk (or ARRIVAL, END) of a request was due and sent.

    Instants are on CLOCK_MONOTONIC. `due_ns` is 0 for ARRIVAL and END. For ARRIVAL `sent_ns` is when the
    request had been read.
    """

    request_id: str
    chunk: int
    due_ns: int
    sent_ns: int


def read_sends(path: Path) -> list[Send]:
    """Return all rows in the order of sending, without a last row that a kill cut off.

    Ids are cut to ID_LENGTH. Raise StoreError if the file is missing or not such a record.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; the reference server writes it") from error
    header = struct.pack("<8sII", b"RFSENDS\n", 2, _RECORD.size)
    if not (content.startswith(header) or header.startswith(content)):
        raise StoreError(f"{path}: not a record of send times of version 2")
    end = len(content) - (len(content) - len(header)) % _RECORD.size
    rows = _RECORD.iter_unpack(content[len(header) : end])
    return [Send(name.rstrip(b"\0").decode("ascii"), *numbers) for name, *numbers in rows]


@dataclass
class Served:
    """One answer as the server made it, with the instants at which each chunk was due and sent.

    None: it did not arrive, or did not end.
    """

    arrived_ns: int | None = None
    due_ns: list[int] = field(default_factory=list)
    sent_ns: list[int] = field(default_factory=list)
    ended_ns: int | None = None


def served(sends: Iterable[Send]) -> dict[str, Served]:
    """Return the answers by request id; the last one if an id came twice."""
    answers: dict[str, Served] = {}
    for request_id, chunk, due_ns, sent_ns in sends:
        if chunk == ARRIVAL:
            answers[request_id] = Served(arrived_ns=sent_ns)
            continue
        answer = answers.setdefault(request_id, Served())
        if chunk == END:
            answer.ended_ns = sent_ns
        else:
            answer.due_ns.append(due_ns)
            answer.sent_ns.append(sent_ns)
    return answers
