"""The lifetime of one server in a container: `docker run`, its stop, its removal, and what a killed run left.

The counterpart of server.running_server. Docker's client runs in the foreground as a supervised child, so the
server's output is in the log as it is written, and the end of bench is the end of the client, which ends the
container. There is no Docker library: users have set up permissions and contexts for the client. Knows no
engine.
"""

import os
import re
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from harness.contracts import ContainerSpec, Hint
from harness.errors import ServerError
from harness.processes import watchdog
from harness.processes.running import supervised
from harness.processes.supervise import Supervised
from harness.servers.docker_cli import ask, how_to_get
from harness.servers.log import log_tail, remedies
from harness.servers.server import Server

NAME_LABEL = "serving-bench"
OWNER_LABEL = "serving-bench.owner"
# `docker run` exits with these if Docker failed: itself, at starting the program, at finding it.
_DOCKER_FAILED = (125, 126, 127)
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


@contextmanager
def running_container(
    spec: ContainerSpec, *, engine: str, log_path: Path, state_dir: Path, hints: Sequence[Hint] = ()
) -> Iterator[Server]:
    """Run a server in a container while the block runs, its output in log_path. It is gone after the block.

    Entering blocks until its first process runs. Leaving blocks for up to spec.stop_grace_s and some seconds.
    Raises ServerError if Docker cannot start it. See server.wait_ready.
    """
    container = _Container(_name(engine), spec)
    all_hints = (*hints, *HINTS)
    with ExitStack() as stack:
        stack.callback(container.remove)
        argv = run_argv(spec, container.name, _labels(engine))
        client = supervised(
            argv, label=engine, state_dir=state_dir, log_path=log_path, grace_s=spec.stop_grace_s
        )
        try:
            process = stack.enter_context(client)
        except OSError as error:
            raise ServerError(f"{engine} cannot be started: docker: {error}", log_tail(log_path)) from error
        stack.callback(container.stop)
        if container.wait_started(process) and (said := _docker_error(log_path)):
            pull = [f"run `{how_to_get(spec.image)}`"] if "no such image" in said.lower() else []
            advice = "".join(f"; {remedy}" for remedy in [*pull, *remedies(log_path, all_hints)])
            raise ServerError(f"{engine} cannot be started: {said}{advice}", log_tail(log_path))
        yield Server(
            engine,
            spec,
            log_path,
            all_hints,
            process,
            process.spawned_ns,
            tuple(argv),
            container_pid=container.process[0] if container.process else None,
            cause=container.cause,
        )


def run_argv(spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> list[str]:
    """Return docker's command line."""
    # --init: a program that handles no TERM ignores it if it is a container's first process.
    argv = [
        "docker", "run", "--rm", f"--name={name}", "--pull=never", "--network=host", "--log-driver=none",
        "--init",
    ]  # fmt: skip
    argv += [f"--label={key}={value}" for key, value in labels.items()]
    flags = {
        "memory": spec.memory_limit_bytes,
        # The same again: without, as much swap is allowed, and a measurement would swap.
        "memory-swap": spec.memory_limit_bytes,
        "shm-size": spec.shm_bytes,
        # Read as CSV, so the list of devices is one quoted field.
        "gpus": f'"device={",".join(map(str, spec.devices))}"' if spec.devices else None,
        "entrypoint": spec.entrypoint,
    }
    argv += [f"--{flag}={value}" for flag, value in flags.items() if value is not None]
    # A source that is not there fails; -v would make a directory of it.
    mounts = [
        ("type=bind", f"source={source.absolute()}", f"target={target}", "readonly")
        for source, target in spec.mounts
    ]
    if spec.cache is not None:
        # Docker makes the image's own volume with the owner and mode that the directory has in the image, so
        # what a server keeps there is no file of ours that only root could remove.
        volume = f"source=serving-bench-cache-{re.sub('[^A-Za-z0-9_.-]+', '-', spec.image)}"
        mounts.append(("type=volume", volume, f"target={spec.cache}", f"volume-label={NAME_LABEL}"))
    argv += [f"--mount={','.join(map(_csv, fields))}" for fields in mounts]
    argv += [f"--env={key}={value}" for key, value in spec.environment.items()]
    return [*argv, spec.image, *spec.arguments]


def _csv(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if re.search('[,"\n]', field) else field


def reap() -> list[str]:
    """Remove the containers of runs that were killed, and return a sentence for each.

    Leaves alone those of a bench that still runs, and those of other machines and containers that share this
    Docker. Call it after running.reap, which waits for watchdogs at work. Blocks for some seconds.
    """
    if shutil.which("docker") is None:
        return []
    columns = f'{{{{.Names}}}}\t{{{{.Label "{OWNER_LABEL}"}}}}\t{{{{.Label "{NAME_LABEL}"}}}}'
    listed = ask("ps", "--all", "--filter", f"label={OWNER_LABEL}", "--format", columns, timeout_s=10.0)
    said = []
    for line in listed.text.splitlines() if listed.code == 0 else ():
        name, owner, engine = line.split("\t")
        if _is_dead(owner) and _remove(name):
            said.append(f"removed what a killed run had left: {engine}, container {name}")
    return said


class _Container:
    """One container, from before it is made until it is gone."""

    def __init__(self, name: str, spec: ContainerSpec) -> None:
        self.name = name
        self.spec = spec
        self.process: tuple[int, float] | None = None  # its first one: pid and start time, if we see it
        self._begun_s = time.time()

    def wait_started(self, client: Supervised) -> bool:
        """Block until its first process runs. Return true if the client ended first by Docker's failure."""
        deadline = time.monotonic() + _START_LIMIT_S
        while True:
            code = client.wait(_POLL_S)
            if code is not None:
                return code in _DOCKER_FAILED
            state = ask("inspect", "--type=container", "--format={{.State.Pid}} {{.Id}}", self.name)
            pid, _, container_id = state.text.partition(" ")
            if state.code == 0 and pid not in ("", "0"):
                self.process = _seen_here(int(pid), container_id)
                return False
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Docker did not start a container of {self.spec.image} within {_START_LIMIT_S:g} s"
                    + (f": {state.error}" if state.error else "")
                )

    def cause(self) -> str | None:
        """Return why it ended, if Docker knows more than its exit code says."""
        asked = ask(
            "events", f"--since={self._begun_s:.6f}", f"--until={time.time():.6f}",
            f"--filter=container={self.name}", "--filter=event=oom", "--format={{.Action}}",
        )  # fmt: skip
        if asked.code != 0:
            return f"Docker no longer answers: {asked.error}"
        if not asked.text:
            return None
        limit = self.spec.memory_limit_bytes
        if limit is None:
            return "killed for memory: the machine's was used up"
        return f"killed for memory: raise engine.memory_limit={limit / 2**30:.3g}GiB"

    def stop(self) -> None:
        """Run `docker stop`: the image's stop signal, a grace period, KILL.

        An interrupt while it waits is raised at once; the client's end and the removal that follow do the
        rest.
        """
        grace_s = self.spec.stop_grace_s
        ask("stop", f"--time={round(grace_s)}", self.name, timeout_s=grace_s + _GONE_LIMIT_S)

    def remove(self) -> None:
        """Remove what is left after the client's end: a container that never ran or would not stop."""
        try:
            removed = _remove(self.name)
        except BaseException:
            _remove(self.name)
            raise
        if removed is None and self.process and watchdog.start_time_s(self.process[0]) == self.process[1]:
            # Docker is gone and its container is not. The first process of one is the end of all in it.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.process[0], signal.SIGKILL)


def _seen_here(pid: int, container_id: str) -> tuple[int, float] | None:
    """Return pid and start time if that process is the container's, else None.

    Docker's pids are those of the daemon. It may be in a virtual machine, or bench in a container: there the
    same number is another's, or nobody's.
    """
    started_s = watchdog.start_time_s(pid)
    # Its control group is named after it. If it has none of its own (rootless), its /etc/hostname is a mount
    # of a file of Docker's. All mounts of the host name every container, so only that one counts.
    signs = {"cgroup": container_id, "mountinfo": f"/{container_id}/hostname /etc/hostname "}
    with suppress(OSError):
        is_it = any(sign in Path(f"/proc/{pid}/{file}").read_text() for file, sign in signs.items())
        return (pid, started_s) if is_it and started_s is not None else None
    return None


def _remove(name: str) -> bool | None:
    """Remove a container, and block until it is gone. Return whether it was there, None if not known."""
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


def _name(engine: str) -> str:
    """Return a unique name of characters that Docker takes."""
    return f"serving-bench-{re.sub('[^A-Za-z0-9_.-]+', '-', engine)[:40]}-{secrets.token_hex(4)}"


def _labels(engine: str) -> dict[str, str]:
    pid = os.getpid()
    return {NAME_LABEL: engine, OWNER_LABEL: f"{_here()}/{pid}/{watchdog.start_time_s(pid)}"}


def _here() -> str:
    """Return where a pid means something: a boot of a machine, and one namespace there."""
    space = Path("/proc/self/ns/pid")
    return f"{watchdog.boot_id()}/{os.readlink(space) if space.exists() else '-'}"


def _is_dead(owner: str) -> bool:
    """Return whether the bench that a label names has ended; false if that cannot be known here."""
    found = re.fullmatch(r"(.+)/([0-9]+)/([^/]+)", owner)
    if found is None or found[1] != _here():
        return False
    return str(watchdog.start_time_s(int(found[2]))) != found[3]


def _docker_error(log_path: Path) -> str | None:
    """Return what docker complained of last, on one line, None if the container's own program ended so."""
    lines = [line for line in log_tail(log_path, 50).splitlines() if line.startswith("docker: ")]
    said = lines[-1].removeprefix("docker: ").removeprefix("Error response from daemon: ") if lines else ""
    return said.strip().rstrip(".")[:400] or None
