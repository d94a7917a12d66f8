"""The line of what reading takes: from few prompts, and from many of several starts."""

import numpy as np
import pytest

from serving_bench.reports.stats.prefill import Line, inferred, line_of

BASE_S, PER_TOKEN_S = 0.03, 0.0005


def times(tokens: np.ndarray) -> np.ndarray:
    return BASE_S + PER_TOKEN_S * tokens


@pytest.mark.parametrize("n", range(5, 14))
def test_five_lengths_are_enough_whatever_is_redrawn(n):
    tokens = 100.0 + 50 * (np.arange(n) % 5)
    line = line_of(tokens, times(tokens))
    assert isinstance(line, Line), line
    assert line.per_token_s == pytest.approx(PER_TOKEN_S)
    assert line.base_s == pytest.approx(BASE_S)


def test_four_lengths_are_too_few():
    tokens = 100.0 + 50 * (np.arange(200) % 4)
    assert str(line_of(tokens, times(tokens))) == "new prompts of 5 lengths are needed, and there are 4"


def test_of_many_prompts_those_of_all_starts_are_drawn():
    # A first start of 150 prompts that takes as long again, and a second one.
    tokens = np.tile(100.0 + 50 * (np.arange(150) % 5), 2)
    of_first = np.arange(300) < 150
    line = line_of(tokens, times(tokens) * (1 + of_first))
    assert isinstance(line, Line), line
    assert PER_TOKEN_S < line.per_token_s[0] < 2 * PER_TOKEN_S


def test_a_first_start_of_one_length_hides_no_other():
    tokens = np.concatenate([np.full(100, 200.0), 100 + 30.0 * np.arange(60)])
    line = line_of(tokens, times(tokens))
    assert isinstance(line, Line), line
    assert line.per_token_s == pytest.approx(PER_TOKEN_S)


def test_what_was_cached_is_what_was_not_read():
    tokens = 100.0 + 30 * np.arange(20)
    line = line_of(tokens, times(tokens))
    assert isinstance(line, Line), line
    found = inferred(line, tokens, times(tokens - 64), np.full(20, 64.0), never_known=2.0)
    assert (found.tokens, found.low, found.high) == pytest.approx((64.0, 64.0, 66.0))
