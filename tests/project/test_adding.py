"""The examples in docs/adding.md, made as it says, and used: a package that is installed beside bench, and
changes of a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from make_run import MS, S, one_cell_run, row
from places import ROOT
from uv import find_uv_bin

DOCUMENT = (ROOT / "docs" / "adding.md").read_text()
EXAMPLE = re.compile(r"`(\S+\.(?:py|toml))`:\n\n```(python|diff|toml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PACKAGE = "installed"  # the package's place in the copy
# `make served` has prepared its weights.
MODEL = ("quantization=gguf-q4_0",)
SHORT = (
    "load.concurrency=2", "load.duration=1s", "load.warmup=0.2s", "load.min_requests=1", "repeats=1",
    "scenario.output_tokens=8", "device=cpu", "guard=off",
)  # fmt: skip
# The first content chunk comes after 100 ms, the end after 190 ms. The window begins after 2 s.
ROWS = [row(k, 102 * S + k * 200 * MS) for k in range(20)]
SLOW = row(20, 103 * S, end_ns=106 * S, output_tokens=7)


def changed(text: str, diff: str) -> str:
    """Return the text with each part of a diff applied. Lines of `@@` divide parts; each must match once."""
    for part in diff.split("@@\n"):
        lines = part.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        assert text.count(before) == 1, f"stands there {text.count(before)} times:\n{before}"
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] != "-"))
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the project with everything that the document adds."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("harness", "engines", "scenarios", "reports", "docker", "serving_bench"):
        shutil.copytree(
            ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    source = folder / "source"
    for name, kind, text in EXAMPLE.findall(DOCUMENT):
        path = (source if name.startswith(("smallama", "pyproject")) else folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(changed(path.read_text(), text) if kind == "diff" else text)
    install = [find_uv_bin(), "--quiet", "--no-config", "pip", "install", "--offline", "--no-deps"]
    install += ["--no-build-isolation", "--python", sys.executable, "--target", folder / PACKAGE, source]
    subprocess.run(install, check=True)
    return folder


def bench(copy: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return python(copy, "-m", "serving_bench", *words)


def python(copy: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{copy}:{copy / PACKAGE}", "COLUMNS": "200"}
    command = [sys.executable, "-P", *map(str, words)]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)


# Runs several commands in one process, which imports everything once. Prints (code, output, error) of each.
TOLD = """
import json, sys
from typer.testing import CliRunner
from serving_bench.harness.cli.app import app
ended = [CliRunner().invoke(app, words) for words in json.loads(sys.argv[1])]
print(json.dumps([(each.exit_code, each.stdout, str(each.exception or "")) for each in ended]))
"""


def told(copy: Path, *commands: tuple[object, ...]) -> list[tuple[int, str, str]]:
    done = python(copy, "-c", TOLD, json.dumps([[str(word) for word in words] for words in commands]))
    assert done.returncode == 0, done.stderr
    return [(code, said, complaint) for code, said, complaint in json.loads(done.stdout)]


def records(path: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(each.read_text()) for each in sorted(path.glob(pattern))]


def test_every_example_is_found() -> None:
    assert len(EXAMPLE.findall(DOCUMENT)) == DOCUMENT.count("```") // 2 == 15


def test_an_engine_of_few_lines_and_a_scenario_are_planned(copy: Path) -> None:
    assert (copy / PACKAGE / "smallama" / "engine.py").read_text().count("\n") < 120
    listed, kinds, metrics, planned, threads, digits, file, rounded = told(
        copy,
        ("list", "engines"),
        ("list", "quantizations"),
        ("list", "metrics"),
        ("plan", "engine=smallama", "quantization=gguf,awq", "engine.concurrent_sequences=2"),
        ("plan", "engine=smallama", "smallama.threads=0"),
        ("plan", "engine=reference", "scenario=quiz", "scenario.digits=0"),
        ("plan", "engine=reference", f"scenario={copy / PACKAGE / 'smallama' / 'quiz.py'}"),
        ("plan", "engine=vllm", "quantization=w8a8,fp8", "device=cpu"),
    )
    assert "(of bench-smallama 1.0)" in listed[1]
    assert "gguf-iq4_xs: 4-bit, with a table of values (of bench-smallama 1.0)" in kinds[1]
    assert "w8a8: 8-bit weights and activations, rounded (of bench-smallama 1.0)" in kinds[1]
    assert "time spent answering, in share (of bench-smallama 1.0)" in metrics[1]
    assert "quiz.py" in file[1], file
    assert "vllm-w8a8" in rounded[1], rounded
    assert planned[0] == 0, planned
    assert "skipped smallama awq: smallama reads GGUF files; awq is not one" in planned[1]
    assert threads[2] == "smallama.threads=0: must be 1 or more"
    assert digits[2] == "scenario.digits=0: must be 1 or more"


ASKED = """
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.strangers import belief
print(config.settings(overrides.parse(["load.pause=1500ms"])).loads[0].pause_s, belief("load.pause", "11min"))
"""


def test_a_key_of_one_line_is_listed_read_checked_and_asked_about(copy: Path) -> None:
    listed, unit, late, near = told(
        copy,
        ("list", "keys", "--json"),
        ("plan", "load.pause=2"),
        ("plan", "load.pause=25h"),
        ("plan", "load.pauze=2s"),
    )
    [row] = [each for each in json.loads(listed[1]) if each["key"] == "load.pause"]
    assert row == {
        "key": "load.pause",
        "default": "0s",
        "takes": "a duration, such as 500ms or 20s",
        "help": "How long a user rests between two conversations.",
    }
    assert unit[2] == "load.pause=2: needs a unit; write 2s, or 2ms for milliseconds"
    assert late[2] == "load.pause=25h: must be 86400 s or less"
    assert near[2].startswith("load.pauze=2s: no such key; did you mean load.pause? ")
    asked = python(copy, "-c", ASKED)
    assert asked.stdout.split() == ["1.5", "asked"], asked.stderr


@pytest.mark.live
def test_an_engine_is_started_and_measured_with_a_scenario(copy: Path, tmp_path: Path) -> None:
    words = ("engine=smallama", "smallama.threads=1", *MODEL, "scenario=quiz", "scenario.digits=2", *SHORT)
    done = bench(copy, "run", *words, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    [start] = records(tmp_path, "run/starts/*/start.json")
    assert (start["status"], start["resolved"]) == ("completed", {"concurrent_sequences": 2})
    assert "engine_ready" in start["stages"]
    [cell] = records(tmp_path, "run/cells/*/cell.json")
    assert (cell["status"], cell["scenario"]["options"]["digits"]) == ("completed", 2)
    assert (tmp_path / "run" / "report.html").is_file()


def test_all_that_is_added_of_a_report_is_in_it(copy: Path, tmp_path: Path) -> None:
    plain = one_cell_run(tmp_path / "plain", ROWS).path
    slow = one_cell_run(tmp_path / "slow", [*ROWS, SLOW]).path
    table, page, without, with_slow, text = told(
        copy,
        ("report", plain, "--format", "csv", "--table", "cells"),
        ("report", slow, "--output", tmp_path / "page.html"),
        ("report", plain, "--format", "markdown"),
        ("report", slow, "--format", "markdown"),
        ("report", plain, "--output", tmp_path / "answers.txt"),
    )
    assert [code for code, *_ in (table, page, without, with_slow, text)] == [0] * 5
    assert "| requests/s |" in without[1]
    assert (tmp_path / "answers.txt").read_text().count("llama_cpp fp16") == 1
    header, values = (line.split(",") for line in table[1].splitlines())
    assert float(values[header.index("answering_share")]) == pytest.approx(1 - 100 / 190)
    drawn = (tmp_path / "page.html").read_text()
    assert re.search(r"The slowest by load.*llama_cpp fp16.*3\.00.*7", drawn, re.DOTALL)
    said = "The slowest took more than 10 times the median: llama_cpp fp16 at 1 user (start 1): 3.00 s beside"
    assert [said in each[1] for each in (without, with_slow)] == [False, True]
