"""harness/gpu.py with the real nvidia-ml-py over a small NVML library that is compiled here.

Each test asks in a process of its own: the library's path has to be set before Python starts.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GIB = 2**30
PRELUDE = """
import dataclasses, json, os, threading
from harness import gpu
from harness.contracts import Reason
from harness.errors import UserError
def plain(value):
    return json.dumps(value, default=dataclasses.asdict)
def refused(device):
    try: return f"not refused: {gpu.select(device)}"
    except UserError as error: return str(error)
def sampled(indices, pids, enough=lambda rows: len(rows) >= 4):
    tick = threading.Event()
    with gpu.sample_devices(indices, lambda: pids, hz=100) as sampling:
        while not enough(sampling.rows()): tick.wait(0.01)
    return {"rows": sampling.rows(), "notes": sampling.notes, "error": sampling.error}
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds libnvidia-ml.so.1."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if not compiler:
        pytest.skip("no C compiler to build the NVML stub with")
    folder = tmp_path_factory.mktemp("nvml")
    target = folder / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml_stub.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-Wall", "-Wl,-soname,libnvidia-ml.so.1", "-o", target, source],
        check=True,
    )
    return folder


def ask(library: Path | None, expression: str, **environment: object) -> Any:
    """The JSON of an expression over harness.gpu, evaluated under the stub."""
    variables = os.environ | {name: str(value) for name, value in environment.items()}
    variables["LD_LIBRARY_PATH"] = str(library or "")
    source = PRELUDE + f"\nprint(plain({expression}))"
    answer = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], env=variables, capture_output=True, timeout=30
    )
    assert answer.returncode == 0, answer.stderr.decode()
    return json.loads(answer.stdout)


def test_devices_are_described(library: Path) -> None:
    first, second = ask(library, "gpu.devices()")
    assert first == {
        "index": 0,
        "name": "Test GPU 0",
        "uuid": "GPU-0000-0",
        "memory_bytes": 80 * GIB,
        "compute_capability": "9.0",
        "power_limit_w": 700.0,
        "sm_clock_max_mhz": 1980,
        "driver": "575.57.08",
        "cuda": "12.9",
        "notes": [],
    }
    assert (second["index"], second["name"]) == (1, "Test GPU 1")


def test_a_fact_that_a_device_does_not_tell_is_none_with_its_reason(library: Path) -> None:
    first, second = ask(library, "gpu.devices()", FAULT_nvmlDeviceGetEnforcedPowerLimit=3, FAULT_DEVICE=1)
    assert (first["power_limit_w"], first["notes"]) == (700.0, [])
    assert (second["power_limit_w"], second["notes"]) == (None, ["power_limit: Not Supported"])
    assert second["memory_bytes"] == 80 * GIB


def test_a_machine_without_the_library_has_a_reason() -> None:
    if isinstance(ask(None, "gpu.devices()"), list):
        pytest.skip("this machine has an NVIDIA driver")
    assert ask(None, "gpu.devices()") == {"text": "there is no NVIDIA driver (no libnvidia-ml.so.1)"}


def test_a_library_without_its_driver_has_a_reason(library: Path) -> None:
    answer = ask(library, "gpu.devices()", FAULT_nvmlInitWithFlags=9)
    assert answer == {"text": "the NVIDIA driver is installed but not loaded"}


def test_a_library_that_refuses_has_a_reason_in_its_words(library: Path) -> None:
    answer = ask(library, "gpu.devices()", FAULT_nvmlInitWithFlags=4)
    assert answer == {"text": "NVML does not start: Insufficient Permissions"}


def test_a_driver_without_a_device_has_a_reason(library: Path) -> None:
    answer = ask(library, "gpu.devices()", NVML_COUNT=0)
    assert answer == {"text": "the NVIDIA driver is loaded but has no device"}


def test_nothing_is_loaded_at_import() -> None:
    assert ask(None, "'pynvml' in __import__('sys').modules") is False


def test_a_sample_has_every_field_in_its_unit(library: Path) -> None:
    answer = ask(library, "sampled([0], {41, 42})", NVML_PROCESSES=f"41:{GIB} 42:{2 * GIB} 43:{9 * GIB}")
    row = answer["rows"][0]
    assert row.pop("t_ns") > 0
    assert row == {
        "device": 0,
        "used_bytes": 5 * GIB,
        "process_bytes": 3 * GIB,
        "utilization_pct": 87,
        "memory_utilization_pct": 41,
        "power_w": 312.5,
        "energy_j": 5_000_000.0,
        "temperature_c": 64,
        "sm_clock_mhz": 1755,
    }
    assert (answer["notes"], answer["error"]) == ({}, None)


def test_each_sample_has_one_row_per_device(library: Path) -> None:
    rows = ask(library, "sampled([1, 0], set())")["rows"]
    assert [row["device"] for row in rows[:4]] == [1, 0, 1, 0]
    assert [row["used_bytes"] for row in rows[:2]] == [6 * GIB, 5 * GIB]


def test_an_unsupported_field_is_none_and_its_reason_is_kept_once(library: Path) -> None:
    answer = ask(library, "sampled([0], set())", FAULT_nvmlDeviceGetTotalEnergyConsumption=3)
    assert {row["energy_j"] for row in answer["rows"]} == {None}
    assert {row["power_w"] for row in answer["rows"]} == {312.5}
    assert answer["notes"] == {"device 0 energy": "Not Supported"}
    assert answer["error"] is None


def test_processes_that_may_not_be_listed_are_none_with_the_reason(library: Path) -> None:
    answer = ask(library, "sampled([0], {41})", FAULT_nvmlDeviceGetComputeRunningProcesses_v3=4)
    assert {row["process_bytes"] for row in answer["rows"]} == {None}
    assert {row["used_bytes"] for row in answer["rows"]} == {5 * GIB}
    assert answer["notes"] == {"device 0 process_memory": "Insufficient Permissions"}


def test_processes_without_their_memory_are_none_with_the_reason(library: Path) -> None:
    answer = ask(library, "sampled([0], {41, 42})", NVML_PROCESSES=f"41:{GIB} 42:-")
    assert {row["process_bytes"] for row in answer["rows"]} == {None}
    assert answer["notes"] == {"device 0 process_memory": "NVML lists the processes without their memory"}


def test_only_others_processes_are_none_and_not_zero(library: Path) -> None:
    answer = ask(library, "sampled([0], {41})", NVML_PROCESSES=f"7:{GIB}")
    assert {row["process_bytes"] for row in answer["rows"]} == {None}
    assert "none of the server's" in answer["notes"]["device 0 process_memory"]


def test_a_device_that_is_lost_midway_leaves_rows_without_values(library: Path) -> None:
    lose = "os.environ.update({'FAULT_nvmlDeviceGetHandleByIndex_v2': '15', 'FAULT_nvmlShutdown': '15'})"
    seen = f"lambda rows: len(rows) >= 2 and ({lose}, rows[-1].used_bytes is None)[1]"
    answer = ask(library, f"sampled([0], set(), {seen})")
    first, last = answer["rows"][0], answer["rows"][-1]
    assert first["used_bytes"] == 5 * GIB
    assert {last[field] for field in last if field not in ("t_ns", "device")} == {None}
    assert answer["notes"] == {"device 0 handle": "GPU is lost"}
    assert answer["error"] is None


def test_the_baseline_sums_the_devices(library: Path) -> None:
    assert ask(library, "gpu.baseline_bytes([0, 1], hz=100, duration_s=0.03)") == 11 * GIB
    answer = ask(library, "gpu.baseline_bytes([0], 100, 0.03)", FAULT_nvmlDeviceGetMemoryInfo_v2=3)
    assert answer is None


def test_the_return_to_the_baseline_names_what_is_still_held(library: Path) -> None:
    answer = ask(library, f"gpu.wait_for_baseline([0], {4 * GIB}, {GIB // 2}, 0.1)")
    assert (answer["returned"], answer["difference_bytes"]) == (False, GIB)
    assert ask(library, f"gpu.wait_for_baseline([0], {5 * GIB}, 0, 0.1)")["returned"]


def refusal(library: Path | None, device: str, **environment: object) -> str:
    return str(ask(library, f"refused({device!r})", **environment))


def test_devices_are_selected_by_index(library: Path) -> None:
    assert ask(library, "[gpu.select('0'), gpu.select('1,0'), gpu.select('0, 1')]") == [[0], [1, 0], [0, 1]]


def test_cpu_selects_nothing_and_needs_no_library() -> None:
    assert ask(None, "gpu.select('cpu')") == []


@pytest.mark.parametrize("device", ["", "gpu", "0,", "-1", "0,0", "cuda:0"])
def test_what_is_no_device_is_refused_with_the_forms_that_work(library: Path, device: str) -> None:
    assert refusal(library, device) == f'device={device}: not a device; use cpu, 0, or "0,1"'


def test_a_device_that_is_not_there_is_refused_with_those_that_are(library: Path) -> None:
    expected = "device=0,5: there is no device 5; this machine has 0 (Test GPU 0), 1 (Test GPU 1)"
    assert refusal(library, "0,5") == expected


def test_a_device_on_a_machine_without_one_is_refused_with_the_reason(library: Path) -> None:
    expected = "device=0: the NVIDIA driver is installed but not loaded; use device=cpu"
    assert refusal(library, "0", FAULT_nvmlInitWithFlags=9) == expected
