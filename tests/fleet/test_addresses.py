"""Where no cluster is, `bench run --on` says so at once, whether Ray is installed or not."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from bench_command import QUICK, Place, begun, told
from waiting import patient


@pytest.mark.parametrize(
    ("on", "said"),
    [
        ("slurm", "--on slurm: choose ray, for the cluster of RAY_ADDRESS, or ray:HOST:PORT"),
        ("ray:nonsense", "--on ray:nonsense: not an address; give that of the cluster's head, HOST:PORT"),
        ("ray:ray://127.0.0.1:10001", "--on ray:ray://127.0.0.1:10001: not an address"),
        ("ray:127.0.0.1:99999", "--on ray:127.0.0.1:99999: no Ray answers there ("),
    ],
)
def test_an_address_that_is_none_is_one_line(tmp_path, on, said):
    done = told(Place(tmp_path), "run", *QUICK, "--on", on)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("engine=openai", "model=m", "engine.base_url=http://127.0.0.1:1/v1"), "would load the one server"),
        (("until=ci:5%",), "until decides itself how many repeats there are"),
        (("--only-repeat", "1"), "leave --resume and --only-repeat out"),
    ],
)
def test_what_no_cluster_measures_is_said_before_one_is_asked(tmp_path, words, said):
    done = told(Place(tmp_path), "run", *words, "--on", "ray:127.0.0.1:99999")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_address_where_nobody_listens_is_told_also_from_the_environment(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = told(Place(tmp_path), "run", *QUICK, "--on", "ray", RAY_ADDRESS=address)
    assert done.returncode == 2
    assert f"--on ray:{address}: no Ray answers there (Connection refused); `ray start" in done.stderr
    assert not (tmp_path / "results").exists()


def test_without_ray_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    with socket.create_server(("127.0.0.1", 0)) as other:
        on = f"ray:127.0.0.1:{other.getsockname()[1]}"
        done = told(Place(tmp_path), "run", *QUICK, "--on", on)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "--on ray: Ray is not installed; `pip install '.[ray]'` here and on all nodes\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fleet
def test_an_address_where_something_else_listens_is_one_line(tmp_path):
    pytest.importorskip("ray", reason="make test-fleet installs it")
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor() as pool:
        pool.submit(_refuse_all, other)
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with begun(Place(tmp_path), "run", *QUICK, "--on", f"ray:{address}") as run:
            out, err = run.communicate(timeout=patient(240))  # Ray tries twice, each for half a minute
        other.shutdown(socket.SHUT_RDWR)
    assert (run.returncode, out) == (2, "")
    assert err.startswith(f"--on ray: cannot join the cluster at {address} (")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def _refuse_all(listener: socket.socket) -> None:
    """Answer whoever connects as a web server would, until the listener is shut down."""
    with suppress(OSError):
        while True:
            with listener.accept()[0] as caller:
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
