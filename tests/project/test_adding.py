"""The examples in docs/adding.md: made in a copy of the project as the document says, and used."""

from __future__ import annotations

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

DOCUMENT = (ROOT / "docs" / "adding.md").read_text()
EXAMPLE = re.compile(r"`(\S+\.py)`:\n\n```(python|diff)\n(.*?)^```", re.DOTALL | re.MULTILINE)
MODEL = ("model=gemma3-270m", "quantization=gguf")
SHORT = (
    "load.concurrency=2", "load.duration=3s", "load.warmup=1s", "load.min_requests=1", "repeats=1",
    "scenario.output_tokens=8", "device=cpu", "guard=off",
)  # fmt: skip
# The first content chunk comes after 100 ms, the end after 190 ms. The window begins after 2 s.
ROWS = [row(k, 102 * S + k * 200 * MS) for k in range(20)]
SLOW = row(20, 103 * S, end_ns=106 * S, output_tokens=7)


def changed(text: str, diff: str) -> str:
    """The text with each part of a diff (they are divided by lines of `@@`) done where it stands, once."""
    for part in diff.split("@@\n"):
        lines = part.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        assert text.count(before) == 1, f"stands there {text.count(before)} times:\n{before}"
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] != "-"))
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with all that the document adds."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("harness", "engines", "scenarios", "reports", "docker"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, kind, text in EXAMPLE.findall(DOCUMENT):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text if kind == "python" else changed(path.read_text(), text))
    return folder


def python(copy: Path, *words: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"}
    command = [sys.executable, "-P", *map(str, words)]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)


def bench(copy: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return python(copy, "-m", "harness", *words)


def records(path: Path, pattern: str) -> list[dict[str, Any]]:
    return [json.loads(each.read_text()) for each in sorted(path.glob(pattern))]


def test_every_example_is_found() -> None:
    assert len(EXAMPLE.findall(DOCUMENT)) == DOCUMENT.count("```python\n") + DOCUMENT.count("```diff\n") == 10


def test_an_engine_of_few_lines_is_planned(copy: Path) -> None:
    assert (copy / "engines" / "smallama" / "engine.py").read_text().count("\n") < 120
    listed = bench(copy, "list", "engines")
    assert "smallama" in listed.stdout, listed.stderr
    planned = bench(copy, "plan", "engine=smallama", "quantization=gguf,awq", "engine.concurrent_sequences=2")
    assert planned.returncode == 0, planned.stderr
    assert "skipped smallama awq: smallama reads GGUF files; awq is none" in planned.stdout
    refused = bench(copy, "plan", "engine=smallama", "smallama.threads=0")
    assert (refused.returncode, refused.stderr.strip()) == (2, "smallama.threads=0: must be 1 or more")


@pytest.mark.live
def test_it_is_started_and_measured(copy: Path, tmp_path: Path) -> None:
    words = ("engine=smallama", *MODEL, *SHORT, "scenario.spread=0", "scenario.think_time=0s")
    done = bench(copy, "run", *words, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    [start] = records(tmp_path, "run/starts/*/start.json")
    assert (start["status"], start["resolved"]) == ("completed", {"concurrent_sequences": 2})
    assert "engine_ready" in start["stages"]
    [cell] = records(tmp_path, "run/cells/*/cell.json")
    assert cell["status"] == "completed"
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_scenario_is_played(copy: Path, tmp_path: Path) -> None:
    words = ("engine=reference", "reference.ttft=20ms", "scenario=quiz", "scenario.digits=2", *SHORT)
    done = bench(copy, "run", *words, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    [cell] = records(tmp_path, "run/cells/*/cell.json")
    assert (cell["status"], cell["scenario"]["options"]["digits"]) == ("completed", 2)
    refused = bench(copy, "plan", "engine=reference", "scenario=quiz", "scenario.digits=0")
    assert (refused.returncode, refused.stderr.strip()) == (2, "scenario.digits=0: must be 1 or more")


def test_a_metric_is_in_the_tables(copy: Path, tmp_path: Path) -> None:
    made = one_cell_run(tmp_path / "run", ROWS)
    done = bench(copy, "report", made.path, "--format", "csv", "--table", "cells")
    assert done.returncode == 0, done.stderr
    header, values = (line.split(",") for line in done.stdout.splitlines())
    assert float(values[header.index("answering_share")]) == pytest.approx(1 - 100 / 190)


def test_a_part_of_the_page_is_drawn(copy: Path, tmp_path: Path) -> None:
    made = one_cell_run(tmp_path / "run", [*ROWS, SLOW])
    done = bench(copy, "report", made.path, "--output", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    assert re.search(r"The slowest by load.*llama_cpp fp16.*3\.00.*7", page, re.DOTALL)


@pytest.mark.parametrize(("rows", "is_found"), [(ROWS, False), ([*ROWS, SLOW], True)])
def test_a_reason_to_distrust_is_found_where_it_is(
    copy: Path, tmp_path: Path, rows: list[Any], is_found: bool
) -> None:
    made = one_cell_run(tmp_path / "run", rows)
    done = bench(copy, "report", made.path, "--format", "markdown")
    assert done.returncode == 0, done.stderr
    said = "The slowest took more than 10 times the median: llama_cpp fp16 at 1 user (start 1): 3.00 s beside"
    assert (said in done.stdout) == is_found
