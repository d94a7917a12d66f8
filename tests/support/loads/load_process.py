"""Runs load processes for tests, and reads what they leave."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from places import ROOT, TESTS
from timeline_server import CHUNKED, Link, Server, answer, chunk, event, serving, wait_until_ns

from serving_bench.harness.contracts import Load, LoadJob, LoadSummary, RequestRow

TINY = (str(TESTS / "support/loads/tiny_load.py"),)
WORKER = ("-m", "serving_bench.harness.load.worker")
REAL: dict[str, Any] = {
    "engine": "openai",
    "scenario": "chat_multi_turn",
    "scenario_options": {"turns": 2, "think_time_s": 0.0},
}
LIMIT_S = 30.0
MS = 1_000_000
USAGE = {"usage": {"prompt_tokens": 9, "completion_tokens": 2}}


def job_of(server: Server, folder: Path, load: Load, **changes: Any) -> LoadJob:
    fields: dict[str, Any] = {
        "cell": "007", "base_url": server.url, "model": "some-model", "api_key_env": "TEST_KEY",
        "engine": "tiny", "scenario": "tiny", "scenario_options": {}, "load": load, "seed": 7,
        "directory": str(folder),
    }  # fmt: skip
    return LoadJob(**{**fields, **changes})


@contextmanager
def working(
    job: LoadJob, program: tuple[str, ...] = TINY, key: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    path = Path(job.directory, "job.json")
    path.write_bytes(msgspec.json.encode(job))
    environment = {**os.environ, **({"TEST_KEY": key} if key else {})}
    with subprocess.Popen(
        [sys.executable, *program, str(path)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def rows_of(job: LoadJob) -> list[RequestRow]:
    lines = job.rows_path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=RequestRow) for line in lines]


def summary_of(job: LoadJob) -> LoadSummary:
    return msgspec.json.decode(job.summary_path.read_bytes(), type=LoadSummary)


def played(job: LoadJob, **options: Any) -> tuple[list[RequestRow], LoadSummary, str]:
    """Run a job to its end. Return its rows, its summary and what it printed."""
    with working(job, **options) as process:
        said, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, logged
    return rows_of(job), summary_of(job), said


@contextmanager
def at_work(
    play: Callable[[Link], object],
    folder: Path,
    load: Load,
    program: tuple[str, ...] = TINY,
    key: str | None = None,
    **changes: Any,
) -> Iterator[tuple[Server, LoadJob, subprocess.Popen[str]]]:
    """Run a load process on a server that plays `play`, until the block ends."""
    with serving(play) as server:
        job = job_of(server, folder, load, **changes)
        with working(job, program, key) as process:
            yield server, job, process


def measured(
    play: Callable[[Link], object], folder: Path, load: Load, **changes: Any
) -> tuple[list[RequestRow], LoadSummary, Server]:
    """Run a load process to its end on a server that plays `play`."""
    with at_work(play, folder, load, **changes) as (server, job, process):
        _, logged = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, logged
    return rows_of(job), summary_of(job), server


def answering(*responses: bytes, delay_ns: int = 0) -> Callable[[Link], None]:
    """Return a function that plays the responses in turn, over and over, one per request of a connection."""

    def play(link: Link) -> None:
        number = 0
        while link.request() is not None:
            wait_until_ns(time.monotonic_ns() + delay_ns)
            link.send(responses[number % len(responses)])
            number += 1

    return play


def bodies_of(server: Server) -> list[dict[str, Any]]:
    return [json.loads(body) for link in server.links for _, body in link.requests]


def holds_signals(pid: int) -> bool:
    """Return whether a process blocks SIGTERM at the moment."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    blocked = int(next(line for line in lines if line.startswith("SigBlk")).split()[1], 16)
    return bool(blocked >> (signal.SIGTERM - 1) & 1)


def shared_job(server: Server, folder: Path, load: Load, **changes: Any) -> LoadJob:
    return job_of(server, folder, load, **{**REAL, **changes})


def ids_of(server: Server) -> list[str]:
    """Return the X-Request-Id of every request that the server got."""
    return [id_in(head) for link in server.links for head, _ in link.requests]


def id_in(head: bytes) -> str:
    return head.partition(b"X-Request-Id: ")[2].partition(b"\r\n")[0].decode()


def half(link: Link) -> None:
    """Play a connection: one good answer, then one that never ends."""
    if link.request() is None:
        return
    link.send(answer("a", **USAGE))
    if link.request() is not None:
        link.send(CHUNKED + chunk(event(content="half")))
        link.request()


def row(**changes: object) -> RequestRow:
    fields: dict[str, object] = {
        "request_id": "1-c0-t0", "user": 0, "conversation": 0, "turn": 0, "outcome": "ok", "error": None,
        "http_status": 200, "scheduled_ns": 10, "sent_ns": 12, "first_content_ns": 20, "last_content_ns": 50,
        "end_ns": 55, "chunk_ns": (20, 31, 50), "input_tokens": 1, "output_tokens": 3, "cached_tokens": None,
        "token_source": "server", "max_tokens": 3, "finish_reason": "stop", "output_text": "abc",
    }  # fmt: skip
    return RequestRow(**(fields | changes))  # type: ignore[arg-type]
