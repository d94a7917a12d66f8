"""harness/sampling/guard.py: samples of known content, and a real run beside programs that take the
processor."""

import html
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from bench_command import Place, bench, quick, side_by_side
from make_run import summary

from serving_bench.harness.contracts import GuardFinding, GuardMode, Load, quoted
from serving_bench.harness.errors import ServerError, UnfitError
from serving_bench.harness.sampling import guard
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.sampling.guard import Cause, Guard, Seen
from serving_bench.harness.sampling.host import HostSample
from serving_bench.harness.sampling.sampling import Use
from serving_bench.harness.settings import config, overrides

S = 1_000_000_000
GIB = 2**30
MIB = 2**20
LOAD = Load(concurrency=1)


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


class Start:
    """A start with these device samples, whose server runs."""

    def __init__(self, *rows: DeviceSample) -> None:
        self._rows = rows

    def seen(self, since_ns: int, until_ns: int) -> Seen:
        return Seen((), [row for row in self._rows if since_ns <= row.t_ns < until_ns])

    def check(self) -> None:
        pass


class Looks(Start):
    """A start in which each look sees the next of these samples, and at last always the same one."""

    def seen(self, since_ns: int, until_ns: int) -> Seen:
        look, *left = self._rows
        self._rows = tuple(left) or self._rows
        return Seen((), [replace(look, t_ns=since_ns)])


class Quiet:
    """Nothing may be shown."""

    def line(self, text: str) -> None:
        raise AssertionError(text)

    def waits(self, what: str, unfit: str) -> None:
        raise AssertionError(f"waits: {unfit}")


class Shown(Quiet):
    """Collects what is waited for."""

    def __init__(self) -> None:
        self.waited: list[str] = []

    def waits(self, what: str, unfit: str) -> None:
        self.waited.append(unfit)


def kinds(found: Iterable[GuardFinding | Cause]) -> list[str]:
    return [each.kind if isinstance(each, GuardFinding) else each[0] for each in found]


def texts(found: Iterable[Cause]) -> list[str]:
    return [str(cause.fact) for cause in found]


@dataclass
class Held:
    """A device's memory. Each measurement gives the next of these numbers."""

    used_bytes: list[int]
    returned: bool
    kind: str = "device"

    def measure(self) -> Use:
        return Use(self.used_bytes.pop(0))

    def wait(self, baseline_bytes: int, timeout_s: float) -> tuple[bool, None]:
        return self.returned, None


def memory(*used_bytes: int, returned: bool = False, kind: str = "device") -> Held:
    return Held(list(used_bytes), returned, kind)


def started(
    mode: GuardMode = "mark", wait_s: float = 30.0, devices: tuple[int, ...] = (0,), show: Quiet | None = None
) -> Guard:
    """A guard whose first start has a device."""
    watching = Guard(mode, wait_s, show or Quiet())
    watching.before_start("start", memory(2 * GIB), devices)
    return watching


def during(watching: Guard, *rows: DeviceSample, traffic: str = "a at 1 user") -> tuple[GuardFinding, ...]:
    """What the guard finds in a window from 2 s to 10 s."""
    return watching.during(Start(*rows), summary(0), traffic)


def test_the_load_of_others_is_what_neither_server_nor_client_used() -> None:
    # 4 cores, 75 % busy: 3 cores. The server used 8 CPU seconds in 4 s, 2 cores; the client half a core.
    rows = [host(0, 10.0, 75.0), host(4, 18.0, 75.0)]
    assert guard.foreign_share(Seen(rows, (), 4), 0.5) == pytest.approx(0.125)
    assert texts(guard.host_causes(Seen(rows, (), 4), 0.5)) == []
    assert texts(guard.host_causes(Seen(rows, (), 4), 0.2)) == ["other programs used 20 % of the processor"]


def test_what_the_server_did_before_the_first_sample_is_not_others_load() -> None:
    # It took all 4 cores until 0 s, and nothing since.
    rows = [host(0, 10.0, 100.0), host(0.1, 10.0, 1.0), host(0.2, 10.0, 3.0)]
    assert guard.foreign_share(Seen(rows, (), 4), 0.0) == pytest.approx(0.02)


def test_the_load_of_others_is_not_known_beside_a_server_out_of_sight() -> None:
    rows = [host(0, None, 100.0), host(4, None, 100.0)]
    assert guard.foreign_share(Seen(rows, (), 4), 0.0) is None
    assert guard.foreign_share(Seen([host(0, 1.0, 50.0)], (), 4), 0.0) is None


def test_stolen_time_and_swapping_are_found() -> None:
    rows = [
        host(0, machine_steal_pct=4.0, machine_swapped_bytes=100 * MIB),
        host(1, machine_steal_pct=8.0, machine_swapped_bytes=117 * MIB),
    ]
    assert texts(guard.host_causes(Seen(rows, (), 4), 0.0)) == [
        "6 % of the processor went to other guests of its host",
        "17 MiB went in or out of swap",
    ]


def test_another_process_on_the_device_is_named_with_its_memory() -> None:
    rows = [device(0), device(1, foreign_processes=2, foreign_bytes=GIB)]
    found = guard.others_on(0, rows, 0, may_work=False)
    assert texts(found) == ["other processes were on device 0 with 1.00 GiB"]


DESKTOP = {"foreign_processes": 1, "foreign_bytes": GIB // 2}


@pytest.mark.parametrize(
    ("in_look", "in_window", "expected"),
    [
        ({**DESKTOP, "foreign_busy_pct": 3}, {**DESKTOP, "foreign_busy_pct": 4}, ([], [])),
        ({**DESKTOP, "foreign_busy_pct": 3}, {**DESKTOP, "foreign_busy_pct": 40}, ([], ["foreign_process"])),
        (
            {**DESKTOP, "foreign_busy_pct": 3},
            {"foreign_processes": 2, "foreign_busy_pct": 0},
            ([], ["foreign_process"]),
        ),
        # NVML does not tell who computes: the device does while the server is idle, or not.
        ({**DESKTOP, "utilization_pct": 2}, DESKTOP, (["idle_process"], ["idle_process"])),
        ({**DESKTOP, "utilization_pct": 60}, DESKTOP, (["foreign_process"], ["foreign_process"])),
    ],
)
def test_what_was_on_the_device_before_disturbs_only_if_it_computes(
    tmp_path, monkeypatch, in_look, in_window, expected
):
    monkeypatch.setattr(guard, "LOOK_S", 0.01)
    watching = started(wait_s=0.0, show=Shown())
    before = watching.before_cell("cell", Looks(device(0, **in_look)), LOAD, tmp_path)
    found = during(watching, device(4, **in_window))
    assert (kinds(before), kinds(found)) == expected
    assert [each.disturbs for each in found] == [kind == "foreign_process" for kind in expected[1]]


def test_what_another_process_computes_is_told(tmp_path: Path) -> None:
    rows = [device(1, **DESKTOP, foreign_busy_pct=40)]
    [text] = texts(guard.others_on(0, rows, 1, may_work=False))
    assert text == "another process was on device 0 with 0.50 GiB, computing 40 % of the time"


def test_throttling_is_told_by_its_reasons_and_share() -> None:
    rows = [device(k / 10, throttle_reasons=0x04 if k < 6 else 0x40 if k < 8 else 0x01) for k in range(100)]
    assert texts(guard.throttled(0, rows)) == [
        "device 0 was throttled (power cap, thermal slowdown by the hardware) in 8 % of the samples"
    ]
    assert texts(guard.throttled(0, rows[4:])) == []  # 4 of 96
    assert texts(guard.throttled(0, [device(0, throttle_reasons=None)])) == []


def test_the_windows_samples_alone_are_looked_at() -> None:
    before, inside, after = (device(t_s, foreign_processes=1) for t_s in (1.9, 5, 10))
    assert kinds(during(started(), before, device(5), after)) == []
    assert kinds(during(started(), device(4), inside)) == ["foreign_process"]


def test_a_device_that_tells_nothing_any_more_was_lost() -> None:
    silent = [device(k, used_bytes=None) for k in (3, 4, 5)]
    [found] = during(started(), device(2), *silent)
    assert str(found.fact) == "device 0 no longer reports its memory"
    [found] = during(started(), replace(device(2), device=1))
    assert str(found.fact) == "device 0 gave no sample"


def test_a_device_that_was_lost_is_so_in_the_next_start_too() -> None:
    watching = started()
    assert kinds(during(watching, device(4))) == []
    watching.before_start("start", memory(GIB), (0,))
    assert kinds(during(watching, *(device(k, used_bytes=None) for k in (3, 4, 5)))) == ["device_lost"]


def test_a_device_that_never_told_its_memory_is_not_lost() -> None:
    assert during(started(), *(device(k, used_bytes=None) for k in (3, 4, 5))) == ()


def test_without_a_device_none_is_lost() -> None:
    assert during(started(devices=())) == ()


def test_clocks_are_low_against_earlier_windows_of_the_same_deployment_and_load() -> None:
    watching = started()
    idle = device(6, sm_clock_mhz=300, utilization_pct=0)
    assert during(watching, device(4), idle) == ()
    assert during(watching, device(4, sm_clock_mhz=1700), traffic="a at 64 users") == ()
    assert during(watching, device(4, sm_clock_mhz=1880)) == ()
    [found] = during(watching, device(4, sm_clock_mhz=1700))
    assert str(found.fact) == (
        "device 0 ran at 1700 MHz, in earlier windows of this deployment and load 1890 MHz"
    )
    assert (found.kind, found.when, found.validity) == ("clocks_low", "during", "suspect")


def test_strict_makes_a_window_invalid_that_something_came_into() -> None:
    rows = [device(4, foreign_processes=1, throttle_reasons=0x04)]
    found = {each.kind: each.validity for each in during(started("strict"), *rows)}
    # A card that is always at its power limit would never be measured.
    assert found == {"foreign_process": "invalid", "throttled": "suspect"}


def test_off_does_not_look(tmp_path: Path) -> None:
    watching = started("off")
    assert during(watching, device(4, foreign_processes=1)) == ()
    assert watching.before_cell("cell", Looks(device(0, foreign_processes=1)), LOAD, tmp_path) == ()
    watching.before_start("start", memory(9 * GIB), (0,))


@pytest.mark.alone
def test_what_does_not_pass_is_waited_for_and_then_measured_with_a_mark(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "WAIT_AGAIN_S", 0.0)
    monkeypatch.setattr(guard, "LOOK_S", 0.05)
    shown, took_s = Shown(), []
    watching = started(wait_s=4.0, show=shown)
    for _ in range(2):
        began_s = time.monotonic()
        found = watching.before_cell("cell", Looks(device(0, foreign_processes=1)), LOAD, tmp_path)
        took_s.append(time.monotonic() - began_s)
        assert kinds(found) == ["foreign_process"]
        assert watching.refusal(found) is None
    # Once in vain, it is looked at once the next time.
    assert shown.waited == ["up to 1 s: another process was on device 0"]
    assert took_s[0] >= 1.0 > took_s[1]


def test_the_waits_of_a_run_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WAIT_AGAIN_S", 100.0)
    monkeypatch.setattr(guard, "LOOK_S", 0.01)
    shown, busy = Shown(), Looks(device(0, foreign_processes=1))
    watching = started(wait_s=0.8, show=shown)
    for _ in range(8):  # each of them would wait for as long as the run may
        assert kinds(watching.before_cell("cell", busy, LOAD, tmp_path)) == ["foreign_process"]
    assert 2 <= len(shown.waited) < 8, "a wait that nothing is left for is none"


def test_what_passes_while_it_is_waited_for_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "LOOK_S", 0.05)
    looks = Looks(*[device(0, foreign_processes=1)] * 3, device(0))
    shown = Shown()
    assert started(show=shown).before_cell("cell", looks, LOAD, tmp_path) == ()
    assert len(shown.waited) == 1


def test_a_server_that_dies_while_it_is_waited_for_ends_the_wait(tmp_path: Path) -> None:
    class Dead(Looks):
        def check(self) -> None:
            raise ServerError("the server has exited")

    busy = Dead(device(0, foreign_processes=1))
    with pytest.raises(ServerError):
        started(show=Shown()).before_cell("cell", busy, LOAD, tmp_path)


def test_strict_refuses_with_what_would_work(tmp_path: Path) -> None:
    watching = started("strict", wait_s=0.6, show=Shown())
    busy = Looks(device(0, foreign_processes=1))
    found = watching.before_cell("cell", busy, LOAD, tmp_path)
    assert str(watching.refusal(found)) == (
        "the machine was not fit: another process was on device 0; guard=mark measures anyway"
    )


def test_memory_that_is_not_back_marks_every_cell_of_the_start(tmp_path: Path) -> None:
    shown = Shown()
    watching = started(devices=(), show=shown)
    watching.before_start("start", memory(2 * GIB + 100 * MIB), ())  # within 128 MiB
    assert watching.before_cell("cell", Start(), LOAD, tmp_path) == ()
    for _ in range(2):
        watching.before_start("start", memory(3 * GIB), ())
    [found] = watching.before_cell("cell", Start(), LOAD, tmp_path)
    assert str(found.fact) == "1.00 GiB more device memory was in use than before the first start"
    # The second wait after one in vain is short.
    assert [text.partition(":")[0] for text in shown.waited] == ["up to 8 s", "up to 2 s"]
    watching.before_start("start", memory(2 * GIB), ())
    assert watching.before_cell("cell", Start(), LOAD, tmp_path) == ()


def test_memory_of_the_machine_is_waited_for_only_if_it_is_short(tmp_path, monkeypatch):
    shown, pressure = Shown(), tmp_path / "memory"
    monkeypatch.setattr(guard, "MEMORY_PRESSURE", pressure)
    watching = started(wait_s=0.8, devices=(), show=shown)
    browser = memory(*[9 * GIB] * 8, kind="host")
    assert watching.before_start("start", browser, ()).used_bytes == 9 * GIB
    assert shown.waited == []
    pressure.write_text("some avg10=7.30 avg60=1.00 avg300=0.10 total=9\nfull avg10=0.00 total=0\n")
    watching.before_start("start", browser, ())
    monkeypatch.setattr(guard, "FREE_SHARE", 1.0)
    watching.before_start("start", browser, ())
    [found] = watching.before_cell("cell", Start(), LOAD, tmp_path)
    assert re.fullmatch(r"only [\d.]+ of [\d.]+ GiB of the machine's memory were free", str(found.fact))
    assert shown.waited[0].endswith("s: programs waited for memory in 7 % of the last 10 s")
    monkeypatch.setattr(guard, "FREE_SHARE", 0.0)
    pressure.write_text("some avg10=0.00 avg60=1.00 avg300=0.10 total=9\n")
    watching.before_start("start", browser, ())
    assert watching.before_cell("cell", Start(), LOAD, tmp_path) == ()


def test_memory_of_a_server_that_runs_already_is_not_waited_for(tmp_path: Path) -> None:
    watching = started("strict", devices=())
    watching.before_start("start", memory(3 * GIB), (), is_attached=True)
    assert watching.before_cell("cell", Start(), LOAD, tmp_path) == ()


def test_memory_that_comes_back_in_time_is_measured_again() -> None:
    watching = started("strict", show=Shown())
    idle = watching.before_start("start", memory(3 * GIB, 2 * GIB, returned=True), (0,))
    assert idle.used_bytes == 2 * GIB


def test_strict_refuses_a_start_on_memory_that_is_not_back() -> None:
    with pytest.raises(UnfitError, match=r"1\.00 GiB more device memory was in use") as refused:
        started("strict", show=Shown()).before_start("start", memory(3 * GIB), (0,))
    assert kinds(refused.value.findings) == ["memory_not_back"]


@contextmanager
def busy_machine() -> Iterator[None]:
    """A program that takes the whole processor, as far as bench leaves it: it must not make bench slow."""
    spin = [sys.executable, "-c", "import os; os.nice(10)\nwhile True: pass"]
    running = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def busy_by(text: str) -> GuardFinding:
    return GuardFinding("foreign_load", quoted(text), "before", "suspect")


def test_a_machine_that_is_not_fit_is_told_once_with_what_to_do() -> None:
    watching = started()
    watching.before_run("`bench run --resume DIR`", is_attached=True)  # nothing is said of a server's own
    assert watching.warning([]) is None
    assert watching.warning([GuardFinding("few_files", quoted("few files"), "before", "suspect")]) is None
    said = watching.warning(
        [busy_by("other programs used 60 % of the processor, most by cc1 (process 7, 55 %)")]
    )
    assert said == (
        "the machine is not fit: other programs used 60 % of the processor, most by cc1 (process 7, 55 %). A "
        "verdict is unlikely while that lasts, since disturbed repeats name no winner. bench goes on anyway: "
        "press Ctrl-C now, and `bench run --resume DIR` once it is idle; or begin with guard.wait=20min, so "
        "that bench waits for up to 5 min at a time and then measures anyway"
    )
    assert watching.warning([busy_by("other programs used 90 % of the processor")]) is None


def test_strict_says_that_it_refuses() -> None:
    watching = started("strict")
    watching.before_run("`bench run --resume DIR`", is_attached=True)
    assert watching.warning([busy_by("other programs used 60 % of the processor")]) == (
        "the machine is not fit: other programs used 60 % of the processor. While that lasts guard=strict "
        "refuses to measure. What is refused fails: press Ctrl-C now, and `bench run --resume DIR` once it "
        "is idle; or begin with guard.wait=20min, so that bench waits for up to 5 min at a time and only "
        "then refuses"
    )


WORDS = ("load.duration=1s", "load.warmup=0s")


BUSY = {
    "strict": ("repeats=1", "guard=strict"),
    "mark": ("repeats=1", "guard=mark"),
    "one repeat": ("repeats=2", "guard=mark", "--only-repeat", "2"),
}


Busy = dict[str, tuple[Place, CompletedProcess[str]]]


def measured(words: Sequence[str], place: Place) -> tuple[Place, CompletedProcess[str]]:
    return place, bench(place, "run", *quick(*WORDS, "guard.wait=1s", *words), "--output", "run")


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Busy:
    stories = {name: partial(measured, words) for name, words in BUSY.items()}
    with busy_machine(), side_by_side(tmp_path_factory.mktemp("busy"), stories) as begun_now:
        return {name: story.result() for name, story in begun_now.items()}


@pytest.mark.alone
def test_a_busy_machine_is_refused_by_strict(busy: Busy) -> None:
    place, done = busy["strict"]
    assert done.returncode == 1, done.stderr
    [cell] = place.cells().values()
    assert cell["status"] == "failed"
    assert cell["error"].startswith("the machine was not fit: other programs used ")
    assert [finding["kind"] for finding in cell["guard"]] == ["foreign_load"]
    assert "the machine was not fit" in place.report()


@pytest.mark.alone
def test_a_busy_machine_marks_a_cell(busy: Busy) -> None:
    place, done = busy["mark"]
    assert done.returncode == 0, done.stderr
    [cell] = place.cells().values()
    assert (cell["status"], cell["validity"]) == ("completed", "suspect")
    assert {(f["kind"], f["when"]) for f in cell["guard"]} >= {("foreign_load", "during")}
    warned = done.stderr.index("the machine is not fit: other programs used ")
    assert warned < done.stderr.index(": ready after"), "it is said before anything is measured"
    assert "`bench run --resume run` once it is idle" in done.stderr
    # Of busy_machine's programs or others that are busier, in what is stored and on the page.
    during = next(f["fact"] for f in cell["guard"] if f["when"] == "during")
    assert re.search(r"% of the processor, most by \S+ \(process \d+, \d+ %\)", during), during
    assert during in html.unescape(place.report())
    assert json.loads((place.run_dir / "run.json").read_text())["settings"]["guard"] == ["mark"]


@pytest.mark.alone
def test_one_repeat_of_a_run_is_told_what_disturbs_it_and_no_command(
    busy: Busy,
) -> None:
    _, done = busy["one repeat"]
    assert done.returncode == 0, done.stderr
    assert "the machine is not fit: other programs used " in done.stderr
    assert "Ctrl-C" not in done.stderr


def test_resume_measures_an_invalid_cell_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    done = bench(place, "run", *quick(*WORDS), "--output", "run")
    assert done.returncode == 0, done.stderr
    path = place.run_dir / "cells" / "001" / "cell.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "validity": "invalid"}))
    again = bench(place, "run", "--resume", "run")
    assert again.returncode == 0, again.stderr
    assert place.cells()[1]["validity"] in (
        "valid",
        "suspect",
    )  # a machine that stands still makes it suspect
    assert (place.run_dir / "cells" / "001.attempt1").is_dir()


def test_a_study_may_turn_the_guard_off_in_yaml(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("guard: off\nengine: reference\n")
    assert config.settings(overrides.parse([], study)).guard == "off"
