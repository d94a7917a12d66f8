"""Why a device lowers its clocks, in words."""

import pynvml
import pytest

from serving_bench.harness.contracts import throttle_names


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        ("SwPowerCap", "power cap"),
        ("HwSlowdown", "hardware slowdown"),
        ("SwThermalSlowdown", "thermal slowdown by the driver"),
        ("HwThermalSlowdown", "thermal slowdown by the hardware"),
        ("HwPowerBrakeSlowdown", "power brake"),
        ("BoardLimit", "board limit"),
        ("Reliability", "reliability limit"),
    ],
)
def test_what_holds_the_clocks_down_is_named(reason: str, name: str) -> None:
    assert throttle_names(getattr(pynvml, f"nvmlClocksThrottleReason{reason}")) == (name,)


@pytest.mark.parametrize(
    "reason", ["None", "GpuIdle", "ApplicationsClocksSetting", "SyncBoost", "DisplayClockSetting"]
)
def test_idle_and_what_somebody_set_is_no_throttling(reason: str) -> None:
    assert throttle_names(getattr(pynvml, f"nvmlClocksThrottleReason{reason}")) == ()


def test_several_reasons_are_all_named() -> None:
    assert throttle_names(0x01 | 0x04 | 0x40) == ("power cap", "thermal slowdown by the hardware")


def test_a_bit_that_is_not_known_counts() -> None:
    assert throttle_names(0x800 | 0x04) == ("power cap", "unknown reason 0x800")


def test_every_bit_of_the_library_is_known() -> None:
    assert not [name for name in throttle_names(pynvml.nvmlClocksThrottleReasonAll) if "unknown" in name]
