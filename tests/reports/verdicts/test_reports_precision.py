"""How sure a run is of a metric: the intervals of its means, the widest first."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import deployment
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import Load, Precision, quoted
from serving_bench.reports import open_run
from serving_bench.reports.measures.over_starts import Aggregate, half_width_share, precisions

A, B, C = deployment("llama_cpp", "fp16"), deployment("vllm", "awq"), deployment("sglang", "awq")


def found(path: Path, made: list[Made], metric: str = "ttft_s.p50", **given: Any) -> tuple[Precision, ...]:
    return precisions(repeated_run(path, made, (Load(concurrency=4),), repeats=3, **given), metric)


def test_the_larger_side_over_the_mean_the_widest_first_and_without_a_mean_last(tmp_path: Path) -> None:
    made = [Made(C), Made(A, per_repeat=(1, 1.01, 1.02)), Made(B, per_repeat=(1, 1.1, 1.3))]

    def fail(cell: Any, start: Any) -> dict[str, str]:
        return {"status": "failed", "error": "exited with code 1"} if start.deployment == C else {}

    wide, narrow, none = found(tmp_path, made, cell_changes=fail)
    assert (wide.case, narrow.case) == ("vllm awq, 4 users", "llama_cpp fp16, 4 users")
    assert (none.case, none.half_width_share, none.why) == (
        "sglang awq, 4 users",
        None,
        quoted("exited with code 1"),
    )
    # Student's t of two degrees of freedom; a geometric mean's interval is wider above: exp(half) - 1.
    run = open_run(tmp_path)
    for each, label in ((wide, B.label), (narrow, A.label)):
        logs = [math.log(float(v)) for v in _starts(run, label)]
        mean = sum(logs) / 3
        half = 4.30265273 * math.sqrt(sum((log - mean) ** 2 for log in logs) / 2) / math.sqrt(3)
        assert each.half_width_share == pytest.approx(math.expm1(half))


def _starts(run: Any, label: str) -> list[float]:
    cells = [cell for cell in run.planned_cells if cell.label == label]
    return [float(run.ok_requests(cell.number, "ttft_s")["ttft_s"].median()) for cell in cells]


def test_one_start_is_not_sure(tmp_path: Path) -> None:
    def fail(cell: Any, start: Any) -> dict[str, str]:
        return {"status": "failed", "error": "died"} if start.repeat else {}

    [one] = found(tmp_path, [Made(A)], cell_changes=fail)
    assert one.half_width_share == math.inf


def test_a_percentile_of_too_few_requests_says_so(tmp_path: Path) -> None:
    [one] = found(tmp_path, [Made(A)], "ttft_s.p99")
    assert one.half_width_share is None
    assert str(one.why).startswith("p99 needs n of ")


def test_a_mean_of_nothing_has_no_share_unless_all_starts_agree() -> None:
    around_0 = Aggregate(0.0, -1.0, 1.0, 3, 3, (-1.0, 0.0, 1.0), interval=(-2.5, 2.5))
    assert half_width_share(around_0) is None
    assert half_width_share(replace(around_0, interval=(0.0, 0.0))) == 0
    assert half_width_share(replace(around_0, mean=-5.0, interval=(-6.0, -4.5))) == pytest.approx(0.2)
