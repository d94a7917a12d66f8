"""Findings as titles: what is said of verdicts and of an SLO, and where nothing is."""

from pathlib import Path

import pytest
from make_run import deployment
from make_sweep import SIX, sweep_run
from repeated_run import Made, repeated_run, three

from serving_bench.harness.contracts import Load
from serving_bench.reports import open_run
from serving_bench.reports.data.run import Run
from serving_bench.reports.words.verdict_words import title_at, where_it_leads

SPEED = "output_tokens_per_s"


@pytest.mark.parametrize(
    ("leaders", "told", "words"),
    [
        ("bbb", "8", "at every load"),
        ("abb", "8", "from 4 on"),
        ("aab", "8", "at 8"),
        ("b-b", "8", "at 8"),
        ("bba", "4", "up to 4"),
        ("abba", "4", "from 4 to 8"),
        ("aba", "4", "at 4"),
    ],
)
def test_a_leader_is_named_with_the_loads_around_the_one_that_is_told(leaders, told, words):
    found = {load: None if one == "-" else one for load, one in zip("1489", leaders, strict=False)}
    assert where_it_leads(found, told) == words


def test_titles_of_a_run_go_by_its_verdicts(tmp_path: Path) -> None:
    run = open_run(repeated_run(tmp_path, three(0.002)))
    # llama_cpp gguf-q8_0 is 1.25 times as fast in half the memory.
    high = [group for group in run.groups if group.load == "4 users"]
    assert title_at(run, SPEED, high) == "llama_cpp gguf-q8_0 gives the most output tokens/s at 4 users"
    everywhere = "llama_cpp gguf-q8_0 gives the most output tokens/s at every load"
    assert title_at(run, SPEED, run.groups) == everywhere
    assert title_at(run, "ttft_s.p50", high) == "llama_cpp gguf-q8_0 has the lowest TTFT p50 at 4 users"
    # No verdict was asked on it.
    assert title_at(run, "requests_per_s", run.groups) is None


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
    assert title_at(run, SPEED, run.groups) is None


def test_deployments_of_two_models_have_no_title_together(tmp_path: Path) -> None:
    made = [Made(deployment("llama_cpp", "fp16")), Made(deployment("vllm", "fp16", "other-lm"), 0.5)]
    run = open_run(repeated_run(tmp_path, made, [Load(concurrency=1)]))
    assert title_at(run, SPEED, run.groups) is None


def test_with_an_slo_titles_say_so(sweep: Run) -> None:
    within = "sglang awq gives the most output tokens/s within the SLO at 32 users"
    assert title_at(sweep, SPEED, sweep.groups) == within


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Run:
    given = [each for each in SIX if (each.engine, each.quantization) != ("sglang", "fp16")][:4]
    return open_run(sweep_run(tmp_path_factory.mktemp("sweep"), given, (4, 32, 64), 3, 20.0, noise=0.001))
