"""`bench doctor`: is this machine fit to measure on? One finding per question, with what to do about it."""

import resource
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer

from engines import ENGINES
from harness.cli.arguments import Json, out, print_json
from harness.cli.show.tables import print_rows
from harness.contracts import Reason
from harness.install import builds
from harness.install.install import cache_dir
from harness.sampling import environment, gpu
from harness.servers import container, server

_LOW_DISK_BYTES = 5 << 30
_LOW_FILES = 4096


@dataclass(frozen=True)
class Finding:
    """What was found about one topic. `note`: it works, but know this; `problem`: something will not work."""

    topic: str
    state: Literal["ok", "note", "problem"]
    text: str
    remedy: str = ""  # a sentence, or empty


def doctor(as_json: Json = False) -> None:
    """Look whether this machine is fit to measure on, and say what to do where it is not."""
    findings = examine(cache_dir(), Path("results"))
    if as_json:
        print_json(findings)
    else:
        rows = [
            {
                "": "PROBLEM" if each.state == "problem" else each.state,
                "topic": each.topic,
                "finding": " - ".join(filter(None, (each.text, each.remedy))),
            }
            for each in findings
        ]
        print_rows(out, rows)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def examine(cache: Path, results: Path) -> list[Finding]:
    """Return all findings, in a fixed order. Starts nothing but `docker version`."""
    devices, docker = gpu.devices(), _docker()
    has_device, has_docker = not isinstance(devices, Reason), docker.state == "ok"
    return [
        *_machine(devices),
        *engine_findings(cache, has_device=has_device, has_docker=has_docker),
        docker,
        _ports(),
        _disk("cache", cache),
        _disk("results", results),
        _files(),
    ]


def _machine(devices: Sequence[gpu.DeviceFacts] | Reason) -> Iterator[Finding]:
    facts = environment.machine_facts()
    memory = int(facts["memory_bytes"] or 0) / 2**30
    text = f"{facts['cpu_model']}, {facts['cores_usable']} cores, {memory:.1f} GiB, {facts['os']}"
    yield Finding("machine", "ok", text)
    cores, load = float(facts["cores_usable"] or 1), float(facts["load_1min"] or 0)
    if load > cores / 2:
        text = f"load average {load:.1f} on {cores:.0f} cores"
        yield Finding("load", "note", text, "Wait until it is idle.")
    if isinstance(devices, Reason):
        yield Finding("gpu", "note", devices.text, "Runs measure host memory and the CPU.")
        return
    for device in devices:
        yield Finding("gpu", "ok", f"{device.index}: {device.name}")


def engine_findings(cache: Path, *, has_device: bool, has_docker: bool) -> Iterator[Finding]:
    """Yield for each engine whether its first program is here, and how it is started.

    `has_docker`: Docker's daemon answers."""
    for engine in builds.engines_here(cache, has_device=has_device):
        topic, first = f"engine {engine.engine}", engine.programs[0]
        for_device = ENGINES[engine.engine].install(first.program, "cuda") if has_device else None
        if not engine.launchers:
            yield Finding(topic, "ok", "is never started: it runs already")
        elif engine.launchers[0] == "docker":
            remedy = "" if has_docker else "Docker cannot start one here: see its row."
            yield Finding(topic, "ok" if has_docker else "note", "is started as a container", remedy)
        elif first.state == "ready":
            yield Finding(topic, "ok", "needs no environment of its own")
        elif first.state == "none":
            yield Finding(topic, "note", first.reason or "")
        elif isinstance(for_device, Reason):
            remedy = "A run on the device leaves it out; with device=cpu it does not."
            yield Finding(topic, "note", for_device.text, remedy)
        elif first.state == "installed":
            yield Finding(topic, "ok", f"installed {first.version or ''}".strip())
        else:
            yield Finding(topic, "note", "not installed", f"Run `{first.install}`.")


def _docker() -> Finding:
    by_docker = [name for name, engine in ENGINES.items() if engine.launchers[:1] == ("docker",)]
    needed_by = ["engine.launcher=docker", *(f"engine={name}" for name in by_docker)]
    remedy = f"It is needed by {' and '.join(needed_by)}."
    if shutil.which("docker") is None:
        return Finding("docker", "note", "not installed", remedy)
    version = container.ask("version", "--format", "{{.Server.Version}}", timeout_s=10.0)
    if version.code == 0:
        return Finding("docker", "ok", f"server {version.text}")
    return Finding("docker", "note", f"its daemon does not answer: {version.error[:160]}", remedy)


def _ports() -> Finding:
    try:
        return Finding("ports", "ok", f"127.0.0.1 has free ports, such as {server.free_port()}")
    except OSError as error:
        return Finding("ports", "problem", f"no port of 127.0.0.1 can be bound ({error})")


def _disk(what: str, path: Path) -> Finding:
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    topic, text = f"disk of {what}", f"{free / 2**30:.1f} GiB free for {path}"
    if free < _LOW_DISK_BYTES:
        return Finding(topic, "problem", text, "Free some, or choose another place.")
    return Finding(topic, "ok", text)


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if limit < _LOW_FILES:
        text = f"at most {limit} open files: fewer than {limit} users"
        return Finding("file descriptors", "note", text, f"Raise it: ulimit -n {_LOW_FILES}")
    return Finding("file descriptors", "ok", f"{soft} now, up to {limit} for the load")
