"""Energy and cost, against numbers worked out by hand."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from begun_run import write_begun
from make_run import (
    GIB,
    MS,
    S,
    begin_run,
    deployment,
    host_samples,
    plan_of,
    row,
    write_cell,
    write_start,
)
from page_data import notes_of, plain, rows_of

from serving_bench.engines import API_PRICES
from serving_bench.engines.model.models import MODELS
from serving_bench.harness.contracts import ApiPrice, Load, Price, mean_power_w
from serving_bench.harness.errors import UserError
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import clean_of, findings_of
from serving_bench.reports.measures.energy import api_cost
from serving_bench.reports.measures.values import devices_of, power_in, price_of, values_of
from serving_bench.reports.measures.written import precise
from serving_bench.reports.page.sections import energy
from serving_bench.reports.words import claims

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


def powers(path, readings_w, **start):
    """What is said of a card whose counter tells 40 W, beside one whose two accounts agree."""
    samples = [replace(each, power_w=readings_w) for each in samples_of(0, 40.0, counter=True)]
    samples += [replace(each, power_w=readings_w and 30.0) for each in samples_of(1, 30.0, counter=True)]
    run = written(path, samples, **{"devices": (0, 1), "idle_power_w": 20.0, **start})
    looked_for = "A card's energy counter and power readings disagree" in clean_of(run)[0]
    return [each for each in findings_of(run) if each.check == "powers_differ"], looked_for


def test_a_counter_and_readings_that_disagree_are_a_reason_to_distrust_the_energy(tmp_path):
    assert powers(tmp_path / "alike", 49.9) == ([], True)
    [found], _ = powers(tmp_path / "apart", 50.1)
    assert found.text.endswith(": vllm awq at 1 user: 40.0 and 50.1 W (device 0).")
    assert found.cells == (0,)
    assert powers(tmp_path / "lower", 32.1) == ([], True)


def test_where_energy_is_not_by_a_counter_nothing_is_said_of_one(tmp_path):
    assert powers(tmp_path / "unread", None) == ([], False)
    assert powers(tmp_path / "host", 80.0, memory_kind="host") == ([], False)
    assert powers(tmp_path / "attached", 80.0, attached=True) == ([], False)


def settings_of(*words):
    return config.settings(overrides.parse(["engine=reference", *words]))


def written(path, samples=(), host=None, price=(), users=(1,), **start):
    """A run of a cell per load, at the price that these words of a command line set."""
    loads = [Load(concurrency=each) for each in users]
    plan = begin_run(path, [deployment("vllm", "awq")], loads, price=settings_of(*price).price)
    kind = "device" if samples else "host"
    write_measured(path, plan.starts[0], samples, host, **{"memory_kind": kind, **start})
    return open_run(path)


def write_measured(path, planned, samples=(), host=None, rows=ROWS, **start):
    write_start(path, planned, host or host_samples(90 * S, GIB), **start)
    store.write_samples(path / "starts" / planned.name / "device.parquet", samples)
    for cell in planned.cells:
        write_cell(path, cell, planned, rows)


def value(run, name):
    return values_of(run)[0][name].value


def of_host(joules):
    """Host samples whose packages' counter has joules(k) at the k-th."""
    return [replace(each, package_energy_j=joules(k)) for k, each in enumerate(host_samples(90 * S, GIB))]


ONE = samples_of(0, 250.0, counter=True)
SILENT = [replace(sample, power_w=None) for sample in samples_of(1, 0.0, counter=False)]
IDLE_20_W = {"idle_power_w": 20.0}
# Samples of devices and of the host, what the start says, and joules per token: (W - idle W) / 20 tokens/s.
ENERGY = {
    "all devices together": (ONE + samples_of(1, 150.0, counter=True), (), {"idle_power_w": 100.0}, 15.0),
    "without a counter the mean of the power": (samples_of(0, 120.0, counter=False), (), IDLE_20_W, 5.0),
    "no idle power": (ONE, (), {}, None),
    "a device that tells none": (ONE + SILENT, (), IDLE_20_W, None),
    "a device that was not sampled": (ONE, (), {**IDLE_20_W, "devices": (0, 1)}, None),
    "the packages of a host": ((), of_host(lambda k: 1e6 + 6.0 * k), {"idle_power_w": 40.0}, 1.0),
    "a counter lost half way": ((), of_host(lambda k: 6.0 * k if k < 160 else None), IDLE_20_W, None),
}


@pytest.mark.parametrize("case", ENERGY)
def test_joules_per_token_are_net_of_idle(tmp_path, case):
    devices, host, start, expected = ENERGY[case]
    run = written(tmp_path, devices, host, **start)
    assert value(run, "energy_j_per_output_token") == (expected and pytest.approx(expected))
    assert value(run, "output_tokens_per_s") == pytest.approx(20.0)
    assert expected is None or power_in(run, run.planned_cells[0]).n == 80


def test_cost_counts_every_device(tmp_path):
    devices = samples_of(0, 250.0, counter=True) + samples_of(1, 150.0, counter=True)
    run = written(tmp_path, devices, price=("price.gpu_hour=1.80", "price.currency=EUR"))
    # Two devices at 1.80 an hour make 20 x 3600 = 72,000 tokens of it: 3.60 / 72,000 x 1,000,000.
    assert value(run, "cost_per_million_output_tokens") == pytest.approx(50.0)
    assert "EUR per million output tokens" in str(energy.energy_and_cost(run).body)


API = ApiPrice("Some API", 0.10, 0.40, "USD", "2026-01-02", "its page")


def test_the_same_requests_at_providers_prices_stand_beside_it(tmp_path):
    run = written(tmp_path, price=("price.gpu_hour=0.72",), api_prices=(API,))
    # 50 input and 10 output tokens per request: 0.40 + 0.10 x 5.
    assert api_cost(run, ("Some API", "USD"), run.groups[0]) == pytest.approx(0.90)
    assert value(run, "cost_per_million_output_tokens") == pytest.approx(10.0)
    assert claims.cost_note(run).endswith("prices for the model (its page, 2026-01-02). ")
    assert rows_of(energy.costs(run))[0]["Some API, USD"] == "0.90"
    shown = plain(energy.energy_and_cost(run).body)
    assert f"{API.provider}, {API.currency}" in shown
    assert claims.cost_note(run).strip() in shown


def test_rows_of_cells_that_are_suspect_are_marked(tmp_path):
    samples = samples_of(0, 250.0, counter=True)
    run = written(tmp_path, samples, idle_power_w=10.0, price=("price.gpu_hour=1",))
    path = tmp_path / "cells" / "000" / "cell.json"
    record = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**record, "validity": "suspect", "reasons": ["others' work"]}))
    html = energy.energy_and_cost(open_run(tmp_path)).body
    assert html.count("▲ start 1 suspect") == 1
    assert html.count('title="start 1: others&#x27; work"') == 1
    assert "suspect" not in energy.energy_and_cost(run).body.replace("▲ suspect", "")


def test_energy_and_cost_are_drawn_by_load_in_joules_and_the_runs_currency(tmp_path):
    price = ("price.gpu_hour=1.80", "price.currency='<b>'")
    samples = samples_of(0, 320.0, counter=True)
    run = written(tmp_path, samples, price=price, users=(1, 2), idle_power_w=20.0)
    # (320 - 20) W / 20 tokens/s; 1.80 / 72,000 tokens x 1,000,000.
    drawn = energy.energy_and_cost(run).charts
    assert [chart.title for chart in drawn] == ["Energy per output token", "Cost per million output tokens"]
    assert [chart.layout["yaxis"]["title"]["text"] for chart in drawn] == ["J", "&lt;b&gt;"]
    assert [chart.traces[0]["y"] for chart in drawn] == [[pytest.approx(15.0)] * 2, [pytest.approx(25.0)] * 2]


def test_what_is_missing_is_said(tmp_path):
    run = written(tmp_path, idle_power_note="the counter may be read by root alone")
    html = str(energy.energy_and_cost(run).body)
    assert "what the load process and bench itself draw" not in html
    assert "Energy is not known: the counter may be read by root alone." in html
    assert "give price.gpu_hour" in html
    assert value(run, "cost_per_million_output_tokens") is None


def test_a_price_is_on_record_as_it_was_understood(tmp_path):
    words = ("price.gpu_hour='2.5'", 'price.currency="US $"')
    plan = plan_of([deployment("vllm", "awq")], [Load(concurrency=1)])
    write_begun(tmp_path, settings_of(*words), plan)
    write_measured(tmp_path, plan.starts[0])
    run = open_run(tmp_path)
    assert price_of(run) == Price(2.5, "US $")
    assert value(run, "cost_per_million_output_tokens") == pytest.approx(2.5 / 0.072)
    assert '<th scope="col">US $ per million output tokens</th>' in energy.energy_and_cost(run).body


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nan", "price.gpu_hour=nan: must be a finite number"),
        ("1e400", "price.gpu_hour=inf: must be a finite number"),
        ("-inf", "price.gpu_hour=-inf: must be a finite number"),
        ("'nan'", "price.gpu_hour=nan: must be a finite number"),
        ("-0.5", "price.gpu_hour=-0.5: must be 0 or more"),
        ("much", "price.gpu_hour=much: must be a number or null (not given)"),
    ],
)
def test_a_price_that_is_no_number_is_refused(given, said):
    with pytest.raises(UserError) as caught:
        settings_of(f"price.gpu_hour={given}")
    assert str(caught.value) == said


def test_each_model_stands_beside_its_own_providers_prices(tmp_path):
    def price(provider: str, *prices: float, currency: str = "USD") -> ApiPrice:
        return ApiPrice(provider, *prices, currency, "2026-01-02", "its page")

    two = (price("One", 0.20, 0.80), price("Two", 0.0, 0.003, currency="EUR"))
    prices = {"a": (price("One", 0.10, 0.40),), "b": two}
    deployments = [replace(deployment("vllm", name), model=name) for name in prices]
    plan = begin_run(tmp_path, deployments, [Load(concurrency=1)], price=Price(0.72))
    for start in plan.starts:
        write_measured(tmp_path, start, api_prices=prices[start.deployment.model])
    run = open_run(tmp_path)
    providers = (("One", "USD"), ("Two", "EUR"))
    one, two = ([api_cost(run, provider, group) for provider in providers] for group in run.groups)
    # Output, and five times as much input: 0.40 + 5 x 0.10 of one model, 0.80 + 5 x 0.20 of the other.
    assert one == [pytest.approx(0.90), None]
    assert two == pytest.approx([1.80, 0.003])


@pytest.mark.parametrize("kind", ["host", "device"])
def test_this_machine_says_nothing_of_a_server_that_ran_already(tmp_path, kind):
    samples = samples_of(0, 250.0, counter=True) if kind == "device" else ()
    host = of_host(lambda k: 6.0 * k)
    price = ("price.gpu_hour=1.80",)
    run = written(tmp_path, samples, host, price, attached=True, devices=(0,), idle_power_w=40.0)
    assert power_in(run, run.planned_cells[0]) is None
    assert value(run, "energy_j_per_output_token") is None
    assert value(run, "cost_per_million_output_tokens") is None
    html = energy.energy_and_cost(run).body
    assert "Energy is not known: the server was already running, perhaps on another machine." in html
    assert (
        "Cost is not known: the server was already running, perhaps on another machine: give "
        "price.input_tokens and price.output_tokens, its owner&#x27;s prices per million tokens." in html
    )
    assert "this machine, used for nothing else" not in html


TOKENS = [
    "engine=openai",
    "engine.base_url=http://h/v1",
    "model=m",
    "price.input_tokens=2",
    "price.output_tokens=8",
]


HALF_PRICED = 200 * 2e-6 + 100 * 0.5e-6


def token_priced(path, changed, *more):
    """A run of a server that ran already, whose rows have these counts (input, cached, output)."""
    names = ("input_tokens", "cached_tokens", "output_tokens")
    counted = [dict(zip(names, counts, strict=True)) for counts in changed]
    rows = [replace(row, **counts) for row, counts in zip(ROWS, counted, strict=False)]
    price = config.settings(overrides.parse([*TOKENS, *more])).price
    plan = begin_run(path, [deployment("openai", "-")], [Load(concurrency=1)], price=price)
    write_measured(path, plan.starts[0], rows=rows, attached=True)
    return open_run(path)


@pytest.mark.parametrize(
    ("more", "per_million", "per_request"),
    [
        # Of 300 input tokens 100 are cached, of which the third request does not tell; 30 come out.
        ((), 1e6 * (300 * 2e-6 + 30 * 8e-6) / 30, (300 * 2e-6 + 30 * 8e-6) / 3),
        (("price.cached_tokens=0.5",), 1e6 * (HALF_PRICED + 30 * 8e-6) / 30, (HALF_PRICED + 30 * 8e-6) / 3),
        (("price.cached_tokens=0",), 1e6 * (200 * 2e-6 + 30 * 8e-6) / 30, (200 * 2e-6 + 30 * 8e-6) / 3),
    ],
)
def test_tokens_of_a_running_server_cost_what_its_owner_asks(tmp_path, more, per_million, per_request):
    # Of the fourth no count is known, so it is left out.
    counts = [(100, 60, 10), (100, 40, 5), (100, None, 15), (None, None, None)]
    run = token_priced(tmp_path, counts, *more)
    assert len(run.ok_requests(0, "input_tokens")) == 4
    assert value(run, "cost_per_million_output_tokens") == pytest.approx(per_million)
    assert value(run, "cost_per_request") == pytest.approx(per_request)
    assert values_of(run)[0]["cost_per_request"].n == 3
    body = energy.energy_and_cost(run).body
    assert "USD per request" in body
    assert "Cost is not known" not in body


def test_a_server_that_counts_no_tokens_has_no_known_cost(tmp_path):
    run = token_priced(tmp_path, [(None, None, None)] * 4)
    assert value(run, "cost_per_million_output_tokens") is None
    assert value(run, "cost_per_request") is None


def test_what_is_not_known_of_some_is_said_of_them(tmp_path):
    deployments = [deployment("vllm", "awq"), deployment("openai", "-")]
    plan = begin_run(tmp_path, deployments, [Load(concurrency=1)], price=Price(1.0))
    counted = of_host(lambda k: 6.0 * k)
    write_measured(tmp_path, plan.starts[0], host=counted, idle_power_w=40.0)
    write_measured(tmp_path, plan.starts[1], host=counted, attached=True)
    run = open_run(tmp_path)
    why = "is not known of openai at 1 user: the server was already running"
    assert [text.partition(f" {why}")[0] for text in claims.cost_unknown(run)] == ["Energy", "Cost"]
    assert notes_of(energy.energy_and_cost(run)) == claims.cost_unknown(run)
    # (60 W - 40 W) / 20 tokens/s of the other.
    assert value(run, "energy_j_per_output_token") == pytest.approx(1.0)


def test_cost_counts_the_devices_of_the_start_though_none_was_sampled_in_the_window(tmp_path):
    early = [s for d in (0, 1) for s in samples_of(d, 250.0, counter=True) if s.t_ns < 101 * S]
    price = ("price.gpu_hour=1.80",)
    run = written(tmp_path / "said", early, price=price, devices=(0, 1, 2))
    assert value(run, "cost_per_million_output_tokens") == pytest.approx(75.0)
    run = written(tmp_path / "sampled", early, price=price)  # of a bench that did not keep them
    assert value(run, "cost_per_million_output_tokens") == pytest.approx(50.0)
    run = written(tmp_path / "neither", price=price, memory_kind="device")
    assert devices_of(run, run.planned_cells[0]) == ()
    assert value(run, "cost_per_million_output_tokens") is None
    said = "Cost is not known: the server&#x27;s devices were not recorded."
    assert said in energy.energy_and_cost(run).body


def with_counter(samples, readings):
    """The samples with these readings in turn from the window's beginning, 102 s."""
    return [
        replace(s, energy_j=readings[min(max(0, k - 120), len(readings) - 1)]) for k, s in enumerate(samples)
    ]


def test_a_window_is_counted_by_the_rule_that_idle_is(tmp_path):
    # A counter that steps at every third sample or so, as NVML's does on some cards.
    steps = np.random.default_rng(1).integers(0, 3, 80) // 2 * 30.0
    devices = with_counter(samples_of(0, 1.0, counter=False), list(5000.0 + np.cumsum(steps)))
    run = written(tmp_path, devices, idle_power_w=1.0)
    inside = [s for s in devices if 102 * S <= s.t_ns < 110 * S]
    expected = mean_power_w([(s.t_ns, s.energy_j) for s in inside])
    assert len(inside) == 80
    assert expected != pytest.approx((inside[-1].energy_j - inside[0].energy_j) / 7.9, rel=1e-3)
    assert power_in(run, run.planned_cells[0]).mean_w == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("at", [1, 40, 79])
def test_energy_is_not_known_where_the_counter_began_anew(tmp_path, at):
    readings = [5000.0 + 20 * k if k < at else 20.0 * (k - at) for k in range(80)]
    run = written(tmp_path, with_counter(samples_of(0, 200.0, counter=False), readings), idle_power_w=1.0)
    assert power_in(run, run.planned_cells[0]) is None


def test_a_reading_at_a_mark_may_be_a_moment_out_of_turn(tmp_path):
    readings = [5000.0 + 20 * k for k in range(80)]
    readings[40], readings[41] = readings[41], readings[40]
    run = written(tmp_path, with_counter(samples_of(0, 1.0, counter=False), readings), idle_power_w=1.0)
    assert power_in(run, run.planned_cells[0]).mean_w == pytest.approx(200.0)


def test_small_joules_and_costs_keep_their_digits(tmp_path):
    host = of_host(lambda k: 0.108 * k)
    run = written(tmp_path, host=host, price=("price.gpu_hour=0.0003",), idle_power_w=1.0)
    [shown] = rows_of(energy.costs(run))
    assert shown["J per output token"] == "0.0040"  # (1.08 W - 1 W) / 20 tokens/s
    assert shown["USD per million output tokens"] == "0.0042"  # 0.0003 / 72,000 x 1,000,000
    assert "Priced at 0.00030 USD" in claims.cost_note(run)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, "–"), (0.0, "0.00"), (1234.5, "1,234.50"), (0.1, "0.10"), (0.0999, "0.100"), (0.05, "0.050"),
        (-0.0042, "-0.0042"), (0.000012345, "0.000012"), (1e-12, "<0.000000001"),
    ],
)  # fmt: skip
def test_small_numbers_keep_two_digits(given, shown):
    assert precise(given, 2) == shown


def test_prices_are_of_models_that_bench_knows():
    assert API_PRICES.keys() <= MODELS.keys()
