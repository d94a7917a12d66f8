"""The nearest load that the self-test knows, and what lies beyond it."""

from dataclasses import replace

import pytest
from make_run import selftest

from serving_bench.reports.checks.late_client import ms, nearest


@pytest.mark.parametrize(
    ("streams", "rate", "step"),
    [
        (0.2, 20, 1),
        (7, 100, 1),
        (9, 100, 64),
        (64, 110, 64),
        (130, 100, 64),
        (130, 300, 256),
        (9000, 90, 256),
    ],
)
def test_the_nearest_load_is_by_ratio_in_both(streams, rate, step):
    assert nearest(selftest(), streams, rate).step.streams == step


def test_a_load_of_which_no_request_was_paired_is_not_known():
    whole = selftest()
    broken = replace(whole, steps=(*whole.steps[:2], replace(whole.steps[2], ttft_error_s=None)))
    assert nearest(broken, 256, 400).step.streams == 64
    assert nearest(broken, 65, 10).is_beyond
    assert nearest(replace(whole, steps=()), 1, 1) is None


@pytest.mark.parametrize(
    ("largest", "streams", "rate", "beyond"),
    [
        ((64, 100.0), 100, 64, False),
        ((64, 100.0), 100, 65, True),  # more chunks than were good
        ((64, 100.0), 257, 1, True),  # more streams than were tested
        ((256, 1000.0), 256, 400, False),
        ((256, 1000.0), 200, 513, True),  # more chunks than were tested
        (None, 1, 1, True),
    ],
)
def test_beyond_is_more_streams_or_more_chunks_in_all(largest, streams, rate, beyond):
    assert nearest(selftest(largest), streams, rate).is_beyond is beyond


def test_the_error_is_that_of_the_step_and_in_milliseconds():
    found = nearest(selftest(), 64, 100)
    assert (found.at, found.error_s) == ("64 streams x 100 chunks/s", (3e-5, 2e-4))
    said = [ms(seconds) for seconds in (0.0, 1.234e-6, 3e-5, 0.0123, 0.25)]
    assert said == ["0", "0.0012", "0.03", "12", "250"]
