"""Findings as titles: what is said of verdicts and of an SLO, and where nothing is."""

from pathlib import Path

import pytest
from make_run import deployment
from make_sweep import SIX, sweep_run
from repeated_run import Made, repeated_run, three
from test_reports_decision import BROKEN, FAST, MIDDLE, UNCLEAR, run_of

from harness.contracts import Load
from reports import open_run
from reports.data.run import Run
from reports.words.titles import span_of_loads, title_at, title_by_load, where_it_leads

SPEED, TTFT = "output_tokens_per_s", "ttft_s.p95"


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [(0, 2, "at every load"), (0, 1, "up to 4"), (1, 2, "from 4 on"), (2, 2, "at 8"), (0, 0, "at 1")],
)
def test_a_span_of_loads_is_named_by_its_ends(first, last, words):
    assert span_of_loads(["1", "4", "8"], first, last) == words
    assert span_of_loads(["1", "4", "8", "16"], 1, 2) == "from 4 to 8"


@pytest.mark.parametrize(
    ("leaders", "words"),
    [("bbb", "at every load"), ("abb", "from 4 on"), ("aab", "at 8"), ("b-b", "at 8"), ("-bb", "from 4 on")],
)
def test_a_leader_is_named_with_the_loads_around_the_one_that_is_told(leaders, words):
    found = {load: None if one == "-" else one for load, one in zip("148", leaders, strict=True)}
    assert where_it_leads(found, "8") == words


def test_titles_of_a_run_go_by_its_verdicts(tmp_path: Path) -> None:
    run = open_run(repeated_run(tmp_path, three(0.002)))
    # llama_cpp gguf-q8_0 is 1.25 times as fast in half the memory.
    high = [group for group in run.groups if group.load == "4 users"]
    assert title_at(run, SPEED, high) == "llama_cpp gguf-q8_0 gives the most output tokens/s at 4 users"
    everywhere = "llama_cpp gguf-q8_0 gives the most output tokens/s at every load"
    assert title_by_load(run, SPEED, run.groups) == everywhere
    assert title_at(run, "ttft_s.p50", high) == "llama_cpp gguf-q8_0 has the lowest TTFT p50 at 4 users"
    # No verdict was asked on it.
    assert title_by_load(run, "requests_per_s", run.groups) is None


def test_equals_are_the_same_and_what_is_not_told_apart_has_no_title(tmp_path: Path) -> None:
    steady, unsteady = (1.0, 1.004, 0.998, 1.001, 0.997), (1.0, 1.1, 0.95, 1.06, 0.97)
    for name, per_repeat, said in (
        ("same", steady, "Output tokens/s: the same within 5 % at 4 users"),
        ("open", unsteady, None),
    ):
        made = [
            Made(deployment("llama_cpp", "fp16")),
            Made(deployment("vllm", "fp16"), per_repeat=per_repeat),
        ]
        run = open_run(repeated_run(tmp_path / name, made, [Load(concurrency=4)]))
        assert title_at(run, SPEED, run.groups) == said


def test_too_few_starts_give_no_finding(tmp_path: Path) -> None:
    run = open_run(repeated_run(tmp_path, three(0.002), repeats=2))
    assert title_by_load(run, SPEED, run.groups) is None


def test_deployments_of_two_models_have_no_title_together(tmp_path: Path) -> None:
    made = [Made(deployment("llama_cpp", "fp16")), Made(deployment("vllm", "fp16", "other-lm"), 0.5)]
    run = open_run(repeated_run(tmp_path, made, [Load(concurrency=1)]))
    assert title_by_load(run, SPEED, run.groups) is None


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ({"vllm awq": FAST, "tgi fp16": BROKEN}, "vllm awq holds p95 TTFT within 300 ms at 4 users"),
        ({"vllm awq": FAST, "vllm fp16": MIDDLE}, "vllm awq and vllm fp16 hold p95 TTFT within 300 ms at"),
        (
            {"vllm awq": FAST, "vllm fp16": MIDDLE, "tgi awq": FAST, "tgi fp16": UNCLEAR},
            "3 of 4 deployments hold p95 TTFT within 300 ms at 4 users",
        ),
        ({"vllm awq": UNCLEAR, "tgi fp16": BROKEN}, "None"),
    ],
)
def test_who_is_known_to_hold_an_objective_is_named(tmp_path: Path, does, said) -> None:
    run = run_of(tmp_path, does)
    assert str(title_by_load(run, TTFT, run.groups)).startswith(said)


def test_a_stand_in_for_kernels_holds_no_objective(tmp_path: Path) -> None:
    changes = {"vllm awq": {"resolved": {"kernel_stand_in": True}}}
    run = run_of(tmp_path, {"vllm awq": FAST, "vllm fp16": MIDDLE}, start_changes=changes)
    assert title_by_load(run, TTFT, run.groups) == "vllm fp16 holds p95 TTFT within 300 ms at 4 users"


def test_with_an_slo_titles_say_who_keeps_it(sweep: Run) -> None:
    # At 32 users the p95 of vllm fp16 is 289 ms, too near to 300 to be clear; that of tgi fp16 515 ms.
    within = "sglang awq gives the most output tokens/s within the SLO at 32 users"
    assert title_by_load(sweep, SPEED, sweep.groups) == within
    assert title_by_load(sweep, TTFT, sweep.groups) == (
        "vllm awq and sglang awq hold p95 TTFT within 300 ms up to 32 users"
    )
    assert title_by_load(sweep, "goodput_per_s", sweep.groups) == (
        "vllm awq and sglang awq keep the SLO up to 32 users"
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Run:
    given = [each for each in SIX if (each.engine, each.quantization) != ("sglang", "fp16")][:4]
    return open_run(sweep_run(tmp_path_factory.mktemp("sweep"), given, (4, 32, 64), 3, 20.0, noise=0.001))
