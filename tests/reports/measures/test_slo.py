"""Shares that met an objective: their interval, what counts, what windows come to; goodput."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from make_run import MS, S, failed_row, full_run, one_cell_run, row, summary

from serving_bench.harness.contracts import GuardFinding, Load, Objective, because, quoted
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.measures.slo import (
    Attainment,
    Window,
    judged,
    judged_cells,
    met_all,
    trial,
    wilson,
)
from serving_bench.reports.measures.values import values_of
from serving_bench.reports.page.sections import throughput
from serving_bench.reports.words.verdict_words import slo_words

TTFT = Objective("ttft_s", 0.95, 0.5)
TPOT = Objective("tpot_s", 0.5, 0.05)
SUCCESS, ALL = Objective("success", 0.9), Objective("success", 1.0)
OPEN = Load(concurrency=None, rate_per_s=20.0, arrival="constant")


def frame(*rows):
    """Requests as (outcome, ttft_s, tpot_s)."""
    return pd.DataFrame(
        {
            "outcome": [outcome for outcome, _, _ in rows],
            "ttft_s": pd.array([first for _, first, _ in rows], dtype="Float64"),
            "tpot_s": pd.array([each for _, _, each in rows], dtype="Float64"),
        }
    )


def of(good, slow=0, **given):
    """A window of so many requests that meet TTFT, and that do not."""
    return Window(frame(*[("ok", 0.1, 0.01)] * good, *[("ok", 0.6, 0.01)] * slow), **given)


@pytest.mark.parametrize(
    ("met", "n", "low", "high"),
    [
        # n = 10, p = 1/2, z = 1.96: (0.5 + 0.19207 +- 1.96 sqrt(0.025 + 0.0096036)) / 1.384146
        (5, 10, 0.2366, 0.7634),
        # p = 1: n / (n + z^2) = 73 / 76.8415
        (73, 73, 0.95001, 1.0),
        (0, 20, 0.0, 0.16113),
        # The worked example of Newcombe (1998), Statistics in Medicine 17: 81 of 263.
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_against_worked_values(met, n, low, high):
    assert wilson(met, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_covers_the_true_share():
    """Over draws of 200 requests of which 95 % meet it: 93 to 97 % of the intervals have the truth."""
    found = [wilson(int(met), 200) for met in np.random.default_rng(1).binomial(200, 0.95, 4000)]
    assert 0.93 <= np.mean([low <= 0.95 <= high for low, high in found]) <= 0.97


@pytest.mark.parametrize(
    ("objective", "met", "n", "verdict", "meets"),
    [
        (TTFT, 73, 73, "kept", True),
        (TTFT, 72, 72, "unclear", True),
        (TTFT, 190, 200, "unclear", True),
        (TTFT, 189, 200, "unclear", False),
        (TTFT, 170, 200, "broken", False),
        (TTFT, 0, 0, "unclear", False),
        (SUCCESS, 20, 20, "unclear", True),
        (ALL, 999, 1000, "broken", False),
        (ALL, 1000, 1000, "unclear", True),
    ],
)
def test_an_objective_is_kept_or_broken_where_the_whole_interval_says_so(objective, met, n, verdict, meets):
    found = Attainment(objective, met, n)
    assert (found.verdict, found.meets) == (verdict, meets)


@pytest.mark.parametrize(("asked", "needed"), [(0.9, 35), (0.95, 73), (0.99, 381), (0.999, 3838)])
def test_good_requests_that_prove_a_share(asked, needed):
    assert wilson(needed, needed)[0] >= asked > wilson(needed - 1, needed - 1)[0]


def test_failed_requests_meet_nothing_and_what_does_not_apply_is_left_out():
    sent = frame(
        ("ok", 0.5, 0.05), ("ok", 0.51, 0.01), ("ok", 0.1, None), ("timeout", 0.1, 0.01),
        ("reset", None, None),
    )  # fmt: skip
    ttft, tpot, success = judged([Window(sent)], (TTFT, TPOT, SUCCESS)).attained
    assert (ttft.met, ttft.n) == (2, 5), "the limit itself is met"
    assert (tpot.met, tpot.n) == (2, 4), "an answer of one token has no TPOT"
    assert (success.met, success.n) == (3, 5)
    assert met_all(sent, (TTFT, TPOT, SUCCESS)).tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("windows", "verdict", "meets", "words"),
    [
        ([of(100)], "kept", True, ""),
        ([of(0, 100)], "broken", False, ""),
        ([of(20)], "unclear", True, "ttft_s.p95 100.0 % of 20 [83.9, 100.0]"),
        ([of(100, too_high=because("queue_grew"))], "broken", False, "the queue only grew"),
        # A disturbed window may show that a load is kept, and not that it is broken; a calm one counts alone.
        ([of(100, is_disturbed=True)], "kept", True, ""),
        ([of(0, 100, is_disturbed=True)], "unclear", False, "others disturbed"),
        ([of(0, 100, is_disturbed=True), of(100)], "kept", True, "of 100 ["),
    ],
)  # fmt: skip
def test_a_load_is_judged_by_its_windows(windows, verdict, meets, words):
    found = judged(windows, (TTFT,))
    assert (found.verdict, found.meets) == (verdict, meets)
    assert words in found.words


def test_what_cannot_be_judged_says_why():
    assert judged([Window(frame())], (TTFT,)).problem == because("objective_without_request")
    unread = Window(frame(*[("ok", None, None)] * 10))
    assert judged([unread], (TTFT,)).problem == because("objective_without_value", metric="ttft_s")
    no_counts = Window(frame(*[("ok", 0.1, None)] * 10))
    assert judged([no_counts], (TTFT, TPOT)).problem == because("objective_without_tpot")
    assert judged([no_counts], (TTFT,)).problem is None


# --- several starts --------------------------------------------------------------------------------


def test_several_starts_widen_the_interval_by_how_much_they_differ():
    """Shares of 99, 97 and 92 %: mean 96 %, s = 3.606 %, so 4.3027 x s / sqrt(3) = 8.957 % on either side."""
    found = Attainment(TTFT, 2880, 3000, starts=((990, 1000), (970, 1000), (920, 1000)))
    assert wilson(2880, 3000)[0] > 0.95, "kept, if requests were independent"
    assert found.interval == pytest.approx((0.96 - 0.08957, 1.0), abs=1e-4)
    assert found.verdict == "unclear"
    assert Attainment(TTFT, 300, 300, starts=((100, 100),) * 3).interval == wilson(300, 300)


def test_windows_of_several_starts_are_counted_by_start():
    windows = [of(200, start="a"), of(180, 20, start="b"), of(200, start="a")]
    (found,) = judged(windows, (TTFT,)).attained
    assert (found.met, found.n, found.starts) == (580, 600, ((400, 400), (180, 200)))
    (one,) = judged(windows[::2], (TTFT,)).attained
    assert (one.n, one.starts) == (400, ())


@pytest.mark.parametrize("starts", [2, 5])
def test_a_share_below_what_is_asked_is_seldom_called_kept(starts):
    """True 94.5 %, asked 95 %, 2 points between starts, 1,500 requests each: of 2,000 draws at most 2 %
    (with all requests as independent 15 to 19 %)."""
    rng, kept = np.random.default_rng(2), 0
    for _ in range(2000):
        met = rng.binomial(1500, np.clip(0.945 + 0.02 * rng.standard_normal(starts), 0, 1))
        found = Attainment(TTFT, int(met.sum()), 1500 * starts, tuple((int(each), 1500) for each in met))
        kept += found.verdict == "kept"
    assert kept <= 40


# --- from a results directory ----------------------------------------------------------------------

GOOD = [row(k, 103 * S + k * 50 * MS) for k in range(100)]
BAD = [failed_row(k, 103 * S + k * 50 * MS) for k in range(40)]
LATE = [row(k, 103 * S + k * 50 * MS, scheduled_ns=102 * S + k * 50 * MS) for k in range(80)]
CUT = {"status": "failed", "error": "stopped", "load_summary": summary(100 * S, ended_by="failures")}
SEEN = GuardFinding("foreign_load", quoted("another program used 60 % of the cores"), "during", "suspect")
TIGHT = replace(TTFT, limit_s=0.05)


@pytest.mark.parametrize(
    ("rows", "given", "objective", "verdict"),
    [
        ([*GOOD, row(200, 100 * S)], {}, TTFT, "kept"),
        (BAD, {"status": "failed", "error": "no request in the window succeeded"}, TTFT, "broken"),
        ([row(1, 103 * S), *BAD[:3]], CUT, TTFT, "broken"),
        (GOOD, {"guard": (SEEN,)}, TIGHT, "unclear"),
        (GOOD, {"guard": (replace(SEEN, when="before"),)}, TIGHT, "broken"),
        # 1 s late and 0.1 s to the first token: in an open loop a late sending counts.
        (LATE, {"load": OPEN}, TTFT, "broken"),
    ],
    ids=["kept", "all failed", "ended for its failures", "disturbed", "disturbed before", "sent late"],
)
def test_a_trial_is_judged_from_its_cells_files(tmp_path, rows, given, objective, verdict):
    made = one_cell_run(tmp_path, rows, **given)
    found = trial(made.path, [0], (objective,))
    assert (found.verdict, found.problem) == (verdict, None)
    if verdict == "kept":
        assert [each.n for each in found.attained] == [100], "those sent in the window"
        assert trial(made.path, [5], (TTFT,)).problem is not None


def test_a_cell_that_never_sent_says_its_own_reason(tmp_path):
    made = one_cell_run(tmp_path, [], status="failed", error=quoted("the load process failed"))
    assert trial(made.path, [0], (TTFT,)).problem == quoted("the load process failed")


def test_a_cell_in_which_nothing_was_sent_says_all_its_reasons(tmp_path):
    reasons = (quoted("bench stood still"), quoted("no request was sent"))
    made = one_cell_run(tmp_path, [], validity="suspect", reasons=reasons)
    assert str(trial(made.path, [0], (TTFT,)).problem) == "bench stood still; no request was sent"


# --- goodput ---------------------------------------------------------------------------------------


def with_slo(path, *slo):
    store.write_record(path / "run.json", replace(store.read_run(path), slo=slo))
    return open_run(path)


def test_goodput_is_what_met_every_objective_over_the_windows_length(tmp_path):
    """The window is 8 s: 16 good requests, 4 whose first token is 1 ms too late, 4 failed, one before it."""
    rows = [row(k, 102 * S + k * 100 * MS) for k in range(16)]
    for k, at in ((k, 104 * S + k * 100 * MS) for k in range(16, 20)):
        rows += [row(k, at, chunk_ns=(at + 101 * MS, at + 200 * MS)), failed_row(k + 4, at + 400 * MS)]
    run = with_slo(
        one_cell_run(tmp_path, [*rows, row(24, 101 * S)]).path, replace(TTFT, limit_s=0.1), SUCCESS
    )
    values = values_of(run)[0]
    assert values["goodput_per_s"].value == pytest.approx(16 / 8)
    assert (values["slo_share"].value, values["slo_share"].n) == (pytest.approx(16 / 24), 24)
    found = judged_cells(run, run.planned_cells)
    assert [(each.met, each.n) for each in found.attained] == [(16, 24), (20, 24)]
    assert found.verdict == "broken"


def test_without_objectives_or_requests_there_is_no_goodput(tmp_path):
    run = open_run(one_cell_run(tmp_path / "none", [row(1, 103 * S)]).path)
    assert "goodput_per_s" not in values_of(run)[0]
    assert "SLO" not in throughput.against(run).body
    before = with_slo(one_cell_run(tmp_path / "before", [row(1, 101 * S)]).path, TTFT)
    assert values_of(before)[0]["slo_share"].value is None


def test_the_page_shows_service_levels_by_load(tmp_path):
    run = with_slo(full_run(tmp_path), Objective("ttft_s", 0.95, 0.2), SUCCESS)
    made = throughput.against(run)
    text = made.body
    assert f"<h3>Who keeps the SLO ({slo_words(run.record.slo)})</h3>" in text
    assert re.search(r">p95 TTFT [\d.]+ % of \d+</span><span[^>]*>\[[\d.]+, [\d.]+\]</span>", text)
    assert all(f">{word}</span>" in text for word in ("keeps it", "does not"))
    assert [chart.id for chart in made.charts][-1] == "goodput_per_s-0"
