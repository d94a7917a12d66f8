"""What the order of measuring does to values is seen where it does, and hardly ever where it does not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from make_run import (
    MS,
    S,
    deployment,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)

from harness.contracts import Load, Plan
from harness.store import store
from reports import open_run
from reports.checks.order import order_effects
from reports.verdicts.order_effects import change, effects

T0 = 102 * S
ONE_USER = (Load(concurrency=1),)


def balanced(loads, blocks=6) -> Plan:
    """Two deployments, A B B A A B ..., loads in turn forwards and backwards."""
    plan = plan_of([deployment("llama_cpp", "fp16"), deployment("vllm", "fp16")], loads, blocks)
    starts = []
    for repeat in range(blocks):
        pair = [start for start in plan.starts if start.repeat == repeat]
        for start in pair if repeat % 2 == 0 else reversed(pair):
            starts.append(replace(start, index=len(starts)))
    numbered, number = [], 0
    for start in starts:
        cells = start.cells if start.index % 4 < 2 else tuple(reversed(start.cells))
        cells = tuple(replace(cell, number=number + k) for k, cell in enumerate(cells))
        number += len(cells)
        numbered.append(replace(start, cells=cells))
    return replace(plan, starts=tuple(numbered))


def run_with(path, slower, loads=ONE_USER, again=(), blocks=6):
    """Each start's TTFT is 100 ms x slower(start, place of the cell in it), give or take 1 %. `again`: places
    of starts in the plan that were measured anew after all others, by --resume."""
    rng = np.random.default_rng(1)
    plan = balanced(loads, blocks)
    store.write_record(path / "run.json", run_record(plan))
    anew = {index: replace(plan.starts[index], index=len(plan.starts) + at) for at, index in enumerate(again)}
    for start in (anew.get(each.index, each) for each in plan.starts):
        write_start(path, start_record(start, 90 * S, memory_kind="device"))
        for place, cell in enumerate(start.cells):
            first = int(100 * MS * slower(start, place) * math.exp(0.01 * rng.standard_normal()))
            sent = [T0 + k * S // 3 for k in range(24)]
            rows = [
                row(k, at, chunk_ns=tuple(at + first + j * 10 * MS for j in range(10)))
                for k, at in enumerate(sent)
            ]
            write_cell(path, cell, start, rows, summary(100 * S))
    return open_run(path)


def found_in(run):
    return {finding.check: finding for finding in order_effects(run)}


def test_a_run_whose_order_does_nothing_has_no_finding(tmp_path):
    run = run_with(tmp_path, lambda start, _: 1.3 if start.deployment.engine == "vllm" else 1.0)
    assert len(effects(run)) == 6  # two kinds of three metrics; each start has one load
    assert found_in(run) == {}


def test_the_second_start_of_each_block_being_slower_is_a_finding(tmp_path):
    found = found_in(run_with(tmp_path, lambda start, _: 1.2 if start.index % 2 else 1.0))
    assert list(found) == ["order_of_starts"]
    # In twelve starts, ln 1.2 from the first place to the second.
    assert "from the first to the last of a block: TTFT p50 +20 % [+1" in found["order_of_starts"].text
    assert found["order_of_starts"].metrics == ("ttft_s",)
    assert not found["order_of_starts"].marks
    assert found["order_of_starts"].compares


def test_a_load_that_is_slower_when_it_comes_first_is_a_finding(tmp_path):
    loads = (Load(concurrency=1), Load(concurrency=4))
    found = found_in(run_with(tmp_path, lambda _, place: 1.0 if place else 1.2, loads))
    assert list(found) == ["order_of_loads"]
    assert "TTFT p50 -17 %" in found["order_of_loads"].text


def test_a_machine_that_slows_down_over_the_run_is_a_finding(tmp_path):
    found = found_in(run_with(tmp_path, lambda start, _: 1 + 0.02 * start.index))
    assert list(found) == ["drift_over_run"]
    # 22 % from start 1 to start 12, of logarithms a little less than a line.
    assert "TTFT p50 +2" in found["drift_over_run"].text


def test_a_start_that_was_measured_anew_is_of_its_own_time_and_of_no_place(tmp_path):
    """The first two of a run, at its end: by their planned places nothing would have drifted."""
    run = run_with(tmp_path, lambda start, _: 1.4 if start.index >= 14 else 1.0, again=(0, 1), blocks=7)
    found = {(each.kind.split()[0], each.metric): each.change for each in effects(run)}
    assert found["time", "ttft_s.p50"].k == 14
    assert found["time", "ttft_s.p50"].mean > 0.1
    assert found["place", "ttft_s.p50"].k == 12
    assert abs(found["place", "ttft_s.p50"].mean) < 0.02


def test_an_effect_within_the_margin_is_none(tmp_path):
    assert found_in(run_with(tmp_path, lambda start, _: 1.035 if start.index % 2 else 1.0)) == {}


def test_few_starts_and_an_order_that_tells_nothing_give_no_effect():
    factors = [["a", "b"] * 2, [0, 0, 1, 1]]
    assert change([0.0, 0.1, 0.0, 0.1], [0, 1, 1, 0], factors) is None
    # A always first: its place cannot be told from itself.
    assert change([0.0, 0.1] * 6, [0, 1] * 6, [["a", "b"] * 6, [k // 2 for k in range(12)]]) is None


def test_in_runs_without_an_effect_hardly_any_is_found():
    """One in a hundred at 1 %; the check asks for that over all effects of a run together."""
    rng = np.random.default_rng(2)
    blocks = [k // 2 for k in range(12)]
    places = [0, 1, 1, 0] * 3
    names = [["a", "b"][place ^ block % 2] for place, block in zip(places, blocks, strict=True)]
    logs = 0.03 * rng.standard_normal((1000, 12)) + 0.05 * np.repeat(
        rng.standard_normal((1000, 6)), 2, axis=1
    )
    false = 0
    for each in logs:
        found = change(list(each), places, [names, blocks])
        low, high = found.interval(0.99)
        false += not low < 1 < high
    assert false <= 20
    assert found.df == 4


@pytest.mark.parametrize("size", [0.0, 0.2])
def test_the_change_is_that_between_first_and_last_place(size):
    blocks = [k // 2 for k in range(12)]
    places = [0, 1] * 6
    names = [["a", "b"][place ^ block % 2] for place, block in zip(places, blocks, strict=True)]
    logs = [
        size * place + 0.5 * block + (name == "b")
        for place, block, name in zip(places, blocks, names, strict=True)
    ]
    assert change(logs, places, [names, blocks]).mean == pytest.approx(size, abs=1e-9)
