"""Run one server in a container: check Docker, start it, remove it, and remove what a killed run left.

Docker's client runs in the foreground as a supervised child, so its end is the end of the container. It uses
no Docker library, since users have set up permissions and contexts for the client. Knows no engine.
"""

import csv
import io
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from serving_bench.harness.contracts import ContainerSpec, Hint
from serving_bench.harness.errors import MissingError, ServerError, UserError
from serving_bench.harness.processes import watchdog
from serving_bench.harness.processes.supervise import Supervised, supervised
from serving_bench.harness.servers.server import Server, entered, log_tail, remedies

NAME_LABEL = "serving-bench"
OWNER_LABEL = "serving-bench.owner"
_START_LIMIT_S = 300.0  # storage drivers without copy-on-write copy the whole image first
_GONE_LIMIT_S = 30.0
_POLL_S = 0.2
HINTS = (
    Hint(
        r"could not select device driver",
        "Docker knows no GPU: install the NVIDIA Container Toolkit and restart Docker.",
    ),
    Hint(
        r"exec: .*(executable file not found|no such file or directory|permission denied)|"
        r"\[FATAL tini .*\] exec .* failed",
        "The image has no such program: it is not an image of this engine.",
    ),
    Hint(r"bind source path does not exist", "A file that the server needs is no longer there."),
    Hint(r"Cannot connect to the Docker daemon", "Start Docker's daemon."),
)


@dataclass(frozen=True)
class Answer:
    """What a docker command printed. `code` is None if it did not run or did not answer in time."""

    code: int | None
    text: str
    error: str


def ask(*arguments: str, timeout_s: float = 30.0) -> Answer:
    """Return what `docker ARGUMENTS` prints, or why it cannot be run. Blocks for up to timeout_s."""
    try:
        # In a session of its own, so that Ctrl-C in a terminal reaches only bench.
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return Answer(None, "", f"docker {arguments[0]} did not answer within {timeout_s:g} s")
    except OSError as error:
        return Answer(None, "", f"docker cannot be run: {error.strerror}")
    return Answer(done.returncode, done.stdout.strip("\n"), " ".join(done.stderr.split())[:500])


def check(images: Iterable[str]) -> None:
    """Raise MissingError or UserError if this machine cannot start containers of these images. Blocks."""
    if shutil.which("docker") is None:
        raise MissingError(
            "engine.launcher=docker: there is no docker program here; install Docker Engine "
            "(on Debian: apt-get install docker.io docker-cli)"
        )
    # The servers listen on 127.0.0.1 of the machine that Docker is on, and use its memory and devices.
    host = ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").text
    if host.startswith(("tcp://", "ssh://", "http")):
        raise UserError(
            f"engine.launcher=docker: Docker is on another machine ({host}); run bench there, or measure a "
            "running server with engine.base_url"
        )
    version = ask("version", "--format", "{{.Server.Version}}")
    if version.code != 0:
        raise MissingError(
            f"engine.launcher=docker: Docker does not answer ({version.error}); start its daemon or, if it "
            "refuses this user, add them to the group docker"
        )
    for image in dict.fromkeys(images):
        image_id = ask("image", "inspect", "--format", "{{.Id}}", image)
        if image_id.code != 0:
            why = "" if "no such image" in image_id.error.lower() else f" ({image_id.error})"
            raise MissingError(f"image {image} is not here{why}; run `{how_to_get(image)}`")


def how_to_get(image: str) -> str:
    # This project's Dockerfiles make these; all others are pulled.
    return "make images" if image.startswith("serving-bench/") else f"docker pull {image}"


def image_facts(image: str) -> Mapping[str, str | None]:
    """Return what identifies an image, and Docker's version; None for what Docker does not say."""
    answer = ask("image", "inspect", "--format", "{{json .}}", image)
    about: Mapping[str, Any] = msgspec.json.decode(answer.text) if answer.code == 0 else {}
    labels = (about.get("Config") or {}).get("Labels") or {}
    digests = [entry.partition("@") for entry in about.get("RepoDigests") or ()]
    name, wanted = re.sub(r"(:[^/:@]+)?(@.*)?$", "", image), image.partition("@")[2]

    def nearness(answer: tuple[str, str, str]) -> tuple[bool, bool, bool]:
        repository, _, digest = answer
        return bool(digest), digest == wanted, repository == name

    version = ask("version", "--format", "{{.Server.Version}}")
    return {
        "image": image,
        "image_id": about.get("Id"),
        "image_digest": max(digests, key=nearness, default=("", "", ""))[2] or None,
        "image_created": about.get("Created"),
        "image_version": labels.get("org.opencontainers.image.version"),
        "docker_version": version.text if version.code == 0 else None,
    }


@contextmanager
def running_container(
    spec: ContainerSpec, *, engine: str, log_path: Path, state_dir: Path, hints: Sequence[Hint] = ()
) -> Iterator[Server]:
    """Run a server in a container during the block, with its output in log_path. It is gone after the block.

    Raises ServerError if Docker cannot start it.
    """
    container = _Container(f"serving-bench-{_plain(engine)[:40]}-{secrets.token_hex(4)}", spec)
    all_hints = (*hints, *HINTS)
    with ExitStack() as stack:
        stack.callback(container.remove)
        argv, grace_s = run_argv(spec, container.name, _labels(engine)), spec.stop_grace_s
        client = supervised(argv, label=engine, state_dir=state_dir, log_path=log_path, grace_s=grace_s)
        process = entered(stack, client, f"{engine} cannot be started: docker", log_path)
        stack.callback(container.stop)
        if container.wait_started(process) and (cause := _docker_error(log_path)):
            pull = [f"run `{how_to_get(spec.image)}`"] if "no such image" in cause.lower() else []
            advice = "".join(f"; {remedy}" for remedy in [*pull, *remedies(log_path, all_hints)])
            raise ServerError(f"{engine} cannot be started: {cause}{advice}", log_tail(log_path))
        pid = container.process[0] if container.process else None
        yield Server(engine, spec, log_path, all_hints, process, tuple(argv), pid, container)


def run_argv(spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> list[str]:
    """Return the `docker run` command line that starts a server."""
    # --init: a program that handles no TERM ignores it if it is a container's first process.
    argv = [
        "docker", "run", "--rm", f"--name={name}", "--pull=never", "--network=host", "--log-driver=none",
        "--init",
    ]  # fmt: skip
    argv += [f"--label={key}={value}" for key, value in labels.items()]
    flags = {
        "memory": spec.memory_limit_bytes,
        # Without this flag the container may use as much swap again.
        "memory-swap": spec.memory_limit_bytes,
        "shm-size": spec.shm_bytes,
        # Read as CSV, so the list of devices is one quoted field.
        "gpus": f'"device={",".join(map(str, spec.devices))}"' if spec.devices else None,
        "entrypoint": spec.entrypoint,
    }
    argv += [f"--{flag}={value}" for flag, value in flags.items() if value is not None]
    # With --mount a missing source fails; -v would make a directory of it.
    mounts = [
        ("type=bind", f"source={source.absolute()}", f"target={target}", "readonly")
        for source, target in spec.mounts
    ]
    if spec.cache is not None:
        # Docker makes this volume with the owner and mode that the directory has in the image. In a folder of
        # ours, a server's files would belong to root, and the user could not remove them.
        volume = f"source=serving-bench-cache-{_plain(spec.image)}"
        mounts.append(("type=volume", volume, f"target={spec.cache}", f"volume-label={NAME_LABEL}"))
    for fields in mounts:
        row = io.StringIO()
        csv.writer(row, lineterminator="").writerow(fields)
        argv.append(f"--mount={row.getvalue()}")
    argv += [f"--env={key}={value}" for key, value in spec.environment.items()]
    return [*argv, spec.image, *spec.arguments]


def _plain(name: str) -> str:
    """Return a name with hyphens for all characters that Docker does not allow in one."""
    return re.sub("[^A-Za-z0-9_.-]+", "-", name)


def reap() -> list[str]:
    """Remove the containers of runs that were killed, and return a sentence for each. Blocks for seconds.

    Leaves alone the containers of a bench that still runs, and those that a bench on another machine or in
    another container started on this Docker. Call it after supervise.reap, which waits for watchdogs at work.
    """
    if shutil.which("docker") is None:
        return []
    columns = f'{{{{.Names}}}}\t{{{{.Label "{OWNER_LABEL}"}}}}\t{{{{.Label "{NAME_LABEL}"}}}}'
    listed = ask("ps", "--all", "--filter", f"label={OWNER_LABEL}", "--format", columns, timeout_s=10.0)
    lines = []
    for line in listed.text.splitlines() if listed.code == 0 else ():
        name, owner, engine = line.split("\t")
        if _is_dead(owner) and _remove(name):
            lines.append(f"removed what a killed run had left: {engine}, container {name}")
    return lines


class _Container:
    """One container, from before Docker makes it until it is gone."""

    def __init__(self, name: str, spec: ContainerSpec) -> None:
        self.name = name
        self.spec = spec
        self.process: tuple[int, float] | None = None  # its first process: pid and start time, if visible
        self._begun_s = time.time()

    def wait_started(self, client: Supervised) -> bool:
        """Block until its first process runs. Return whether the client ended first because Docker failed."""
        deadline = time.monotonic() + _START_LIMIT_S
        while True:
            code = client.wait(_POLL_S)
            if code is not None:
                # `docker run` exits with these if Docker itself failed, could not run the program, or did not
                # find it.
                return code in (125, 126, 127)
            state = ask("inspect", "--type=container", "--format={{.State.Pid}} {{.Id}}", self.name)
            pid, _, container_id = state.text.partition(" ")
            if state.code == 0 and pid not in ("", "0"):
                self.process = _seen_here(int(pid), container_id)
                return False
            if time.monotonic() > deadline:
                what = f"a container of {self.spec.image} within {_START_LIMIT_S:g} s ({state.error})"
                raise ServerError(f"Docker did not start {what}")

    def cause(self) -> str | None:
        state = ask(
            "events", f"--since={self._begun_s:.6f}", f"--until={time.time():.6f}",
            f"--filter=container={self.name}", "--filter=event=oom", "--format={{.Action}}",
        )  # fmt: skip
        if state.code != 0:
            return f"Docker no longer answers: {state.error}"
        limit = self.spec.memory_limit_bytes
        advice = f": raise engine.memory_limit={limit / 2**30:.3g}GiB" if limit else " on this machine"
        return f"killed for lack of memory{advice}" if state.text else None

    def stop(self) -> None:
        # An interrupt ends this at once. The client's end and `remove` then do the rest.
        grace_s = self.spec.stop_grace_s
        ask("stop", f"--time={round(grace_s)}", self.name, timeout_s=grace_s + _GONE_LIMIT_S)

    def remove(self) -> None:
        try:
            removed = _remove(self.name)
        except BaseException:
            _remove(self.name)
            raise
        if removed is None and self.process and watchdog.start_time_s(self.process[0]) == self.process[1]:
            # Docker is gone but its container is not. The end of the first process ends all others in it.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.process[0], signal.SIGKILL)


def _seen_here(pid: int, container_id: str) -> tuple[int, float] | None:
    """Return pid and start time if the process belongs to the container, else None.

    The daemon may be in a virtual machine, or bench in a container, where the pid means another process.
    """
    started_s = watchdog.start_time_s(pid)
    # Its control group is named after the container, or (rootless) /etc/hostname is a mount of Docker's file.
    signs = {"cgroup": container_id, "mountinfo": f"/{container_id}/hostname /etc/hostname "}
    with suppress(OSError):
        is_it = any(sign in Path(f"/proc/{pid}/{file}").read_text() for file, sign in signs.items())
        return (pid, started_s) if is_it and started_s is not None else None
    return None


def _remove(name: str) -> bool | None:
    """Remove a container and block until it is gone. Return whether it was there, None if not known."""
    answer = ask("rm", "--force", "--volumes", name)
    if answer.code == 0 and "no such container" not in answer.error.lower():
        return True
    deadline = time.monotonic() + _GONE_LIMIT_S
    while time.monotonic() < deadline:
        left = ask("ps", "--all", "--quiet", "--filter", f"name=^{name}$")
        if left.code != 0:
            return None
        if not left.text:
            return False
        time.sleep(_POLL_S)
    return None


def _labels(engine: str) -> dict[str, str]:
    pid = os.getpid()
    return {NAME_LABEL: engine, OWNER_LABEL: f"{_here()}/{pid}/{watchdog.start_time_s(pid)}"}


def _here() -> str:
    """Return where this process's pid is valid: the machine's boot and the pid namespace."""
    return f"{watchdog.boot_id()}/{watchdog.pid_namespace()}"


def _is_dead(owner: str) -> bool:
    # False if it cannot be known here.
    match = re.fullmatch(rf"{re.escape(_here())}/([0-9]+)/([^/]+)", owner)
    return match is not None and str(watchdog.start_time_s(int(match[1]))) != match[2]


def _docker_error(log_path: Path) -> str | None:
    errors = re.findall(r"^docker: (?:Error response from daemon: )?(.+?)\.?$", log_tail(log_path, 50), re.M)
    return errors[-1][:400] if errors else None
