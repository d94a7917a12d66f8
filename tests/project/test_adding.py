"""The engine in docs/adding.md: added to a copy of the project as the document says, planned and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

DOCUMENT = (ROOT / "docs" / "adding.md").read_text()
ENGINE, REGISTRATION = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
MODEL = ("model=gemma3-270m", "quantization=gguf")
SHORT = (
    "load.concurrency=2", "load.duration=3s", "load.warmup=1s", "load.min_requests=1", "repeats=1",
    "scenario.output_tokens=8", "scenario.spread=0", "scenario.think_time=0s", "device=cpu", "guard=off",
)  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, made of links, with one more engine."""
    folder = tmp_path_factory.mktemp("project")
    engines = folder / "engines"
    engines.mkdir()
    for name in ("harness", "scenarios", "reports", "docker", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    for path in (ROOT / "engines").iterdir():
        if path.name not in ("__init__.py", "__pycache__"):
            (engines / path.name).symlink_to(path)
    (engines / "smallama").mkdir()
    (engines / "smallama" / "engine.py").write_text(ENGINE)
    (engines / "__init__.py").write_text((ROOT / "engines" / "__init__.py").read_text() + REGISTRATION)
    return folder


def bench(copy: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "harness", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300)


def test_an_engine_of_few_lines_is_planned(copy: Path) -> None:
    assert ENGINE.count("\n") < 120
    listed = bench(copy, "list", "engines")
    assert "smallama" in listed.stdout, listed.stderr
    planned = bench(copy, "plan", "engine=smallama", "quantization=gguf,awq", "engine.concurrent_sequences=2")
    assert planned.returncode == 0, planned.stderr
    assert "skipped smallama awq: smallama reads GGUF files; awq is none" in planned.stdout
    refused = bench(copy, "plan", "engine=smallama", "smallama.threads=0")
    assert (refused.returncode, refused.stderr.strip()) == (2, "smallama.threads=0: must be 1 or more")


@pytest.mark.live
def test_it_is_started_and_measured(copy: Path, tmp_path: Path) -> None:
    done = bench(copy, "run", "engine=smallama", *MODEL, *SHORT, "--output", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    (start,) = [json.loads(path.read_text()) for path in tmp_path.glob("run/starts/*/start.json")]
    assert (start["status"], start["resolved"]) == ("completed", {"concurrent_sequences": 2})
    assert "engine_ready" in start["stages"]
    (cell,) = [json.loads(path.read_text()) for path in tmp_path.glob("run/cells/*/cell.json")]
    assert cell["status"] == "completed"
    assert (tmp_path / "run" / "report.html").is_file()
