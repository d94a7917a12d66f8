"""harness/guard.py: samples of known content, and a real run beside programs that take the processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench_command import Place, bench, quick
from make_run import summary

from harness import guard
from harness.contracts import GuardFinding, Load
from harness.device_sample import DeviceSample
from harness.errors import UnfitError
from harness.guard import Guard, Seen
from harness.host import HostSample

S = 1_000_000_000
GIB = 2**30
MIB = 2**20


def host(t_s: float, cpu_s: float | None = 0.0, busy: float = 0.0, **more: object) -> HostSample:
    return HostSample(
        t_ns=int(t_s * S), rss_bytes=1, cpu_s=cpu_s, threads=1, processes=1, major_faults=0, pss_bytes=None,
        machine_available_bytes=GIB, machine_cpu_pct=busy, **more,
    )  # fmt: skip


def device(t_s: float, **more: object) -> DeviceSample:
    known = {
        "used_bytes": 5 * GIB, "process_bytes": 3 * GIB, "utilization_pct": 90, "memory_utilization_pct": 40,
        "power_w": 300.0, "energy_j": 100.0, "temperature_c": 60, "sm_clock_mhz": 1900,
        "memory_clock_mhz": 2600, "throttle_reasons": 0, "ecc_errors": 0, "pcie_generation": 5,
        "pcie_width": 16, "pcie_replays": 0, "foreign_processes": 0, "foreign_bytes": None,
    }  # fmt: skip
    return DeviceSample(t_ns=int(t_s * S), device=0, **(known | more))


class Samples:
    """A start whose samples are given."""

    def __init__(self, host: Sequence[HostSample] = (), device: Sequence[DeviceSample] = ()) -> None:
        self._host, self._device = host, device

    def host_rows(self, since_ns: int, until_ns: int) -> Sequence[HostSample]:
        return self._host

    def device_rows(self, since_ns: int, until_ns: int) -> Sequence[DeviceSample]:
        return self._device


def kinds(found: Sequence[GuardFinding] | Iterator[GuardFinding]) -> list[str]:
    return [finding.kind for finding in found]


def test_the_load_of_others_is_what_neither_server_nor_client_used() -> None:
    # 4 cores, 75 % busy: 3 cores. The server used 8 CPU seconds in 4 s, 2 cores; the client half a core.
    rows = [host(0, 10.0, 75.0), host(4, 18.0, 75.0)]
    assert guard.foreign_share(Seen(rows, (), 4), 0.5) == pytest.approx(0.125)
    assert kinds(guard.host_findings(Seen(rows, (), 4), 0.5, "during")) == []
    found = list(guard.host_findings(Seen(rows, (), 4), 0.2, "during"))
    assert [f.text for f in found] == ["other programs used 20 % of the processor"]


def test_the_load_of_others_is_not_known_beside_a_server_out_of_sight() -> None:
    rows = [host(0, None, 100.0), host(4, None, 100.0)]
    assert guard.foreign_share(Seen(rows, (), 4), 0.0) is None


def test_stolen_time_and_swapping_are_found() -> None:
    rows = [
        host(0, machine_steal_pct=4.0, machine_swapped_bytes=100 * MIB),
        host(1, machine_steal_pct=8.0, machine_swapped_bytes=117 * MIB),
    ]
    found = list(guard.host_findings(Seen(rows, (), 4), 0.0, "during"))
    assert [f.text for f in found] == [
        "6 % of the processor went to other guests of its host",
        "17 MiB went in or out of swap",
    ]


def test_another_process_on_the_device_is_named_with_its_memory() -> None:
    rows = [device(0), device(1, foreign_processes=2, foreign_bytes=GIB)]
    [found] = guard.device_findings(rows, "before")
    assert found.text == "other processes were on device 0 with 1.00 GiB"


def test_throttling_is_told_by_its_reasons_and_share() -> None:
    rows = [device(k / 10, throttle_reasons=0x04 if k < 6 else 0x40 if k < 8 else 0x01) for k in range(100)]
    [found] = guard.device_findings(rows, "during")
    assert found.text == (
        "device 0 was throttled (power cap, thermal slowdown by the hardware) in 8 % of the samples"
    )
    assert kinds(guard.device_findings(rows[4:], "during")) == []  # 4 of 96


def test_a_device_that_tells_nothing_any_more_was_lost() -> None:
    rows = [device(0), *(device(k, used_bytes=None) for k in range(1, 4))]
    assert kinds(guard.device_findings(rows, "during")) == ["device_lost"]


def test_clocks_are_low_against_the_other_windows_of_the_run() -> None:
    watching = Guard("mark", 30)
    assert watching.during(Samples(device=[device(0), device(1)]), summary(0)) == ()
    idle = device(2, sm_clock_mhz=300, utilization_pct=0)
    assert watching.during(Samples(device=[device(0, sm_clock_mhz=1880), idle]), summary(0)) == ()
    [found] = watching.during(Samples(device=[device(0, sm_clock_mhz=1700)]), summary(0))
    assert found.text == "device 0 ran at 1700 MHz, in this run's other windows at 1890 MHz"
    assert (found.kind, found.when, found.validity) == ("clocks_low", "during", "suspect")


def test_strict_makes_a_window_invalid() -> None:
    [found] = Guard("strict", 30).during(Samples(device=[device(0, foreign_processes=1)]), summary(0))
    assert found.validity == "invalid"


def test_off_does_not_look(tmp_path: Path) -> None:
    samples = Samples(device=[device(0, foreign_processes=1)])
    watching = Guard("off", 30)
    assert watching.during(samples, summary(0)) == ()
    assert watching.before_cell(samples, Load(concurrency=1), tmp_path, lambda text: None) == ()
    watching.before_start("device", GIB)
    watching.before_start("device", 9 * GIB)


def test_what_does_not_pass_is_waited_for_once_and_then_measured_with_a_mark(tmp_path: Path) -> None:
    samples = Samples(device=[device(0, foreign_processes=1)])
    watching, told = Guard("mark", 0.8), []
    for _ in range(2):
        found = watching.before_cell(samples, Load(concurrency=1), tmp_path, told.append)
        assert kinds(found) == ["foreign_process"]
        assert watching.refusal(found) is None
    assert told[0] == "up to 1 s: another process was on device 0"


def test_strict_refuses_with_what_would_work(tmp_path: Path) -> None:
    watching = Guard("strict", 0.6)
    samples = Samples(device=[device(0, foreign_processes=1)])
    found = watching.before_cell(samples, Load(concurrency=1), tmp_path, lambda text: None)
    assert watching.refusal(found) == (
        "the machine was not fit: another process was on device 0; guard=mark measures all the same"
    )


def test_memory_that_is_not_back_marks_every_cell_of_the_start(tmp_path: Path) -> None:
    watching = Guard("mark", 0.6)
    watching.before_start("device", 2 * GIB)
    watching.before_start("device", 2 * GIB + 100 * MIB)  # within 128 MiB
    assert watching.before_cell(Samples(), Load(concurrency=1), tmp_path, lambda text: None) == ()
    watching.before_start("device", 3 * GIB)
    [found] = watching.before_cell(Samples(), Load(concurrency=1), tmp_path, lambda text: None)
    assert found.text == "1.00 GiB more device memory was in use than before the run's first start"
    watching.before_start("device", 2 * GIB)
    assert watching.before_cell(Samples(), Load(concurrency=1), tmp_path, lambda text: None) == ()


def test_strict_refuses_a_start_on_memory_that_is_not_back() -> None:
    watching = Guard("strict", 30)
    watching.before_start("host", 2 * GIB)
    with pytest.raises(UnfitError, match=r"1\.00 GiB more host memory was in use"):
        watching.before_start("host", 3 * GIB)


@contextmanager
def busy_machine() -> Iterator[None]:
    """A program that takes the whole processor."""
    spin = [sys.executable, "-c", "while True: pass"]
    running = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


WORDS = ("engine=reference", "load.concurrency=1", "load.duration=1s", "load.warmup=0s", "repeats=1")


def test_a_busy_machine_is_refused_by_strict(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with busy_machine():
        done = bench(place, "run", *quick(*WORDS, "guard=strict", "guard.wait=1s"), "--output", "run")
    assert done.returncode == 1, done.stderr
    [cell] = place.cells().values()
    assert cell["status"] == "failed"
    assert cell["error"].startswith("the machine was not fit: other programs used ")
    assert [finding["kind"] for finding in cell["guard"]] == ["foreign_load"]
    page = (place.run_dir / "report.html").read_text()
    assert "the machine was not fit" in page


def test_a_busy_machine_marks_a_cell(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with busy_machine():
        done = bench(place, "run", *quick(*WORDS, "guard=mark", "guard.wait=1s"), "--output", "run")
    assert done.returncode == 0, done.stderr
    [cell] = place.cells().values()
    assert (cell["status"], cell["validity"]) == ("completed", "suspect")
    assert {(f["kind"], f["when"]) for f in cell["guard"]} >= {("foreign_load", "during")}
    assert json.loads((place.run_dir / "run.json").read_text())["settings"]["guard"] == ["mark"]
