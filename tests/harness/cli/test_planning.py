"""What `bench run` and `bench plan` refuse before anything is started."""

from pathlib import Path

import pytest
from nvml_asking import ask, build_library

from serving_bench.harness.cli.commands.planning import budget_lines, check_goals, print_plan
from serving_bench.harness.errors import UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.settings import config, overrides
from serving_bench.reports.measures.metrics import METRICS, check_metric_name, value_names

WORDS = ("engine=reference,llama_cpp", "reference.label=a,b", "quantization=gguf,awq")


def check(*words: str) -> None:
    settings = config.settings(overrides.parse([*WORDS, *words]))
    check_goals(settings, plan.make(settings))


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("until=ci:5%",),
        ("until=ci:5%", "until.metric=ttft_s.p95"),
        ("until=ci:5%", "until.metric=memory_peak_bytes"),
        ("compare.metric=tpot_s.p50,requests_per_s",),
        ('compare.baseline="reference label=b"',),
    ],
)
def test_what_exists_is_taken(words: tuple[str, ...]) -> None:
    check(*words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("until=ci:5%", "until.metric=ttft_s"),
         "until.metric=ttft_s: no such metric; did you mean ttft_s.p50 or ttft_s.p90 or ttft_s.p95 or "
         "ttft_s.p99?"),
        (("compare.metric=ttft_s.p50,goodput",),
         "compare.metric=goodput: no such metric; did you mean goodput_per_s? see `bench list metrics`"),
        (("until=ci:5%", "until.metric=output_tokens_per_s.p50"),
         "until.metric=output_tokens_per_s.p50: no such metric; did you mean output_tokens_per_s"),
        (("compare.metric=zzz",), "compare.metric=zzz: no such metric; see `bench list metrics`"),
        (("compare.baseline=vllm",),
         "compare.baseline=vllm: is no deployment of this plan; choose from reference label=a, "
         "reference label=b, llama_cpp gguf-q4_1"),
        (("compare.baseline=llama_cpp awq",),
         "compare.baseline=llama_cpp awq: is skipped, llama.cpp serves GGUF files"),
    ],
)  # fmt: skip
def test_what_does_not_exist_is_refused_in_one_line_with_what_would_do(words: tuple[str, ...], said: str):
    with pytest.raises(UserError) as caught:
        check(*words)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_every_value_has_a_name_that_is_taken() -> None:
    for name in value_names():
        check_metric_name(name, "until.metric")
    assert {name.partition(".")[0] for name in value_names()} == {metric.name for metric in METRICS}


@pytest.mark.parametrize(("repeats", "rows"), [(6, 24), (7, 4)])
def test_of_many_cells_the_first_repeat_is_shown_and_the_others_are_counted(repeats: int, rows: int, capsys):
    words = ["engine=reference", "load.concurrency=1,2,4,8", f"repeats={repeats}"]
    print_plan(plan.make(config.settings(overrides.parse(words))))
    said = capsys.readouterr().out
    assert sum("1.5 s + 8 s" in line for line in said.splitlines()) == rows
    assert ("\n... and the same for 6 more repeats, each in its own order" in said) == (rows == 4)


CAPPED = """
from serving_bench.harness.cli.commands.planning import planned
from serving_bench.harness.settings import config, overrides
def cache_of(*words):
    whole = planned(config.settings(overrides.parse(words)))
    return [whole.starts[0].deployment.terms.kv_cache_tokens, whole.filled["kv_cache_tokens"]]
"""


def test_the_cache_of_a_plan_fits_the_device_that_is_here(tmp_path: Path) -> None:
    """Against the real nvidia-ml-py over a small NVML library of two devices with 80 GiB."""
    words = ["engine=vllm", "model=gemma3-270m", "quantization=bf16", "device=0"]
    words.append("engine.context_length=32768")
    library = build_library(tmp_path)
    few, said_of_few = ask(library, f"cache_of(*{[*words, 'load.concurrency=4']})", define=CAPPED)
    assert (few, said_of_few[-10:]) == (4 * 32768, "which fits")
    many, said_of_many = ask(library, f"cache_of(*{[*words, 'load.concurrency=4000']})", define=CAPPED)
    assert 32768 < many < 4000 * 32768
    assert said_of_many.startswith(
        "the most that vllm bf16 holds in 72.0 GiB by the arithmetic of `bench fit`"
    )


@pytest.mark.parametrize(
    ("asked", "is_said"), [("load.conversations=100", True), ("load.conversations=23", False)]
)
def test_a_source_that_ends_early_is_said(asked: str, is_said: bool, capsys: pytest.CaptureFixture[str]):
    words = (
        "engine=reference",
        "scenario=burst",
        "scenario.burst=5",
        "load.arrival=batch",
        "repeats=1",
        asked,
    )
    print_plan(plan.make(config.settings(overrides.parse(words))))
    said = "load.conversations=100: burst has 23, and no more are played"
    assert (said in capsys.readouterr().out.splitlines()) == is_said


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ("33s", []),
        ("auto", []),
        ("23s",
         ["run.budget=23 s: the last 1 repeat of 3 will probably not be measured; "
          "run.budget=33s holds all"]),
        ("5s",
         ["run.budget=5 s: the first repeat takes about 11 s and is measured all the same; the last 2 "
          "repeats of 3 will probably not be measured; run.budget=33s holds all"]),
    ],
)  # fmt: skip
def test_repeats_that_run_budget_does_not_hold_are_named_before_they_are_left_out(
    budget: str, said: list[str]
) -> None:
    words = ("engine=reference", "repeats=3", "load.warmup=1s", "load.duration=4s", f"run.budget={budget}")
    settings = config.settings(overrides.parse(words))
    assert list(budget_lines(plan.make(settings), settings.budget_s)) == said
