"""The split of start-up: each step by hand, the first start apart from later ones."""

import re
from dataclasses import replace

import pytest
from make_run import (
    S,
    begin_run,
    deployment,
    failed_row,
    plan_of,
    row,
    run_record,
    start_record,
    write_cell,
    write_start,
)
from page_data import plain

from serving_bench.harness.contracts import Load
from serving_bench.harness.store import store
from serving_bench.reports import open_run, write_report
from serving_bench.reports.data.samples import instants_s, launches_of, start_title
from serving_bench.reports.page.parts import filled
from serving_bench.reports.page.sections import side_by_side
from serving_bench.reports.words.described import what_was_run

STAGES = {
    "process_up": 1.0,
    "weights_loaded": 4.0,
    "engine_ready": 9.0,
    "listening": 9.5,
    "first_token": 10.0,
}


def run_of(path, *starts, **changes):
    """Starts of one deployment, each by the seconds of its stages; None: it never became ready."""
    plan = begin_run(path, [deployment("vllm", "bf16")], [Load(1)], repeats=len(starts))
    for start, stages in zip(plan.starts, starts, strict=True):
        spawned_ns = (100 + 100 * start.index) * S
        stamps = {name: spawned_ns + int(seconds * S) for name, seconds in (stages or {}).items()}
        ready_ns = None if stages is None else spawned_ns + 10 * S
        write_start(path, start_record(start, spawned_ns, stages=stamps, ready_ns=ready_ns, **changes))
    return open_run(path)


def steps(launch):
    return [(stage, pytest.approx(length_s)) for stage, length_s in launch.steps_s.items()]


def test_a_step_goes_from_one_stage_to_the_next(tmp_path):
    (first,) = launches_of(run_of(tmp_path, STAGES))
    assert steps(first) == [
        ("process_up", 1.0), ("weights_loaded", 3.0), ("engine_ready", 5.0), ("listening", 0.5),
        ("first_token", 0.5),
    ]  # fmt: skip


def test_stages_come_in_the_order_in_which_they_were_seen(tmp_path):
    # A server may listen before it has loaded anything.
    (first,) = launches_of(run_of(tmp_path, {**STAGES, "listening": 1.5}))
    assert steps(first)[:3] == [("process_up", 1.0), ("listening", 0.5), ("weights_loaded", 2.5)]


def test_a_stage_that_was_not_seen_is_part_of_the_next(tmp_path):
    (first,) = launches_of(run_of(tmp_path, {"weights_loaded": 4.0, "first_token": 10.0}))
    assert steps(first) == [("weights_loaded", 4.0), ("first_token", 6.0)]


def test_the_first_good_generation_ends_a_start_whose_first_token_was_not_seen(tmp_path):
    run = run_of(tmp_path, {"process_up": 1.0})
    assert instants_s(run.start_records[0]) == {"process_up": 1.0, "ready": 10.0}


def test_the_first_start_stands_apart_and_later_ones_are_averaged(tmp_path):
    quick = {name: seconds / 2 for name, seconds in STAGES.items()}
    slower = {name: seconds * 0.7 for name, seconds in STAGES.items()}
    first, later = launches_of(run_of(tmp_path, STAGES, quick, slower))
    assert (first.which, len(first.records)) == ("first start", 1)
    assert (later.which, len(later.records)) == ("later starts", 2)
    # Means of 0.5 and 0.7 of each step.
    assert steps(later) == [
        ("process_up", 0.6), ("weights_loaded", 1.8), ("engine_ready", 3.0), ("listening", 0.3),
        ("first_token", 0.3),
    ]  # fmt: skip


def test_a_mean_has_only_the_stages_that_all_its_starts_have(tmp_path):
    lacking = {name: seconds for name, seconds in STAGES.items() if name != "weights_loaded"}
    _, later = launches_of(run_of(tmp_path, STAGES, STAGES, lacking))
    assert steps(later)[:2] == [("process_up", 1.0), ("engine_ready", 8.0)]


def test_after_a_first_start_that_failed_the_next_is_a_later_one(tmp_path):
    (only,) = launches_of(run_of(tmp_path, None, STAGES))
    assert only.which == "later starts"


def chart_of(run):
    return side_by_side.start_up(run)


def test_bars_stand_one_after_the_other(tmp_path):
    chart = chart_of(run_of(tmp_path, STAGES, STAGES))
    bars = [trace for trace in chart.traces if trace["type"] == "bar"]
    assert chart.layout["barmode"] == "stack"
    assert [(bar["name"], bar["x"][0]) for bar in bars] == [
        ("process up", 1), ("weights loaded", 3), ("graphs and KV cache ready", 5), ("listening", 0.5),
        ("first token", 0.5),
    ]  # fmt: skip
    said = [note["text"].partition(":")[0] for note in chart.layout["annotations"]]
    assert said == ["vllm bf16, first start", "vllm bf16, 1 later"]


def test_each_start_is_in_the_table(tmp_path):
    chart = chart_of(run_of(tmp_path, STAGES, {**STAGES, "first_token": 12.0}))
    assert [" ".join(row.cells.values()) for row in filled(chart.rows)] == [
        "vllm bf16 1 1.00 4.00 9.00 9.50 10.00 10.00 completed",
        "vllm bf16 2 1.00 4.00 9.00 9.50 12.00 10.00 completed",
    ]


def test_starts_of_the_same_number_are_told_apart_by_their_directories(tmp_path):
    # As after --resume: the cells that a start left out are measured by a start of the same repeat.
    run = run_of(tmp_path, STAGES, STAGES, STAGES)
    again = replace(run.start_records[2], repeat=0)
    store.write_record(tmp_path / "starts" / again.name / "start.json", again)
    plan = replace(run.record.plan, starts=run.record.plan.starts[:2])
    store.write_record(tmp_path / "run.json", run_record(plan))
    run = open_run(tmp_path)
    assert "3 starts in all, including repeated ones" in what_was_run(run)
    assert [start_title(run, record) for record in run.start_records] == ["1 (00)", "2", "1 (02)"]
    assert [row.cells["start"] for row in chart_of(run).rows] == ["1 (00)", "2", "1 (02)"]


def test_a_stage_that_the_page_does_not_know_is_shown_by_its_name(tmp_path):
    chart = chart_of(run_of(tmp_path, {**STAGES, "kernels_tuned": 5.0}))
    assert "kernels tuned" in [trace.get("name") for trace in chart.traces]


# --- what each start was ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(engines):
    page = engines.read_text(encoding="utf-8")
    return page.partition('id="environment"')[2].partition('id="method"')[0]


def test_command_line_environment_version_and_launcher_are_told(environment):
    text = plain(environment)
    assert re.search(r"Command of sglang bf16 Start 1 \S*=.* sglang serve --port 40005 Start 2 ", text)
    assert "OMP_NUM_THREADS=2" in text
    assert f"launcher{' native' * 7} docker" in text
    assert "version – b11434 – 0.32.0 0.32.0 0.5.23 – –" in text
    assert "docker run --rm tgi serve --port 40007" in text


def test_no_secret_is_on_the_page(environment):
    assert "verysecret" not in environment
    assert "--api-key &#x27;***&#x27;" in environment
    assert "HF_TOKEN=&#x27;***&#x27;" in environment


LEAK = "refused http://user:sesame@host/v1 with --api-key sesame, Bearer sesame and api_key='sesame'"


def test_no_secret_of_a_servers_text_is_on_the_page(tmp_path):
    plan = plan_of([deployment("vllm", "bf16"), deployment("sglang", "bf16")], [Load(1)])
    settings = {"engine.base_url": ("http://user:sesame@host/v1",)}
    argv = ("bench", "run", "engine.base_url=http://user:sesame@host/v1")
    store.write_record(tmp_path / "run.json", run_record(plan, settings=settings, argv=argv))
    first, second = plan.starts
    failed = {"status": "failed", "ready_ns": None, "error": f"exited: {LEAK}", "log_tail": LEAK}
    write_start(tmp_path, first, **failed)
    resolved = {"chat_template": LEAK, "attention_backend": LEAK, "kernel_stand_in": LEAK}
    said = {"resolved": resolved, "unmatched": {"prefix_cache": LEAK}, "weights": {"note": LEAK}}
    write_start(tmp_path, second, **said)
    rows = [row(0, 103 * S), failed_row(1, 104 * S, error="x" * 290 + LEAK)]
    suspect = {"validity": "suspect", "reasons": (LEAK,)}
    write_cell(tmp_path, first.cells[0], first, [], None, status="failed", error=LEAK)
    write_cell(tmp_path, second.cells[0], second, rows, **suspect)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "sesame" not in page
    assert page.count("--api-key ***") > 5


def test_a_container_s_image_is_identified(tmp_path):
    image = {
        "image": "upstream/vllm:v0.32.0", "image_id": "sha256:" + "a" * 64,
        "image_digest": "sha256:" + "0123456789ab" + "c" * 52, "image_created": "2026-01-02T03:04:05Z",
        "image_version": "0.32.0", "docker_version": "26.1.5",
    }  # fmt: skip
    built = {**image, "image": "serving-bench/vllm:1", "image_digest": None}
    for name, facts, told in (
        ("upstream", image, "upstream/vllm:v0.32.0 0123456789ab"),
        ("built", built, "serving-bench/vllm:1 aaaaaaaaaaaa"),
    ):
        run_of(tmp_path / name, STAGES, image=facts, argv=("docker", "run"))
        assert f"image {told}" in plain(write_report(tmp_path / name).read_text(encoding="utf-8"))
