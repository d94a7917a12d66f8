import socket
import time
from array import array
from collections.abc import Callable, Iterator

import gevent
import gevent.socket
import pytest
from gevent import get_hub
from gevent.event import Event

from serving_bench.harness.load.client.receive import Receiver, has_kernel_stamps

MS = 1_000_000
LIMIT_S = 10.0


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected pair of TCP sockets; the second does not block."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        near.setblocking(False)
        yield far, near


Seen = list[tuple[bytes, int, bytes]]


def reading(receiver: Receiver, near: socket.socket, seen: Seen) -> Callable[[], None]:
    def take(stamp: bytes, read_ns: int, data: bytes | memoryview) -> bool:
        seen.append((stamp, read_ns, bytes(data)))
        return False

    def end(*failure: object) -> None:
        raise AssertionError(failure)

    return receiver.reader(near, take, end)


def wait_for_stamps(read: Callable[[], None], seen: Seen, pair: tuple[socket.socket, socket.socket]) -> int:
    """Send single bytes until one is stamped: where no program had asked for stamps, the kernel begins a
    little later. Returns how many reads that took."""
    far, near = pair
    deadline = time.monotonic() + LIMIT_S
    while has_kernel_stamps() and time.monotonic() < deadline and not (seen and seen[-1][0]):
        far.sendall(b".")
        gevent.socket.wait_read(near.fileno(), LIMIT_S)
        read()
    return len(seen)


def test_reads_bring_the_kernels_stamp_and_the_bytes_and_nothing_at_the_end(
    receiver: Receiver, pair: tuple[socket.socket, socket.socket]
) -> None:
    far, near = pair
    receiver.ask_for_stamps(near)
    seen: Seen = []
    read = reading(receiver, near, seen)
    read()
    assert seen == []  # nothing there is no read
    already = wait_for_stamps(read, seen, pair)
    before_ns = time.monotonic_ns()
    far.sendall(b"hello")
    gevent.socket.wait_read(near.fileno(), LIMIT_S)
    read()
    far.close()
    gevent.socket.wait_read(near.fileno(), LIMIT_S)
    read()
    (stamp, read_ns, data), (_, _, rest) = seen[already:]
    assert (data, rest, receiver.reads) == (b"hello", b"", already + 2)
    if has_kernel_stamps():
        seconds, rest_ns = array("q", stamp)
        (arrival_ns,) = receiver.arrivals_ns([seconds * 1_000_000_000 + rest_ns], [read_ns])
        assert before_ns - receiver.clock.uncertainty_ns <= arrival_ns <= read_ns
        assert receiver.lag.summary_s() is not None


@pytest.mark.skipif(not has_kernel_stamps(), reason="this system's kernel does not stamp")
def test_a_read_without_a_stamp_makes_a_response_count_as_read() -> None:
    now_ns, read_ns = time.time_ns(), [time.monotonic_ns(), time.monotonic_ns()]
    with Receiver() as receiver:
        assert receiver.arrivals_ns([now_ns, now_ns], read_ns) != read_ns
        assert receiver.stamp_source == "kernel"
        assert receiver.arrivals_ns([now_ns, 0], read_ns) == read_ns
        assert (receiver.stamp_source, receiver.unstamped_reads) == ("read", 1)


def test_ended_responses_have_their_turns_one_in_each_round_of_the_loop(receiver: Receiver) -> None:
    loop, rounds, last = get_hub().loop, list[int](), Event()
    for _ in range(5):
        receiver.end(lambda: rounds.append(loop.iteration))
    receiver.end(last.set)
    assert last.wait(LIMIT_S)
    assert len(set(rounds)) == 5
    assert rounds == sorted(rounds)


def test_a_waiting_turn_does_not_wait_for_the_next_event(receiver: Receiver) -> None:
    done = Event()
    began_s = time.monotonic()
    for wake in (int, int, done.set):
        receiver.end(wake)
    assert done.wait(LIMIT_S)  # without it the loop would sleep until this limit
    assert time.monotonic() - began_s < LIMIT_S / 2
