"""`bench claim`: what it says of runs with known values, what it refuses, and a real run."""

import html
import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_command import Place, begun, bench, ended, made, quick, told
from make_quality import Voice, with_quality
from make_run import deployment
from make_sides import A, B, rows_of, sides_run
from waiting import wait_until

from serving_bench.harness.contracts import Load, SearchTerms
from serving_bench.harness.store import store
from serving_bench.reports import write_report

CLAIM = """
sentence: vLLM answers sooner
source: {who: somebody, where: https://example.org, date: "2024"}
conditions: {device: NVIDIA H100, quantization: fp16}
original: {engine: [vllm, llama_cpp], quantization: fp16}
here: {engine: [vllm, llama_cpp], quantization: fp16}
predicates:
  - metric: ttft_s.p50
    ratio: [{engine: llama_cpp}, {engine: vllm}]
    at_least: 2
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = made(tmp_path / "place")
    (found.path / "sooner.yaml").write_text(CLAIM)
    return found


def judged(place: Place, llama_ms: list[float], vllm_ms: list[float], *words: str, **changes: Any) -> Any:
    run = sides_run(place.path / "run", {A: llama_ms, B: vllm_ms}, **changes)
    return told(place, "claim", "sooner.yaml", "--from", run, *words)


@pytest.mark.parametrize(
    ("llama_ms", "outcome", "code"),
    [
        ([100, 102, 98], "reproduced", 0),
        ([25, 26, 25], "not reproduced", 1),
        ([40, 60, 30], "inconclusive", 3),
        ([100, 102], "inconclusive", 3),
    ],
)
def test_the_interval_of_the_ratio_decides(place: Place, llama_ms: Any, outcome: str, code: int) -> None:
    done = judged(place, llama_ms, [20, 21, 20][: len(llama_ms)])
    *_, last, report = done.stdout.splitlines()
    assert (done.returncode, last) == (code, f"sooner: {outcome}")
    assert report == str(place.run_dir / "report.html")


def test_it_says_what_was_claimed_compared_and_differs(place: Place) -> None:
    said = judged(place, [100, 102, 98], [20, 21, 20]).stdout
    assert said.startswith(
        '"vLLM answers sooner"\nsomebody, 2024, https://example.org\n\nAsked: ttft_s.p50 of eng'
    )
    assert "at least 2; reproduced if the whole interval is 1.90 or more" in " ".join(said.split())
    assert "llama_cpp fp16 at 1 user over vllm fp16 at 1 user" in said
    assert "NVIDIA H100" in said
    assert "quantization" not in said


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page.partition("<main")[2])))


def test_the_page_answers_the_claim_before_what_every_run_is_asked(place: Place) -> None:
    judged(place, [100, 102, 98], [20, 21, 20])
    text = text_of(place.report())
    told_in_order = [
        "somebody, 2024, https://example.org",
        "“vLLM answers sooner”",
        "sooner: reproduced",
        "Asked: ttft_s.p50 of engine=llama_cpp over engine=vllm, at least 2; reproduced if",
        "llama_cpp fp16 at 1 user over vllm fp16 at 1 user 4.92",
        "(96 %) reproduced",
        "NVIDIA H100",
        "Which engine for tiny-lm",
    ]
    at = [text.find(each) for each in told_in_order]
    assert -1 not in at, text[:1500]
    assert at == sorted(at)
    assert place.report().count("<h1>") == 1
    assert "has gone on" not in text
    record = store.read_run(place.run_dir)
    store.write_record(place.run_dir / "run.json", replace(record, ended_at="2099-01-01T00:00:00+00:00"))
    text = text_of(write_report(place.run_dir).read_text(encoding="utf-8"))
    assert f"has gone on since that was judged: bench claim sooner.yaml --from {place.run_dir}" in text


def test_a_claim_that_cannot_be_kept_is_judged_all_the_same(place: Place) -> None:
    run = sides_run(place.path / "run", {A: [100, 102, 98], B: [20, 21, 20]})
    (run / "claim.json").mkdir()
    done = told(place, "claim", "sooner.yaml", "--from", run)
    assert (done.returncode, "sooner: reproduced\n" in done.stdout) == (0, True)
    assert (
        f"{run}/claim.json: cannot be written (Is a directory), so the page does not say this" in done.stderr
    )
    (run / "claim.json").rmdir()
    (run / "SHA256SUMS").mkdir()
    done = told(place, "claim", "sooner.yaml", "--from", run)
    assert "sooner: reproduced\n" in done.stdout
    assert "claim.json: cannot be written (" in done.stderr


def test_a_claim_that_nothing_decides_says_how_to_go_on(place: Place) -> None:
    done = judged(place, [100, 102], [20, 21])
    run = place.run_dir
    again = f"`bench run --resume {run} repeats=5`, then `bench claim sooner.yaml --from {run}`"
    assert done.stderr.endswith(f"more repeats may decide it: {again}\n")


def test_json_has_the_interval_of_each_case(place: Place) -> None:
    found = json.loads(
        judged(
            place, [100, 100, 100], [20, 20, 20], "--json", loads=(Load(concurrency=1), Load(concurrency=4))
        ).stdout
    )
    assert (found["outcome"], found["exit_code"], found["claim"]["name"]) == ("reproduced", 0, "sooner")
    [part] = found["parts"]
    assert part["accepted"] == [pytest.approx(2 / 1.05), None]
    assert [(each["value"], each["low"], each["high"]) for each in part["judged"]] == [
        pytest.approx((5, 5, 5))
    ] * 2
    assert [each["condition"] for each in found["differs"]] == ["device", "model", "engines", "traffic"]


def test_what_has_no_figure_is_shown_beside_and_does_not_count(place: Place) -> None:
    more = "  - {metric: ttft_s.p50, ratio: [{engine: vllm}, {engine: llama_cpp}]}\n"
    more += "  - {metric: ttft_s.p50, ratio: [{engine: vllm}, {engine: sglang}]}\n"
    (place.path / "sooner.yaml").write_text(CLAIM + more)
    loads = (Load(concurrency=1), Load(concurrency=4))
    done = judged(place, [100, 102, 98], [20, 21, 20], loads=loads)
    assert done.returncode == 0
    assert "Also shown: ttft_s.p50 of engine=vllm over engine=llama_cpp\n" in done.stdout
    assert "over engine=sglang\nThe run has no value of it.\n" in done.stdout
    assert "The ratio does not cross 1: below it at 1 user, 4 users\n" in done.stdout


@pytest.mark.parametrize(("turn", "outcome"), [(1, "reproduced"), (2, "not reproduced")])
def test_turns_are_told_apart(place: Place, turn: int, outcome: str) -> None:
    (place.path / "sooner.yaml").write_text(CLAIM + f"    turn: {turn}\n")
    first, later = rows_of(100, 26), rows_of(10, 26)
    rows = [a if a.turn == 0 else b for a, b in zip(first, later, strict=True)]
    run = sides_run(place.path / "run", {A: [rows] * 3, B: [rows_of(20, 26)] * 3})
    assert f"sooner: {outcome}\n" in told(place, "claim", "sooner.yaml", "--from", run).stdout


def test_too_few_starts_have_no_interval_and_say_so(place: Place) -> None:
    found = json.loads(judged(place, [100, 102], [20, 21], "--json").stdout)["parts"][0]["judged"][0]
    assert (found["value"], found["low"], found["outcome"]) == (None, None, "inconclusive")
    assert found["why"] == "a verdict needs 3 starts of each deployment or more, here 2"


def test_a_run_without_what_is_compared_is_refused(place: Place) -> None:
    run = sides_run(place.path / "run", {A: [100, 102, 98]})
    done = told(place, "claim", "sooner.yaml", "--from", run)
    assert done.returncode == 2
    assert done.stderr == "claim sooner: the run has no engine=vllm; its deployments: llama_cpp fp16\n"


def test_a_search_is_refused(place: Place) -> None:
    run = sides_run(place.path / "run", {A: [100], B: [20]}, search=SearchTerms())
    done = told(place, "claim", "sooner.yaml", "--from", run)
    assert (done.returncode, "is a search" in done.stderr) == (2, True)


WASTE = (
    CLAIM.split("predicates")[0]
    + """
predicates:
  - {metric: kv_waste_contiguous_share, value: {}, at_least: 0.6}
  - {metric: kv_waste_paged_share, value: {}, at_most: 0.5}
"""
)


@pytest.mark.parametrize(("starts", "outcome", "code"), [(3, "reproduced", 0), (2, "inconclusive", 3)])
def test_a_value_of_each_deployment_is_held_to_its_figure(place: Place, starts: int, outcome: str, code: int):
    (place.path / "waste.yaml").write_text(WASTE)
    a = deployment("llama_cpp", "fp16")
    a = replace(a, terms=replace(a.terms, context_length=4096))
    run = sides_run(place.path / "run", {A: [100] * starts}, made={A: a})
    done = told(place, "claim", "waste.yaml", "--from", run)
    assert (done.returncode, f"waste: {outcome}\n" in done.stdout) == (code, True), done.stdout


QUALITY = (
    CLAIM.split("predicates")[0]
    + """
predicates:
  - metric: kl_nats.mean
    value: {quantization: gguf-q4_0}
    at_most: 0.1
"""
)


@pytest.mark.parametrize(
    ("voices", "outcome", "code"),
    [
        ({"llama_cpp fp16": Voice(), "llama_cpp gguf-q4_0": Voice(0.1)}, "reproduced", 0),
        ({"llama_cpp fp16": Voice(), "llama_cpp gguf-q4_0": Voice(2.0)}, "not reproduced", 1),
        ({}, "inconclusive", 3),
    ],
)
def test_quality_is_held_to_its_limit(place: Place, voices: Any, outcome: str, code: int) -> None:
    (place.path / "near.yaml").write_text(QUALITY)
    run = sides_run(place.path / "run", {A: [20], "llama_cpp gguf-q4_0": [20]})
    with_quality(run, voices)
    done = told(place, "claim", "near.yaml", "--from", run)
    assert (done.returncode, f"near: {outcome}\n" in done.stdout) == (code, True)


def test_what_cannot_run_here_is_said_and_not_run(place: Place) -> None:
    done = told(place, "claim", "gpu_layers", "device=cpu")
    assert done.returncode == 3
    (last,) = done.stdout.splitlines()[-1:]
    assert last.startswith("gpu_layers: not testable here: llama_cpp.gpu_layers=99: there is")
    assert last.endswith("there is no GPU here to hold layers")
    assert not (place.path / "results").exists()


def test_a_list_has_all_claims_and_what_cannot_be_tested(place: Place) -> None:
    listed = {each["name"]: each for each in json.loads(told(place, "claim", "list", "--json").stdout)}
    assert listed["llama_cpp_flat"]["why_not_here"] is None
    assert listed["sglang_offline_batch"]["source"]["who"] == "AIMultiple"
    shown = told(place, "claim", "list").stdout
    assert all(name in shown for name in listed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["llama_flat"], "claim llama_flat: no such claim; did you mean llama_cpp_flat? choose from awq_"),
        (["list", "--from", "run"], "claim list: takes no option but --json"),
        (["sooner.yaml", "--from", "run", "repeats=3"], "--from judges a run that exists; leave out keys"),
        (["sooner.yaml", "--from", "nowhere"], "nowhere: "),
        (["sooner.yaml", "engine=llama_cpp"], "claim sooner: the run has no engine=vllm; its deployments: "),
        (["metric.yaml"], "predicates.metric=ttft: no such metric"),
        (["additive.yaml"], "predicates.metric=cached_share: is compared by a difference, and has no ratio"),
        (["key.yaml"], "predicate: engin: does not select deployments or loads"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_a_line(place: Place, words: list[str], said: str) -> None:
    for name, old, new in (
        ("metric", "ttft_s.p50", "ttft"),
        ("additive", "ttft_s.p50", "cached_share"),
        ("key", "{engine: llama_cpp}", "{engin: llama_cpp}"),
    ):
        (place.path / f"{name}.yaml").write_text(CLAIM.replace(old, new))
    done = told(place, "claim", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


OWN = """
sentence: a and b are alike
source: {who: somebody, where: https://example.org, date: "2024"}
conditions: {device: a toaster}
original: {engine: reference}
here: {engine: reference, reference.label: [a, b], load.concurrency: 1}
predicates:
  - metric: output_tokens_per_s
    ratio: [{reference.label: a}, {reference.label: b}]
    within: 1
  - metric: kv_waste_paged_share
    value: {}
"""


@pytest.mark.long
def test_a_claim_runs_as_its_file_says(place: Place) -> None:
    (place.path / "own.yaml").write_text(OWN)
    words = [word for word in quick("repeats=3") if not word.startswith("engine=")]
    done = bench(place, "claim", "own.yaml", *words, "--output", "run", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["outcome"]) == (0, "reproduced"), done.stderr
    ratio, wasted = found["parts"]
    assert ratio["judged"][0]["compared"] == "reference label=a at 1 user over reference label=b at 1 user"
    assert [each["outcome"] for each in wasted["judged"]] == [None, None]
    assert Path(place.path, found["report"]).is_file()
    assert place.run()["settings"]["reference.label"] == ["a", "b"]
    assert "own: reproduced" in text_of(place.report())
    assert told(place, "verify", "run").returncode == 0


def test_a_claim_that_is_stopped_says_how_to_go_on_and_what_is_known(place: Place) -> None:
    (place.path / "own.yaml").write_text(OWN)
    words = [word for word in quick("repeats=3") if not word.startswith("engine=")]
    with begun(place, "claim", "own.yaml", *words, "--output", "run") as process:
        wait_until(lambda: 1 in place.cells(), 60)
        os.kill(process.pid, signal.SIGINT)
        done = ended(process)
    assert done.returncode == 130
    then = "goes on with it, then `bench claim own.yaml --from run` judges it\n"
    assert f"`bench run --resume run` {then}" in done.stderr
    assert "own: inconclusive" in text_of(place.report())
