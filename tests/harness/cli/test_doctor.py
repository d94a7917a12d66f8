"""What `bench doctor` says of Docker, and of other programs."""

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from shell_script import shell_script
from toy_engine import Toy

from serving_bench.harness.cli.commands.machine import Finding, examine


@pytest.fixture
def toy(toy: Toy) -> Toy:
    toy.launchers = ("docker", "native")
    return toy


def docker_finding(tmp_path: Path) -> Finding:
    [found] = [each for each in examine(tmp_path, tmp_path) if each.topic == "docker"]
    return found


def test_docker_is_needed_by_engines_that_are_containers(tmp_path, toy: Toy, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    docker = docker_finding(tmp_path)
    assert (docker.state, docker.text) == ("note", "not installed")
    assert docker.remedy.startswith("It is needed by engine.launcher=docker and ")
    assert "engine=toy" in docker.remedy


@pytest.mark.parametrize(("code", "state"), [(1, "note"), (0, "ok")])
def test_docker_is_fine_only_where_its_daemon_answers(tmp_path, monkeypatch, code: int, state: str):
    shell_script(tmp_path / "docker", f"echo 26.1\nexit {code}")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert docker_finding(tmp_path).state == state


@pytest.mark.alone
def test_the_load_of_others_is_what_the_guard_would_see(tmp_path: Path) -> None:
    spin = [sys.executable, "-c", "import os; os.nice(10)\nwhile True: pass"]
    with ExitStack() as running:
        for _ in range(os.cpu_count() or 1):
            running.callback(running.enter_context(subprocess.Popen(spin)).kill)
        [load] = [each for each in examine(tmp_path, tmp_path) if each.topic == "load"]
    assert load.state == "note"
    assert load.text.startswith("other programs used ")
