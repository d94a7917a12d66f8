"""A server's page of metrics as samples: what is read from it, and every way in which it may not be there."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fake_http import Answer, FakeHttp, Reply, fake_http, text
from held_ports import held_port
from make_run import kept_start
from places import TESTS
from reads import Reads
from waiting import wait_until

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import ServerMetric, ServerTerm
from serving_bench.harness.run.watch import Watch, watch_memory
from serving_bench.harness.sampling.sampling import Sampling
from serving_bench.harness.servers import probe
from serving_bench.harness.servers.scrape import PageReader, ServerSample, terms_on
from serving_bench.harness.store import store

DATA = TESTS / "data"
METRICS: dict[ServerTerm, ServerMetric] = {
    "running": ServerMetric("toy:running"),
    "kv_cache_usage_share": ServerMetric("toy:cache_pct", scale=0.01, combine="mean"),
    "prompt_tokens": ServerMetric("toy:read_total", also=("toy:cached_total",)),
    "generated_tokens": ServerMetric("toy:generated_total", labels={"kind": "text"}),
    "preemptions": ServerMetric("toy:preempted_total", absent=0.0),
}
PAGE = """# HELP toy:running Requests
# TYPE toy:running gauge
toy:running{engine="0",model="a \\"quoted\\" } name"} 2
toy:running{engine="1",model="b"} 3.0
toy:running_max 99
# TYPE toy:cache_pct gauge
toy:cache_pct 25 1700000000000
# TYPE toy:read counter
toy:read_total 1.5e3
toy:cached_total 500
toy:generated_total{kind="text"} 40
toy:generated_total{kind="image"} 7
toy:latency_bucket{le="+Inf"} 12
"""
ANSWER = text(PAGE)


def sampling(base_url: str, **more: Any) -> AbstractContextManager[Sampling[ServerSample]]:
    return Sampling(PageReader(base_url, "/metrics", METRICS, **{"timeout_s": 5.0, **more}), hz=50)


@contextmanager
def sampled(reply: Reply = ANSWER, **more: Any) -> Iterator[tuple[FakeHttp, Sampling[ServerSample]]]:
    with fake_http(reply) as server, sampling(server.base_url, **more) as sampler:
        yield server, sampler


def values(page: str) -> dict[str, float]:
    return dict(terms_on(page, METRICS)[0])


def test_terms_are_sums_over_labels_and_parts_scaled() -> None:
    assert values(PAGE) == {
        "running": 5.0,
        "kv_cache_usage_share": 0.25,
        "prompt_tokens": 2000.0,
        "generated_tokens": 40.0,
        "preemptions": 0.0,
    }


def test_share_of_several_engines_is_their_mean_and_not_their_sum() -> None:
    page = PAGE.replace(
        "toy:cache_pct 25 1700000000000", 'toy:cache_pct{rank="0"} 80\ntoy:cache_pct{rank="1"} 70'
    )
    assert values(page)["kv_cache_usage_share"] == pytest.approx(0.75)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_cache_usage_of_two_data_parallel_engines_is_a_share(engine: str) -> None:
    metrics = ENGINES[engine].metrics
    name = metrics["kv_cache_usage_share"].sample
    page = "".join(f'{name}{{model_name="m",engine="{k}"}} {used}\n' for k, used in enumerate((0.8, 0.7)))
    assert terms_on(page, metrics)[0]["kv_cache_usage_share"] == pytest.approx(0.75)


def test_sum_with_a_missing_part_is_not_known() -> None:
    found, problems = terms_on(PAGE.replace("toy:cached_total", "toy:other_total"), METRICS)
    assert "prompt_tokens" not in found
    assert problems["prompt_tokens"] == "not on the server's page"


@pytest.mark.parametrize("number", ["NaN", "+Inf", "-Inf"])
def test_what_is_no_finite_number_is_not_known(number: str) -> None:
    found, problems = terms_on(PAGE.replace("toy:cache_pct 25", f"toy:cache_pct {number}"), METRICS)
    assert "kv_cache_usage_share" not in found
    assert problems == {"kv_cache_usage_share": "no finite number"}
    assert found["running"] == 5.0


@pytest.mark.parametrize(
    "damage",
    ["toy:read_total", "toy:read_total many", 'toy:read_total{a="b 1', "toy:read_total " + "9" * 400],
)
def test_damaged_line_costs_its_own_term_only(damage: str) -> None:
    found, problems = terms_on(PAGE.replace("toy:read_total 1.5e3", damage), METRICS)
    assert set(found) == set(METRICS) - {"prompt_tokens"}
    assert problems["prompt_tokens"].startswith("not on the server's page")


def test_page_of_something_else_has_no_term_and_assumes_none() -> None:
    found, problems = terms_on("<!doctype html><title>toy:running 5</title>", METRICS)
    assert found == {}
    assert set(problems) == set(METRICS)


def test_samples_come_with_the_key() -> None:
    began_ns = time.monotonic_ns()
    with sampled(key="k1") as (server, sampler):
        wait_until(lambda: len(sampler.rows()) >= 5)
        rows = sampler.rows()
    assert sampler.notes == {}
    assert {row.running for row in rows} == {5.0}
    assert {row.waiting for row in rows} == {None}
    assert {(each.path, each.key) for each in server.requests} == {("/metrics", "Bearer k1")}
    assert all(began_ns < row.t_ns < time.monotonic_ns() and 0 < row.scrape_s < 5 for row in rows)


def test_instant_is_halfway_between_question_and_answer() -> None:
    released = threading.Event()
    with sampled(Answer([released, ANSWER.body])) as (server, sampler):
        wait_until(lambda: server.requests)
        asked_ns = time.monotonic_ns()
        wait_until(lambda: time.monotonic_ns() - asked_ns > 0.2e9)
        released.set()
        wait_until(sampler.rows)
        first = sampler.rows()[0]
    assert first.scrape_s >= 0.2
    assert abs(first.t_ns - (asked_ns + first.scrape_s * 0.5e9)) < 0.1e9


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (text("no such page", 404), "/metrics answers HTTP 404"),
        (text("who are you", 401), "/metrics answers HTTP 401"),
        (lambda request: None, "RemoteDisconnected"),
    ],
)
def test_no_page_is_no_sample_and_a_reason(reply: Reply, said: str) -> None:
    with sampled(reply, key="secret-key") as (server, sampler):
        wait_until(lambda: len(server.requests) >= 4)
        wait_until(lambda: "samples" in sampler.notes)
    assert sampler.rows() == []
    assert said in sampler.notes["samples"]
    assert "secret-key" not in sampler.notes["samples"]
    assert sampler.error is None


def test_slow_page_is_missed_and_sampling_goes_on() -> None:
    with sampled(timeout_s=0.1) as (server, sampler):
        wait_until(sampler.rows)
        server.reply = Answer([threading.Event()])
        wait_until(lambda: "samples" in sampler.notes)
        server.reply = ANSWER
        before = len(sampler.rows())
        wait_until(lambda: len(sampler.rows()) > before)
    assert "no answer within 0.1 s" in sampler.notes["samples"]


def test_server_that_dies_leaves_the_samples_before_and_a_reason() -> None:
    serving = ExitStack()
    server = serving.enter_context(fake_http(replace(ANSWER, closes=True)))
    with serving, sampling(server.base_url) as sampler:
        wait_until(lambda: len(sampler.rows()) >= 2)
        serving.close()
        wait_until(lambda: "connection refused" in sampler.notes.get("samples", ""))
    assert len(sampler.rows()) >= 2
    assert sampler.error is None


def test_nobody_listens() -> None:
    with held_port() as port, sampling(f"http://127.0.0.1:{port}/v1") as sampler:
        wait_until(lambda: "samples" in sampler.notes)
    assert "connection refused" in sampler.notes["samples"]


def test_page_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_BODY_LIMIT_BYTES", 2**20)
    with sampled(text(PAGE + "# filler\n" * 2**18)) as (server, sampler):
        wait_until(lambda: "samples" in sampler.notes)
        server.reply = ANSWER
        wait_until(sampler.rows)
    assert "more than 1 MiB" in sampler.notes["samples"]


def test_huge_page_costs_little() -> None:
    """As vLLM's with many models' histograms: 20,000 lines of which six are wanted."""
    filler = "".join(f'other:seconds_bucket{{le="{n}",model="m{n % 7}"}} {n}\n' for n in range(20_000))
    page = filler + PAGE
    terms_on(page, METRICS)
    began_s = time.thread_time()
    for _ in range(10):
        assert terms_on(page, METRICS)[0]["running"] == 5.0
    assert (time.thread_time() - began_s) / 10 < 0.05  # of the second between two samples


def test_term_that_appears_later_is_no_longer_said_to_be_missing() -> None:
    with sampled(text(PAGE.replace("toy:cache_pct 25", ""))) as (server, sampler):
        wait_until(lambda: "kv_cache_usage_share" in sampler.notes)
        server.reply = ANSWER
        wait_until(lambda: "kv_cache_usage_share" not in sampler.notes)
    assert sampler.rows()[0].kv_cache_usage_share is None


def test_watch_saves_what_the_server_told_with_a_sample_at_each_mark(tmp_path: Path) -> None:
    kept = kept_start(tmp_path)
    with fake_http(ANSWER) as server, watch_memory(None, (), kept) as watch:
        watch.mark("spawned")
        assert server.requests == []
        metrics = METRICS | {"queue_s": ServerMetric("toy:queue_seconds_sum")}
        watch.ask_server(server.base_url, "/metrics", metrics, None)
        server.reply = text(PAGE.replace("toy:read_total 1.5e3", "toy:read_total 3500"))
        watch.mark("cell 001 warm-up")
        marked_ns = time.monotonic_ns()
        watch.save()
        table = store.read_samples(tmp_path / "server.parquet")
        assert table is not None
        rows = table.to_pylist()
        assert [row["prompt_tokens"] for row in rows if row["t_ns"] <= marked_ns][-1] == 4000.0
        assert rows[0]["queue_s"] is None
    assert "server_cpu_s" in kept.record.sampler
    notes = kept.record.memory_notes
    assert notes["memory"] == "the server is out of sight: only the machine's memory is known"
    assert notes["server queue_s"] == "not on the server's page"


def test_server_may_be_asked_while_a_mark_is_taken(tmp_path: Path) -> None:
    """Stages of a start are marked from a thread of their own."""
    began, release = threading.Event(), threading.Event()

    def slow() -> list[int]:
        began.set()
        release.wait(30)
        return []

    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        server = stack.enter_context(fake_http(ANSWER))
        samplers = {"host": stack.enter_context(Sampling(Reads(list, slow)))}
        watch = Watch(samplers, stack, kept_start(tmp_path), has_server=True)
        marking = pool.submit(watch.mark, "weights_loaded")
        assert began.wait(10)
        watch.ask_server(server.base_url, "/metrics", METRICS, None)
        release.set()
        marking.result(10)


def test_server_without_metrics_is_not_asked(tmp_path: Path) -> None:
    with fake_http(ANSWER) as server, watch_memory(None, (), kept_start(tmp_path)) as watch:
        watch.ask_server(server.base_url, "/metrics", {}, None)
        watch.mark("ready")
    assert server.requests == []
    assert not (tmp_path / "server.parquet").exists()


RECORDED = json.loads((DATA / "metrics.json").read_text())


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_recorded_page_gives_the_terms_that_it_had(name: str) -> None:
    """Pages of real servers (their versions are in metrics.json), busy and at rest."""
    known = RECORDED[name]
    found, _ = terms_on((DATA / name).read_text(), ENGINES[known["engine"]].metrics)
    assert found == known["terms"]


def test_every_term_of_an_engine_with_a_recorded_page_is_on_one() -> None:
    for engine in {known["engine"] for known in RECORDED.values()}:
        seen = [known["terms"] for known in RECORDED.values() if known["engine"] == engine]
        assert set(ENGINES[engine].metrics) == set().union(*seen), engine


def test_sample_has_a_field_for_every_term() -> None:
    sample = ServerSample(1, *[None] * 13, scrape_s=0.0)
    assert set(asdict(sample)) - {"t_ns", "scrape_s"} == {
        "running", "waiting", "kv_cache_usage_share", "prefix_query_tokens", "prefix_hit_tokens",
        "preemptions", "prompt_tokens", "generated_tokens", "queue_s", "queued_requests",
        "draft_steps", "drafted_tokens", "accepted_tokens",
    }  # fmt: skip
