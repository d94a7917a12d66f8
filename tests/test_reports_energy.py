"""Energy and cost, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from make_run import (
    GIB,
    MS,
    S,
    deployment,
    host_samples,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)

from engines import API_PRICES
from engines.models import MODELS
from harness import store
from harness.contracts import ApiPrice, Load
from harness.device_sample import DeviceSample
from reports import open_run
from reports.energy import power_in
from reports.sections import energy

T0 = 100 * S
# Sixteen requests of ten tokens in the window of 8 s: 20 tokens/s.
ROWS = [row(k, 102 * S + k * 490 * MS) for k in range(16)]
PLAIN = DeviceSample(
    t_ns=0, device=0, used_bytes=GIB, process_bytes=GIB, utilization_pct=90, memory_utilization_pct=40,
    power_w=300.0, energy_j=None, temperature_c=60, sm_clock_mhz=1900, memory_clock_mhz=2600,
    throttle_reasons=0, ecc_errors=0, pcie_generation=5, pcie_width=16, pcie_replays=0, foreign_processes=0,
    foreign_bytes=None,
)  # fmt: skip


def samples_of(device: int, watts: float, *, counter: bool) -> list[DeviceSample]:
    """Ten a second from 90 s to 120 s; the counter, where there is one, says what is true: `watts`."""
    return [
        replace(
            PLAIN, t_ns=90 * S + k * 100 * MS, device=device, power_w=watts if not counter else 1.0,
            energy_j=5000.0 + watts * k / 10 if counter else None,
        )
        for k in range(300)
    ]  # fmt: skip


def written(path, devices=(), host=None, settings=None, **start):
    plan = plan_of([deployment("vllm", "awq")], [Load(concurrency=1)])
    record = run_record(plan)
    store.write_record(path / "run.json", replace(record, settings={**record.settings, **(settings or {})}))
    [planned] = plan.starts
    kind = "device" if devices else "host"
    made = start_record(planned, 90 * S, memory_kind=kind, **start)
    write_start(path, made, host or host_samples(90 * S, GIB))
    store.write_samples(path / "starts" / made.name / "device.parquet", devices)
    write_cell(path, planned.cells[0], planned, ROWS, summary(T0))
    return open_run(path)


def value(run, name):
    return run.values[0][name].value


def test_joules_per_token_are_net_of_idle_and_of_all_devices_together(tmp_path):
    devices = samples_of(0, 250.0, counter=True) + samples_of(1, 150.0, counter=True)
    run = written(tmp_path, devices, idle_power_w=100.0)
    assert value(run, "output_tokens_per_s") == pytest.approx(20.0)
    # (250 + 150 - 100) W / 20 tokens/s
    assert value(run, "energy_j_per_output_token") == pytest.approx(15.0)
    assert power_in(run, run.planned_cells[0]).n == 80


def test_without_a_counter_the_mean_of_the_power_stands_in(tmp_path):
    run = written(tmp_path, samples_of(0, 120.0, counter=False), idle_power_w=20.0)
    assert value(run, "energy_j_per_output_token") == pytest.approx(5.0)


def test_energy_is_not_known_without_idle_power_or_with_a_device_that_tells_none(tmp_path):
    assert (
        value(written(tmp_path / "a", samples_of(0, 120.0, counter=True)), "energy_j_per_output_token")
        is None
    )
    silent = [replace(sample, power_w=None) for sample in samples_of(1, 0.0, counter=False)]
    both = written(tmp_path / "b", samples_of(0, 120.0, counter=True) + silent, idle_power_w=20.0)
    assert value(both, "energy_j_per_output_token") is None


def test_a_host_has_the_energy_of_its_packages(tmp_path):
    host = [
        replace(sample, package_energy_j=1e6 + 6.0 * k) for k, sample in enumerate(host_samples(90 * S, GIB))
    ]
    run = written(tmp_path, host=host, idle_power_w=40.0)
    assert value(run, "energy_j_per_output_token") == pytest.approx(1.0)  # (60 W - 40 W) / 20 tokens/s


def test_cost_counts_every_device(tmp_path):
    devices = samples_of(0, 250.0, counter=True) + samples_of(1, 150.0, counter=True)
    run = written(tmp_path, devices, settings={"price.gpu_hour": ("1.80",), "price.currency": ("EUR",)})
    # Two devices at 1.80 an hour make 20 x 3600 = 72,000 tokens of it: 3.60 / 72,000 x 1,000,000.
    assert value(run, "cost_per_million_output_tokens") == pytest.approx(50.0)
    assert "EUR per million output tokens" in str(energy.section(run).body)


def test_the_page_puts_the_same_requests_at_providers_prices_beside_it(tmp_path):
    api = ApiPrice("Some API", 0.10, 0.40, "USD", "2026-01-02", "its page")
    run = written(tmp_path, settings={"price.gpu_hour": ("0.72",)}, api_prices=(api,))
    html = str(energy.section(run).body)
    # 50 input and 10 output tokens per request: 0.40 + 0.10 x 5.
    assert "Some API, USD" in html
    assert ">0.90<" in html
    assert ">10.00<" in html
    assert "(its page, 2026-01-02)" in html


def test_what_is_missing_is_said(tmp_path):
    run = written(tmp_path, idle_power_note="the counter may be read by root alone")
    html = str(energy.section(run).body)
    assert "Energy is not known: the counter may be read by root alone." in html
    assert "give price.gpu_hour" in html
    assert value(run, "cost_per_million_output_tokens") is None


def test_prices_are_of_models_that_bench_knows():
    assert API_PRICES.keys() <= MODELS.keys()
