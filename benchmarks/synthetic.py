"""Makes a results directory like that of a long run, of any size and without a server, for report.py.

Each deployment has its own speed, each start differs a little, and all play the same conversations, so the
page has something to say. Requests are written as a cell's are (harness/store/request_table.py). Texts are
random words, and equal in about half of the pairs of deployments.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from serving_bench.harness.contracts import (
    Deployment,
    EngineTerms,
    Load,
    LoadSummary,
    Objective,
    Plan,
    PlannedCell,
    PlannedStart,
    ScenarioChoice,
)
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.sampling.host import HostSample
from serving_bench.harness.servers.scrape import ServerSample
from serving_bench.harness.store import store
from serving_bench.harness.store.request_table import LATER_COLUMNS, table_writer
from serving_bench.harness.store.store import CellRecord, Phase, RunRecord, StartRecord

S = 1_000_000_000
GIB = 2**30
TURNS = 5
ROW_GROUP = 2048
FAILED_SHARE = 0.003
WARMUP_S = 5.0
ENGINES = ("vllm", "sglang", "llama_cpp", "tgi", "transformers")
QUANTIZATIONS = ("bf16", "awq", "gguf-q4_k_m", "fp16")
WORDS = 4000


@dataclass(frozen=True)
class Size:
    """How large a run is. `cells` = deployments x loads x repeats, rounded to whole deployments."""

    cells: int = 100
    requests: int = 1_000_000
    chunks: int = 200
    loads: int = 2
    repeats: int = 5

    @property
    def deployments(self) -> int:
        return max(1, round(self.cells / self.loads / self.repeats))

    @property
    def requests_per_cell(self) -> int:
        return max(1, round(self.requests / (self.deployments * self.loads * self.repeats)))

    @property
    def name(self) -> str:
        counts = {"deployment": self.deployments, "load": self.loads, "start": self.repeats}
        parts = [f"{count} {word}{'' if count == 1 else 's'}" for word, count in counts.items()]
        requests = self.requests_per_cell * self.deployments * self.loads * self.repeats
        return f"{' x '.join(parts)}, {requests:,} requests of {self.chunks} chunks"


def make_run(path: Path, size: Size) -> Path:
    """Write the run. Takes about 15 us per request and 0.1 us per chunk on one core."""
    plan = plan_of(size)
    record = RunRecord(
        schema_version=store.SCHEMA_VERSION,
        run_id="synthetic",
        created_at="2026-01-02T03:04:05+00:00",
        argv=("bench", "run"),
        settings={"model": ("synthetic-8b",), "scenario": ("chat_multi_turn",)},
        plan=plan,
        environment={"machine": {"cpu_model": "none: a synthetic run"}, "host": {"cores_logical": 64}},
        status="completed",
        ended_at="2026-01-03T03:04:05+00:00",
        slo=(Objective("ttft_s", 0.95, 1.0), Objective("success", 0.99)),
    )
    store.write_record(path / "run.json", record)
    texts = Texts(np.random.default_rng(1), size.chunks)
    began_ns = 1000 * S
    for start in plan.starts:
        began_ns = _write_start(path, start, size, texts, began_ns) + 60 * S
    return path


def plan_of(size: Size) -> Plan:
    """Return the run's plan: a block per repeat, 64 users, and twice as many for each further load."""
    names = [(engine, quantization) for quantization in QUANTIZATIONS for engine in ENGINES]
    deployments = [
        Deployment(engine, "synthetic-8b", quantization, EngineTerms(), {}, f"{engine} {quantization}")
        for engine, quantization in names[: size.deployments]
    ]
    scenario = ScenarioChoice("chat_multi_turn", {"history": "script", "turns": TURNS}, "chat_multi_turn")
    loads = [Load(concurrency=64 * 2**k, duration_s=None, conversations=100_000) for k in range(size.loads)]
    starts: list[PlannedStart] = []
    for repeat in range(size.repeats):
        for deployment in deployments:
            first = len(starts) * len(loads)
            cells = tuple(
                PlannedCell(first + k, scenario, load, repeat, 100 * repeat + k)
                for k, load in enumerate(loads)
            )
            starts.append(PlannedStart(len(starts), deployment, repeat, cells))
    return Plan(tuple(starts), (), 3600.0)


# --- a start ---------------------------------------------------------------------------------------


def _write_start(path: Path, start: PlannedStart, size: Size, texts: Texts, began_ns: int) -> int:
    """Write a start, and return when it ended."""
    place = int(start.deployment.label.encode().hex(), 16) % 1009 / 1009
    slow = 0.8 + 0.6 * place + 0.02 * np.random.default_rng(start.index).normal()
    ready_ns = began_ns + int((20 + 30 * place) * S)
    at_ns = ready_ns + 2 * S
    for cell in start.cells:
        rng = np.random.default_rng([start.index, cell.number])
        rows = _Rows.draw(rng, cell, size, at_ns, slow)
        at_ns = _write_cell(path, cell, start, rows, texts, round(place * 1009)) + 2 * S
    record = StartRecord(
        name=start.name, index=start.index, deployment=start.deployment, repeat=start.repeat,
        status="completed", spawned_ns=began_ns, ready_ns=ready_ns, stopped_ns=at_ns, pid=1000 + start.index,
        exit_code=0, memory_kind="device", devices=(0,), baseline_bytes=GIB, after_bytes=GIB,
        returned_to_baseline=True, phases=(Phase("spawned", began_ns), Phase("ready", ready_ns)),
        prompt_tokens={"user": 18, "system": 34, "turns": 41}, idle_power_w=60.0,
    )  # fmt: skip
    folder = path / "starts" / start.name
    store.write_record(folder / "start.json", record)
    for name, samples in _samples(began_ns, at_ns, slow).items():
        store.write_samples(folder / f"{name}.parquet", samples)
    return at_ns


def _samples(begin_ns: int, end_ns: int, slow: float) -> dict[str, list[Any]]:
    """Return samples of host and device, ten times a second, and of the server's metrics, once a second."""
    tenths = range(begin_ns, end_ns, S // 10)
    risen = [min(1.0, 10 * k / len(tenths)) for k in range(len(tenths))]
    host = [
        HostSample(t, int(4 * GIB * share), k / 8, 40, 3, 0, None, 200 * GIB, 12.0, 1000 + k)
        for k, (t, share) in enumerate(zip(tenths, risen, strict=True))
    ]
    device = [
        DeviceSample(
            t, 0, int(60 * slow * GIB * share), int(58 * slow * GIB * share), 95, 70, 400.0 + k % 50,
            40.0 * k, 60, 1700, 2600, 0, 0, 5, 16, 0, 0, 0,
        )
        for k, (t, share) in enumerate(zip(tenths, risen, strict=True))
    ]  # fmt: skip
    server = [
        ServerSample(
            t, 60.0 + k % 8, float(k % 3), 0.4, 90.0 * k, 60.0 * k, 0, 90.0 * k, 200.0 * k, k / 9, k, 0.004
        )
        for k, t in enumerate(range(begin_ns, end_ns, S))
    ]  # fmt: skip
    return {"host": host, "device": device, "server": server}


# --- a cell ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """A cell's requests in the order of sending: conversation, turn and user of each, and instants in ns.

    `after_ns`: a row per request, with the time from its sending to each of its chunks.
    """

    conversation: np.ndarray
    turn: np.ndarray
    user: np.ndarray
    sent_ns: np.ndarray
    after_ns: np.ndarray
    is_ok: np.ndarray
    began_ns: int
    ended_ns: int

    @classmethod
    def draw(cls, rng: np.random.Generator, cell: PlannedCell, size: Size, at_ns: int, slow: float) -> _Rows:
        """Draw the requests of users who play conversation after conversation."""
        count, users = size.requests_per_cell, cell.load.concurrency or 1
        ttft_s = rng.lognormal(np.log(0.12 * slow * users**0.2), 0.5, count)
        gap_s = 0.012 * slow * users**0.15
        gaps_s = rng.gamma(4.0, gap_s / 4, (count, max(size.chunks - 1, 0))).astype(np.float32)
        steps = np.concatenate([ttft_s[:, None].astype(np.float32), gaps_s], axis=1) * 1e9
        after_ns = np.cumsum(steps.astype(np.int64), axis=1)
        takes_ns = after_ns[:, -1] + 1_000_000
        free = [(at_ns + k * S // users, k) for k in range(users)]
        heapq.heapify(free)
        sent, user = np.empty(count, np.int64), np.empty(count, np.int64)
        for first in range(0, count, TURNS):
            when, who = heapq.heappop(free)
            for k in range(first, min(first + TURNS, count)):
                sent[k], user[k] = when, who
                when += int(takes_ns[k]) + 200_000_000
            heapq.heappush(free, (when, who))
        order = np.argsort(sent, kind="stable")
        place = np.arange(count)[order]
        return cls(
            place // TURNS, place % TURNS, user[order], sent[order], after_ns[order],
            rng.random(count) >= FAILED_SHARE, at_ns, int((sent + takes_ns).max()),
        )  # fmt: skip

    def batches(self, cell: PlannedCell, window: tuple[int, int], texts: Sequence[str]) -> Iterator[Any]:
        """Yield record batches, a row group each."""
        for begin in range(0, len(self.sent_ns), ROW_GROUP):
            columns = self._columns(slice(begin, begin + ROW_GROUP), cell, window, texts)
            yield pa.RecordBatch.from_arrays(
                [
                    (column if isinstance(column, pa.Array) else pa.array(column)).cast(kind.type, safe=False)
                    for column, kind in zip(columns.values(), store.REQUEST_SCHEMA, strict=True)
                ],
                schema=store.REQUEST_SCHEMA,
            )

    def _columns(
        self, part: slice, cell: PlannedCell, window: tuple[int, int], texts: Sequence[str]
    ) -> dict[str, Any]:
        """Return some rows in the columns of store.REQUEST_SCHEMA. Failed requests lack some values."""
        chunks = self.after_ns.shape[1]
        ok, sent = self.is_ok[part], self.sent_ns[part]
        at_ns = sent[:, None] + self.after_ns[part]
        count, numbers = len(sent), self.conversation[part] * TURNS + self.turn[part]
        lengths = np.where(ok, chunks, 0)
        known = {"mask": ~ok}
        return {
            "request_id": [f"{cell.number:03d}-{number:07d}" for number in numbers],
            "user": self.user[part],
            "conversation": self.conversation[part],
            "turn": self.turn[part],
            "outcome": pa.array(np.where(ok, "ok", "http_error")),
            "error": pa.array(np.full(count, "status 503"), mask=ok),
            "http_status": np.where(ok, 200, 503),
            "scheduled_ns": sent - 100_000,
            "sent_ns": sent,
            "first_content_ns": pa.array(at_ns[:, 0], **known),
            "last_content_ns": pa.array(at_ns[:, -1], **known),
            "end_ns": at_ns[:, -1] + 1_000_000,
            "chunk_ns": pa.ListArray.from_arrays(
                np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), at_ns[ok].ravel()
            ),
            "input_tokens": pa.array(60 + (chunks + 40) * self.turn[part], **known),
            "output_tokens": pa.array(np.full(count, chunks), **known),
            "cached_tokens": pa.array(16 * ((chunks + 40) * self.turn[part] // 16), **known),
            "token_source": pa.array(np.full(count, "server"), **known),
            "max_tokens": np.full(count, chunks),
            "finish_reason": pa.array(np.full(count, "length"), **known),
            "output_text": pa.array([texts[number] for number in numbers], **known),
            "raw_response": pa.array(np.full(count, "busy"), mask=ok),
            "reasoning_text": np.full(count, ""),
            "tokenizer_tokens": pa.nulls(count, pa.int32()),
            "worker": np.zeros(count),
            "is_resent": np.zeros(count, dtype=bool),
            **{name: pa.nulls(count) for name in LATER_COLUMNS},
            "in_window": (sent >= window[0]) & (sent < window[1]),
        }


class Texts:
    """Makes answers of about `tokens` tokens from 5,000 random beginnings and 5,000 random endings."""

    def __init__(self, rng: np.random.Generator, tokens: int) -> None:
        letters = np.array(list("etaoinshrdlucmfwypvbgk"))
        words = ["".join(rng.choice(letters, size)) for size in rng.integers(2, 9, WORDS)]
        half = max(1, round(tokens * 0.75 / 2))
        self.begins, self.ends = (
            [" ".join(words[k] for k in rng.integers(0, WORDS, half)) for _ in range(5000)] for _ in range(2)
        )

    def of(self, cell: PlannedCell, count: int, place: int) -> list[str]:
        """Return the text of each request. All deployments begin alike; half of the texts end differently."""
        at = (np.arange(count) * 31 + cell.seed) % 5000
        own = np.where(np.arange(count) * 7 % 2 == 0, at, (at * 17 + place) % 5000)
        return [f"{self.begins[k]} {self.ends[j]}" for k, j in zip(at.tolist(), own.tolist(), strict=True)]


def _write_cell(
    path: Path, cell: PlannedCell, start: PlannedStart, rows: _Rows, texts: Texts, place: int
) -> int:
    """Write a cell, and return when it ended."""
    early_ns, late_ns = map(int, np.quantile(rows.sent_ns, (0.1, 0.97)))
    window = (min(rows.began_ns + int(WARMUP_S * S), early_ns), late_ns)
    count = len(rows.sent_ns)
    summary = LoadSummary(
        started_ns=rows.began_ns, window_start_ns=window[0], window_end_ns=window[1], ended_ns=rows.ended_ns,
        ended_by="conversations", users=cell.load.concurrency or 1, conversations_begun=-(-count // TURNS),
        requests=count, stamp_source="kernel", clock_uncertainty_ns=2000, stamp_lag_s=(1e-5, 1e-4, 1e-3),
        loop_lag_s=(1e-4, 5e-4, 2e-3), cpu_s=0.2 * (rows.ended_ns - rows.began_ns) / S, gc_pause_s=0.0,
    )  # fmt: skip
    record = CellRecord(
        number=cell.number, start=start.name, deployment=start.deployment.label, repeat=cell.repeat,
        scenario=cell.scenario, load=cell.load, seed=cell.seed, status="completed", summary=summary,
    )  # fmt: skip
    folder = store.begin_cell(path, cell.number)
    answers = texts.of(cell, count, place)
    with table_writer(folder / "requests.parquet") as writer:
        for batch in rows.batches(cell, window, answers):
            writer.write_batch(batch)
    store.write_record(folder / "cell.json", record)
    return rows.ended_ns
