"""What `bench compare` prints, at 80 columns."""

from dataclasses import replace
from pathlib import Path

import pytest
from bench_command import printed
from make_run import deployment
from make_sides import A, B, sides_run

from serving_bench.harness.cli.compare_text import print_comparison
from serving_bench.harness.contracts import CompareTerms, Price
from serving_bench.harness.store import store
from serving_bench.reports import compare_runs

STEADY = (100.0, 101.0, 102.0)


def two_runs(folder: Path, packages: dict[str, str], prices: tuple[Price | None, Price | None]) -> None:
    for name, price in zip(("a", "b"), prices, strict=True):
        record = store.read_run(sides_run(folder / name, {A: STEADY}))
        own = {"engine_packages": {"vllm": packages}} if name == "a" else {}
        changed = replace(record, price=price, environment={**record.environment, **own})
        store.write_record(folder / name / "run.json", changed)


def compared(folder: Path, a: str = "a", b: str = "b", width: int = 80) -> str:
    found = compare_runs(f"{folder}/{a}", f"{folder}/{b}", CompareTerms(metrics=("ttft_s.p50", "ttft_s.p99")))
    return printed(width, print_comparison, found)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    sides_run(folder / "r", {A: STEADY, B: tuple(2 * value for value in STEADY), "tgi fp16": (100, 110, 190)})
    return folder


def test_metrics_are_whole_below_the_name_of_their_case(one_run: Path) -> None:
    said = compared(one_run, f"r:{A}", f"r:{B}")
    name = "vllm fp16 against llama_cpp fp16, chat_multi_turn, 1 user, 3 starts of A, 3 of B: metric "
    assert name in " ".join(said.split())
    assert "\nmetric " in said
    assert "\noutput_tokens_per_s " in said
    assert "tokens per chunk" in said
    rule = "B relative to A, with verdicts on B (95 % confidence, one comparison). Same: within 5 %"
    assert rule in " ".join(said.split())


def test_each_metric_has_its_ratio_and_verdict_or_a_reason(one_run: Path) -> None:
    def lines(b: str) -> dict[str, str]:
        said = compared(one_run, f"r:{A}", b, 160)
        return {line.split()[0]: line.rstrip() for line in said.splitlines() if line}

    told = lines(f"r:{B}")["ttft_s.p50"]
    assert "2.00x [2.00x, 2.00x]" in told
    assert told.endswith("B slower")
    assert lines("r:tgi fp16")["ttft_s.p50"].endswith("cannot tell")
    assert "none: A: p99 needs n of " in lines("r:tgi fp16")["ttft_s.p99"]


def test_a_reason_that_all_metrics_share_is_said_once(tmp_path: Path) -> None:
    for name in ("x", "y"):
        sides_run(tmp_path / name, {A: STEADY, B: STEADY}, start={"attached": name == "y"})
    said = compared(tmp_path, "x", "y")
    assert said.count("no verdicts: B: the server was running already, so its repeats are blocks") == 2
    assert "none:" not in said
    assert "B relative to A, with 95 % intervals; no verdicts." in said


def test_names_are_printed_as_they_are(tmp_path: Path) -> None:
    label = "vllm [red]x[/red] :smile:"
    made = {label: replace(deployment("vllm", "fp16"), label=label)}
    sides_run(tmp_path / "r", {A: STEADY, label: STEADY}, made=made)
    assert f"\n{label} against {A}, " in compared(tmp_path, f"r:{A}", f"r:{label}", 200)


def test_many_packages_of_an_engine_are_counted_with_the_engines_own_first(tmp_path: Path) -> None:
    two_runs(tmp_path, {f"p{k}": "1.0" for k in range(9)} | {"vllm": "0.32.0"}, (None, None))
    said = " ".join(compared(tmp_path).split())
    assert "10 packages of vllm differ; --json lists them" in said
    assert "engine_packages.vllm.vllm 0.32.0 –" in said
    assert "p2" not in said


EUR, USD = Price(2.0, "EUR"), Price(2.0, "USD")
COST = "cost_per_million_output_tokens"


@pytest.mark.parametrize(
    ("prices", "unit"),
    [((EUR, EUR), "EUR"), ((EUR, None), "EUR"), ((EUR, Price()), "EUR"), ((EUR, USD), "EUR and USD")],
)
def test_a_cost_has_the_currency_of_its_run(tmp_path, prices: tuple[Price | None, Price | None], unit: str):
    two_runs(tmp_path, {}, prices)
    [case] = compare_runs(tmp_path / "a", tmp_path / "b", CompareTerms(metrics=(COST,))).cases
    [row] = [row for row in case.rows if row.metric == COST]
    assert (row.unit, row.shown_unit) == (unit, unit)
    if prices == (EUR, USD):
        assert row.verdict is not None
        assert row.verdict.ratio is None
