"""What `bench compare` prints, at 80 columns."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from make_run import S, one_cell_run, row
from rich.console import Console

from harness import store
from harness.compare_text import print_comparison
from harness.contracts import Price
from reports import compare_runs, to_builtins

T0 = 102 * S


def two_runs(folder: Path, packages: dict[str, str], prices: tuple[Price | None, Price | None]) -> None:
    for name, price in zip(("a", "b"), prices, strict=True):
        one_cell_run(folder / name, [row(k, T0 + k * S) for k in range(6)])
        record = store.read_run(folder / name)
        own = {"engine_packages": {"vllm": packages}} if name == "a" else {}
        changed = replace(record, price=price, environment={**record.environment, **own})
        store.write_record(folder / name / "run.json", changed)


def printed(folder: Path, width: int = 80) -> str:
    out = io.StringIO()
    print_comparison(Console(file=out, width=width, soft_wrap=True), compare_runs(folder / "a", folder / "b"))
    return out.getvalue()


def test_metrics_are_whole_below_the_name_of_their_cell(tmp_path: Path) -> None:
    two_runs(tmp_path, {}, (None, None))
    said = printed(tmp_path)
    assert "\nllama_cpp fp16, chat_multi_turn, 1 user:\nmetric " in said
    assert "\noutput_tokens_per_s " in said
    assert "tokens per chunk" in said


def test_many_packages_of_an_engine_are_counted_with_the_engines_own_first(tmp_path: Path) -> None:
    versions = {f"p{k}": "1.0" for k in range(9)} | {"vllm": "0.32.0"}
    two_runs(tmp_path, versions, (None, None))
    said = " ".join(printed(tmp_path).split())
    assert (
        "10 packages of vllm differ (A, B): vllm (0.32.0, –), p0 (1.0, –), p1 (1.0, –), ...; all with" in said
    )
    assert "p2" not in said
    found = to_builtins(compare_runs(tmp_path / "a", tmp_path / "b"))["differences"]
    assert sum(each["what"].startswith("environment.engine_packages.vllm.") for each in found) == 10


def test_few_packages_are_rows_like_any_difference(tmp_path: Path) -> None:
    two_runs(tmp_path, {"p0": "1.0"}, (None, None))
    assert "environment.engine_packages.vllm.p0" in printed(tmp_path)


EUR, USD = Price(2.0, "EUR"), Price(2.0, "USD")


@pytest.mark.parametrize(
    ("prices", "unit"),
    [((EUR, EUR), "EUR"), ((EUR, None), "EUR"), ((EUR, Price()), "EUR"), ((EUR, USD), "A in EUR, B in USD")],
)
def test_a_cost_has_the_currency_of_its_run(
    tmp_path: Path, prices: tuple[Price | None, Price | None], unit: str
) -> None:
    two_runs(tmp_path, {}, prices)
    rows = [
        each for each in compare_runs(tmp_path / "a", tmp_path / "b").rows if each.metric.startswith("cost")
    ]
    assert [(each.unit, each.cells()[4]) for each in rows] == [(unit, unit)]
