"""Samples of devices, and whose memory it is, with the real nvidia-ml-py over a small NVML library."""

import os
import shutil
import subprocess
from pathlib import Path
from textwrap import dedent

import pytest
from nvml_asking import GIB, ask


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
        "memory_clock_mhz": 2619,
        "throttle_reasons": 0x44,
        "ecc_errors": 3,
        "pcie_generation": 4,
        "pcie_width": 8,
        "pcie_replays": 7,
        "foreign_processes": 1,
        "foreign_bytes": 9 * GIB,
        "foreign_busy_pct": 0,
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


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"FAULT_nvmlDeviceGetComputeRunningProcesses_v3": 4}, "Insufficient Permissions"),
        ({"NVML_PROCESSES": f"41:{GIB} 42:-"}, "NVML lists the processes without their memory"),
        ({"NVML_PROCESSES": f"7:{GIB}"}, "NVML listed processes, but none of the server's"),
    ],
)
def test_memory_that_is_not_known_to_be_the_servers_is_none_with_the_reason(
    library: Path, environment: dict[str, object], reason: str
) -> None:
    answer = ask(library, "sampled([0], {41, 42})", **environment)
    assert {row["process_bytes"] for row in answer["rows"]} == {None}
    assert {row["used_bytes"] for row in answer["rows"]} == {5 * GIB}
    assert answer["notes"]["device 0 process_memory"].startswith(reason)


ALONE = {"NVML_PROCESSES": f"41:{GIB}"}


def once_lost(function: str, code: int) -> str:
    """Return when to stop: after two rows the function begins to fail, and then a row has no values."""
    lose = f"os.environ.update({{'FAULT_{function}': '{code}', 'FAULT_nvmlShutdown': '{code}'}})"
    return f"lambda rows: len(rows) >= 2 and ({lose}, rows[-1].used_bytes is None)[1]"


@pytest.mark.parametrize(
    ("function", "code", "reason"),
    [
        ("nvmlDeviceGetHandleByIndex_v2", 15, "GPU is lost"),
        # Its handle is still given: the first other call says that it is gone.
        ("nvmlDeviceGetMemoryInfo_v2", 15, "GPU is lost"),
        ("nvmlDeviceGetPowerUsage", 16, "GPU requires restart"),
    ],
)
def test_a_device_that_is_gone_midway_leaves_rows_without_values_and_one_note(
    library: Path, function: str, code: int, reason: str
) -> None:
    answer = ask(library, f"sampled([0], {{41}}, {once_lost(function, code)})", **ALONE)
    first, last = answer["rows"][0], answer["rows"][-1]
    assert (first["used_bytes"], first["process_bytes"], first["ecc_errors"]) == (5 * GIB, GIB, 3)
    assert {last[field] for field in last if field not in ("t_ns", "device")} == {None}
    assert answer["notes"] == {"device 0 handle": reason}
    assert answer["error"] is None


def test_a_device_that_is_lost_leaves_the_other_as_it_was(library: Path) -> None:
    answer = ask(library, "sampled([0, 1], set())", FAULT_nvmlDeviceGetMemoryInfo_v2=15, FAULT_DEVICE=0)
    assert [row["used_bytes"] for row in answer["rows"][:2]] == [None, 6 * GIB]
    assert [row["temperature_c"] for row in answer["rows"][:2]] == [None, 64]


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetMemoryInfo_v2", "used_bytes"),
        ("nvmlDeviceGetUtilizationRates", "utilization_pct"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_j"),
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetClockInfo", "memory_clock_mhz"),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttle_reasons"),
        ("nvmlDeviceGetTotalEccErrors", "ecc_errors"),
        ("nvmlDeviceGetCurrPcieLinkGeneration", "pcie_generation"),
        ("nvmlDeviceGetCurrPcieLinkWidth", "pcie_width"),
        ("nvmlDeviceGetPcieReplayCounter", "pcie_replays"),
        ("nvmlDeviceGetComputeRunningProcesses_v3", "foreign_processes"),
        ("nvmlDeviceGetProcessUtilization", "foreign_busy_pct"),
    ],
)
def test_each_field_fails_alone(library: Path, function: str, field: str) -> None:
    answer = ask(library, "sampled([0], {41})", **ALONE, **{f"FAULT_{function}": 4})
    row = answer["rows"][0]
    assert row[field] is None
    assert set(answer["notes"].values()) == {"Insufficient Permissions"}
    assert len([value for value in row.values() if value is not None]) >= 15


def test_the_older_name_of_the_throttle_reasons_is_used_where_the_driver_has_no_other(library: Path) -> None:
    answer = ask(library, "sampled([0], set())", FAULT_nvmlDeviceGetCurrentClocksEventReasons=13)
    assert {row["throttle_reasons"] for row in answer["rows"]} == {0x20}
    assert answer["notes"] == {}


def test_a_process_on_several_instances_counts_once_with_all_its_memory(library: Path) -> None:
    answer = ask(library, "sampled([0], {41})", NVML_PROCESSES=f"41:{GIB} 41:{2 * GIB} 7:{GIB} 7:{GIB}")
    row = answer["rows"][0]
    assert (row["process_bytes"], row["foreign_processes"], row["foreign_bytes"]) == (3 * GIB, 1, 2 * GIB)


def test_a_desktop_on_the_device_is_a_process_of_others(library: Path) -> None:
    answer = ask(library, "sampled([0], {41})", **ALONE, NVML_GRAPHICS=f"41:{GIB} 8:{GIB // 2}")
    row = answer["rows"][0]
    assert (row["process_bytes"], row["foreign_processes"], row["foreign_bytes"]) == (GIB, 1, GIB // 2)


def test_what_others_compute_is_the_most_of_one_that_is_not_the_server(library: Path) -> None:
    # 9 has ended: it is listed no more.
    given = {**ALONE, "NVML_GRAPHICS": f"8:{GIB}", "NVML_COMPUTED": "41:95 8:3 8:7 9:12"}
    assert ask(library, "sampled([0], {41})", **given)["rows"][0]["foreign_busy_pct"] == 12
    given["NVML_COMPUTED"] = "41:95 8:3 8:7"
    assert ask(library, "sampled([0], {41})", **given)["rows"][0]["foreign_busy_pct"] == 7


def test_others_whose_memory_is_hidden_are_counted_without_it(library: Path) -> None:
    row = ask(library, "sampled([0], {41})", NVML_PROCESSES=f"41:{GIB} 7:-")["rows"][0]
    assert (row["process_bytes"], row["foreign_processes"], row["foreign_bytes"]) == (GIB, 1, None)


def test_a_server_out_of_sight_has_no_memory_attributed_and_no_others_counted(library: Path) -> None:
    answer = ask(library, "sampled([0], None)", NVML_PROCESSES=f"7:{GIB}")
    row = answer["rows"][0]
    assert (row["used_bytes"], row["process_bytes"], row["foreign_processes"]) == (5 * GIB, None, None)
    assert "out of sight" in answer["notes"]["device 0 process_memory"]
    assert "out of sight" in answer["notes"]["device 0 foreign_processes"]


ON_MACHINE = os.path.realpath("/proc/self/ns/pid").endswith("pid:[4026531836]")


@pytest.mark.skipif(not ON_MACHINE, reason="in a container, others' processes cannot be told")
def test_others_are_counted_before_the_server_is_on_the_device(library: Path) -> None:
    row = ask(library, "sampled([0], {41})", NVML_PROCESSES=f"7:{GIB} 8:{GIB}")["rows"][0]
    assert (row["process_bytes"], row["foreign_processes"], row["foreign_bytes"]) == (None, 2, 2 * GIB)
    assert ask(library, "sampled([0], {41})")["rows"][0]["foreign_processes"] == 0


def test_in_another_namespace_of_pids_nobody_is_called_foreign(library: Path) -> None:
    inside = ("unshare", "--pid", "--fork")
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("this user may make no pid namespace")
    answer = ask(library, "sampled([0], {41})", before=inside, NVML_PROCESSES=f"7:{GIB}")
    row = answer["rows"][0]
    assert (row["process_bytes"], row["foreign_processes"], row["foreign_bytes"]) == (None, None, None)
    assert "in a container" in answer["notes"]["device 0 foreign_processes"]
    ours = ask(library, "sampled([0], {41})", before=inside, NVML_PROCESSES=f"41:{GIB} 7:{GIB}")["rows"][0]
    assert (ours["process_bytes"], ours["foreign_processes"]) == (GIB, 1)


@pytest.mark.alone
def test_processes_are_listed_anew_when_the_used_memory_changes(library: Path) -> None:
    grow = f"os.environ.update(NVML_PROCESSES='41:{3 * GIB}', NVML_USED='{7 * GIB}')"
    seen = f"lambda rows: len(rows) >= 2 and ({grow}, rows[-1].process_bytes == {3 * GIB})[1]"
    rows = ask(library, f"sampled([0], {{41}}, {seen})", **ALONE)["rows"]
    assert rows[0]["process_bytes"] == GIB
    # Half a second after the list before, and not with the next slow reading.
    assert 0.4e9 < rows[-1]["t_ns"] - rows[0]["t_ns"] < 0.95e9


GROWING = f"""
class Listing:
    lists = 0
    def among(self, listed):
        self.lists += 1
        return listed
def growing(is_mark):
    tree = Listing()
    reader = DeviceReader([0], tree)
    begun_s = time.monotonic()
    for step in range(50):
        os.environ.update(NVML_USED=str({GIB} + (step << 20)), NVML_PROCESSES=f"41:{{step}}")
        [row] = reader.read(is_mark=is_mark)
    return [tree.lists, time.monotonic() - begun_s, row.process_bytes]
"""


def test_processes_are_listed_twice_a_second_at_most_while_memory_changes(library: Path) -> None:
    lists, took_s, _ = ask(library, "growing(False)", define=GROWING)
    assert lists <= 1 + took_s / 0.5


def test_at_a_mark_processes_are_listed_whenever_memory_has_changed(library: Path) -> None:
    lists, _, process_bytes = ask(library, "growing(True)", define=GROWING)
    assert (lists, process_bytes) == (50, 49)


SERVED = """
class Kept(dict):
    def update(self, **facts): super().update(facts)
def watched(pid, folder, listed):
    from serving_bench.harness.run.watch import watch_memory
    os.environ["NVML_PROCESSES"] = listed
    kept = Kept()
    kept.path = Path(folder) / "start.json"
    with watch_memory(pid, [0], kept) as watch:
        watch.mark("ready")
    from serving_bench.harness.store import store
    table = store.read_samples(Path(folder) / "device.parquet").to_pylist()
    return {"rows": table, "notes": kept["memory_notes"], "sampler": kept["sampler"]}
def serve(source):
    return subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
"""


AT_ONCE = f"""
def most_at_once():
    inside, most, steps, tick = [], [], iter(range(100)), threading.Event()
    class Owners:
      def among(self, listed):
        inside.append(1)
        most.append(len(inside))
        tick.wait(0.05)
        inside.pop()
        return listed
    reader = DeviceReader([0], Owners())
    threads = [threading.Thread(target=reader.read, kwargs={{"is_mark": True}}) for _ in range(3)]
    for thread in threads:
        os.environ["NVML_USED"] = str({GIB} + (next(steps) << 20))
        thread.start()
        tick.wait(0.01)
    for thread in threads:
        thread.join()
    return max(most)
"""


def test_a_sample_and_one_at_a_mark_are_read_one_after_the_other(library: Path) -> None:
    assert ask(library, "most_at_once()", define=AT_ONCE, NVML_PROCESSES=f"41:{GIB}") == 1


def test_the_memory_of_a_new_worker_is_the_servers_at_once(library: Path) -> None:
    """It began after the tree was last looked at, which is done once a second."""
    worker = "import os; print(os.getpid(), flush=True); input()"
    server = f"import subprocess, sys; input(); subprocess.run([sys.executable, '-c', {worker!r}])"
    source = f"""
    def asked():
        from serving_bench.harness.sampling.process_tree import ProcessTree
        with serve({server!r}) as server:
            tree = ProcessTree(server.pid)
            before = tree.read().processes
            server.stdin.write(b"\\n"); server.stdin.flush()
            worker = int(server.stdout.readline())
            os.environ["NVML_PROCESSES"] = f"{{worker}}:{GIB} 1:{2 * GIB}"
            with sampling.Sampling(DeviceReader([0], tree)) as running:
                while not running.rows(): time.sleep(0.01)
            server.kill()
        return [before, running.rows()[0]]
    """
    before, row = ask(library, "asked()", define=SERVED + dedent(source))
    assert before == 1
    assert (row["process_bytes"], row["foreign_processes"], row["foreign_bytes"]) == (GIB, 1, 2 * GIB)


def test_a_watched_start_says_that_an_unseen_servers_memory_is_not_attributed(library: Path, tmp_path: Path):
    answer = ask(library, define=SERVED, expression=f"watched(None, {str(tmp_path)!r}, '7:{GIB}')")
    assert {row["process_bytes"] for row in answer["rows"]} == {None}
    assert {row["used_bytes"] for row in answer["rows"]} == {5 * GIB}
    notes = answer["notes"]
    assert notes["memory"] == "the server is out of sight: only the machine's memory is known"
    assert "none counts as its own" in notes["device 0 process_memory"]


def test_a_watched_start_has_the_cost_of_each_sampler(library: Path, tmp_path: Path) -> None:
    answer = ask(
        library,
        define=SERVED,
        expression=f"watched(os.getpid(), {str(tmp_path)!r}, f'{{os.getpid()}}:{GIB}')",
    )
    assert {row["process_bytes"] for row in answer["rows"]} == {GIB}
    assert answer["sampler"]["device_cpu_s"] > 0
    assert answer["sampler"]["host_cpu_s"] > 0
