"""Is this machine fit to measure on? One finding per question, each with what to do about it."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines import ENGINES
from harness.contracts import Reason
from harness.install import inventory
from harness.sampling import gpu, host
from harness.servers import docker_cli, server

State = Literal["ok", "note", "problem"]
_LOW_DISK_BYTES = 5 << 30
_LOW_FILES = 4096


@dataclass(frozen=True)
class Finding:
    """`note`: works, but know this; `problem`: something will not work. `remedy` is a sentence or empty."""

    topic: str
    state: State
    text: str
    remedy: str = ""


def examine(cache: Path, results: Path) -> list[Finding]:
    """All findings, in a fixed order. Starts nothing but `docker version`."""
    docker = _docker()
    has_device, has_docker = not isinstance(gpu.devices(), Reason), docker.state == "ok"
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _machine,
        _devices,
        lambda: engine_findings(cache, has_device=has_device, has_docker=has_docker),
        lambda: iter([docker]),
        _ports,
        lambda: _disk("cache", cache),
        lambda: _disk("results", results),
        _files,
    )
    return [finding for check in checks for finding in check()]


def _machine() -> Iterator[Finding]:
    facts = host.machine_facts()
    memory = int(facts["memory_bytes"] or 0) / 2**30
    text = f"{facts['cpu_model']}, {facts['cores_usable']} cores, {memory:.1f} GiB, {facts['os']}"
    yield Finding("machine", "ok", text)
    cores, load = float(facts["cores_usable"] or 1), float(facts["load_1min"] or 0)
    if load > cores / 2:
        yield Finding(
            "load", "note", f"load average {load:.1f} on {cores:.0f} cores", "Wait until it is idle."
        )


def _devices() -> Iterator[Finding]:
    found = gpu.devices()
    if isinstance(found, Reason):
        yield Finding("gpu", "note", found.text, "Runs measure host memory and the CPU.")
        return
    for device in found:
        yield Finding("gpu", "ok", f"{device.index}: {device.name}")


def engine_findings(cache: Path, *, has_device: bool, has_docker: bool) -> Iterator[Finding]:
    """Of each engine's first program, and how it is started. `has_docker`: its daemon answers."""
    for engine in inventory.engines_here(cache, has_device=has_device):
        topic, first = f"engine {engine.engine}", engine.programs[0]
        for_device = ENGINES[engine.engine].install(first.program, "cuda") if has_device else None
        if not engine.launchers:
            yield Finding(topic, "ok", "is never started: it runs already")
        elif engine.launchers[0] == "docker" and not has_docker:
            remedy = "Docker cannot start one here: see its row."
            yield Finding(topic, "note", "is started as a container", remedy)
        elif engine.launchers[0] == "docker":
            yield Finding(topic, "ok", "is started as a container")
        elif first.state == "ready":
            yield Finding(topic, "ok", "needs no environment of its own")
        elif first.state == "none":
            yield Finding(topic, "note", first.reason or "")
        elif isinstance(for_device, Reason):
            remedy = "A run on the device leaves it out; with device=cpu it does not."
            yield Finding(topic, "note", for_device.text, remedy)
        elif first.state == "installed":
            yield Finding(topic, "ok", " ".join(filter(None, ("installed", first.version))))
        else:
            yield Finding(topic, "note", "not installed", f"Run `{first.install}`.")


def _docker() -> Finding:
    by_docker = [name for name, engine in ENGINES.items() if engine.launchers[:1] == ("docker",)]
    needed_by = ["engine.launcher=docker", *(f"engine={name}" for name in by_docker)]
    remedy = f"It is needed by {' and '.join(needed_by)}."
    if shutil.which("docker") is None:
        return Finding("docker", "note", "not installed", remedy)
    version = docker_cli.ask("version", "--format", "{{.Server.Version}}", timeout_s=10.0)
    if version.code == 0:
        return Finding("docker", "ok", f"server {version.text}")
    return Finding("docker", "note", f"its daemon does not answer: {version.error[:160]}", remedy)


def _ports() -> Iterator[Finding]:
    try:
        port = server.free_port()
    except OSError as error:
        yield Finding("ports", "problem", f"no port of 127.0.0.1 can be bound ({error})")
        return
    yield Finding("ports", "ok", f"127.0.0.1 has free ports, such as {port}")


def _disk(what: str, path: Path) -> Iterator[Finding]:
    existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 2**30:.1f} GiB free for {path}"
    if free < _LOW_DISK_BYTES:
        yield Finding(f"disk of {what}", "problem", text, "Free some, or choose another place.")
    else:
        yield Finding(f"disk of {what}", "ok", text)


def _files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = hard if hard != resource.RLIM_INFINITY else 1 << 20
    if limit < _LOW_FILES:
        text = f"at most {limit} open files: fewer than {limit} users"
        yield Finding("file descriptors", "note", text, f"Raise it: ulimit -n {_LOW_FILES}")
    else:
        yield Finding("file descriptors", "ok", f"{soft} now, up to {limit} for the load")
