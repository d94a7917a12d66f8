"""What there is of devices, and their idle state, with the real nvidia-ml-py over a small NVML library."""

from pathlib import Path
from textwrap import dedent

import pytest
from nvml_asking import GIB, ask


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
        "memory_clock_max_mhz": 2619,
        "memory_bus_bits": 5120,
        "ecc_enabled": True,
        "mig_enabled": False,
        "pcie_generation_max": 5,
        "pcie_width_max": 16,
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
    assert ask(None, "gpu.devices()") == "there is no NVIDIA driver (no libnvidia-ml.so.1)"


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"FAULT_nvmlInitWithFlags": 9}, "NVML does not start: Driver Not Loaded"),
        ({"FAULT_nvmlInitWithFlags": 4}, "NVML does not start: Insufficient Permissions"),
        ({"NVML_COUNT": 0}, "the NVIDIA driver is loaded but has no device"),
    ],
)
def test_a_library_that_knows_no_device_has_a_reason(library: Path, faults: dict[str, int], reason: str):
    assert ask(library, "gpu.devices()", **faults) == reason


def test_nothing_is_loaded_at_import() -> None:
    assert ask(None, "'pynvml' in __import__('sys').modules") is False


def test_a_card_that_is_split_says_so(library: Path) -> None:
    first, _ = ask(library, "gpu.devices()", NVML_MIG=1)
    assert first["mig_enabled"] is True
    assert "all its instances together" in first["notes"][0]


def test_the_idle_state_sums_the_devices(library: Path) -> None:
    idle = ask(library, "gpu.memory([0, 1]).measure(0.03)")
    assert idle == {"used_bytes": 11 * GIB, "power_w": 625.0, "note": None, "energy_j": None}


@pytest.mark.alone
def test_idle_power_comes_from_the_energy_counter(library: Path) -> None:
    """The stub's power reading is 312.5 W throughout, its counter moves at 70 W in steps of 50 ms."""
    idle = ask(library, "gpu.memory([0]).measure(0.6)", NVML_POWER_MW=70_000)
    assert idle["power_w"] == pytest.approx(70, rel=0.1)


def test_idle_power_without_a_counter_is_the_mean_of_the_power(library: Path) -> None:
    answer = ask(library, "gpu.memory([0]).measure(0.03)", FAULT_nvmlDeviceGetTotalEnergyConsumption=3)
    assert (answer["power_w"], answer["note"]) == (312.5, None)


def test_idle_values_that_are_not_told_are_none_with_the_reason(library: Path) -> None:
    faults = ("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo_v2")
    idle = ask(library, "gpu.memory([0]).measure(0.03)", **{f"FAULT_{function}": 3 for function in faults})
    assert (idle["used_bytes"], idle["power_w"]) == (None, None)
    assert "device 0 power: Not Supported" in idle["note"]


def test_a_driver_that_hangs_while_sampling_holds_nobody_up(library: Path) -> None:
    """The sampler's thread hangs in a call."""
    source = """
    def hung():
        sampling.ANSWER_LIMIT_S = 0.2
        begun_s = time.monotonic()
        with sampling.Sampling(DeviceReader([0], Tree(set())), hz=100) as running:
            while len(running.rows()) < 2: time.sleep(0.01)
            os.environ["HANG_nvmlDeviceGetPowerUsage"] = "1"
            running.mark()
            running.mark()
        return {"took_s": time.monotonic() - begun_s, "error": running.error}
    """
    answer = ask(library, "hung()", define=dedent(source))
    assert answer["took_s"] < 3
    assert "a sample at a mark: no answer within 0.2 s" in answer["error"]
    assert answer["error"].startswith("2 samples")


def test_a_driver_that_hangs_is_a_reason_and_no_wait_for_ever(library: Path) -> None:
    """All in one process, as in a run: what hangs first blocks everything after it."""
    source = """
    def hung():
        gpu.ANSWER_LIMIT_S = 0.3
        found = gpu.devices()
        back = gpu.memory([0]).wait(0, 0.1)
        try: idle = gpu.memory([0]).measure(0.1)
        except UserError as error: idle = str(error)
        return {"devices": str(found), "back": back, "idle": idle}
    """
    answer = ask(library, "hung()", define=dedent(source), HANG_nvmlDeviceGetHandleByIndex_v2=1)
    assert answer["devices"] == "the NVIDIA driver does not answer (no answer within 0.3 s)"
    assert answer["back"] == [False, None]
    assert "the NVIDIA driver does not answer" in answer["idle"]


def test_a_device_that_cannot_be_read_is_not_back_at_its_baseline(library: Path) -> None:
    assert ask(library, "gpu.memory([0]).wait(0, 5)", FAULT_nvmlInitWithFlags=9) == [False, None]


def test_the_return_to_the_baseline_names_what_is_still_held(library: Path) -> None:
    assert ask(library, f"gpu.memory([0]).wait({4 * GIB}, 0.1)") == [False, 5 * GIB]
    assert ask(library, f"gpu.memory([0]).wait({5 * GIB}, 0.1)") == [True, 5 * GIB]


def test_nvml_is_opened_once(library: Path, tmp_path: Path) -> None:
    source = """
    def a_run():
        gpu.select("0"), gpu.devices()
        for _ in range(2):
            gpu.memory([0]).measure(0.02)
            sampled([0], set())
            gpu.memory([0]).wait(0, 0.0)
    """
    log = tmp_path / "log"
    ask(library, "a_run()", define=dedent(source), NVML_LOG=log)
    assert log.read_text().split() == ["init"]


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
    expected = "device=0: NVML does not start: Driver Not Loaded; use device=cpu"
    assert refusal(library, "0", FAULT_nvmlInitWithFlags=9) == expected
