"""What limited a load: each answer is given where its evidence is, and not where it is a little less."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bench_command import Place, bench, quick, side_by_side
from make_run import (
    GIB,
    MS,
    S,
    deployment,
    failed_row,
    host_samples,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)
from page_data import plain

from serving_bench.harness.contracts import GuardFinding, Load, LoadSummary, RequestRow, because, quoted
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.servers.scrape import ServerSample
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.checks.bounds import Bound, bound_of
from serving_bench.reports.data.run import Run
from serving_bench.reports.page.sections import why

NOTHING = ServerSample(0, *[None] * 10, scrape_s=0.002)
BUSY_DEVICE = DeviceSample(
    t_ns=0, device=0, used_bytes=GIB, process_bytes=GIB, utilization_pct=99, memory_utilization_pct=40,
    power_w=300.0, energy_j=None, temperature_c=60, sm_clock_mhz=1900,
)  # fmt: skip
FOUR = Load(concurrency=4)
TWO_PER_S = Load(concurrency=None, rate_per_s=2.0, arrival="constant")
# Spawned at 90 s; the load from 100 to 110.5 s, its window from 102 to 110 s; stopped at 150 s.
T0 = 100 * S


@dataclass(frozen=True)
class Told:
    """What a start's server and client told. `running`, `waiting`, `kv`: each second's, over and over;
    `busy` and `idle`: cores, under load and after it; `machine_pct`: of all cores, by whomever; `e2e_s`: of
    each request; `guard`: what it saw."""

    load: Load = FOUR
    running: Sequence[float] | None = None
    waiting: Sequence[float] | None = None
    kv: Sequence[float] | None = None
    preemptions_per_s: float | None = None
    slots: int | None = None
    resolved: Mapping[str, Any] = field(default_factory=dict)
    unmatched: Mapping[str, str] = field(default_factory=dict)
    busy: float = 0.2
    idle: float = 0.0
    machine_pct: float = 50.0
    stopped_s: float = 14.0
    device_pct: int | None = None
    e2e_s: float = 1.0
    rows: Sequence[RequestRow] | None = None
    client: Mapping[str, Any] = field(default_factory=dict)
    guard: tuple[GuardFinding, ...] = ()


def rows_of(told: Told) -> list[RequestRow]:
    """Users one request after the other; of an open loop a request each half second."""
    if told.load.kind == "closed":
        sent = [
            (user + 1) * 10 * MS + int(k * told.e2e_s * S)
            for user in range(told.load.concurrency or 0)
            for k in range(int(10.5 / told.e2e_s))
        ]
    else:
        sent = [k * S // 2 for k in range(21)]
    return [
        row(k, T0 + at, end_ns=T0 + at + int(told.e2e_s * S), scheduled_ns=T0 + at)
        for k, at in enumerate(sorted(sent))
    ]


def server_samples(told: Told) -> list[ServerSample]:
    if told.running is None and told.waiting is None and told.kv is None:
        return []
    return [
        replace(
            NOTHING,
            t_ns=T0 + k * S + S // 2,
            running=_at(told.running, k),
            waiting=_at(told.waiting, k),
            kv_cache_usage_share=_at(told.kv, k),
            preemptions=None if told.preemptions_per_s is None else k * told.preemptions_per_s,
        )
        for k in range(-2, 13)
    ]


def _at(values: Sequence[float] | None, k: int) -> float | None:
    return None if values is None else float(values[k % len(values)])


def run_of(path: Path, *starts: Told, label: str = "vllm") -> Run:
    """A run of one deployment and load; a start for each of what they told."""
    plan = plan_of([deployment(label, "fp16")], [starts[0].load], repeats=len(starts))
    machine = {"machine": {"cores_logical": 4, "cores_usable": 4}}
    store.write_record(path / "run.json", run_record(plan, environment=machine))
    for start, told in zip(plan.starts, starts, strict=True):
        on_device = told.device_pct is not None
        resolved = {"concurrent_sequences": told.slots} if told.slots is not None else {}
        record = start_record(
            start, 90 * S, resolved={**resolved, **told.resolved}, unmatched=dict(told.unmatched),
            memory_kind="device" if on_device else "host", stopped_ns=T0 + int(told.stopped_s * S),
        )  # fmt: skip
        write_start(path, record, _processor(told))
        folder = path / "starts" / start.name
        store.write_samples(folder / "server.parquet", server_samples(told))
        if on_device:
            samples = [
                replace(BUSY_DEVICE, t_ns=T0 + k * S, utilization_pct=told.device_pct) for k in range(11)
            ]
            store.write_samples(folder / "device.parquet", samples)
        made: LoadSummary = summary(T0, **{"cpu_s": 0.5, **told.client})
        write_cell(path, start.cells[0], start, told.rows or rows_of(told), made, guard=told.guard)
    return open_run(path)


def _processor(told: Told) -> list[Any]:
    """As busy under load, until 110.5 s, and as idle after it as was told."""
    samples, used_s = [], 0.0
    for each in host_samples(T0, GIB, 14):
        samples.append(replace(each, cpu_s=used_s, machine_cpu_pct=told.machine_pct))
        used_s += 0.1 * (told.busy if each.t_ns < T0 + 10.5 * S else told.idle)
    return samples


def found(path: Path, *starts: Told) -> Bound:
    run = run_of(path, *starts)
    bound = bound_of(run, run.groups[0])
    assert bound is not None
    return bound


GROWING = [row(k, T0 + k * 100 * MS, end_ns=T0 + 30 * S) for k in range(100)]
GROWING += [row(200 + k, T0 + k * 300 * MS) for k in range(33)]
LATE = [replace(each, scheduled_ns=(each.sent_ns or 0) - 250 * MS) for each in rows_of(Told(TWO_PER_S))]
WARM_UP = [row(k, T0 - S + k * 10 * MS) for k in range(20)]
FAILED = [failed_row(k, T0 + 2 * S + k * 100 * MS) for k in range(80)]
FREE = Told(running=[4], waiting=[0], slots=8)
OTHERS = GuardFinding(
    "foreign_load", quoted("other programs used 94 % of the processor"), "during", "suspect"
)
STARVED = replace(FREE, machine_pct=100.0, guard=(OTHERS,))
FULL_KV = Told(running=[2], waiting=[2], kv=[0.97], slots=8)
# A request takes 60 of 200 tokens: at 80 % in use the next one does not fit.
TIGHT_KV = replace(FULL_KV, kv=[0.8], resolved={"kv_cache_tokens": 200})
FULL_SLOTS = Told(running=[2], waiting=[2], kv=[0.3], slots=2)
ON_DEVICE = Told(running=[4], waiting=[0], kv=[0.2], slots=4, device_pct=99)
SPINS = replace(FREE, busy=1.04, idle=1.0, resolved={"threads": 1})
OVERLOADED = Told(TWO_PER_S, running=[8], waiting=[0], slots=500, rows=GROWING, busy=3.95)
# What vLLM 0.32.0 said each second on a CPU: eight users, eight slots, and 1,043 tokens of KV cache.
LENGTHS = [
    (534, 58), (421, 33), (620, 73), (359, 30), (534, 66), (408, 58), (168, 53), (289, 52), (269, 49),
]  # fmt: skip
VLLM = Told(
    Load(concurrency=8), slots=8, resolved={"kv_cache_tokens": 1043},
    rows=[
        replace(each, input_tokens=LENGTHS[k % 9][0], output_tokens=LENGTHS[k % 9][1])
        for k, each in enumerate(rows_of(Told(Load(concurrency=8), e2e_s=5.0)))
    ],
    running=[3, 2, 3, 2, 1, 1, 1, 0, 1, 1, 0, 1], waiting=[5, 6, 4, 6, 7, 7, 7, 7, 7, 7, 7, 7],
    kv=[0.906, 0.679, 0.792, 0.792, 0.566, 0.566, 0.566, 0, 0.566, 0.453, 0, 0.585],
)  # fmt: skip
PREEMPTS = replace(FREE, kv=[0.9], preemptions_per_s=2.0)
WAITED = "2.00 requests waited on average (some in 100 % of the samples)"
FLIGHT = "4.00 requests in flight on average"
IDLE = "0.20 cores busy, 0.00 while idle, of 4"
NOT_KEPT_UP = "the client did not keep up: "
CASES: dict[str, tuple[Told, str, str]] = {
    "a full KV cache, with requests waiting": (FULL_KV, "kv_cache", f"{WAITED}; 97 % of the KV cache in use"),
    "a full one without a queue": (replace(FREE, kv=[0.97]), "users", "none waited"),
    "a queue in fewer than half of the samples":
        (Told(running=[3], waiting=[0, 2, 0], kv=[0.97], slots=8), "users", ""),
    "no room for one more, while slots are free":
        (TIGHT_KV, "kv_cache", "80 % of the KV cache in use; one request in ten takes 30 % of it or more"),
    "room for one more": (replace(TIGHT_KV, kv=[0.6]), "unclear", ""),
    "a real pool for two requests": (VLLM, "kv_cache", ""),
    "preemptions": (PREEMPTS, "kv_cache", "16 preemptions while 32 ended"),
    "one preemption of hundreds of requests":
        (replace(PREEMPTS, preemptions_per_s=0.2, e2e_s=0.1), "users", ""),
    "slots full, with others waiting":
        (FULL_SLOTS, "slots", f"the server serves 2 at once; {FLIGHT}; {WAITED}; {IDLE}"),
    "slots full without a queue":
        (replace(FREE, slots=4), "users", f"4 users; {FLIGHT}; none waited; each request's own time counts"),
    "slots full by the client's count": (
        Told(unmatched={"concurrent_sequences": because("one_at_a_time", why="one at a time")}), "slots",
        f"the server serves 1 at once; {FLIGHT}; {IDLE}",
    ),
    "a load process that used its core": (
        replace(FULL_SLOTS, client={"cpu_s": 10.0}), "client",
        f"{NOT_KEPT_UP}its busiest process used 0.95 of the one core it can use",
    ),
    "late timers": (
        replace(FULL_SLOTS, client={"loop_lag_s": (0.12, 0.2, 0.3)}), "client",
        f"{NOT_KEPT_UP}half of its timers or requests were 120.0 ms late or more, "
        "and a request takes 1,000 ms",
    ),
    "a client late by less than a tenth":
        (replace(FREE, client={"cpu_s": 8.0, "loop_lag_s": (0.09, 0.2, 0.2)}), "users", ""),
    "late sending in open loop": (
        Told(TWO_PER_S, running=[2], waiting=[0], rows=LATE), "client",
        f"{NOT_KEPT_UP}half of its timers or requests were 250.0 ms late or more, "
        "and a request takes 1,250 ms",
    ),
    "a busy processor": (
        replace(FREE, busy=3.9), "compute", f"{FLIGHT}; none waited; 3.90 cores busy, 0.00 while idle, of 4"
    ),
    "a processor as full as its threads":
        (replace(FREE, busy=1.0, resolved={"threads": 1}), "compute", "1.00 cores busy, 0.00 while idle"),
    "one of two threads": (replace(FREE, busy=1.0, resolved={"threads": 2}), "users", ""),
    "a processor that spins while idle": (SPINS, "users", "1.04 cores busy, 1.00 while idle, of 1"),
    "one that spins and works":
        (replace(SPINS, busy=1.97), "compute", "1.97 cores busy, 1.00 while idle, of 1"),
    "a busy processor that was not seen idle": (replace(FREE, busy=3.9, stopped_s=10.6), "users", ""),
    "a device that runs kernels all the time":
        (ON_DEVICE, "compute", f"{FLIGHT}; none waited; the device ran kernels in 99 % of the time"),
    "the same with free slots": (replace(ON_DEVICE, slots=64), "users", ""),
    "a device that does not": (replace(ON_DEVICE, device_pct=80), "users", "in 80 % of the time"),
    "a queue that grows on a busy processor": (OVERLOADED, "compute", "these only became more; none waited"),
    "a queue that grows on an idle one":
        (replace(OVERLOADED, busy=0.5), "unclear", "these only became more; none waited"),
    "as many ending as come": (
        Told(TWO_PER_S, running=[2], waiting=[0], slots=8), "rate",
        "requests ended as they came: 16 came and 16 ended; 2.00 requests in flight on average; none waited",
    ),
    "one user of a server that tells nothing": (Told(Load(concurrency=1)), "users", "one user; 1.00 "),
    "a server that tells nothing": (
        Told(), "unclear", f"{FLIGHT}; not known: whether requests waited, how much of the KV cache was in "
        "use, how many requests the server serves at once",
    ),
    "a queue without a known cause": (
        Told(running=[3], waiting=[1], slots=8), "unclear", "not known: how much of the KV cache was in use",
    ),
    "other programs that left nothing of the processor": (
        STARVED, "others", "other programs used 94 % of the processor, and none of it was free; 0.20 cores "
        "busy, 0.00 while idle, of 4",
    ),
    "no request that was answered for them":
        (replace(STARVED, rows=FAILED), "others", "none of it was free"),
    "other programs that left a tenth of it": (replace(STARVED, machine_pct=90.0), "users", ""),
    "other programs before the window only":
        (replace(STARVED, guard=(replace(OTHERS, when="before"),)), "users", ""),
    "a full processor without other programs": (replace(STARVED, guard=()), "users", ""),
    "other programs beside a server that has all it may use":
        (replace(STARVED, busy=1.0, resolved={"threads": 1}), "compute", ""),
    "requests that failed":
        (replace(FREE, rows=FAILED), "unclear", "only 0 of 80 requests were ok"),
    "a window in which none was sent":
        (replace(FREE, rows=WARM_UP), "unclear", "no request was sent in the window"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_answer_is_given_where_its_evidence_is_and_not_a_little_below(tmp_path: Path, case: str) -> None:
    told, kind, sentence = CASES[case]
    bound = found(tmp_path, told)
    assert bound.kind == kind, bound
    assert sentence in bound.sentence
    assert "nan" not in bound.sentence


# --- starts ----------------------------------------------------------------------------------------


def test_most_starts_decide_and_how_many_is_said(tmp_path: Path) -> None:
    bound = found(tmp_path, FULL_SLOTS, FREE, FULL_SLOTS)
    assert (bound.kind, bound.agreement) == ("slots", "2 of 3 starts")


def test_starts_that_halve_are_not_clear(tmp_path: Path) -> None:
    bound = found(tmp_path, FULL_SLOTS, FREE)
    assert (bound.kind, bound.sentence) == ("unclear", "starts disagree: 1 slots full, 1 users")


def test_section_has_a_word_for_each_load_and_its_evidence(tmp_path: Path) -> None:
    run = run_of(tmp_path, FULL_SLOTS, FREE, FULL_SLOTS)
    bound = bound_of(run, run.groups[0])
    assert bound is not None
    assert f"slots full {bound.agreement} T{bound.sentence[1:]}" in plain(why.bounds(run).body)


def test_what_is_not_known_is_said_once_below_the_table(tmp_path: Path) -> None:
    text = plain(why.bounds(run_of(tmp_path, Told())).body)
    assert f"{FLIGHT}." in text
    assert text.count("whether requests waited") == 1
    assert "Not known: whether requests waited" in text


# --- real servers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The reference server with two slots, a third of a second per answer: 6 users, then 1, on it; and one
    conversation of two turns per second."""
    terms = quick(
        "reference.slots=2", "reference.ttft=100ms", "reference.itl=10ms", "reference.output_tokens=20",
        "scenario.turns=2", "scenario.think_time=20ms", "load.duration=2s",
    )  # fmt: skip
    loads = {"users": ("load.concurrency=1,6",), "rate": ("load.rate=1", "load.arrival=constant")}

    def measured(place: Place, load: tuple[str, ...]) -> tuple[Any, Place]:
        words = [word for word in terms if not word.startswith("load.concurrency")]
        return bench(place, "run", *words, *load, "--output", place.run_dir), place

    stories = {name: partial(measured, load=load) for name, load in loads.items()}
    with side_by_side(tmp_path_factory.mktemp("bounds"), stories) as futures:
        yield {name: _bounds(future) for name, future in futures.items()}


def _bounds(future: Future[tuple[Any, Place]]) -> dict[str, Bound]:
    ended, place = future.result()
    assert ended.returncode == 0, ended.stderr
    run = open_run(place.run_dir)
    return {group.load: bound for group in run.groups if (bound := bound_of(run, group))}


def test_six_users_fill_two_slots_of_a_real_server(real: dict[str, dict[str, Bound]]) -> None:
    bound = real["users"]["6 users"]
    assert bound.kind == "slots", bound
    assert bound.sentence.startswith("the server serves 2 at once; ")


def test_one_user_of_a_real_server_bounds_it_alone(real: dict[str, dict[str, Bound]]) -> None:
    assert real["users"]["1 user"].kind == "users"


def test_low_rate_bounds_a_real_server(real: dict[str, dict[str, Bound]]) -> None:
    [bound] = real["rate"].values()
    assert bound.kind == "rate", bound
