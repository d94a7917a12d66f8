"""benchmarks/samplers.py: what it records of a card, and its table, on numbers made by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from benchmark_modules import modules_of
from nvml_asking import GIB, build_library
from places import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def samplers() -> ModuleType:
    return modules_of("samplers")["samplers"]


def test_a_session_is_recorded_as_lines_with_the_cards_names(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    argv = [sys.executable, BENCHMARKS / "samplers.py", "--record", path, "--duration", "0.3"]
    environment = os.environ | {"LD_LIBRARY_PATH": str(build_library(tmp_path))}
    said = subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout
    *devices_and_samples, sampler = map(json.loads, path.read_text().splitlines())
    devices, samples = devices_and_samples[:2], devices_and_samples[2:]
    assert [(line["device"]["name"], line["device"]["uuid"]) for line in devices] == [
        ("Test GPU 0", None),
        ("Test GPU 1", None),
    ]
    assert len(samples) >= 4
    assert {line["sample"]["used_bytes"] for line in samples} == {5 * GIB, 6 * GIB}
    assert (sampler["sampler"]["error"], sampler["sampler"]["notes"]) == (None, {})
    assert said == f"{len(samples)} samples of Test GPU 0, Test GPU 1 in {path}\n"


def test_a_machine_without_a_card_has_nothing_to_record(tmp_path: Path) -> None:
    argv = [sys.executable, BENCHMARKS / "samplers.py", "--record", tmp_path / "session.jsonl"]
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(build_library(tmp_path)),
        "FAULT_nvmlInitWithFlags": "9",
    }
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "--record: NVML does not start: Driver Not Loaded\n")
    assert not (tmp_path / "session.jsonl").exists()


def test_the_table_has_medians_and_how_many_times_ours_the_plain_one_costs(samplers: ModuleType) -> None:
    ours = [samplers.Cost(share, 0.101, 0.12, 0) for share in (0.002, 0.004, 0.003)]
    plain = [samplers.Cost(share, 0.102, 0.13, 1) for share in (0.012, 0.015, 0.018)]
    table = samplers.markdown({("5 processes", "bench"): ours, ("5 processes", "plain psutil"): plain})
    assert table.splitlines()[2:] == [
        "| 5 processes | bench | 0.30 % (0.20 - 0.40) | 101.0 / 120.0 | 0 |",
        "| 5 processes | plain psutil | 1.50 % (1.20 - 1.80) [x 5.0] | 102.0 / 130.0 | 3 |",
    ]
