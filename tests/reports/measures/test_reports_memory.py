"""What devices did in the windows, and what of memory could not be read."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from make_run import GIB, S, begin_run, deployment, row, start_record, summary, write_cell, write_start
from page_data import plain, rows_of

from serving_bench.harness.contracts import Load
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.data.run import Run
from serving_bench.reports.data.samples import device_samples
from serving_bench.reports.measures.memory_parts import unread_of
from serving_bench.reports.page.sections import memory, why

SPAWNED_NS = 100 * S
# Ten seconds after the spawn the load begins; its window is from 12 to 20 s.
WINDOW_S = range(12, 20)
PLAIN = DeviceSample(
    t_ns=0, device=0, used_bytes=5 * GIB, process_bytes=4 * GIB, utilization_pct=80,
    memory_utilization_pct=40, power_w=300.0, energy_j=None, temperature_c=60, sm_clock_mhz=1700,
)  # fmt: skip


def run_of(path: Path, notes: tuple[Mapping[str, str], ...], samples: tuple[DeviceSample, ...] = ()) -> Run:
    """Two deployments, as many starts of each as half of the notes; all with the same samples."""
    plan = begin_run(
        path, [deployment("llama_cpp", "bf16"), deployment("vllm", "bf16")], [Load(1)], len(notes) // 2
    )
    for start, said in zip(plan.starts, notes, strict=True):
        write_start(path, start_record(start, SPAWNED_NS, memory_kind="device", memory_notes=said))
        made = summary(SPAWNED_NS + 10 * S)
        rows = [row(k, made.window_start_ns + k * S) for k in range(6)]
        write_cell(path, start.cells[0], start, rows, made)
        store.write_samples(path / "starts" / start.name / "device.parquet", list(samples))
    return open_run(path)


def sampled(**by_second: object) -> tuple[DeviceSample, ...]:
    """A sample each second from 5 to 25 s on two devices; of a function's second and device, its value."""
    return tuple(
        replace(
            PLAIN,
            t_ns=SPAWNED_NS + at_s * S,
            device=device,
            **{name: value(at_s, device) if callable(value) else value for name, value in by_second.items()},
        )
        for at_s in range(5, 25)
        for device in (0, 1)
    )


# --- what could not be read ------------------------------------------------------------------------


def test_reasons_are_listed_once_with_whose_they_are(tmp_path: Path) -> None:
    hidden = {"device 0 energy": "Not Supported", "device 0 ecc_errors": "Not Supported"}
    host = {"host pss": "that of process 7 may not be read; ask root"}
    page = {"server samples": "9 of 9 were not read"}
    run = run_of(tmp_path, (hidden, hidden | host | page, hidden, hidden), sampled())
    starts = [record.name for record in run.start_records]
    assert unread_of(run) == [
        ("device 0 energy: Not Supported", starts),
        ("device 0 ecc errors: Not Supported", starts),
        ("host pss: that of process 7 may not be read; ask root", ["01-vllm-bf16"]),
    ]


def test_run_without_a_reason_has_no_list(tmp_path: Path) -> None:
    assert unread_of(run_of(tmp_path, ({}, {}), sampled())) == []


def test_reasons_are_shown_where_nothing_was_sampled(tmp_path: Path) -> None:
    run = run_of(tmp_path, ({"device sampler": "gone"},) * 2)
    assert f"device sampler: gone {run.start_records[0].name}" in plain(memory.course(run).body)


# --- devices in the windows ------------------------------------------------------------------------


def test_devices_are_told_by_means_extremes_and_growth_in_the_windows(tmp_path: Path) -> None:
    samples = sampled(temperature_c=lambda at_s, device: 90 if at_s == 5 else 60 + at_s + device)
    run = run_of(tmp_path, ({}, {}), samples)
    seen = device_samples(run, run.groups[0])
    assert len(seen) == 2 * len(WINDOW_S)
    assert seen["temperature_c"].max() == 80.0  # at 19 s; what was before the window does not count
    row = rows_of(why.reported(run).parts[0])[0]
    assert (row["device %"], row["highest °C"]) == ("80", "80")


def test_a_column_that_no_device_told_is_left_out(tmp_path: Path) -> None:
    text = plain(why.reported(run_of(tmp_path, ({}, {}), sampled(temperature_c=None))).body)
    assert "deployment load device % samples starts" in text
