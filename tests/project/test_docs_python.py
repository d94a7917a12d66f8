"""docs/python.md: its example runs, it describes every table and key, and its jq command finds something."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from repeated_run import repeated_run, three

from serving_bench import reports
from serving_bench.reports.outputs.as_json import json_text, to_builtins

PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return the folder that contains results/mine."""
    path = tmp_path_factory.mktemp("docs")
    (path / "results").mkdir()
    repeated_run(path / "results" / "mine", three())
    return path


def block(language: str) -> str:
    """Return the last example in this language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[-1]


def test_the_first_example_measures_and_reads(place):
    words = {
        '["llama_cpp", "vllm"]': '"reference"', "[1, 8]": '1, "repeats": 1', "results/mine": "results/new",
        '"20s"': '"1s", "load.warmup": "200ms", "load.min_requests": 1, "guard": "off"',
    }  # fmt: skip
    example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    for text, other in words.items():
        assert text in example
        example = example.replace(text, other)
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=place, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("1 server starts\n")
    assert done.stdout.endswith(" results/new/report.html\n")


def test_the_example_runs_and_prints_what_it_says(place):
    done = subprocess.run(
        [sys.executable, "-c", block("python")],
        cwd=place, capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    # The run was made with 80 ms and 1.25 times the speed.
    assert re.search(r"llama_cpp gguf-q8_0 +4 users +0\.07995", done.stdout)
    assert re.search(r"llama_cpp fp16 +llama_cpp gguf-q8_0 +4 users +slower +0\.\d+", done.stdout)


def test_every_table_and_column_is_described():
    part = PAGE.partition("<!-- tables -->\n")[2].partition("<!-- end of tables -->")[0]
    tables = re.findall(r"### `(\w+)`\n\n.+\.\n\n((?:\|.+\|\n)+)", part)
    row = re.compile(r"^\| `(\w+)` \| (\w+) \| .+ \|$", re.MULTILINE)
    assert {name: dict(row.findall(table)) for name, table in tables} == reports.TABLES


def test_the_keys_of_the_json_are_the_described_ones(place):
    found = to_builtins(reports.open_run(place / "results" / "mine"))
    part = PAGE.partition("## JSON\n")[2].partition("\n## ")[0]
    whole, _, of_answer = part.partition("An answer:")
    first = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \|", re.MULTILINE)
    keys, answers = (
        {key for names in first.findall(text) for key in re.findall(r"\w+", names)}
        for text in (whole, of_answer)
    )
    assert keys == set(found)
    described = re.search(r"^\| `run` \| (.*) \|$", whole, re.MULTILINE)
    assert described is not None
    assert re.findall(r"`(\w+)`", described[1]) == list(found["run"])
    [answer] = found["answers"]
    assert answers | {"advice", "command"} == set(answer)
    [value, *_] = answer["rows"][0]["values"].values()
    assert set(answer["rows"][0]) | set(value) <= set(re.findall(r"`(\w+)`", of_answer))


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq here")
def test_the_jq_example_finds_what_is_slower(place):
    text = json_text(reports.open_run(place / "results" / "mine"))
    asked = re.search(r"jq -r '(.*)'", block("sh"), re.DOTALL)
    done = subprocess.run(
        ["jq", "-r", asked.group(1)], input=text, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("llama_cpp fp16 at 1 user: 0.79")
    assert len(done.stdout.splitlines()) == len(
        [
            row
            for row in json.loads(text)["tables"]["verdicts"]
            if (row["metric"], row["kind"]) == ("output_tokens_per_s", "worse")
        ]
    )
