"""Who listens on a port beside a process and what it started, as far as the system says it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from serving_bench.harness.processes.listening import beyond_loopback, stranger_on

NOBODY = 65534
HOST = "127.0.0.1"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket. Each test says which processes have it."""
    with socket.create_server((HOST, 0)) as listener:
        yield listener


@contextmanager
def holding(*sockets: socket.socket, user: int | None = None) -> Iterator[int]:
    """The pid of a process that has these sockets and, with `user`, is another user's."""
    identity = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    held = [each.fileno() for each in sockets]
    with subprocess.Popen(["/bin/sleep", "60"], pass_fds=held, **identity) as process:
        try:
            for each in sockets:
                each.close()
            yield process.pid
        finally:
            process.kill()


@contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("only root may become another user")
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_a_process_and_what_it_started_are_no_strangers(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    source = f"import subprocess; subprocess.Popen(['/bin/sleep', '60'], pass_fds=[{listener.fileno()}])"
    argv = [sys.executable, "-c", f"{source}; print(1, flush=True); input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, pass_fds=[listener.fileno()], **pipes) as root:
        assert root.stdout
        assert root.stdout.readline() == b"1\n"
        listener.close()
        children = psutil.Process(root.pid).children()
        assert stranger_on(HOST, port, root.pid) is None
        root.kill()
        for child in children:
            child.kill()


def test_a_stranger_is_named(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with holding(listener) as stranger, holding() as root:
        assert stranger_on(HOST, port, root) == f"process {stranger} (sleep)"


def test_nobody_is_no_stranger() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    with holding() as root:
        assert stranger_on(HOST, port, root) is None


def test_another_users_process_is_a_stranger_where_all_of_ones_own_are_seen(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with holding(listener), holding(user=NOBODY) as root, as_nobody():
        assert stranger_on(HOST, port, root) == "a process of another user"


def test_a_server_that_is_another_users_is_taken_for_the_one_that_hides(listener: socket.socket) -> None:
    """A user who is not root meets this with a container, whose processes are root's."""
    port = listener.getsockname()[1]
    with holding(listener) as root, as_nobody():
        assert stranger_on(HOST, port, root) is None


def test_ones_own_process_is_a_stranger_beside_a_server_that_is_another_users(listener: socket.socket):
    port = listener.getsockname()[1]
    with holding(listener, user=NOBODY) as stranger, holding() as root, as_nobody():
        assert stranger_on(HOST, port, root) == f"process {stranger} (sleep)"


def test_where_the_system_lists_nothing_the_servers_own_sockets_tell(listener: socket.socket, monkeypatch):
    def refuses(kind: str) -> None:
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil, "net_connections", refuses)
    port = listener.getsockname()[1]
    with holding(listener) as server, holding() as other:
        assert stranger_on(HOST, port, server) is None
        assert stranger_on(HOST, port, other) == "another process"
        with as_nobody():
            assert stranger_on(HOST, port, other) is None, "its sockets are hidden"


@pytest.mark.parametrize("address", [HOST, f"::ffff:{HOST}", "::1"])
def test_a_listener_on_loopback_is_none_for_other_machines(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as listener:
        if ":" in address:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((address, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert any(each.laddr.port == port for each in psutil.Process().net_connections("tcp"))
        assert not [address for address, _ in beyond_loopback() if address.endswith(f":{port}")]
