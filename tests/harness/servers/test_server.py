"""Starting real servers: readiness, crashes, time limits, the end of their logs."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from places import TESTS
from waiting import is_running

from serving_bench.harness.contracts import ContainerSpec, Hint, NativeSpec
from serving_bench.harness.errors import Interrupted, ServerError
from serving_bench.harness.servers.server import Server, check_alive, free_port, running_server, wait_ready

FAKE = TESTS / "support/servers/openai_fake.py"
OUT_OF_MEMORY = Hint(r"CUDA out of memory|OutOfMemoryError", "lower vllm.gpu_memory_utilization")


def spec_for(mode: str, *, argv: Sequence[str] | None = None, stop_grace_s: float = 5.0) -> NativeSpec:
    port = free_port()
    return NativeSpec(
        argv=tuple(argv or (sys.executable, str(FAKE), str(port), mode)),
        base_url=f"http://127.0.0.1:{port}/v1",
        served_model="tiny",
        ready_path="/health",
        environment={"FAKE": "1"},
        stop_grace_s=stop_grace_s,
    )


@contextmanager
def started(tmp_path: Path, spec: NativeSpec, hints: Sequence[Hint] = ()) -> Iterator[Server]:
    log = tmp_path / "server.log"
    with running_server(spec, engine="vllm", log_path=log, state_dir=tmp_path / "s", hints=hints) as server:
        yield server


def program(source: str) -> list[str]:
    return [sys.executable, "-c", source]


@pytest.mark.parametrize("mode", ["ok", "plain", "counting"])
def test_a_server_that_generates_is_ready(tmp_path: Path, mode: str) -> None:
    with started(tmp_path, spec_for(mode)) as server:
        instants = wait_ready(server, 20)
        assert list(instants) == ["listening", "first_token", "ready", "steady_token"]
        begun_ns = server.process.spawned_ns
        assert begun_ns < instants["listening"] < instants["first_token"] <= instants["ready"]
        assert instants["ready"] < instants["steady_token"] < begun_ns + 20e9
        check_alive(server)
    assert not is_running(server.process.pid)
    assert server.process.ended not in (None, -signal.SIGKILL)
    assert list((tmp_path / "s").iterdir()) == []


def test_a_crash_before_ready_reports_the_exit_code_the_log_tail_and_the_remedy(tmp_path: Path) -> None:
    with (
        started(tmp_path, spec_for("crash"), [OUT_OF_MEMORY]) as server,
        pytest.raises(ServerError) as caught,
    ):
        wait_ready(server, 20)
    before, _, after = str(caught.value).partition(" after ")
    assert before == "vllm exited with code 1"
    assert after.partition(" s, ")[2] == (
        f"before it was ready; the end of {tmp_path / 'server.log'}: RuntimeError: CUDA out of memory; "
        "lower vllm.gpu_memory_utilization"
    )
    assert caught.value.log_tail.splitlines()[-2:] == ["loading", "RuntimeError: CUDA out of memory"]


@pytest.mark.parametrize(
    "line",
    [
        "ERROR:    [Errno 98] error while attempting to bind on address: address already in use",
        "OSError: [Errno 98] Address already in use",
        'Error: Os { code: 98, kind: AddrInUse, message: "Address in use" }',
        "E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18555",
    ],
)
def test_a_port_that_was_taken_meanwhile_is_said(tmp_path: Path, line: str) -> None:
    spec = spec_for("", argv=program(f"raise SystemExit({line!r})"))
    with started(tmp_path, spec) as server, pytest.raises(ServerError, match="took the port"):
        wait_ready(server, 20)


def test_a_stranger_that_answers_on_the_port_is_not_measured(tmp_path: Path) -> None:
    spec = spec_for("", argv=program("import signal; signal.pause()"))
    port = spec.base_url.removesuffix("/v1").rpartition(":")[2]
    with subprocess.Popen([sys.executable, str(FAKE), port, "ok"]) as stranger:
        try:
            with started(tmp_path, spec) as server, pytest.raises(ServerError) as caught:
                wait_ready(server, 60)
        finally:
            stranger.kill()
    who = rf"process {stranger.pid} \(\S+\) listens on {port}"
    assert re.match(rf"vllm is not what answers on its port: {who}; .*: run it again\.$", str(caught.value))


CONTAINER = ContainerSpec("image", (), "", "tiny")


def test_of_a_container_its_own_processes_may_listen_and_no_stranger(tmp_path: Path) -> None:
    """Docker's client, which bench starts, is the parent of none of them."""
    spec = spec_for("", argv=program("import signal; signal.pause()"))
    port = spec.base_url.removesuffix("/v1").rpartition(":")[2]
    contained = replace(CONTAINER, base_url=spec.base_url)
    with started(tmp_path, spec) as client, subprocess.Popen([sys.executable, str(FAKE), port, "ok"]) as root:
        try:
            assert "ready" in wait_ready(replace(client, spec=contained, pid=root.pid), 60)
            with pytest.raises(ServerError, match=rf"^vllm is not what answers .* process {root.pid} \("):
                wait_ready(replace(client, spec=contained), 60)
            assert "ready" in wait_ready(replace(client, spec=contained, pid=None), 60), "it is not known"
        finally:
            root.kill()


def test_what_a_server_has_started_may_listen_in_its_place(tmp_path: Path) -> None:
    spec = spec_for("ok")
    apart = f"import subprocess; subprocess.Popen({list(spec.argv)!r}, start_new_session=True).wait()"
    with started(tmp_path, replace(spec, argv=tuple(program(apart)))) as server:
        assert "ready" in wait_ready(server, 60)


def test_a_crash_is_noticed_at_once_and_not_at_the_time_limit(tmp_path: Path) -> None:
    begun_s = time.monotonic()
    with (
        started(tmp_path, spec_for("", argv=program("raise SystemExit(9)"))) as server,
        pytest.raises(ServerError, match=r"vllm exited with code 9 after .* before it was ready.*\(empty\)"),
    ):
        wait_ready(server, 60)
    assert time.monotonic() - begun_s < 10


def test_a_program_that_does_not_exist_is_a_server_error(tmp_path: Path) -> None:
    spec = spec_for("", argv=[str(tmp_path / "absent")])
    with pytest.raises(ServerError, match=r"vllm cannot be started: .*No such file"), started(tmp_path, spec):
        pass


def test_a_server_that_never_listens_names_the_time_limit_and_what_was_seen(tmp_path: Path) -> None:
    spec = spec_for("", argv=program("import signal; print('thinking', flush=True); signal.pause()"))
    with started(tmp_path, spec) as server, pytest.raises(ServerError) as caught:
        wait_ready(server, 0.6)
    expected = (
        "vllm was not ready within engine.start_timeout=0.6s (/health got connection refused); the end of"
    )
    assert str(caught.value).startswith(expected)
    assert str(caught.value).endswith(": thinking")
    assert not is_running(server.process.pid)


@pytest.mark.parametrize(
    ("mode", "seen"),
    [
        ("loading", '/health answered 503: {"ok": true}'),
        ("healthy", '/health answered 200, a generation answered 500: {"error": "boom None"}'),
    ],
)
def test_a_server_that_does_not_generate_is_not_ready(tmp_path: Path, mode: str, seen: str) -> None:
    with started(tmp_path, spec_for(mode)) as server, pytest.raises(ServerError) as caught:
        wait_ready(server, 2.0)
    assert str(caught.value).startswith(f"vllm was not ready within engine.start_timeout=2s ({seen}")


def test_a_server_that_only_refuses_is_not_awaited_to_the_time_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("serving_bench.harness.servers.server._REFUSING_S", 0.5)
    with started(tmp_path, spec_for("healthy")) as server, pytest.raises(ServerError) as caught:
        wait_ready(server, 60)
    assert str(caught.value).startswith(
        "vllm listens but has not generated for 0.5 s (/health answered 200, a generation answered 500: "
    )


def test_a_server_that_is_still_loading_is_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving_bench.harness.servers.server._REFUSING_S", 0.1)
    with (
        started(tmp_path, spec_for("loading")) as server,
        pytest.raises(ServerError, match=r"not ready within engine\.start_timeout=1s"),
    ):
        wait_ready(server, 1.0)


def test_of_a_logs_end_the_line_that_names_an_error_is_told(tmp_path: Path) -> None:
    source = "print('loading'); print('EngineDeadError: the core is gone'); print('a warning of the tracker')"
    with (
        started(tmp_path, spec_for("", argv=program(source))) as server,
        pytest.raises(ServerError, match=r"server\.log: EngineDeadError: the core is gone$"),
    ):
        wait_ready(server, 20)


def test_a_server_that_ignores_term_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, spec_for("stubborn", stop_grace_s=0.3)) as server:
        wait_ready(server, 20)
    assert server.process.ended == -signal.SIGKILL
    assert not is_running(server.process.pid)


def test_a_server_that_dies_later_is_named_with_its_signal(tmp_path: Path) -> None:
    with started(tmp_path, spec_for("ok")) as server:
        wait_ready(server, 20)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(10)
        with pytest.raises(
            ServerError, match=r"^vllm was killed by signal 9 \(SIGKILL\) after .* s; the end"
        ):
            check_alive(server)


def wait_and_be_interrupted(server: Server, number: int) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
    wait_ready(server, 20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_waiting_ends_the_server(tmp_path: Path, number: signal.Signals) -> None:
    def interrupt(received: int, _: object) -> None:
        raise Interrupted(received)

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(Interrupted), started(tmp_path, spec_for("loading")) as server:
            wait_and_be_interrupted(server, number)
    finally:
        signal.signal(number, before)
    assert not is_running(server.process.pid)
    assert list((tmp_path / "s").iterdir()) == []


def test_a_free_port_can_be_bound() -> None:
    port = free_port()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        assert probe.getsockname() == ("127.0.0.1", port)
