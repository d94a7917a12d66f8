"""What bounded a load: each answer is given where its evidence is, and not where it is a little less."""

from __future__ import annotations

import re
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

from harness.contracts import Load, LoadSummary, RequestRow
from harness.sampling.device_sample import DeviceSample
from harness.servers.scrape import ServerSample
from harness.store import store
from reports import open_run
from reports.checks.bounds import Bound, bound_of
from reports.data.run import Run
from reports.page.sections import why

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
    `busy` and `idle`: cores, under load and after it; `e2e_s`: of each request."""

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
    stopped_s: float = 14.0
    device_pct: int | None = None
    e2e_s: float = 1.0
    rows: Sequence[RequestRow] | None = None
    client: Mapping[str, Any] = field(default_factory=dict)


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
        write_cell(path, start.cells[0], start, told.rows or rows_of(told), made)
    return open_run(path)


def _processor(told: Told) -> list[Any]:
    """As busy under load, until 110.5 s, and as idle after it as was told."""
    samples, used_s = [], 0.0
    for each in host_samples(T0, GIB, 14):
        samples.append(replace(each, cpu_s=used_s))
        used_s += 0.1 * (told.busy if each.t_ns < T0 + 10.5 * S else told.idle)
    return samples


def found(path: Path, *starts: Told) -> Bound:
    run = run_of(path, *starts)
    bound = bound_of(run, run.groups[0])
    assert bound is not None
    return bound


# --- KV cache --------------------------------------------------------------------------------------


def test_full_kv_cache_with_requests_waiting_is_the_bound(tmp_path: Path) -> None:
    bound = found(tmp_path, Told(running=[2], waiting=[2], kv=[0.97], slots=8))
    assert bound.kind == "kv_cache"
    assert bound.sentence == (
        "2 requests waited on average (some in 100 % of the samples) while 97 % of the KV cache was in use"
    )


def test_full_kv_cache_without_a_queue_is_no_bound(tmp_path: Path) -> None:
    assert found(tmp_path, Told(running=[4], waiting=[0], kv=[0.97], slots=8)).kind == "users"


def test_queue_in_fewer_than_half_of_the_samples_is_no_bound(tmp_path: Path) -> None:
    assert found(tmp_path, Told(running=[3], waiting=[0, 2, 0], kv=[0.97], slots=8)).kind == "users"


def test_pool_with_no_room_for_one_more_is_full_while_slots_are_free(tmp_path: Path) -> None:
    """A request takes 60 of 200 tokens: at 80 % in use the next one does not fit."""
    told = Told(running=[2], waiting=[2], kv=[0.8], slots=8, resolved={"kv_cache_tokens": 200})
    bound = found(tmp_path, told)
    assert bound.kind == "kv_cache"
    assert (
        "80 % of the KV cache was in use, and one request in ten takes 30 % of it or more" in bound.sentence
    )
    roomy = replace(told, kv=[0.6])
    assert found(tmp_path / "roomy", roomy).kind == "unclear"


def test_pool_for_two_requests_of_a_real_vllm(tmp_path: Path) -> None:
    """What vLLM 0.32.0 said each second on a CPU: eight users, eight slots, and 1,043 tokens of KV cache."""
    lengths = [
        (534, 58),
        (421, 33),
        (620, 73),
        (359, 30),
        (534, 66),
        (408, 58),
        (168, 53),
        (289, 52),
        (269, 49),
    ]
    rows = [
        replace(each, input_tokens=lengths[k % 9][0], output_tokens=lengths[k % 9][1])
        for k, each in enumerate(rows_of(Told(Load(concurrency=8), e2e_s=5.0)))
    ]
    told = Told(
        Load(concurrency=8), slots=8, resolved={"kv_cache_tokens": 1043}, rows=rows,
        running=[3, 2, 3, 2, 1, 1, 1, 0, 1, 1, 0, 1], waiting=[5, 6, 4, 6, 7, 7, 7, 7, 7, 7, 7, 7],
        kv=[0.906, 0.679, 0.792, 0.792, 0.566, 0.566, 0.566, 0, 0.566, 0.453, 0, 0.585],
    )  # fmt: skip
    assert found(tmp_path, told).kind == "kv_cache"


def test_preemptions_are_a_full_kv_cache(tmp_path: Path) -> None:
    bound = found(tmp_path, Told(running=[4], waiting=[0], kv=[0.9], preemptions_per_s=2.0, slots=8))
    assert (bound.kind, bound.sentence) == ("kv_cache", "16 preemptions while 32 requests ended")


def test_one_preemption_of_hundreds_of_requests_is_none(tmp_path: Path) -> None:
    told = Told(running=[4], waiting=[0], kv=[0.9], preemptions_per_s=0.2, slots=8, e2e_s=0.1)
    assert found(tmp_path, told).kind == "users"


# --- slots -----------------------------------------------------------------------------------------


def test_as_many_running_as_it_serves_with_others_waiting_are_full_slots(tmp_path: Path) -> None:
    bound = found(tmp_path, Told(running=[2], waiting=[2], kv=[0.3], slots=2))
    assert bound.kind == "slots"
    assert bound.sentence == (
        "the server serves 2 requests at once; 2 requests waited on average (some in 100 % of the samples); "
        "4 were in flight by the client's count"
    )


def test_slots_without_a_queue_are_no_bound(tmp_path: Path) -> None:
    bound = found(tmp_path, Told(running=[4], waiting=[0], slots=4))
    assert bound.kind == "users"
    assert bound.sentence.startswith("4 users, 4 in flight of 4 that the server serves at once; none waited")


def test_server_without_metrics_has_full_slots_by_the_clients_count(tmp_path: Path) -> None:
    clause = "it serves one request at a time"
    bound = found(tmp_path, Told(unmatched={"concurrent_sequences": clause}))
    assert bound.kind == "slots"
    assert bound.sentence == (
        "the server serves one request at a time; 4 were in flight by the client's count"
    )


# --- client ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "words"),
    [
        ({"cpu_s": 10.0}, "its busiest process used 0.95 of the one core it can"),
        (
            {"loop_lag_s": (0.12, 0.2, 0.3)},
            "half of its timers were 120.0 ms late or more, where one takes 1,000 ms",
        ),
        ({"left_out": 5}, "5 of 15 conversations that were due never began"),
    ],
)
def test_client_that_did_not_keep_up_comes_first(
    tmp_path: Path, client: Mapping[str, Any], words: str
) -> None:
    bound = found(tmp_path, Told(running=[2], waiting=[2], kv=[0.99], slots=2, client=client))
    assert (bound.kind, bound.sentence) == ("client", f"the client did not keep up: {words}")


def test_client_that_is_late_by_less_than_a_tenth_is_no_bound(tmp_path: Path) -> None:
    told = Told(running=[4], waiting=[0], slots=8, client={"cpu_s": 8.0, "loop_lag_s": (0.09, 0.2, 0.2)})
    assert found(tmp_path, told).kind == "users"


def test_late_sending_in_open_loop_is_the_clients(tmp_path: Path) -> None:
    late = [replace(each, scheduled_ns=(each.sent_ns or 0) - 250 * MS) for each in rows_of(Told(TWO_PER_S))]
    bound = found(tmp_path, Told(TWO_PER_S, running=[2], waiting=[0], rows=late))
    assert bound.sentence == (
        "the client did not keep up: half of its requests left 250.0 ms late or more, "
        "where one takes 1,250 ms"
    )


# --- compute ---------------------------------------------------------------------------------------


def test_busy_processor_without_a_queue_is_compute(tmp_path: Path) -> None:
    bound = found(tmp_path, Told(running=[4], waiting=[0], slots=8, busy=3.9))
    assert bound.kind == "compute"
    assert bound.sentence == (
        "the server can compute on 4 cores and kept 3.90 busy; 4 requests in flight on average, none waited"
    )


def test_processor_is_as_full_as_its_servers_threads(tmp_path: Path) -> None:
    told = Told(running=[4], waiting=[0], slots=8, busy=1.0, resolved={"threads": 1})
    assert found(tmp_path, told).kind == "compute"
    assert found(tmp_path / "two", replace(told, resolved={"threads": 2})).kind == "users"


def test_processor_that_spins_while_idle_is_no_evidence(tmp_path: Path) -> None:
    told = Told(running=[4], waiting=[0], slots=8, busy=1.04, idle=1.0, resolved={"threads": 1})
    bound = found(tmp_path, told)
    assert bound.kind == "users"
    assert bound.sentence.endswith("its processor does not tell: 1.04 cores busy, 1.00 while idle")
    bound = found(tmp_path / "works", replace(told, busy=1.97))
    assert bound.kind == "compute"
    assert "kept 1.97 busy, 1.00 of them even while idle" in bound.sentence


def test_busy_processor_that_was_not_seen_idle_is_no_evidence(tmp_path: Path) -> None:
    """The server stopped at once after its only cell."""
    told = Told(running=[4], waiting=[0], slots=8, busy=3.9, stopped_s=10.6)
    bound = found(tmp_path, told)
    assert bound.kind == "users"
    assert bound.sentence.endswith("its processor does not tell: 3.90 cores busy, while idle not sampled")


def test_device_that_runs_kernels_all_the_time_is_full_with_all_slots_taken(tmp_path: Path) -> None:
    told = Told(running=[4], waiting=[0], kv=[0.2], slots=4, device_pct=99)
    bound = found(tmp_path, told)
    assert bound.kind == "compute"
    assert bound.sentence.startswith("the device ran kernels in 99 % of the time")
    assert found(tmp_path / "room", replace(told, slots=64)).kind == "users"
    assert found(tmp_path / "idle", replace(told, device_pct=80)).kind == "users"


def test_open_loop_whose_queue_grows_on_a_busy_processor_is_compute(tmp_path: Path) -> None:
    rows = [row(k, T0 + k * 100 * MS, end_ns=T0 + 30 * S) for k in range(100)]
    rows += [row(200 + k, T0 + k * 300 * MS) for k in range(33)]
    told = Told(TWO_PER_S, running=[8], waiting=[0], slots=500, rows=rows, busy=3.95)
    bound = found(tmp_path, told)
    assert bound.kind == "compute"
    assert "requests in flight only became more" in bound.sentence
    bound = found(tmp_path / "idle", replace(told, busy=0.5))
    assert bound.kind == "unclear"
    assert bound.sentence.startswith("requests in flight only became more, and none is known to have waited")


# --- what was asked for ----------------------------------------------------------------------------


def test_as_many_ending_as_come_is_the_arrival_rate(tmp_path: Path) -> None:
    bound = found(tmp_path, Told(TWO_PER_S, running=[2], waiting=[0], slots=8))
    assert bound.kind == "rate"
    assert bound.sentence == (
        "requests ended as they came: 16 came and 16 ended; 2 requests in flight on average, and they did "
        "not become more"
    )


def test_one_user_bounds_a_server_that_tells_nothing(tmp_path: Path) -> None:
    bound = found(tmp_path, Told(Load(concurrency=1)))
    assert bound.kind == "users"
    assert bound.sentence.startswith("one user, one request at a time; none waited")


def test_nothing_is_said_of_a_server_that_tells_nothing(tmp_path: Path) -> None:
    bound = found(tmp_path, Told())
    assert bound.kind == "unclear"
    assert bound.sentence == (
        "whether requests waited is not known: the server has no page of metrics that was read; how many "
        "requests it serves at once is not known"
    )


def test_queue_without_a_known_cause_is_not_clear(tmp_path: Path) -> None:
    bound = found(tmp_path, Told(running=[3], waiting=[1], slots=8))
    assert bound.kind == "unclear"
    assert bound.sentence.endswith(
        "and it is not known for what: the server does not tell how much of its KV cache is in use"
    )


def test_load_whose_requests_failed_is_not_clear(tmp_path: Path) -> None:
    rows = [failed_row(k, T0 + k * 100 * MS) for k in range(100)]
    bound = found(tmp_path, Told(running=[2], waiting=[2], slots=2, rows=rows))
    assert (bound.kind, bound.sentence) == ("unclear", "only 0 of 80 requests were answered well")


# --- starts ----------------------------------------------------------------------------------------

SLOTS = Told(running=[2], waiting=[2], slots=2)
USERS = Told(running=[4], waiting=[0], slots=8)


def test_most_starts_decide_and_the_others_are_said(tmp_path: Path) -> None:
    bound = found(tmp_path, SLOTS, USERS, SLOTS)
    assert (bound.kind, bound.starts, bound.of) == ("slots", 2, 3)
    assert bound.agreement == "2 of 3 starts; else: users"


def test_starts_that_halve_are_not_clear(tmp_path: Path) -> None:
    bound = found(tmp_path, SLOTS, USERS)
    assert (bound.kind, bound.sentence) == ("unclear", "starts disagree: 1 slots full, 1 users")


def plain(run: Run) -> str:
    made = why.bounds(run)
    return " ".join(re.sub("<[^>]+>", " ", made.body.text).split())


def test_section_has_a_word_for_each_load_and_its_evidence(tmp_path: Path) -> None:
    text = plain(run_of(tmp_path, SLOTS, USERS, SLOTS))
    assert "deployment 4 users vllm fp16 slots full 2 of 3 starts" in text
    assert "The server serves 2 requests at once; 2 requests waited" in text
    assert "(2 of 3 starts; else: users)." in text


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
    assert bound.sentence.startswith("the server serves 2 requests at once; ")


def test_one_user_of_a_real_server_bounds_it_alone(real: dict[str, dict[str, Bound]]) -> None:
    assert real["users"]["1 user"].kind == "users"


def test_low_rate_bounds_a_real_server(real: dict[str, dict[str, Bound]]) -> None:
    [bound] = real["rate"].values()
    assert bound.kind == "rate", bound
