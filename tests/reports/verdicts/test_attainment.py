"""Shares that met an objective: the interval against worked values, what counts, and what windows come to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from make_run import MS, S, failed_row, one_cell_run, row, summary

from harness.contracts import GuardFinding, Load, Objective
from reports.measures.slo import (
    Attainment,
    Window,
    judged,
    met_all,
    trial,
    wilson,
)

TTFT = Objective("ttft_s", 0.95, 0.5)
TPOT = Objective("tpot_s", 0.5, 0.05)
SUCCESS = Objective("success", 0.9)
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


@pytest.mark.parametrize(
    ("met", "n", "low", "high"),
    [
        # n = 10, p = 1/2, z = 1.96: (0.5 + 0.19207 +- 1.96 sqrt(0.025 + 0.0096036)) / 1.384146
        (5, 10, 0.2366, 0.7634),
        # p = 1: n / (n + z^2) = 73 / 76.8415
        (73, 73, 0.95001, 1.0),
        (72, 72, 0.94935, 1.0),
        (0, 20, 0.0, 0.16113),
        # The worked example of Newcombe (1998), Statistics in Medicine 17: 81 of 263.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_wilson_against_worked_values(met, n, low, high):
    assert wilson(met, n) == pytest.approx((low, high), abs=6e-5)


def test_wilson_covers_the_true_share():
    """Over draws of 200 requests of which 95 % meet it: 93 to 97 % of the intervals have the truth."""
    rng = np.random.default_rng(1)
    found = [wilson(int(met), 200) for met in rng.binomial(200, 0.95, 4000)]
    assert 0.93 <= np.mean([low <= 0.95 <= high for low, high in found]) <= 0.97


@pytest.mark.parametrize(
    ("met", "n", "verdict", "meets"),
    [
        (73, 73, "kept", True),
        (72, 72, "unclear", True),
        (190, 200, "unclear", True),
        (189, 200, "unclear", False),
        (170, 200, "broken", False),
        (0, 0, "unclear", False),
    ],
)
def test_an_objective_is_kept_or_broken_where_the_whole_interval_says_so(met, n, verdict, meets):
    found = Attainment(TTFT, met, n)
    assert (found.verdict, found.meets) == (verdict, meets)


def test_a_share_of_all_is_broken_by_one_and_never_proven():
    assert Attainment(Objective("success", 1.0), 999, 1000).verdict == "broken"
    assert Attainment(Objective("success", 1.0), 1000, 1000).verdict == "unclear"


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


def test_a_load_is_broken_by_any_objective_and_kept_by_all():
    good, slow = frame(*[("ok", 0.1, 0.01)] * 100), frame(*[("ok", 0.6, 0.01)] * 100)
    assert judged([Window(good)], (TTFT, SUCCESS)).verdict == "kept"
    assert judged([Window(slow)], (TTFT, SUCCESS)).verdict == "broken"
    assert judged([Window(frame(*[("ok", 0.1, 0.01)] * 20))], (TTFT, SUCCESS)).verdict == "unclear"
    grown = judged([Window(good, "the queue only grew")], (TTFT, SUCCESS))
    assert (grown.verdict, grown.meets) == ("broken", False)
    assert grown.words.endswith("the queue only grew")


def test_a_disturbed_window_may_show_that_a_load_is_kept_and_not_that_it_is_broken():
    good, slow = frame(*[("ok", 0.1, 0.01)] * 100), frame(*[("ok", 0.6, 0.01)] * 100)
    assert judged([Window(good, is_disturbed=True)], (TTFT,)).verdict == "kept"
    found = judged([Window(slow, is_disturbed=True)], (TTFT,))
    assert (found.verdict, found.meets) == ("unclear", False)
    assert "not fit" in found.words
    both = judged([Window(slow, is_disturbed=True), Window(good)], (TTFT,))
    assert (both.verdict, both.attained[0].n) == ("kept", 100), "the calm one alone counts"


def test_what_cannot_be_judged_says_why():
    assert "load.duration" in (judged([Window(frame())], (TTFT,)).problem or "")
    no_counts = frame(*[("ok", 0.1, None)] * 10)
    assert "load.tokenizer" in (judged([Window(no_counts)], (TTFT, TPOT)).problem or "")
    assert judged([Window(no_counts)], (TTFT,)).problem is None


# --- several starts --------------------------------------------------------------------------------


def test_several_starts_widen_the_interval_by_how_much_they_differ():
    """Shares of 99, 97 and 92 %: mean 96 %, s = 3.606 %, so 4.3027 x s / sqrt(3) = 8.957 % on either side."""
    found = Attainment(TTFT, 2880, 3000, starts=((990, 1000), (970, 1000), (920, 1000)))
    assert wilson(2880, 3000)[0] > 0.95, "kept, if requests were independent"
    assert found.interval == pytest.approx((0.96 - 0.08957, 1.0), abs=1e-4)
    assert (found.verdict, found.wanting) == ("unclear", "wants more repeats")
    alike = Attainment(TTFT, 300, 300, starts=((100, 100),) * 3)
    assert alike.interval == wilson(300, 300)


def test_windows_of_several_starts_are_counted_by_start():
    good = frame(*[("ok", 0.1, 0.01)] * 200)
    bad = frame(*[("ok", 0.1, 0.01)] * 180, *[("ok", 0.6, 0.01)] * 20)
    windows = [Window(good, start="a"), Window(bad, start="b"), Window(good, start="a")]
    (found,) = judged(windows, (TTFT,)).attained
    assert (found.met, found.n, found.starts) == (580, 600, ((400, 400), (180, 200)))
    (one,) = judged([Window(good, start="a"), Window(bad, start="a")], (TTFT,)).attained
    assert one.starts == ()


@pytest.mark.parametrize("starts", [2, 3, 5])
def test_a_share_below_what_is_asked_is_seldom_called_kept(starts):
    """True 94.5 %, asked 95 %, 2 points between starts, 1,500 requests each: of 2,000 draws at most 2 %
    (with all requests as independent 15 to 19 %)."""
    rng = np.random.default_rng(2)
    kept = 0
    for _ in range(2000):
        met = rng.binomial(1500, np.clip(0.945 + 0.02 * rng.standard_normal(starts), 0, 1))
        found = Attainment(TTFT, int(met.sum()), 1500 * starts, tuple((int(each), 1500) for each in met))
        kept += found.verdict == "kept"
    assert kept <= 40


# --- how many it takes -----------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "needed"), [(0.9, 35), (0.95, 73), (0.99, 381), (0.999, 3838)])
def test_good_requests_that_prove_a_share(asked, needed):
    few = Attainment(Objective("success", asked), 20, 20)
    assert few.wanting == f"would be clear from about {needed:,} requests on"
    assert wilson(needed, needed)[0] >= asked > wilson(needed - 1, needed - 1)[0]


def test_what_is_unclear_says_what_it_wants():
    assert Attainment(TTFT, 190, 200).wanting == "wants more repeats"
    assert Attainment(Objective("success", 1.0), 20, 20).wanting == "is never proven of 100 %"
    assert Attainment(TTFT, 73, 73).wanting == ""
    few = judged([Window(frame(*[("ok", 0.1, 0.01)] * 20))], (TTFT,))
    assert few.words == "ttft_s.p95 100.0 % of 20 [83.9, 100.0] (would be clear from about 73 requests on)"


# --- from a results directory ----------------------------------------------------------------------


def test_a_trial_reads_the_cells_that_it_is_asked_for(tmp_path):
    good = [row(k, 103 * S + k * 50 * MS) for k in range(100)]
    made = one_cell_run(tmp_path / "run", [*good, row(200, 100 * S)])
    found = trial(made.path, [0], (TTFT, SUCCESS))
    assert found.verdict == "kept"
    assert [each.n for each in found.attained] == [100, 100], "those sent in the window"
    assert trial(made.path, [5], (TTFT,)).problem is not None


def test_a_load_under_which_every_request_fails_is_broken(tmp_path):
    bad = [failed_row(k, 103 * S + k * 50 * MS) for k in range(40)]
    made = one_cell_run(tmp_path / "run", bad, status="failed", error="no request in the window succeeded")
    assert trial(made.path, [0], (TTFT,)).verdict == "broken"


def test_a_trial_that_was_ended_for_its_failures_is_broken_at_once(tmp_path):
    rows = [row(1, 103 * S), *[failed_row(k, 103 * S + k * MS) for k in range(2, 5)]]
    made = one_cell_run(
        tmp_path / "run", rows, summary(100 * S, ended_by="failures"), status="failed", error="stopped"
    )
    found = trial(made.path, [0], (TTFT,))
    assert (found.verdict, found.problem) == ("broken", None)


def test_what_the_guard_found_in_the_window_disturbs_it(tmp_path):
    rows = [row(k, 103 * S + k * 50 * MS) for k in range(100)]
    seen = GuardFinding("foreign_load", "another program used 60 % of the cores", "during", "suspect")
    made = one_cell_run(tmp_path / "run", rows, guard=(seen,))
    tight = Objective("ttft_s", 0.95, 0.05)
    assert trial(made.path, [0], (tight,)).verdict == "unclear"
    before = replace(seen, when="before")
    made = one_cell_run(tmp_path / "other", rows, guard=(before,))
    assert trial(made.path, [0], (tight,)).verdict == "broken"


def test_a_cell_that_never_sent_says_its_own_reason(tmp_path):
    made = one_cell_run(tmp_path / "run", [], status="failed", error="the load process failed")
    assert trial(made.path, [0], (TTFT,)).problem == "the load process failed"


def test_in_an_open_loop_a_late_sending_counts(tmp_path):
    late = [row(k, 103 * S + k * 50 * MS, scheduled_ns=102 * S + k * 50 * MS) for k in range(80)]
    made = one_cell_run(tmp_path / "run", late, load=OPEN)
    assert trial(made.path, [0], (TTFT,)).verdict == "broken", "1 s late and 0.1 s to the first token"
