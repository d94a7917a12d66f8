"""Writes a run that allows a decision: six deployments on one device, a sweep of users, several starts.

Its figures are invented, so the result is known: SGLang AWQ is the fastest at every load, vLLM and SGLang at
fp16 are the same, llama.cpp is the slowest and needs the least memory. `make_sweep.py DIR` writes one.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from make_run import (
    GIB,
    MS,
    S,
    plan_of,
    row,
    run_record,
    served,
    start_record,
    summary,
    write_cell,
    write_start,
)

from serving_bench.harness.contracts import (
    Load,
    LoadSummary,
    Objective,
    Plan,
    PlannedCell,
    PlannedStart,
    Price,
    RequestRow,
)
from serving_bench.harness.contracts.goals import CompareTerms
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.servers.scrape import ServerSample
from serving_bench.harness.store import store
from serving_bench.harness.store.store import Phase

# A cell and its load.
Span = tuple[PlannedCell, LoadSummary]
TURNS, TOKENS, THINK_S = 4, 12, 0.2
SLO = (Objective("ttft_s", 0.95, 0.3), Objective("tpot_s", 0.95, 0.04))
STAGES_S = {"process_up": 4, "weights_begin": 6, "weights_loaded": 18, "engine_ready": 30}
READY_S, CELLS_FROM_S, REST_S = 34, 40, 6


@dataclass(frozen=True)
class Serving:
    """One deployment's figures.

    With n users in flight the first token takes `ttft_ms` x (1 + n / `slots`), and each later token
    `tpot_ms` x (1 + n / (2 x `slots`)). `per_turn`: how much longer the first token takes with each turn.
    """

    engine: str
    quantization: str
    ttft_ms: float
    tpot_ms: float
    slots: float
    per_turn: float
    weights_gib: float
    reserved_gib: float

    @property
    def deployment(self) -> Any:
        return served(self.engine, self.quantization, kv_cache_tokens=None, concurrent_sequences=256)


SIX = (
    Serving("vllm", "fp16", 62, 9.0, 12.0, 0.03, 15.0, 72.0),
    Serving("vllm", "awq", 58, 7.4, 13.5, 0.03, 5.4, 72.0),
    Serving("sglang", "fp16", 61, 9.0, 12.2, 0.01, 15.0, 70.0),
    Serving("sglang", "awq", 54, 6.2, 16.0, 0.01, 5.4, 70.0),
    Serving("tgi", "fp16", 74, 9.8, 10.0, 0.16, 15.0, 66.0),
    Serving("llama_cpp", "gguf-q4_k_m", 120, 16.0, 5.0, 0.2, 4.7, 9.0),
)
# A factor for each block, the same for all; then how much one start differs from another.
BLOCKS = (1.0, 1.02, 0.985, 1.01, 0.99)
NOISE = 0.008


def sweep_run(
    path: Path,
    given: Sequence[Serving] = SIX,
    users: Sequence[int] = (1, 4, 16, 32, 64),
    repeats: int = 5,
    window_s: float = 45.0,
    slo: Sequence[Objective] = SLO,
    noise: float = NOISE,
    **run_changes: Any,
) -> Path:
    """Write the run. Windows last `window_s`, those of one user twice as long, so that most have enough
    requests for a p95. Each call draws the same figures.

    `noise`: how much one start differs from another.
    """
    loads = [Load(concurrency=n, duration_s=window_s * (2 if n == 1 else 1), warmup_s=2.0) for n in users]
    plan = _of_turns(plan_of([each.deployment for each in given], loads, repeats))
    environment = {
        "machine": {"cpu_model": "Test CPU", "memory_bytes": 256 * GIB},
        "host": {"boot_id": "b"},
        "devices": [{"name": "Test H100", "memory_bytes": 80 * GIB}],
    }
    changes = {
        "environment": environment,
        "slo": tuple(slo),
        "price": Price(2.5),
        "compare": CompareTerms(baseline=given[0].deployment.label),
        "settings": {
            "engine": tuple(dict.fromkeys(each.engine for each in given)),
            "load.concurrency": tuple(map(str, users)), "repeats": (str(repeats),),
            "model": ("tiny-lm",),
        },
        **run_changes,
    }  # fmt: skip
    store.write_record(path / "run.json", run_record(plan, **changes))
    by_label = {each.deployment.label: each for each in given}
    for start in plan.starts:
        _write_start(path, start, by_label[start.deployment.label], noise)
    return path


def _of_turns(plan: Plan) -> Plan:
    """Return the plan with conversations of TURNS turns."""
    starts = []
    for start in plan.starts:
        cells = []
        for cell in start.cells:
            options = {**cell.scenario.options, "turns": TURNS, "think_time_s": THINK_S}
            cells.append(replace(cell, scenario=replace(cell.scenario, options=options)))
        starts.append(replace(start, cells=tuple(cells)))
    return replace(plan, starts=tuple(starts))


def _write_start(path: Path, start: PlannedStart, each: Serving, noise: float) -> None:
    rng = np.random.default_rng([start.index, start.repeat])
    spawned_ns = (1000 + 1000 * start.index) * S
    slow = BLOCKS[start.repeat % 5] * float(np.exp(rng.normal(0, noise)))
    begin_ns, spans, played = spawned_ns + CELLS_FROM_S * S, [], []
    for cell in start.cells:
        made = summary(
            begin_ns, cell.load.warmup_s, float(cell.load.duration_s or 0), users=cell.load.concurrency
        )
        rows = _rows(each, made, cell, slow, rng)
        write_cell(path, cell, start, rows, replace(made, requests=len(rows)))
        spans.append((cell, made))
        played += rows
        begin_ns = made.ended_ns + REST_S * S
    _write_record(path, start, each, spawned_ns, spans)
    directory = path / "starts" / start.name
    ends_ns = begin_ns + REST_S * S
    store.write_samples(directory / "device.parquet", _device_samples(each, spawned_ns, ends_ns, spans, slow))
    store.write_samples(
        directory / "server.parquet", _server_samples(each, spawned_ns, ends_ns, spans, played)
    )


def _write_record(
    path: Path, start: PlannedStart, each: Serving, spawned_ns: int, spans: Sequence[Span]
) -> None:
    marks = [
        ("spawned", 0.0),
        *((name, float(at)) for name, at in STAGES_S.items()),
        ("ready", float(READY_S)),
    ]
    phases = [Phase(name, spawned_ns + int(at * S)) for name, at in marks]
    for cell, made in spans:
        phases.append(Phase(f"cell {cell.number:03d} warm-up", made.started_ns))
        phases.append(Phase(f"cell {cell.number:03d} window", made.window_start_ns))
        phases.append(Phase(f"cell {cell.number:03d} end", made.ended_ns + S))
    pool = int((each.reserved_gib - each.weights_gib - 2.5) * GIB)
    record = start_record(
        start, spawned_ns, phases=tuple(phases), ready_ns=spawned_ns + READY_S * S,
        stopped_ns=spans[-1][1].ended_ns + 10 * S, memory_kind="device", devices=(0,),
        baseline_bytes=GIB // 2, after_bytes=GIB // 2, idle_power_w=70.0,
        memory_said={"weights": int(each.weights_gib * GIB), "kv_cache": pool, "graphs": GIB // 2},
        resolved={"context_length": 2048, "kv_cache_tokens": pool // 131072, "prefix_cache": True},
        memory_expected={"kv_bytes_per_token": 131072},
        stages={name: spawned_ns + at * S for name, at in STAGES_S.items() if name != "weights_begin"},
        prompt_tokens={"user": 18, "system": 34, "turns": 41},
    )  # fmt: skip
    write_start(path, record)


def _rows(
    each: Serving, made: LoadSummary, cell: PlannedCell, slow: float, rng: np.random.Generator
) -> list[RequestRow]:
    """Return the requests of users who play conversations of TURNS turns, one after the other."""
    users = cell.load.concurrency or 1
    ttft_ms = slow * each.ttft_ms * (1 + users / each.slots)
    tpot_ms = slow * each.tpot_ms * (1 + users / (2 * each.slots))
    length_s = (made.ended_ns - made.started_ns) / S
    most = int(length_s / ((ttft_ms + TOKENS * tpot_ms) / 2000 + THINK_S)) + 2
    found: list[RequestRow] = []
    for user in range(users):
        turn = np.arange(most) % TURNS
        first_s = ttft_ms / 1000 * (1 + each.per_turn * turn) * np.exp(rng.normal(0, 0.12, most))
        gap_s = tpot_ms / 1000 * np.exp(rng.normal(0, 0.06, most))
        took_s = first_s + gap_s * (TOKENS - 1) + 0.001
        sent_s = 0.05 * rng.random() + np.concatenate([[0.0], np.cumsum(took_s + THINK_S)[:-1]])
        for k in np.flatnonzero(sent_s + took_s < length_s):
            sent_ns = made.started_ns + int(sent_s[k] * S)
            at_ns = sent_ns + int(first_s[k] * S)
            step_ns = int(gap_s[k] * S)
            chunks = tuple(at_ns + j * step_ns for j in range(TOKENS))
            found.append(
                row(
                    len(found), sent_ns, user=user, conversation=user + users * (int(k) // TURNS),
                    turn=int(turn[k]), scheduled_ns=sent_ns, chunk_ns=chunks, end_ns=chunks[-1] + MS,
                    input_tokens=200 + 150 * int(turn[k]), output_tokens=TOKENS, max_tokens=TOKENS,
                    cached_tokens=int(180 * turn[k] * (0.9 if each.per_turn < 0.1 else 0.2)),
                    output_text="an answer",
                )
            )  # fmt: skip
    return sorted(found, key=lambda each: each.sent_ns or 0)


def _in_flight(spans: Sequence[Span], t_ns: int) -> int:
    """Return the users of the cell that is played at an instant, or 0."""
    return next((c.load.concurrency or 0 for c, m in spans if m.started_ns <= t_ns < m.ended_ns), 0)


def _device_samples(
    each: Serving, spawned_ns: int, ends_ns: int, spans: Sequence[Span], slow: float
) -> list[DeviceSample]:
    """Return two samples a second: weights are read, the pool is taken, then memory grows with the users."""
    samples, energy_j = [], 0.0
    for t_ns in range(spawned_ns, ends_ns, S // 2):
        at_s, users = (t_ns - spawned_ns) / S, _in_flight(spans, t_ns)
        gib = 0.4 if at_s < 6 else 0.5 + each.weights_gib * min(1.0, (at_s - 6) / 12)
        if at_s >= 18:
            gib += (each.reserved_gib - each.weights_gib - 1.0) * min(1.0, (at_s - 18) / 12)
        gib += 0.01 * users * slow
        power_w = 75.0 if not users else 180 + 400 * users / (users + 12)
        energy_j += power_w / 2
        own = int(gib * GIB)
        samples.append(
            DeviceSample(
                t_ns, 0, own + GIB // 2, own, min(99, 40 + users) if users else 0, min(80, 20 + users),
                power_w, energy_j, 40 + users // 4, 1980, 2619, 0, 0, 5, 16, 0, 0, 0,
            )
        )  # fmt: skip
    return samples


def _server_samples(
    each: Serving, spawned_ns: int, ends_ns: int, spans: Sequence[Span], rows: Sequence[RequestRow]
) -> list[ServerSample]:
    """Return one sample a second from when the server was ready.

    Requests beyond four times its slots wait. Its counters are those of its answers.
    """
    ends = np.array([made.end_ns for made in rows])
    counts = [
        np.array([getattr(r, name) for r in rows])
        for name in ("input_tokens", "output_tokens", "cached_tokens")
    ]
    totals = [np.concatenate([[0], np.cumsum(each[np.argsort(ends)])]) for each in counts]
    ends.sort()
    samples = []
    for t_ns in range(spawned_ns + READY_S * S, ends_ns, S):
        users, done = _in_flight(spans, t_ns), int(np.searchsorted(ends, t_ns))
        running = float(min(users, int(4 * each.slots)))
        prompts, answers, cached = (float(total[done]) for total in totals)
        samples.append(
            ServerSample(
                t_ns, running, users - running, min(1.0, users / 80), prompts, cached, 0.0, prompts, answers,
                0.02 * done, float(done), 0.002,
            )
        )  # fmt: skip
    return samples


if __name__ == "__main__":
    sweep_run(Path(sys.argv[1]))
