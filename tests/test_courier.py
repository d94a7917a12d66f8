"""A worker's lines on their way to its master."""

from __future__ import annotations

from typing import Any

import gevent

from harness.load.courier import ROWS_BYTES, Courier
from harness.load.messages import Begun, Rows


def test_what_begins_is_sent_before_anything_else_can_happen() -> None:
    sent: list[Any] = []
    courier = Courier(sent.append)
    courier.begun(b"a\n")
    assert sent == [Begun(b"a\n")]
    courier.begun(b"b\n")
    assert sent[1:] == [Begun(b"b\n")]
    assert courier.begun_lines == 2


def test_rows_go_together_and_never_before_what_began() -> None:
    sent: list[Any] = []
    courier = Courier(sent.append)
    courier.row(b"1\n")
    courier.begun(b"a\n")
    courier.row(b"2\n")
    assert sent == [Begun(b"a\n")]
    courier.flush()
    assert sent[1:] == [Rows(b"1\n2\n")]
    courier.flush()
    assert (len(sent), courier.row_lines) == (2, 2)


def test_many_bytes_of_rows_do_not_wait_and_few_do_not_wait_for_long() -> None:
    sent: list[Any] = []
    courier = Courier(sent.append)
    courier.row(b"x" * ROWS_BYTES)
    assert sent == [Rows(b"x" * ROWS_BYTES)]
    courier.row(b"1\n")
    with gevent.Timeout(10):
        while len(sent) < 2:
            gevent.sleep(0.01)
    assert sent[1] == Rows(b"1\n")
