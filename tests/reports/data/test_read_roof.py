"""What the memory of a start's device gives at most: the roof of decode."""

from dataclasses import replace
from typing import Any

import pytest
from make_sweep import SIX, sweep_run

from serving_bench.reports.checks.bounds import decodes_of
from serving_bench.reports.data.run import Run, open_run
from serving_bench.reports.data.samples import read_roof
from serving_bench.reports.words.claims import decode_finding


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return open_run(sweep_run(tmp_path_factory.mktemp("run") / "run", SIX[:1], (1,), 1, 10.0))


def _with(run: Run, **environment: Any) -> Run:
    return replace(run, record=replace(run.record, environment={**run.record.environment, **environment}))


def test_roof_of_a_host_is_what_was_measured_when_the_run_began(run: Run) -> None:
    start = replace(run.start_records[0], memory_kind="host", devices=())
    assert read_roof(_with(run, memory={"read_bytes_per_s": 40e9}), start) == 40e9
    assert read_roof(run, start) is None


def test_roof_of_cards_is_their_clock_times_their_bus(run: Run) -> None:
    # An H100 SXM: 2,619 MHz, two transfers a clock, 5,120 bits; its data sheet says 3.35 TB/s.
    cards = [{"index": at, "memory_clock_max_mhz": 2619, "memory_bus_bits": 5120} for at in (0, 1)]
    start = replace(run.start_records[0], memory_kind="device", devices=(0,))
    assert read_roof(_with(run, devices=cards), start) == pytest.approx(3.352e12, rel=1e-3)
    assert read_roof(_with(run, devices=cards), replace(start, devices=(0, 1))) == pytest.approx(
        6.704e12, rel=1e-3
    )
    assert read_roof(_with(run, devices=cards), replace(start, devices=(0, 2))) is None


def test_no_roof_is_known_where_a_card_does_not_tell_its_bus(run: Run) -> None:
    cards = [{"index": 0, "memory_clock_max_mhz": 2619, "memory_bus_bits": None}]
    start = replace(run.start_records[0], memory_kind="device", devices=(0,))
    assert read_roof(_with(run, devices=cards), start) is None
    assert read_roof(_with(run, devices="no driver"), start) is None


def test_decode_is_told_from_a_hundredth_of_the_roof_on(run: Run) -> None:
    read = 1e9 * max(each.read_gb_per_s for each in decodes_of(run))

    def found(share: float) -> str | None:
        card = {"index": 0, "memory_clock_max_mhz": read / share / 2e6 / 128, "memory_bus_bits": 1024}
        return decode_finding(_with(run, devices=[card]))

    assert found(0.5) == "Decode uses up to 50 % of the memory's bandwidth"
    assert found(0.011) == "Decode uses up to 1 % of the memory's bandwidth"
    assert found(0.004) is None
