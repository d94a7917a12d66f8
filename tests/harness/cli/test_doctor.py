"""What `bench doctor` says of engines and Docker."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_engine import Toy

from engines import ENGINES
from harness.cli.doctor import Finding, engine_findings, examine
from harness.contracts import InstallSpec


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    engine = Toy()
    monkeypatch.setitem(ENGINES, "toy", engine)
    return engine


def finding(tmp_path: Path, topic: str) -> Finding:
    [found] = [each for each in examine(tmp_path, tmp_path) if each.topic == topic]
    return found


def test_an_engine_that_is_not_installed_has_its_command(tmp_path: Path, toy: Toy) -> None:
    toy.installs = {("first", "cpu"): InstallSpec("toy-first-cpu", Path(__file__), "", 1)}
    found = finding(tmp_path, "engine toy")
    assert (found.state, found.text, found.remedy) == ("note", "not installed", "Run `bench install toy`.")


def test_an_engine_without_a_build_for_this_machine_says_why(tmp_path: Path, toy: Toy) -> None:
    assert finding(tmp_path, "engine toy").text == "there is no first toy for a cpu device"


def test_an_engine_that_serves_on_the_cpu_only_is_said_where_there_is_a_device(
    tmp_path: Path, toy: Toy
) -> None:
    toy.installs = {("first", "cpu"): InstallSpec("toy-first-cpu", Path(__file__), "", 1)}
    every = engine_findings(tmp_path, has_device=True, has_docker=False)
    [found] = [each for each in every if each.topic == "engine toy"]
    assert (found.state, found.text) == ("note", "there is no first toy for a cuda device")
    assert found.remedy == "A run on the device leaves it out; with device=cpu it does not."


def test_an_engine_that_is_a_container_needs_docker(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.launchers = ("docker", "native")
    monkeypatch.setenv("PATH", str(tmp_path))
    container = finding(tmp_path, "engine toy")
    assert (container.state, container.text) == ("note", "is started as a container")
    assert container.remedy == "Docker cannot start one here: see its row."
    docker = finding(tmp_path, "docker")
    assert (docker.state, docker.text) == ("note", "not installed")
    assert docker.remedy.startswith("It is needed by engine.launcher=docker and ")
    assert "engine=toy" in docker.remedy


@pytest.mark.parametrize(("code", "state"), [(1, "note"), (0, "ok")])
def test_a_container_is_fine_only_where_dockers_daemon_answers(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch, code: int, state: str
) -> None:
    toy.launchers = ("docker",)
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\necho 26.1\nexit {code}\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert finding(tmp_path, "docker").state == state
    assert finding(tmp_path, "engine toy").state == state


def test_an_engine_that_is_only_attached_to_needs_nothing(tmp_path: Path) -> None:
    assert finding(tmp_path, "engine openai").state == "ok"
