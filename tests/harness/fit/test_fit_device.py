"""The memory that `bench fit` reckons with, with the real nvidia-ml-py over a small NVML library."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from nvml_asking import GIB, ask

DEFINE = """
from serving_bench.harness.fit.fit import memory_of
def memory(device, given):
    try: return memory_of(device, given)
    except UserError as error: return str(error)
"""


def here(library: Path | None, device: str, given: int | None = None, **faults: int) -> Any:
    return ask(library, f"memory({device!r}, {given!r})", define=DEFINE, **faults)


def test_a_device_that_is_here_has_its_own_memory(library: Path) -> None:
    found = {"device": "cuda", "device_bytes": 80 * GIB, "devices": 1, "source": "this machine's: Test GPU 0"}
    assert here(library, "auto") == found
    assert here(library, "0") == found


def test_several_devices_have_each_as_much(library: Path) -> None:
    found = here(library, "0,1")
    assert (found["device_bytes"], found["devices"]) == (80 * GIB, 2)
    assert found["source"] == "this machine's: Test GPU 0, Test GPU 1"


def test_a_device_that_does_not_tell_its_memory_is_asked_of_the_user(library: Path) -> None:
    said = here(library, "0", FAULT_nvmlDeviceGetMemoryInfo_v2=3)
    assert said == "device=0: NVML does not report its memory; give fit.device_memory=24GiB"


def test_a_device_that_is_not_here_needs_a_size(library: Path) -> None:
    assert "there is no device 7; this machine has 0 (Test GPU 0)" in here(library, "7")
    assert here(library, "7", 24 * GIB)["device_bytes"] == 24 * GIB


def test_a_given_size_is_believed_where_there_is_a_device_too(library: Path) -> None:
    found = {"device": "cuda", "device_bytes": 24 * GIB, "devices": None, "source": "as given"}
    assert here(library, "auto", 24 * GIB) == found


def test_the_cpu_has_the_machines_memory(library: Path) -> None:
    machine = psutil.virtual_memory().total
    assert here(library, "cpu") == {
        "device": "cpu",
        "device_bytes": machine,
        "devices": None,
        "source": "this machine's",
    }
    assert here(library, "cpu", GIB)["device_bytes"] == GIB


def test_without_a_device_the_machine_is_meant_unless_a_size_is_given() -> None:
    if isinstance(ask(None, "gpu.devices()"), list):
        pytest.skip("this machine has an NVIDIA driver")
    machine = here(None, "auto")
    assert machine["device"] == "cpu"
    assert machine["source"] == "this machine's; there is no NVIDIA driver (no libnvidia-ml.so.1)"
    meant = here(None, "auto", 80 * GIB)
    assert (meant["device"], meant["device_bytes"]) == ("cuda", 80 * GIB)
    assert meant["source"] == "as given, of a GPU that is not here; device=cpu means the CPU"
    assert here(None, "0,1", 80 * GIB)["devices"] == 2
