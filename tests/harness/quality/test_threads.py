"""What is asked in threads is waited for up to an instant."""

import threading
import time
from concurrent.futures import Future, wait
from typing import Any

import pytest
from waiting import patient

from serving_bench.harness.quality import measure
from serving_bench.harness.quality.measure import in_threads


def test_what_is_under_way_at_the_end_is_named_and_what_follows_not_asked() -> None:
    asked, over = list[int](), threading.Event()

    def ask(item: int) -> str:
        asked.append(item)
        if item == 7:
            over.wait(60)
        return f"said {item}"

    assert in_threads(ask, [5, 6, 7, 8], 1, time.monotonic() + patient(1)) == (["said 5", "said 6"], [7])
    over.set()
    assert asked == [5, 6, 7]


def test_all_are_asked_side_by_side() -> None:
    meeting = threading.Barrier(3)

    def ask(item: int) -> int:
        meeting.wait(60)  # broken unless three are there at once
        return item

    assert in_threads(ask, [1, 2, 3], 3, time.monotonic() + 60) == ([1, 2, 3], [])


def test_what_is_raised_is_raised_here() -> None:
    def ask(item: int) -> int:
        raise ValueError(item)

    with pytest.raises(ValueError, match="1"):
        in_threads(ask, [1, 2], 1, time.monotonic() + 60)


def test_what_ends_just_after_the_wait_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()

    def ask(item: int) -> int:
        is_over.wait(60)
        return item

    def wait_and_go_on(futures: list[Future[int]], *limits: Any) -> Any:
        found = wait(futures, *limits)
        is_over.set()
        wait(futures, 60)
        return found

    monkeypatch.setattr(measure, "wait", wait_and_go_on)
    assert in_threads(ask, [1, 2], 2, time.monotonic()) == ([1, 2], [])
