"""docs/fleet.md and its files: bench takes each command in them, and all name the tried Ray."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from documented import settings_of, shown, taken
from places import ROOT

FOLDER = ROOT / "docs" / "fleet"
MANIFEST = yaml.safe_load((FOLDER / "kuberay.yaml").read_text())
SCRIPTS = ("slurm-array.sh", "slurm-ray.sh")
# What is given to a script takes the place of "$@".
GIVEN = "repeats=5 engine=vllm,sglang model=hf:ORG/NAME"


def commands() -> list[str]:
    """Each bench command, with words in place of a script's variables."""
    in_script = re.compile(r"bench (?:run|merge) .*?(?:\\\n.*?)*$", re.MULTILINE)
    found = [MANIFEST["spec"]["entrypoint"]]
    for name in SCRIPTS:
        found += in_script.findall((FOLDER / name).read_text().replace('"$@"', GIVEN))
    found += shown((ROOT / "docs" / "fleet.md").read_text())
    found = [re.sub(r"\$\w*TASK_ID", "1", each).replace("\\\n", " ") for each in found]
    return [re.sub(r"\$address", "10.0.0.1:6379", each) for each in found]


@pytest.mark.parametrize("command", commands())
def test_bench_takes_each_command(command: str) -> None:
    name, asked = taken(command)
    if name == "run":
        assert settings_of(asked).repeats.most >= (asked["only_repeat"] or 1)
        assert (asked["on"] is None) != (asked["only_repeat"] is None)
    else:
        assert name == "merge"
        assert all(isinstance(each, Path) for each in asked["folders"])


def test_commands_are_found_in_all_of_them() -> None:
    assert len(commands()) == 9


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_one_of_the_shell_and_may_be_run(name: str) -> None:
    assert subprocess.run(["sh", "-n", FOLDER / name], check=False).returncode == 0
    assert (FOLDER / name).stat().st_mode & 0o111


def test_all_name_the_ray_that_was_tried() -> None:
    tried = re.search(r"^ray==([0-9.]+)", (ROOT / "tests" / "ray.lock").read_text(), re.MULTILINE)
    assert tried is not None
    assert MANIFEST["spec"]["rayClusterSpec"]["rayVersion"] == tried[1]
    assert f'"ray[default]=={tried[1]}"' in (FOLDER / "ray.Dockerfile").read_text()


def test_pods_ask_for_a_token_and_the_head_measures_nothing() -> None:
    cluster = MANIFEST["spec"]["rayClusterSpec"]
    head, (workers,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert cluster["authOptions"]["mode"] == "token"
    assert head["rayStartParams"]["num-cpus"] == "0"
    specs = [each["template"]["spec"] for each in (head, workers)]
    images = {container["image"] for spec in specs for container in spec["containers"]}
    assert len(images) == 1
    assert f"-t {images.pop()} " in (FOLDER / "ray.Dockerfile").read_text()
    for spec in specs:
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
