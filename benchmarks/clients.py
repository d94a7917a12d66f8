"""The load generators that load.py compares: how each is started, and how its report is read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from serving_bench.harness.contracts import Load, LoadJob
from serving_bench.harness.store.request_table import read_rows

_HERE = Path(__file__).parent
WARMUP_S = 2.0
_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Case:
    """One load: how many streams at once, at how many tokens/s each, with answers of how many tokens.

    `window_s`: how long requests are sent after the warm-up.
    """

    streams: int
    tokens_per_s: int
    window_s: float
    tokens: int = 128

    @property
    def name(self) -> str:
        return f"{self.streams} x {self.tokens_per_s}"

    @property
    def request_s(self) -> float:
        """Return how long an answer takes. Its first token comes after 50 ms."""
        return 0.05 + (self.tokens - 1) / self.tokens_per_s


@dataclass(frozen=True)
class Reported:
    """A request as its client reports it, on CLOCK_MONOTONIC. `start_ns`: where latency counts from."""

    request_id: str
    is_ok: bool
    start_ns: int
    chunk_ns: Sequence[int]
    end_ns: int


@dataclass(frozen=True)
class Client:
    """A load generator.

    `argv`: its command line for a case, a base URL and a folder that it writes into. `read`: reads its
    requests from that folder. `good_codes`: its exit codes when it has done its work.
    """

    name: str
    argv: Callable[[Case, str, Path], list[str]]
    environment: Callable[[Case, Path], Mapping[str, str]]
    read: Callable[[Path], Iterator[Reported]]
    good_codes: tuple[int, ...] = (0,)


def _ours_argv(case: Case, base_url: str, folder: Path) -> list[str]:
    job = load_job(
        base_url,
        Load(case.streams, warmup_s=WARMUP_S, duration_s=case.window_s, steps=1, timeout_s=_TIMEOUT_S),
        case.tokens,
        folder,
    )
    return worker_argv(job, folder)


def worker_argv(job: LoadJob, folder: Path) -> list[str]:
    """Return the command line of `bench run`'s load process for one job."""
    path = folder / "job.json"
    path.write_bytes(msgspec.json.encode(job))
    return [sys.executable, "-P", "-m", "serving_bench.harness.load.worker", str(path)]


def load_job(base_url: str, load: Load, tokens: int, folder: Path) -> LoadJob:
    """Return a job of one-turn chats with answers of `tokens` tokens. Its files are in `folder`."""
    return LoadJob(
        cell="b",
        base_url=base_url,
        model="reference",
        engine="reference",
        scenario="chat_multi_turn",
        scenario_options={"turns": 1, "system_words": 0, "output_tokens": tokens, "spread": 0.0},
        load=load,
        seed=0,
        directory=str(folder),
    )


def _ours_read(folder: Path) -> Iterator[Reported]:
    for row in read_rows(folder / "rows.jsonl"):
        start_ns = row.scheduled_ns if row.sent_ns is None else row.sent_ns
        yield Reported(row.request_id, row.outcome == "ok", start_ns, row.chunk_ns, row.end_ns)


def _locust(file: str) -> Callable[[Case, str, Path], list[str]]:
    def argv(case: Case, base_url: str, folder: Path) -> list[str]:
        users = ["-u", str(case.streams), "-r", str(case.streams)]
        until = ["-t", f"{WARMUP_S + case.window_s:g}s", "--stop-timeout", f"{case.request_s + 30:.0f}"]
        host = ["--host", base_url.removesuffix("/v1"), "--only-summary"]
        program = [sys.executable, "-m", "locust", "-f", str(_HERE / file), "--headless"]
        return [*program, *users, *until, *host]

    return argv


def _locust_environment(case: Case, folder: Path) -> Mapping[str, str]:
    return {"BENCH_RECORD": str(folder / "record.jsonl"), "BENCH_TOKENS": str(case.tokens)}


def _locust_read(folder: Path) -> Iterator[Reported]:
    with (folder / "record.jsonl").open() as lines:
        for line in lines:
            said = json.loads(line)
            chunks = [int(at_s * 1e9) for at_s in said["chunks_s"]]
            start_ns, end_ns = int(said["start_s"] * 1e9), int(said["end_s"] * 1e9)
            yield Reported(said["request_id"], said["ok"], start_ns, chunks, end_ns)


BENCH = Client("bench", _ours_argv, lambda case, folder: {}, _ours_read)
# Locust exits with 1 if a request failed; load.py counts failed requests itself.
HTTP_USER = Client("Locust HttpUser", _locust("locust_http.py"), _locust_environment, _locust_read, (0, 1))
FAST_USER = replace(HTTP_USER, name="Locust FastHttpUser", argv=_locust("locust_fast.py"))
CLIENTS = (BENCH, HTTP_USER, FAST_USER)
