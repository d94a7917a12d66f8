"""The one rule of verdicts, by hand: margin first, the level of the family, and what cannot be told."""

import math

import pytest

from serving_bench.harness.contracts import because
from serving_bench.reports.stats.intervals import (
    Estimate,
    Question,
    Verdict,
    decide,
    of_pairs,
    of_two_samples,
)

MARGIN = math.log1p(0.05)
# Student's quantile at 97.5 % and 4 degrees of freedom.
T = 2.7764


def asked(mean: float, error: float, *, margin: float = MARGIN, better: str = "higher") -> Question:
    """A comparison with a mean log-ratio and its error from five blocks."""
    way = "lower" if better == "lower" else "higher"
    return Question(Estimate(mean, error, 4.0, 5, is_log=True), way, margin)


def at_level(level: float, *, margin: float = 0.0) -> Question:
    """A comparison whose interval just leaves out no difference at this level."""
    found = Estimate(1.0, 1.0, 1.0, 2, is_log=True)
    # With one degree of freedom (Cauchy) P(T > t) = 1/2 - atan(t) / pi.
    t = math.tan(math.pi * (0.5 - level / 2))
    return Question(Estimate(1.0, 1.0 / t, found.df, found.k, is_log=True), "higher", margin)


def alone(question: Question) -> Verdict:
    return decide([question])[0]


@pytest.mark.parametrize(
    ("mean", "error", "kind"),
    [
        (0.10, 0.10 / (T + 0.01), "better"),
        (0.10, 0.10 / (T - 0.01), "unknown"),
        (-0.10, 0.10 / (T + 0.01), "worse"),
        (-0.10, 0.10 / (T - 0.01), "unknown"),
        (0.0, MARGIN / (T + 0.01), "same"),
        (0.0, MARGIN / (T - 0.01), "unknown"),
        (0.02, (MARGIN - 0.02) / (T + 0.01), "same"),
        (-0.02, (MARGIN - 0.02) / (T + 0.01), "same"),
        (-0.02, (MARGIN - 0.02) / (T - 0.01), "unknown"),
    ],
)
def test_one_comparison_is_decided_by_its_95_percent_interval(mean: float, error: float, kind: str) -> None:
    found = alone(asked(mean, error))
    assert (found.kind, found.confidence) == (kind, pytest.approx(0.95))
    assert found.ratio == pytest.approx(math.exp(mean))
    assert (found.low, found.high) == pytest.approx(
        (math.exp(mean - T * error), math.exp(mean + T * error)), rel=1e-4
    )


def test_within_the_margin_goes_before_a_difference() -> None:
    # From 1.01 to 1.03: not 1, and the same within 5 %; not within 2 %.
    middle, half = math.log(1.02), math.log(1.03) - math.log(1.02)
    assert alone(asked(middle, half / T)).kind == "same"
    assert alone(asked(middle, half / T, margin=math.log1p(0.02))).kind == "better"
    assert alone(asked(middle, half / T, margin=0.0)).kind == "better"


def test_a_margin_is_the_same_both_ways_round() -> None:
    high = alone(asked(math.log(1.049), 1e-6))
    low = alone(asked(-math.log(1.049), 1e-6))
    # 0.9515 is within 5 % as 1 / 1.051 is, and 0.95 = 1 / 1.0526 is not.
    assert (high.kind, low.kind) == ("same", "same")
    assert alone(asked(math.log(0.95), 1e-6)).kind == "worse"


def test_less_is_better_where_the_metric_says_so() -> None:
    assert alone(asked(0.3, 0.01, better="lower")).kind == "worse"
    assert alone(asked(-0.3, 0.01, better="lower")).kind == "better"


def test_each_of_a_family_is_decided_at_5_percent_over_their_number() -> None:
    """Four comparisons: 5 % / 4 = 1.25 %, which only the last one passes; alone each would."""
    questions = [at_level(level) for level in (0.018, 0.014, 0.03, 0.012)]
    found = decide(questions)
    assert [each.kind for each in found] == ["unknown", "unknown", "unknown", "better"]
    assert [each.confidence for each in found] == pytest.approx([0.9875] * 4)
    assert [alone(each).kind for each in questions] == ["better"] * 4


def test_what_is_found_the_same_loosens_no_level() -> None:
    """Its difference from nothing may be as false as before."""
    sure = [asked(0.0, 1e-4) for _ in range(9)]
    found = decide([*sure, at_level(0.0051)])
    assert [each.kind for each in found] == ["same"] * 9 + ["unknown"]
    assert found[-1].confidence == pytest.approx(0.995)


def test_no_interval_is_narrower_than_at_95_percent() -> None:
    assert alone(asked(1.0, 1e-3)).confidence == pytest.approx(0.95)


def test_what_gets_no_verdict_is_none_of_the_family() -> None:
    estimate = of_pairs([2.0, 2.1, 2.2], [1, 1, 1], is_log=True)
    refused = Question(estimate, "higher", MARGIN, why_none=because("not_restarted"))
    found = decide([refused, Question(None, "higher", MARGIN), asked(0.1, 0.1 / (T + 0.01))])
    assert [each.kind for each in found] == ["none", "none", "better"]
    assert [each.confidence for each in found] == pytest.approx([0.95] * 3)
    assert found[0].why == because("not_restarted")
    assert (found[0].low, found[0].high) == estimate.interval()
    assert (str(found[1].why), found[1].ratio) == ("no value of both", None)
    assert decide([refused])[0].kind == "none"
    assert decide([]) == []


def test_one_pair_is_never_decided() -> None:
    found = alone(Question(of_pairs([5.0], [1.0], is_log=True), "higher", MARGIN))
    assert (found.kind, found.low, found.high, found.k) == ("unknown", 0.0, math.inf, 1)


def test_two_pairs_need_nearly_equal_ratios() -> None:
    # ln 2 on average, and a factor of 1.1 between the two: 12.7 times the error of 0.048 is 0.61.
    near = of_pairs([2 * 1.1**0.5, 2 / 1.1**0.5], [1, 1], is_log=True)
    far = of_pairs([2 * 1.2**0.5, 2 / 1.2**0.5], [1, 1], is_log=True)
    assert alone(Question(near, "higher", MARGIN)).kind == "better"
    assert alone(Question(far, "higher", MARGIN)).kind == "unknown"


@pytest.mark.parametrize(
    ("a", "b", "kind"), [(1.0, 1.0, "same"), (1.04, 1.0, "same"), (1.06, 1.0, "better"), (1.0, 1.06, "worse")]
)
def test_pairs_that_do_not_vary_are_decided_by_their_ratio(a: float, b: float, kind: str) -> None:
    assert alone(Question(of_pairs([a] * 3, [b] * 3, is_log=True), "higher", MARGIN)).kind == kind


def test_equal_values_without_a_margin_cannot_be_told() -> None:
    for count in range(3, 12):
        shares = of_two_samples([0.1] * count, [0.1] * 3, is_log=False)
        assert alone(Question(shares, "higher", 0.0)).kind == "unknown"


def test_a_difference_is_decided_at_zero() -> None:
    found = alone(Question(of_pairs([0.0, -0.1, 0.1], [1.0, 1.1, 0.9], is_log=False), "lower", 0.0))
    assert (found.kind, found.is_log) == ("better", False)
    assert found.ratio == pytest.approx(-1.0)
