"""One real run of three deployments, two of them equal and one 10 % slower: what compare and gate say of it.

The reference engine sends its tokens by a schedule that does not drift, so that the median time per token has
next to no noise, however busy the machine is; tokens/s of such short windows have about 1 %.
"""

import pytest
from bench_command import Place, bench, made, quick, told

from serving_bench.harness.contracts import CompareTerms, GateTerms
from serving_bench.reports import compare_runs, gate_runs
from serving_bench.reports.stats.intervals import STARTS_NEEDED, Verdict

# Two that differ by a ten-thousandth: three deployments of one sweep.
EQUAL, SAME, SLOWER = "reference itl=10ms", "reference itl=10.001ms", "reference itl=11ms"
METRIC, RATE = "tpot_s.p50", "output_tokens_per_s"

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = made(tmp_path_factory.mktemp("verdicts") / "p")
    keys = quick(
        "reference.itl=10ms,10.001ms,11ms", "reference.ttft=5ms", "load.concurrency=8", "load.warmup=0.2s",
        "load.duration=1s", "load.min_requests=1", "scenario.think_time=0s", f"repeats={STARTS_NEEDED}",
    )  # fmt: skip
    done = bench(place, "run", *keys, "--output", "run", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    return place


def verdict_on(place: Place, label: str, metric: str = METRIC) -> Verdict:
    """On a deployment against EQUAL."""
    sides = (f"{place.run_dir}:{name}" for name in (EQUAL, label))
    [case] = compare_runs(*sides, CompareTerms(metrics=(metric,))).cases
    [row] = [row for row in case.rows if row.verdict]
    assert case.starts_text == f"{STARTS_NEEDED} starts of A, {STARTS_NEEDED} of B"
    assert row.verdict is not None
    return row.verdict


def test_no_difference_is_the_same_within_five_percent(place: Place) -> None:
    verdict = verdict_on(place, SAME)
    assert verdict.kind == "same"
    assert verdict.low is not None
    assert verdict.high is not None
    assert 1 / 1.05 < verdict.low <= verdict.high < 1.05


def test_ten_percent_slower_is_slower_by_ten_percent(place: Place) -> None:
    verdict = verdict_on(place, SLOWER)
    assert verdict.kind == "worse"
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.ratio == pytest.approx(1.1, abs=0.005)
    assert 1.05 < verdict.low <= verdict.high < 1.15


def test_the_terminal_says_it_in_words(place: Place) -> None:
    sides = (f"run:{EQUAL}", f"run:{SLOWER}")
    done = bench(place, "compare", *sides, f"compare.metric={METRIC}", "--html", "c.html", COLUMNS="120")
    assert (done.returncode, done.stderr) == (0, "")
    [line] = [line for line in done.stdout.splitlines() if line.startswith(METRIC)]
    assert "  B slower" in line
    assert "B slower" in (place.path / "c.html").read_text(encoding="utf-8")


def gated(place: Place, new: str, *keys: str, run: str = "run") -> tuple[int, str]:
    """The exit code of the gate between EQUAL and another, and what it prints, without line breaks."""
    sides = (f"{run}:{EQUAL}", f"{run}:{new}")
    done = told(place, "gate", *sides, f"gate.metric={METRIC}", *keys)
    assert done.stderr == ""
    return done.returncode, " ".join(done.stdout.split())


def test_the_gate_passes_what_is_equal(place: Place) -> None:
    code, said = gated(place, SAME, "gate.max_regression=5%")
    assert code == 0
    assert f"PASS: {METRIC} is not worse by more than 5 % in 1 case" in said


def test_the_gate_fails_what_is_ten_percent_slower(place: Place) -> None:
    code, said = gated(place, SLOWER, "gate.max_regression=5%")
    assert code == 1
    assert f"FAIL: {METRIC} is worse by more than 5 % in 1 of 1 case" in said


def test_the_gate_is_inconclusive_where_the_limit_is_what_was_seen(place: Place) -> None:
    sides = (f"{place.run_dir}:{name}" for name in (EQUAL, SLOWER))
    row = gate_runs(*sides, GateTerms(METRIC)).cases[0].case.rows[0]
    assert row
    assert row.verdict
    seen = row.verdict.ratio
    assert seen is not None
    code, said = gated(place, SLOWER, f"gate.max_regression={100 * (seen - 1):.6f}%")
    assert (code, "needs more than 100 more repeats" in said) == (3, True)
