"""Writes a results directory with known contents, through harness.store.store's own functions."""

import itertools
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from serving_bench.harness.contracts import (
    Deployment,
    EngineTerms,
    Load,
    LoadSummary,
    Plan,
    PlannedCell,
    PlannedStart,
    RequestRow,
    ScenarioChoice,
    SelfTest,
    SelfTestStep,
    Skip,
    WorkerSummary,
    because,
    quoted,
)
from serving_bench.harness.sampling.host import HostSample
from serving_bench.harness.store import store
from serving_bench.harness.store.request_table import Tally, write_table
from serving_bench.harness.store.store import CellRecord, Kept, Phase, RunRecord, StartRecord

S = 1_000_000_000
MS = 1_000_000
GIB = 2**30
HOSTILE = (
    "</script><script>document.title='pwned'</script>"
    "<img src=x onerror=\"document.title='pwned'\"> <!-- \u2028 & ' \""
)


def row(number: int, sent_ns: int, **changes) -> RequestRow:
    """Return an ok request: ten tokens in five chunks, after 100 ms and then every 20 ms; end 10 ms later."""
    chunks = tuple(sent_ns + 100 * MS + k * 20 * MS for k in range(5))
    fields: dict[str, Any] = {
        "request_id": f"r{number}", "user": 0, "conversation": number // 2, "turn": number % 2,
        "outcome": "ok", "error": None, "http_status": 200, "scheduled_ns": sent_ns - MS, "sent_ns": sent_ns,
        "chunk_ns": chunks, "end_ns": chunks[-1] + 10 * MS, "first_content_ns": chunks[0],
        "last_content_ns": chunks[-1], "input_tokens": 50, "output_tokens": 10, "cached_tokens": 5,
        "token_source": "server", "max_tokens": 10, "finish_reason": "length", "output_text": HOSTILE,
        **changes,
    }  # fmt: skip
    if "chunk_ns" in changes:
        ends = (changes["chunk_ns"][0], changes["chunk_ns"][-1]) if changes["chunk_ns"] else (None, None)
        fields["first_content_ns"], fields["last_content_ns"] = ends
    return RequestRow(**fields)


def failed_row(
    number: int, sent_ns: int, outcome: str = "http_error", error: str = "status 500"
) -> RequestRow:
    return row(
        number, sent_ns, outcome=outcome, error=error, http_status=500, chunk_ns=(), output_tokens=None,
        input_tokens=None, cached_tokens=None, token_source=None, finish_reason=None, raw_response=HOSTILE,
    )  # fmt: skip


def summary(started_ns: int, warmup_s: float = 2.0, duration_s: float = 8.0, **changes) -> LoadSummary:
    begin_ns = started_ns + int(warmup_s * S)
    end_ns = begin_ns + int(duration_s * S)
    plain = LoadSummary(
        started_ns=started_ns, window_start_ns=begin_ns, window_end_ns=end_ns, ended_ns=end_ns + S // 2,
        ended_by="duration", users=1, conversations_begun=10, requests=20, stamp_source="kernel",
        clock_uncertainty_ns=2000, stamp_lag_s=(1e-5, 1e-4, 1e-3), loop_lag_s=(1e-4, 5e-4, 2e-3), cpu_s=1.0,
        gc_pause_s=0.0,
    )  # fmt: skip
    return replace(plain, **changes)


def deployment(engine: str, quantization: str, model: str = "tiny-lm") -> Deployment:
    return Deployment(engine, model, quantization, EngineTerms(), {}, f"{engine} {quantization}".rstrip(" -"))


CHAT = ScenarioChoice(
    "chat_multi_turn", {"history": "model", "turns": 2, "think_time_s": 0.2}, "chat_multi_turn"
)


def plan_of(
    deployments, loads, repeats: int = 1, skips: tuple[Skip, ...] = (), scenario: ScenarioChoice = CHAT
) -> Plan:
    """Return a plan in which every repeat starts each deployment once, with a cell per load."""
    numbers = itertools.count()
    starts = []
    for index, (repeat, item) in enumerate(itertools.product(range(repeats), deployments)):
        cells = tuple(PlannedCell(next(numbers), scenario, load, repeat, 7) for load in loads)
        starts.append(PlannedStart(index, item, repeat, cells))
    return Plan(tuple(starts), skips, 100.0)


def run_record(plan: Plan, **changes) -> RunRecord:
    plain = RunRecord(
        schema_version=store.SCHEMA_VERSION, run_id="r1", created_at="2026-01-02T03:04:05+00:00",
        argv=("bench", "run"), plan=plan,
        settings={"engine": ("llama_cpp", "vllm"), "load.concurrency": ("1", "4"), "model": ("tiny lm",)},
        environment={"machine": {"cpu_model": "Test CPU", "memory_bytes": 8 * GIB}, "host": {"boot_id": "b"}},
        status="completed", ended_at="2026-01-02T03:14:05+00:00",
    )  # fmt: skip
    return replace(plain, **changes)


def begin_run(
    path: Path, deployments, loads, repeats=1, skips=(), scenario: ScenarioChoice = CHAT, **changes
) -> Plan:
    """Write the record of a run with such a plan, changed by `changes`, and return the plan."""
    plan = plan_of(deployments, loads, repeats, skips, scenario)
    store.write_record(path / "run.json", run_record(plan, **changes))
    return plan


def start_record(planned: PlannedStart, spawned_ns: int = 90 * S, **changes) -> StartRecord:
    ready_ns = spawned_ns + 3 * S
    plain = StartRecord(
        name=planned.name, index=planned.index, deployment=planned.deployment, repeat=planned.repeat,
        status="completed", spawned_ns=spawned_ns, ready_ns=ready_ns, stopped_ns=spawned_ns + 60 * S, pid=1,
        exit_code=0, baseline_bytes=2 * GIB, after_bytes=2 * GIB, returned_to_baseline=True,
        phases=(Phase("spawned", spawned_ns), Phase("ready", ready_ns)),
    )  # fmt: skip
    return replace(plain, **changes)


def kept_start(directory: Path) -> Kept[StartRecord]:
    """Return the record of a start, kept in start.json of this directory."""
    [start] = plan_of([deployment("llama_cpp", "fp16")], [Load(1)]).starts
    return Kept(directory / "start.json", start_record(start, S))


def host_samples(spawned_ns: int, peak_bytes: int, seconds: int = 40) -> list[HostSample]:
    """Return ten samples a second: memory rises to the peak by the middle, then stays at 90 % of it."""
    samples = []
    for step in range(seconds * 10):
        share = min(1.0, step / (seconds * 5)) if step <= seconds * 5 else 0.9
        samples.append(
            HostSample(
                spawned_ns + step * S // 10, int(peak_bytes * share), step / 20, 4, 1, 0, None, 4 * GIB, 50.0
            )
        )
    return samples


def marked_samples(spawned_ns: int, marks_s) -> list[HostSample]:
    """Return samples at marks: (seconds since the spawn, PSS in bytes or None if it could not be read)."""
    plain = host_samples(spawned_ns, GIB, 1)[0]
    return [
        replace(plain, t_ns=spawned_ns + int(at_s * S), rss_bytes=size or GIB, pss_bytes=size)
        for at_s, size in marks_s
    ]


def write_rows(path: Path, rows) -> Path:
    """Write rows as a load process does, a line of JSON per request. Return the path."""
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return path


def write_requests(cell_dir: Path, rows, load_summary, tokenizer=None) -> Tally:
    lines = write_rows(cell_dir / "rows.jsonl", rows)
    tally = write_table(lines, cell_dir / "requests.parquet", load_summary, tokenizer)
    lines.unlink()
    return tally


@lru_cache(1000)  # many starts and runs have the same
def _table(rows, load_summary) -> bytes:
    with TemporaryDirectory() as folder:
        write_requests(Path(folder), rows, load_summary)
        return Path(folder, "requests.parquet").read_bytes()


# Its window is [102 s, 110 s).
SUMMARY = summary(100 * S)


def write_cell(
    run_dir: Path, planned: PlannedCell, start: PlannedStart, rows, load_summary=SUMMARY, **changes
) -> None:
    record = CellRecord(
        number=planned.number, start=start.name, deployment=start.deployment.label, repeat=planned.repeat,
        scenario=planned.scenario, load=planned.load, seed=planned.seed, status="completed",
        summary=load_summary,
    )  # fmt: skip
    path = store.begin_cell(run_dir, planned.number)
    (path / "requests.parquet").write_bytes(_table(tuple(rows), load_summary))
    record = replace(record, **changes)
    store.write_record(path / "cell.json", record)
    store.settle(path, record)


def write_start(run_dir: Path, start: StartRecord | PlannedStart, samples=(), **changes) -> None:
    """Write the record of a start. A planned one was spawned at 90 s and has these `changes`."""
    record = start if isinstance(start, StartRecord) else start_record(start, **changes)
    path = run_dir / "starts" / record.name
    store.write_record(path / "start.json", record)
    store.write_samples(path / "host.parquet", samples)


@dataclass(frozen=True)
class OneCell:
    """A run of one cell, whose window is from 2 s to 10 s after `started_ns`."""

    path: Path
    started_ns: int = 100 * S


def one_cell_run(
    path: Path,
    rows,
    load_summary: LoadSummary | None = None,
    scenario: ScenarioChoice = CHAT,
    load: Load | None = None,
    **cell_changes,
) -> OneCell:
    made = OneCell(path)
    plan = begin_run(
        path, [deployment("llama_cpp", "fp16")], [load or Load(concurrency=1)], scenario=scenario
    )
    start = plan.starts[0]
    write_start(
        path, start_record(start, made.started_ns - 10 * S), host_samples(made.started_ns - 10 * S, GIB)
    )
    write_cell(path, start.cells[0], start, rows, load_summary or summary(made.started_ns), **cell_changes)
    return made


def starts_run(path: Path, *starts_rows, load: Load | None = None, scenario: ScenarioChoice = CHAT) -> Path:
    """Write a run of one deployment with a start per list of rows. The window is [102 s, 110 s)."""
    plan = begin_run(
        path, [deployment("vllm", "awq")], [load or Load(1)], len(starts_rows), scenario=scenario
    )
    for start, rows in zip(plan.starts, starts_rows, strict=True):
        write_start(path, start)
        write_cell(path, start.cells[0], start, rows)
    return path


def gaps_of(path: Path, number: int = 0) -> list[list[float]]:
    """Return the gaps between chunks in seconds, a list for each ok request in the window that has any."""
    table = store.read_requests(
        store.cell_dir(path, number), ["chunk_ns", "outcome", "in_window", "output_tokens"]
    )
    kept = [each for each in table.to_pylist() if each["outcome"] == "ok" and each["in_window"]]
    gaps = [[(b - a) / 1e9 for a, b in itertools.pairwise(each["chunk_ns"] or ())] for each in kept]
    return [each for each in gaps if each]


def empty_run(path: Path) -> Path:
    """Write a run that was planned, and ended before its first start."""
    begin_run(path, [deployment("llama_cpp", "fp16")], [Load(concurrency=1)], status="interrupted")
    return path


def all_failed_run(path: Path) -> Path:
    """Write a run of two starts that never became ready, one of them with its cell recorded as failed."""
    plan = begin_run(
        path, [deployment("llama_cpp", "fp16"), deployment("vllm", "awq")], [Load(concurrency=1)]
    )
    for start in plan.starts:
        record = start_record(
            start, S, status="failed", ready_ns=None, error=quoted(f"exited with code 1 {HOSTILE}")
        )
        write_start(path, record)
    first = plan.starts[0]
    write_cell(path, first.cells[0], first, [], None, status="failed", error=quoted("exited with code 1"))
    return path


def full_run(path: Path) -> Path:
    """Write 2 engines x 2 quantizations x 2 loads x 2 starts, one failed cell, one skip, hostile texts."""
    loads = [Load(concurrency=1), Load(concurrency=4)]
    deployments = [deployment(e, q) for e in ("llama_cpp", "vllm") for q in ("fp16", "gguf-q4_k_m")]
    plan = plan_of(deployments, loads, 2, (Skip("tgi awq", quoted(f"no such pair {HOSTILE}")),))
    environment = {"machine": {"cpu_model": f"CPU {HOSTILE}"}, "host": {"cores_logical": 2}}
    record = run_record(plan, environment=environment)
    settings = {**record.settings, "scenario.path": (f"it's {HOSTILE}",)}
    store.write_record(path / "run.json", replace(record, settings=settings))
    for start in plan.starts:
        _write_full_start(path, start)
    return path


def _write_full_start(path: Path, start: PlannedStart) -> None:
    spawned_ns = (1000 + 100 * start.index) * S
    slow = 1.0 + 0.4 * (start.index % 4)
    record = start_record(start, spawned_ns, weights={"note": f"converted {HOSTILE}"})
    write_start(path, record, host_samples(spawned_ns, int(slow * GIB)))
    for position, cell in enumerate(start.cells):
        load_summary = summary(spawned_ns + (5 + 15 * position) * S)
        if cell.number == 5:
            write_cell(
                path, cell, start, [], None, status="failed", error=quoted(f"the server died {HOSTILE}")
            )
            continue
        rows = _rows(load_summary, 60 * cell.load.concurrency, slow * cell.load.concurrency**0.3)
        rows.append(failed_row(900, load_summary.window_start_ns + S, error=f"boom {HOSTILE}"))
        write_cell(path, cell, start, rows, load_summary)


def _rows(load_summary: LoadSummary, count: int, slow: float) -> list[RequestRow]:
    rows = []
    for k in range(count):
        sent_ns = load_summary.started_ns + k * 10 * S // count
        first_ns = sent_ns + int((60 + (k * 37) % 50) * MS * slow)
        gap_ns = int((8 + (k * 13) % 7) * MS * slow)
        rows.append(row(k, sent_ns, chunk_ns=tuple(first_ns + j * gap_ns for j in range(10))))
        rows[-1] = replace(rows[-1], end_ns=rows[-1].last_content_ns + MS)
    return rows


def worker(number: int, **changes) -> WorkerSummary:
    plain = WorkerSummary(
        number=number, pid=4000 + number, requests=40, stamp_source="kernel",
        clock_uncertainty_ns=2000, stamp_lag_s=(1e-5, 1e-4, 1e-3), loop_lag_s=(1e-4, 5e-4, 2e-3), cpu_s=1.0,
        gc_pause_s=0.001,
    )  # fmt: skip
    return replace(plain, **changes)


def selftest(largest: tuple[int, float] | None = (64, 100.0)) -> SelfTest:
    """Return a self-test of three loads, in which bench's error grows from 0.03 to 8 ms."""
    steps = tuple(
        SelfTestStep(
            streams=streams, chunks_per_s=rate, requests=10 * streams, failed=0, chunks=1280 * streams,
            reached_chunks_per_s=streams * rate, ttft_error_s=error_s, itl_error_s=(1e-6, 2e-5),
            e2e_error_s=error_s, server_late_s=(2e-5, 3e-4), server_kept_up=True, cpu_s_per_chunk=9e-6,
        )
        for streams, rate, error_s in (
            (1, 100.0, (3e-5, 1e-4)), (64, 100.0, (3e-5, 2e-4)), (256, 400.0, (4e-5, 8e-3)),
        )
    )  # fmt: skip
    return SelfTest(
        created_at="2026-01-01T00:00:00+00:00", bench_version="0.1.0", program="native",
        stamp_source="kernel", machine={"cpu_model": "Test CPU"}, steps=steps, largest=largest,
    )  # fmt: skip


def every_load_run(path: Path) -> Path:
    """Write a run of closed loops, open loops and a trace on two deployments, with workers, lost requests, an
    overload whose queue only grows, and a self-test."""
    loads = [
        Load(concurrency=4), Load(concurrency=16),
        Load(concurrency=None, rate_per_s=5.0, duration_s=30.0), Load(concurrency=None, rate_per_s=40.0),
        Load(concurrency=None, rate_per_s=5.0, arrival="constant", duration_s=None, conversations=200),
        Load(concurrency=None, arrival="trace", speedup=2.0, duration_s=None, workers=2),
    ]  # fmt: skip
    plan = plan_of([deployment("llama_cpp", "fp16"), deployment("vllm", "awq")], loads, 2)
    environment = {"machine": {"cpu_model": "Test CPU"}, "selftest": msgspec.to_builtins(selftest())}
    store.write_record(path / "run.json", run_record(plan, environment=environment))
    for start in plan.starts:
        spawned_ns = (1000 + 500 * start.index) * S
        write_start(path, start_record(start, spawned_ns), host_samples(spawned_ns, GIB))
        for position, cell in enumerate(start.cells):
            _write_load_cell(path, cell, start, spawned_ns + (10 + 45 * position) * S)
    return path


def _write_load_cell(path: Path, cell: PlannedCell, start: PlannedStart, started_ns: int) -> None:
    load, slow = cell.load, 1.0 + 0.5 * (start.index % 2)
    made = summary(started_ns, duration_s=30.0, ended_by="duration" if load.duration_s else "conversations")
    count = int(30 * {"closed": load.concurrency or 0, "open": load.rate_per_s or 0, "trace": 8}[load.kind])
    is_overload = (load.rate_per_s or 0) > 10
    rows = []
    for k in range(count):
        sent_ns = made.started_ns + k * 32 * S // count
        wait_ns = int((80 + (k * 37) % 60 + (5000 * k // count if is_overload else 0)) * MS * slow)
        chunks = tuple(sent_ns + wait_ns + j * int((9 + (k * 13) % 5) * MS * slow) for j in range(9))
        late_ns = (4 if load.kind == "trace" else 1) * (1 + k % 7) * MS // 4
        changes = {
            "chunk_ns": chunks,
            "scheduled_ns": sent_ns - late_ns,
            "worker": k % 2,
            "is_resent": k == 9,
        }
        rows.append(row(k, sent_ns, end_ns=chunks[-1] + MS, **changes))
    workers: tuple[WorkerSummary, ...] = ()
    reasons: tuple[str, ...] = ()
    if load.workers > 1:
        workers = (worker(0), worker(1))
        rows += [lost_row(900 + k, made.started_ns + 20 * S + k) for k in range(3)]
        reasons = ("3 of 240 requests in the window failed",)
    validity = "suspect" if reasons else "valid"
    write_cell(path, cell, start, rows, replace(made, workers=workers), validity=validity, reasons=reasons)


def lost_row(number: int, scheduled_ns: int) -> RequestRow:
    """Return a request that was lost because its load process died."""
    changed = failed_row(number, scheduled_ns, "lost", "load worker 1 was lost")
    return replace(
        changed, sent_ns=None, scheduled_ns=scheduled_ns, http_status=None, raw_response=None, worker=1
    )


def served(engine: str, quantization: str, program: str = "", **terms) -> Deployment:
    """Return a deployment as the plan makes one with fairness=matched and 4 users, changed by `terms`."""
    matched = EngineTerms(
        launcher="native",
        context_length=2048,
        concurrent_sequences=4,
        kv_cache_tokens=8192,
        prefix_cache=True,
    )
    label = " ".join(part for part in (engine, program and f"({program})", quantization) if part)
    options = {"program": program} if program else {}
    return Deployment(engine, "tiny-lm", quantization, replace(matched, **terms), options, label)


@dataclass(frozen=True)
class Server:
    """A deployment of `engines_run`, and what its server says. `slow` stretches its latencies.

    `first_slower` stretches the stages of its first start.
    """

    deployment: Deployment
    slow: float = 1.0
    resolved: dict[str, object] | None = None
    prompt_tokens: tuple[int, int, int] = (18, 34, 41)
    unmatched: dict[str, Any] | None = None
    forces_length: bool = True
    output_tokens: int = 10
    stages_s: tuple[float, ...] = (0.4, 1.5, 2.2, 2.4, 2.6, 2.9)
    first_slower: float = 1.0
    argv: tuple[str, ...] = ()
    memory_said: dict[str, int] | None = None


STAGES = ("process_up", "weights_loaded", "engine_ready", "listening", "first_token", "steady_token")
ALIKE = {"context_length": 2048, "concurrent_sequences": 4, "kv_cache_tokens": 8192, "prefix_cache": True}


def servers() -> list[Server]:
    """Return eight deployments of five engines, each with something that a report must mention."""
    vllm = {**ALIKE, "kv_cache_tokens": 8576, "kv_cache_bytes": 256 << 20, "dtype": "torch.bfloat16"}
    vllm |= {
        "chunked_prefill": True,
        "graphs": True,
        "attention_backend": "CPU_ATTN",
        "engine_version": "0.32.0",
    }
    llama = {**ALIKE, "kv_cache_bytes": 51 << 20, "kv_cache_type": "fp16", "chat_template": "given"}
    one = {"concurrent_sequences": because("one_at_a_time", why="it serves one request at a time")}
    return [
        Server(
            served("llama_cpp", "bf16", "xllamacpp", chat_template="/models/gemma.jinja"), 1.0, llama,
            memory_said={"weights": 511 << 20, "kv_cache": 51 << 20, "workspace": 27 << 20},
        ),
        Server(
            served("llama_cpp", "gguf-q4_k_m", "llama-server", chat_template="/models/gemma.jinja"), 0.7,
            {**llama, "context_length": 1024, "engine_version": "b11434"},
        ),
        Server(
            served("llama_cpp", "gguf-q4_k_m", "llama-cpp-python"), 1.6, {"context_length": 2048},
            prompt_tokens=(19, 35, 42), unmatched=one,
        ),
        Server(
            served("vllm", "bf16", seed=0), 1.3, {**vllm, "seed": 0},
            stages_s=(6.0, 14.0, 31.0, 33.0, 34.0, 35.0), first_slower=3.5,
            memory_said={"weights": 511 << 20, "kv_cache": 256 << 20},
            argv=("vllm", "serve", "/models/tiny-lm", "--api-key", "sk-verysecretvalue0123456789"),
        ),
        Server(
            served("vllm", "awq"), 1.5,
            {**vllm, "quantization_kernel": "CPUWNA16LinearKernel", "dtype": "float16"},
            stages_s=(6.0, 15.0, 30.0, 33.0, 34.0, 35.0), first_slower=3.2,
        ),
        Server(
            served("sglang", "bf16"), 4.0,
            {**ALIKE, "kv_cache_tokens": 16384, "attention_backend": "torch_native", "chunked_prefill": False,
             "kernel_stand_in": "a pure Python sgl_kernel", "engine_version": "0.5.23"},
            stages_s=(9.0, 20.0, 41.0, 44.0, 46.0, 48.0),
        ),
        Server(
            served("transformers", "bf16"), 2.5, {"dtype": "bfloat16"}, prompt_tokens=(18, 18, 41),
            unmatched={**one, "kv_cache_tokens": "it has no limit", "prefix_cache": "it keeps none"},
        ),
        Server(
            served("tgi", "awq", launcher="docker"), 1.2, {**ALIKE, "kv_cache_tokens": 7000}, output_tokens=8,
            forces_length=False, stages_s=(1.0, 12.0, 25.0, 26.0, 27.0, 28.0),
        ),
    ]  # fmt: skip


def engines_run(path: Path, given: list[Server] | None = None) -> Path:
    """Write a run of many deployments of one model (see `servers`), at 1 and 4 users, two starts each."""
    given = servers() if given is None else given
    plan = begin_run(
        path, [server.deployment for server in given], [Load(concurrency=1), Load(concurrency=4)], 2
    )
    by_label = {server.deployment.label: server for server in given}
    for start in plan.starts:
        _write_server(path, start, by_label[start.deployment.label])
    return path


def _server_marks(start: PlannedStart, instants) -> list[tuple[str, int, float]]:
    """Return the marks of a start after `spawned`: name, instant, and the share of the peak in use then."""
    up_ns, loaded_ns, engine_ready_ns, *_, ready_ns, last_ns = instants
    begin_ns = (up_ns + loaded_ns) // 2
    cells = [
        (f"cell {cell.number:03d} end", last_ns + (17 + 15 * position) * S, 0.95 + 0.02 * position)
        for position, cell in enumerate(start.cells)
    ]
    return [
        ("process_up", up_ns, 0.1), ("weights_begin", begin_ns, 0.3), ("weights_loaded", loaded_ns, 0.65),
        ("engine_ready", engine_ready_ns, 0.8), ("ready", ready_ns, 0.9), *cells,
    ]  # fmt: skip


def _write_server(path: Path, start: PlannedStart, server: Server) -> None:
    spawned_ns = (1000 + 200 * start.index) * S
    slower = server.first_slower if start.repeat == 0 else 1.0
    instants = [spawned_ns + int(seconds * slower * S) for seconds in server.stages_s]
    is_docker = server.deployment.terms.launcher == "docker"
    argv = server.argv or (server.deployment.engine, "serve", "--port", str(40000 + start.index))
    record = start_record(
        start,
        spawned_ns,
        ready_ns=instants[-2],
        resolved=server.resolved or {},
        version=(server.resolved or {}).get("engine_version"),
        stages=dict(zip(STAGES, instants, strict=False)),
        prompt_tokens=dict(zip(("user", "system", "turns"), server.prompt_tokens, strict=True)),
        unmatched=server.unmatched or {},
        forces_length=server.forces_length,
        argv=("docker", "run", "--rm", *argv) if is_docker else argv,
        environment={"OMP_NUM_THREADS": "2", "HF_TOKEN": "hf_averysecretvalue0123456789", "NOTE": HOSTILE},
        memory_said=server.memory_said or {},
    )
    peak_bytes = int((0.5 + server.slow) * GIB)
    marks = _server_marks(start, instants)
    phases = (Phase("spawned", spawned_ns), *(Phase(name, t_ns) for name, t_ns, _ in marks))
    marked = marked_samples(
        spawned_ns, [((t_ns - spawned_ns) / S + 0.001, int(share * peak_bytes)) for _, t_ns, share in marks]
    )
    samples = sorted([*host_samples(spawned_ns, peak_bytes, 180), *marked], key=lambda each: each.t_ns)
    write_start(path, replace(record, phases=phases), samples)
    for position, cell in enumerate(start.cells):
        load_summary = summary(instants[-1] + (5 + 15 * position) * S)
        slow = server.slow * cell.load.concurrency**0.3
        rows = [
            replace(each, output_tokens=server.output_tokens, input_tokens=server.prompt_tokens[0] + 32)
            for each in _rows(load_summary, 60 * cell.load.concurrency, slow)
        ]
        write_cell(path, cell, start, rows, load_summary)
