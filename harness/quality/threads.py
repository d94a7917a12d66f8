"""Call a function in threads. The caller waits until a given instant at most, and not after an interrupt."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_threads(
    ask: Callable[[int], T], items: Sequence[int], at_once: int, end_s: float
) -> tuple[list[T], list[int]]:
    """Call `ask` with each item in turn, `at_once` at a time, until `end_s` (time.monotonic).

    Return the results, and the items whose calls had not returned by then. Those go on in daemon threads: the
    threads of a ThreadPoolExecutor would keep the interpreter from exiting. Raises what `ask` raises.
    """
    asked = [(item, Future[T]()) for item in items]
    left = iter(asked)

    def work() -> None:
        for item, future in left:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(ask(item))
            except BaseException as error:  # raised by result()
                future.set_exception(error)

    futures = [future for _, future in asked]
    try:
        for _ in range(min(at_once, len(items))):
            Thread(target=work, daemon=True).start()
        wait(futures, end_s - time.monotonic(), FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
    # One may have ended after the wait.
    done = {future for future in futures if future.done()}
    returned = [future.result() for future in futures if future in done and not future.cancelled()]
    return returned, [item for item, future in asked if future not in done]
