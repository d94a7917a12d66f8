"""What servers told of themselves: rates worked out by hand, and the check of their counters."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from make_run import (
    MS,
    S,
    begin_run,
    deployment,
    failed_row,
    one_cell_run,
    row,
    start_record,
    summary,
    write_cell,
    write_start,
)
from page_data import plain, rows_of

from serving_bench.harness.contracts import Load
from serving_bench.harness.servers.scrape import ServerSample
from serving_bench.harness.store import store
from serving_bench.harness.store.store import Phase
from serving_bench.reports import open_run
from serving_bench.reports.checks.finding import Finding
from serving_bench.reports.checks.unequal_work import server_counts_differ
from serving_bench.reports.data.run import Run
from serving_bench.reports.data.samples import grown_in_cell, growth, mean_gauge, pooled
from serving_bench.reports.page.sections import why
from serving_bench.reports.words import claims

NOTHING = ServerSample(0, *[None] * 10, scrape_s=0.002)
# A request takes 50 input and 10 output tokens; the window is from 102 s to 110 s.
ROWS = [row(k, 101 * S + k * 75 * MS) for k in range(120)]


def sample(t_s: float, **terms: float | None) -> ServerSample:
    return replace(NOTHING, t_ns=int(t_s * S), **terms)


def run_of(path: Path, samples: Sequence[ServerSample], rows=ROWS, phases: Sequence[Phase] = ()) -> Run:
    made = one_cell_run(path, rows)
    [record] = store.read_starts(path)
    folder = path / "starts" / record.name
    store.write_samples(folder / "server.parquet", samples)
    store.write_record(folder / "start.json", replace(record, phases=tuple(phases) or record.phases))
    return open_run(made.path)


def each_second(first: float, last: float, **per_s: float) -> list[ServerSample]:
    """Counters that grow so much per second from 90 s on."""
    count = int(last - first) + 1
    return [
        sample(first + k, **{term: (first + k - 90) * rate for term, rate in per_s.items()})
        for k in range(count)
    ]


def test_gauge_is_of_the_windows_samples(tmp_path: Path) -> None:
    samples = [sample(t, running=t - 100, waiting=None) for t in range(95, 116)]
    run = run_of(tmp_path, samples)
    assert mean_gauge(run, run.groups[0], "running") == (5.5, 9.0)  # 2 to 9
    assert mean_gauge(run, run.groups[0], "waiting") is None


def test_growth_is_computed_between_the_samples_around_the_windows_ends(tmp_path: Path) -> None:
    run = run_of(tmp_path, each_second(98.5, 113.5, generated_tokens=100.0))
    [cell] = run.planned_cells
    assert growth(run, cell, "generated_tokens") == pytest.approx(800.0)
    assert growth(run, cell, "prompt_tokens") is None


@pytest.mark.parametrize(
    "samples",
    [
        each_second(103.5, 113.5, generated_tokens=100.0),  # none before the window
        each_second(98.5, 108.5, generated_tokens=100.0),  # none after it
        # 6 s without one, across the window's begin
        [*each_second(90.5, 98.5, generated_tokens=100.0),
         *each_second(104.5, 113.5, generated_tokens=100.0)],
        # a server that was started anew
        [*each_second(98.5, 105.5, generated_tokens=100.0), sample(106.5, generated_tokens=3.0),
         *each_second(107.5, 113.5, generated_tokens=100.0)],
    ],
)  # fmt: skip
def test_growth_without_a_sure_begin_and_end_is_not_known(tmp_path: Path, samples: list[ServerSample]):
    run = run_of(tmp_path, samples)
    assert growth(run, run.planned_cells[0], "generated_tokens") is None


def test_shares_are_of_the_tokens_and_requests_of_the_window(tmp_path: Path) -> None:
    samples = each_second(
        98.5, 113.5, prefix_query_tokens=200.0, prefix_hit_tokens=150.0, queue_s=0.5, queued_requests=2.0
    )
    run = run_of(tmp_path, samples)
    [group] = run.groups
    assert pooled(run, group, "prefix_hit_tokens", "prefix_query_tokens") == pytest.approx(0.75)
    assert pooled(run, group, "queue_s", "queued_requests") == pytest.approx(0.25)


def test_whole_cell_is_from_before_its_load_to_before_the_next_one(tmp_path: Path) -> None:
    samples = [
        sample(99.0, prompt_tokens=900.0),
        sample(99.9, prompt_tokens=1000.0),
        sample(105.0, prompt_tokens=1100.0),
        sample(112.0, prompt_tokens=1250.0),  # after the cell's end at 110.5 s
        sample(125.0, prompt_tokens=5000.0),
    ]
    phases = [Phase("cell 001 reset", int(99.8 * S)), Phase("cell 002 reset", 120 * S)]
    run = run_of(tmp_path, samples, phases=phases)
    [cell] = run.planned_cells
    run = replace(run, planned_cells=(cell, replace(cell, number=2)))
    assert grown_in_cell(run, cell, "prompt_tokens") == 250.0


def test_whole_cell_without_a_sample_after_it_is_not_known(tmp_path: Path) -> None:
    run = run_of(tmp_path, [sample(99.0, prompt_tokens=1.0), sample(110.0, prompt_tokens=2.0)])
    assert grown_in_cell(run, run.planned_cells[0], "prompt_tokens") is None


def counted(path: Path, rows=ROWS, **grown: float) -> Finding | None:
    """The finding of a run whose server's counters grew so much over its only cell."""
    before = dict.fromkeys(grown, 7.0)
    after = {term: 7.0 + value for term, value in grown.items()}
    return server_counts_differ.find(run_of(path, [sample(99.0, **before), sample(111.0, **after)], rows))


@pytest.mark.parametrize(
    ("rows", "grown"),
    [
        (ROWS, {"generated_tokens": 1200.0, "prompt_tokens": 6000.0}),
        (ROWS, {"generated_tokens": 1224.0}),
        (ROWS, {"generated_tokens": 1176.0}),
        (ROWS[:2], {"generated_tokens": 36.0}),  # few tokens, whatever their share
    ],
)
def test_counts_within_two_percent_or_sixteen_tokens_are_no_finding(tmp_path: Path, rows, grown) -> None:
    assert counted(tmp_path, rows, **grown) is None


def test_more_tokens_at_the_server_are_a_finding(tmp_path: Path) -> None:
    finding = counted(tmp_path, generated_tokens=1300.0, prompt_tokens=5000.0)
    assert finding is not None
    assert "output tokens: server 1,300, answers 1,200" in finding.text
    assert "input tokens: server 5,000, answers 6,000" in finding.text
    assert "llama_cpp fp16" in finding.text


@pytest.mark.parametrize(
    "rows",
    [
        [*ROWS, failed_row(900, 103 * S, outcome="timeout")],
        [replace(ROWS[0], is_resent=True), *ROWS[1:]],
        [replace(each, token_source="tokenizer", input_tokens=None) for each in ROWS],
    ],
)
def test_tokens_of_which_the_client_does_not_know_the_count_are_not_compared(tmp_path: Path, rows) -> None:
    assert counted(tmp_path, rows, generated_tokens=5000.0, prompt_tokens=5000.0) is None


def two_engines(path: Path) -> Run:
    """vllm tells all, llama_cpp has neither cache usage nor a queue, transformers no page."""
    engines = ("vllm", "llama_cpp", "transformers")
    plan = begin_run(path, [deployment(name, "bf16") for name in engines], [Load(concurrency=4)])
    for start in plan.starts:
        spawned_ns = (100 + 100 * start.index) * S
        why = "9 of 9 were not read (the last: /metrics answers HTTP 404; no more)"
        said = {"host pss": "why", "server queue_s": "not on the server's page", "server samples": why}
        write_start(path, start_record(start, spawned_ns, memory_notes=said))
        made = summary(spawned_ns + 10 * S)
        rows = [row(k, made.window_start_ns + k * 100 * MS) for k in range(60)]
        write_cell(path, start.cells[0], start, rows, made)
        samples = [
            ServerSample(
                t_ns=spawned_ns + k * S, running=4.0, waiting=float(k % 3), kv_cache_usage_share=0.5,
                prefix_query_tokens=100.0 * k, prefix_hit_tokens=60.0 * k, preemptions=float(k > 15),
                prompt_tokens=100.0 * k, generated_tokens=75.0 * k, queue_s=0.1 * k, queued_requests=1.0 * k,
                scrape_s=0.001,
            )
            for k in range(5, 30)
        ]  # fmt: skip
        if start.deployment.engine == "llama_cpp":
            hidden = {"kv_cache_usage_share": None, "queue_s": None, "queued_requests": None}
            samples = [replace(each, preemptions=None, **hidden) for each in samples]
        if start.deployment.engine != "transformers":
            store.write_samples(path / "starts" / start.name / "server.parquet", samples)
    return open_run(path)


def test_section_has_rates_by_load_and_says_what_is_not_told(tmp_path: Path) -> None:
    run = two_engines(tmp_path)
    vllm, llama_cpp, _ = ([*row.values()][2:] for row in rows_of(why.reported(run).parts[0]))
    # Window from 12 s to 20 s after the spawn: waiting is 0 1 2 0 1 2 0 1; 0 -> 1 preemption in it.
    requests, left_out = ["4.00 peak 4.00", "0.88 peak 2.00"], ["–"] * 4
    assert vllm == [*requests, "50.0 peak 50.0", "60.0", "1", "100.0", *left_out, "8", "1"]
    assert llama_cpp == [*requests, "–", "60.0", "–", "–", *left_out, "8", "1"]
    unread = claims.unread(run)
    assert unread.startswith("Metrics that could not be read: vllm bf16 (9 of 9 were not read")
    assert unread.endswith("bf16 (9 of 9 were not read (the last: /metrics answers HTTP 404; no more)).")


def test_the_section_shows_what_could_not_be_read(tmp_path: Path) -> None:
    run = two_engines(tmp_path)
    shown = plain(why.reported(run).body)
    assert claims.unread(run) in shown
    assert "host pss" not in shown


def test_run_without_server_samples_has_no_section(full: Run) -> None:
    assert full.server is None
    assert "running requests" not in plain(why.reported(full).body)
    assert server_counts_differ.find(full) is None
