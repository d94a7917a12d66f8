"""`bench selftest verdicts`: runs of deployments that are the same, gone on with, kept, and quoted later."""

import json
from dataclasses import replace

import pytest
from bench_command import bench, made, quick

from serving_bench.harness.contracts import AlikeTest, Figure
from serving_bench.harness.selftest import known_error
from serving_bench.harness.store import store

FIGURE = Figure(0.1, 0.0, 0.2)
SHORT = ("engine=reference", "guard=off", "repeats=3", "load.duration=1s", "load.warmup=100ms")


def alike(runs: int, machine=None) -> AlikeTest:
    here = known_error.machine() if machine is None else machine
    return AlikeTest("2026-12-05T10:00:00+00:00", "0.0.1", here, {}, "x", runs, FIGURE, FIGURE, 0.04, {})


def test_the_result_of_the_most_runs_is_kept_for_each_machine(tmp_path):
    other = alike(9, {**known_error.machine(), "cpu_model": "another"})
    for each in (other, alike(20), alike(5)):
        path = known_error.keep_alike(tmp_path, each)
    assert known_error.find_alike(tmp_path) == alike(20)
    known_error.keep_alike(tmp_path, newer := replace(alike(20), deployment="y"))
    assert known_error.find_alike(tmp_path) == newer
    assert len(json.loads(path.read_text())) == 2
    path.write_text("{")
    assert known_error.find_alike(tmp_path) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["verdict"], "bench selftest verdict: no such test"),
        (["--runs", "3"], "--runs and --output: are of `bench selftest verdicts`; leave them out"),
        (["verdicts", "--quick"], "--quick and --loads: are of the client's self-test, not of verdicts"),
        (["verdicts", "seed=3"], "engine.start_timeout and seed: are set by bench selftest verdicts"),
        (["verdicts", "quantization=fp16,gguf-q4_0"], "quantization: bench selftest verdicts measures one"),
        (["verdicts", "repeats=x"], "repeats=x"),
    ],
)
def test_other_words_are_one_line(tmp_path, words, says):
    ended = bench(place := made(tmp_path / "place"), "selftest", *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(says)
    assert ended.stderr.count("\n") == 1
    assert not (place.path / "results").exists()


@pytest.mark.long
def test_runs_are_measured_once_kept_and_quoted(tmp_path):
    place = made(tmp_path / "place")
    command = ("selftest", "verdicts", *SHORT, "--runs", "2", "--json")
    first = bench(place, *command, limit_s=240)
    assert first.returncode == 0, first.stderr
    assert "2 runs of deployments that are the same, in results/same\n  run 1 of 2: named" in first.stderr
    found = json.loads(first.stdout)
    assert (found["runs"], found["deployment"], found["claimed"]) == (2, "reference", 0.04)
    assert found["by_metric"]["output_tokens_per_s"]["noise"]["value"] > 0
    runs = [store.read_run(place.path / "results/same" / name) for name in ("000", "001")]
    assert [run.settings["seed"] for run in runs] == [["0"], ["1"]]
    assert runs[0].plan.starts[0].cells[0].seed != runs[1].plan.starts[0].cells[0].seed

    again = bench(place, *command)
    assert again.stderr.startswith("0 runs of")
    assert json.loads(again.stdout)["named"] == found["named"]
    other = bench(place, *command[:-1], "load.concurrency=3")
    assert other.returncode == 2
    assert "was measured with another load.concurrency (2); give another --output" in other.stderr

    assert bench(place, "run", *quick(), "--output", "run").returncode == 0
    assert "in 2 short runs of reference on this machine" in (place.run_dir / "report.html").read_text()
