"""The nearest load that the self-test knows, and what lies beyond it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from make_run import selftest

from reports.measures.selftest import (
    Reached,
    is_beyond,
    known_steps,
    ms,
    nearest_step,
    quoted,
)


@pytest.mark.parametrize(
    ("streams", "rate", "nearest"),
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
def test_the_nearest_load_is_by_ratio_in_both(streams, rate, nearest):
    assert nearest_step(selftest(), Reached(streams, rate)).streams == nearest


def test_a_load_of_which_no_request_was_paired_is_not_known():
    whole = selftest()
    broken = replace(whole, steps=(*whole.steps[:2], replace(whole.steps[2], ttft_error_s=None)))
    assert [step.streams for step in known_steps(broken)] == [1, 64]
    assert nearest_step(broken, Reached(256, 400)).streams == 64
    assert is_beyond(broken, Reached(65, 10))


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
    assert is_beyond(selftest(largest), Reached(streams, rate)) is beyond


def test_the_error_is_quoted_in_milliseconds():
    said = "at the nearest load tested (64 streams x 100 chunks/s) bench's own TTFT error was p50 0.03 ms"
    assert quoted(selftest().steps[1]) == f"{said}, p99 0.2 ms"
    assert [ms(seconds) for seconds in (0.0, 1.234e-6, 3e-5, 0.0123, 0.25)] == [
        "0",
        "0.0012",
        "0.03",
        "12",
        "250",
    ]
