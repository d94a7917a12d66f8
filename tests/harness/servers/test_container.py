"""The command line of `docker run`, which containers may be removed, and what is said without Docker."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from shell_script import shell_script

from serving_bench.harness.contracts import ContainerSpec
from serving_bench.harness.errors import MissingError, ServerError, UserError
from serving_bench.harness.processes import watchdog
from serving_bench.harness.servers import container
from serving_bench.harness.servers.container import (
    OWNER_LABEL,
    ask,
    check,
    how_to_get,
    image_facts,
    reap,
    run_argv,
    running_container,
)

SPEC = ContainerSpec(
    image="vllm/vllm-openai:v0.32.0",
    arguments=("--model", "/weights/m", "--port", "8001"),
    base_url="http://127.0.0.1:8001/v1",
    served_model="m",
    ready_path="/health",
    environment={"HF_HUB_OFFLINE": "1"},
    mounts=((Path("/cache/m"), "/weights/m"),),
    cache="/var/tmp",
    devices=(0, 2),
    shm_bytes=1 << 30,
    memory_limit_bytes=8 << 30,
    entrypoint="vllm",
)


def test_every_part_of_a_spec_is_a_flag_of_docker_run() -> None:
    assert run_argv(SPEC, "serving-bench-x", {"serving-bench": "vllm"}) == [
        "docker", "run", "--rm", "--name=serving-bench-x", "--pull=never", "--network=host",
        "--log-driver=none", "--init", "--label=serving-bench=vllm", "--memory=8589934592",
        "--memory-swap=8589934592",
        "--shm-size=1073741824", '--gpus="device=0,2"', "--entrypoint=vllm",
        "--mount=type=bind,source=/cache/m,target=/weights/m,readonly",
        "--mount=type=volume,source=serving-bench-cache-vllm-vllm-openai-v0.32.0,target=/var/tmp,"
        "volume-label=serving-bench",
        "--env=HF_HUB_OFFLINE=1",
        "vllm/vllm-openai:v0.32.0",
        "--model", "/weights/m", "--port", "8001",
    ]  # fmt: skip


def test_what_a_spec_leaves_out_is_left_to_docker() -> None:
    spec = ContainerSpec("image", ("serve",), SPEC.base_url, "m", "/health")
    assert run_argv(spec, "n", {}) == [
        "docker", "run", "--rm", "--name=n", "--pull=never", "--network=host", "--log-driver=none",
        "--init", "image", "serve",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/with space/m", "source=/with space/m"),
        ("/a,b/m", '"source=/a,b/m"'),
        ('/a"b/m', '"source=/a""b/m"'),
        ("/a:b/m", "source=/a:b/m"),
    ],
)
def test_a_mount_takes_any_path(path: str, field: str) -> None:
    argv = run_argv(replace(SPEC, mounts=((Path(path), "/weights/m"),)), "n", {})
    assert f"--mount=type=bind,{field},target=/weights/m,readonly" in argv


def owner_label() -> str:
    return container._labels("vllm")[OWNER_LABEL]


def test_a_label_names_its_owner_by_boot_namespace_pid_and_start_time() -> None:
    expected = f"{watchdog.boot_id()}/{os.readlink('/proc/self/ns/pid')}/{os.getpid()}/"
    assert owner_label() == f"{expected}{watchdog.start_time_s(os.getpid())}"


def test_only_an_owner_that_is_known_to_have_ended_is_dead() -> None:
    label = owner_label()
    boot, space, pid, started_s = label.split("/")
    assert not container._is_dead(label)
    assert container._is_dead(f"{boot}/{space}/{pid}/{float(started_s) - 5}"), "another had that pid"
    assert not container._is_dead(f"another/{space}/{pid}/1.0"), "of another machine"
    assert not container._is_dead(f"{boot}/pid:[1]/{pid}/1.0"), "of another container"


@pytest.mark.parametrize("label", ["", "/", "a/b", "nonsense", "a/b/c/d/e/f"])
def test_a_label_that_cannot_be_read_is_nobody_s_to_remove(label: str) -> None:
    assert not container._is_dead(label)


# What `docker image inspect` of Docker 26.1 says of an image that was pulled by its digest, shortened.
INSPECTED = """{"Id":"sha256:9d1f2b7a","RepoTags":["vllm/vllm-openai:v0.32.0"],"RepoDigests":[
"no-digest","mirror.example/vllm@sha256:0fa1","vllm/vllm-openai@sha256:7ce4",
"vllm/vllm-openai@sha256:5bd3"],"Created":"2026-09-02T11:20:31.51Z",
"Config":{"Labels":{"org.opencontainers.image.version":"22.04"}}}"""


@pytest.mark.parametrize(
    ("image", "digest"),
    [
        ("vllm/vllm-openai@sha256:7ce4", "sha256:7ce4"),
        ("vllm/vllm-openai@sha256:5bd3", "sha256:5bd3"),
        ("vllm/vllm-openai:v0.32.0", "sha256:7ce4"),
        ("vllm/vllm-openai:v0.32.0@sha256:7ce4", "sha256:7ce4"),
        ("mirror.example/vllm:latest", "sha256:0fa1"),
        ("9d1f2b7a", "sha256:0fa1"),
    ],
)
def test_an_image_has_the_digest_by_which_it_was_asked_for(image: str, digest: str, tmp_path, monkeypatch):
    shell_script(tmp_path / "docker", f"cat <<'END'\n{' '.join(INSPECTED.splitlines())}\nEND")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = image_facts(image)
    assert (facts["image"], facts["image_id"], facts["image_digest"]) == (image, "sha256:9d1f2b7a", digest)
    assert run_argv(replace(SPEC, image=image), "n", {})[-5] == image


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_docker")
def test_without_docker_a_plan_is_told_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="there is no docker program here; install Docker Engine"):
        check(["image"])


@pytest.mark.usefixtures("no_docker")
def test_without_docker_a_server_cannot_be_started_and_nothing_is_left(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"vllm cannot be started: docker: .*No such file"),
        running_container(SPEC, engine="vllm", log_path=tmp_path / "log", state_dir=tmp_path / "s"),
    ):
        pass
    assert list((tmp_path / "s").glob("*")) == []


@pytest.mark.usefixtures("no_docker")
def test_without_docker_nothing_was_left_and_nothing_is_known() -> None:
    assert reap() == []
    assert ask("ps").code is None
    assert set(image_facts("image").values()) == {"image", None}


@pytest.mark.usefixtures("no_docker")
def test_a_docker_that_does_not_answer_in_time_is_not_waited_for(tmp_path: Path) -> None:
    shell_script(tmp_path / "docker", "exec /bin/sleep 60")
    answer = ask("version", timeout_s=0.2)
    assert (answer.code, answer.error) == (None, "docker version did not answer within 0.2 s")


@pytest.mark.usefixtures("no_docker")
def test_a_daemon_that_refuses_is_named_with_what_to_do(tmp_path: Path) -> None:
    shell_script(tmp_path / "docker", 'test "$1" = context || { echo permission denied >&2; exit 1; }')
    with pytest.raises(MissingError, match=r"does not answer \(permission denied\); start its daemon"):
        check(["image"])


@pytest.mark.usefixtures("no_docker")
@pytest.mark.parametrize("host", ["tcp://10.0.0.7:2376", "ssh://me@there"])
def test_a_docker_on_another_machine_is_refused(tmp_path: Path, host: str) -> None:
    shell_script(tmp_path / "docker", f"echo {host}")
    with pytest.raises(UserError, match=rf"another machine \({host}\)"):
        check(["image"])


@pytest.mark.usefixtures("no_docker")
def test_a_pid_that_is_another_s_here_is_neither_measured_nor_killed(tmp_path: Path) -> None:
    # As Docker in a virtual machine answers, whose pids are not this machine's, and then no more.
    with subprocess.Popen(["/bin/sleep", "60"]) as stranger:
        answer = f"{stranger.pid} {'a' * 64}"
        shell_script(
            tmp_path / "docker",
            f'case "$1" in run) exec /bin/sleep 60;; inspect) echo {answer};; *) exit 1;; esac',
        )
        log = tmp_path / "log"
        try:
            with running_container(SPEC, engine="vllm", log_path=log, state_dir=tmp_path / "s") as server:
                assert server.pid is None
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_images_of_this_project_are_built_and_others_pulled() -> None:
    assert how_to_get("serving-bench/vllm-cpu:0.32.0") == "make images"
    assert how_to_get("vllm/vllm-openai:v0.32.0") == "docker pull vllm/vllm-openai:v0.32.0"
