"""Values by turn, and what the page draws of turns and the prefix cache."""

import re

import pytest
from make_run import MS, S, deployment, one_cell_run, row
from page_data import charts_in
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import Load
from serving_bench.reports import open_run
from serving_bench.reports.measures.metrics import Value
from serving_bench.reports.measures.over_starts import turn_values
from serving_bench.reports.measures.values import values_of
from serving_bench.reports.page.sections import latency

# The window of one_cell_run is [102 s, 110 s).
T0 = 102 * S
LOADS = (Load(concurrency=1), Load(concurrency=4))
FP16, Q8 = deployment("llama_cpp", "fp16"), deployment("llama_cpp", "gguf-q8_0")


# --- values ----------------------------------------------------------------------------------------


def test_values_are_of_each_turn_and_start_alone(tmp_path) -> None:
    def late(k: int) -> dict[str, int]:
        return {"input_tokens": 50 + 30 * (k % 2), "cached_tokens": 40 * (k % 2)}

    run = open_run(repeated_run(tmp_path, [Made(FP16, changes=late)], LOADS[:1], repeats=2))
    (group,) = run.groups
    ttft, shares = (turn_values(run, group, name) for name in ("ttft_s.p50", "cached_share"))
    # The second repeat is 1.1 times as slow.
    assert [[each.value for each in ttft[turn].values()] for turn in (0, 1)] == [
        pytest.approx([0.1, 0.11])
    ] * 2
    assert [each.value for each in shares[0].values()] == [0.0, 0.0]
    assert [each.value for each in shares[1].values()] == [0.5, 0.5]
    assert turn_values(run, group, "input_tokens")[1][0].value == 80.0


def test_a_share_of_the_cache_needs_both_counts(tmp_path) -> None:
    def told(k: int) -> dict[str, int | None]:
        return {"cached_tokens": None if k < 12 else 25, "input_tokens": 50}

    rows = [row(k, T0 + k * S // 4, **told(k)) for k in range(24)]
    run = open_run(one_cell_run(tmp_path, rows).path)
    assert values_of(run)[0]["cached_share"] == Value(0.5, 12)
    assert turn_values(run, run.groups[0], "cached_share")[0][0] == Value(0.5, 6)


def test_a_median_by_turn_needs_eleven_requests_of_that_turn(tmp_path) -> None:
    rows = [row(k, T0 + k * S // 5, turn=int(k >= 11)) for k in range(21)]
    run = open_run(one_cell_run(tmp_path, rows).path)
    found = turn_values(run, run.groups[0], "ttft_s.p50")
    assert [found[turn][0].value for turn in (0, 1)] == [pytest.approx(0.1), None]


# --- the page --------------------------------------------------------------------------------------


def grows(k: int) -> dict[str, object]:
    """The second turn's first token comes twice as late, and half of its prompt is cached."""
    return {"input_tokens": 100, "cached_tokens": 80 * (k % 2)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = [Made(FP16, changes=grows), Made(Q8, changes=lambda k: {"cached_tokens": None})]
    return open_run(repeated_run(tmp_path_factory.mktemp("turns"), made, LOADS, 3))


def test_the_deciding_load_is_open_and_the_other_folded(run) -> None:
    opened = latency.latency(run).body.partition("<h3>At 4 users</h3>")[2]
    shown, _, folded = opened.partition("<summary>At 1 user</summary>")
    names = [f"turns-{name}" for name in ("ttft_s", "cached_share", "input_tokens", "tpot_s")]
    assert re.findall(r'data-chart="(turns-\w+)-0"', shown) == names
    assert re.findall(r'data-chart="(turns-\w+)-1"', folded) == names


def test_points_and_lines_say_what_they_are_of(run) -> None:
    first, second = charts_in(run)["turns-ttft_s-0"].traces
    assert first["meta"]["of"] == {"deployment": "llama_cpp fp16"}
    assert first["meta"]["points"] == [{"load": "4 users"}] * 2
    # BLOCKS of repeated_run: 1.0, 1.1 and 0.95 of 100 ms
    assert first["meta"]["by_start"] == {"1": [100.0, 100.0], "2": [110.0, 110.0], "3": [95.0, 95.0]}
    assert second["meta"]["of"]["deployment"] == "llama_cpp gguf-q8_0"


def test_who_tells_nothing_of_its_cache_is_named(run) -> None:
    chart = charts_in(run)["turns-cached_share-0"]
    assert "No value: llama_cpp gguf-q8_0." in chart.note
    assert [trace["name"] for trace in chart.traces] == ["llama_cpp fp16"]
    (by_load,) = (chart for name, chart in charts_in(run).items() if name.startswith("cached_share"))
    # 27, 25 and 29 requests fit into the starts' windows; 13, 12 and 14 of them are second turns.
    mean = 80 * (13 / 27 + 12 / 25 + 14 / 29) / 3
    assert by_load.traces[0]["y"] == pytest.approx([mean, mean], rel=1e-4)


def test_one_turn_has_no_charts_by_turn(tmp_path) -> None:
    rows = [row(k, T0 + k * S // 4, turn=0, cached_tokens=None) for k in range(24)]
    charts = charts_in(open_run(one_cell_run(tmp_path, rows).path))
    assert not [name for name in charts if name.startswith(("turns", "cached"))]


def test_a_conversation_of_many_turns_is_thinned_and_says_so(tmp_path) -> None:
    def chunks(sent_ns: int) -> tuple[int, ...]:
        return tuple(sent_ns + (100 + 20 * j) * MS for j in range(3))

    sent = [T0 + k * S // 100 for k in range(700)]
    rows = [row(k, at, turn=k % 50, chunk_ns=chunks(at)) for k, at in enumerate(sent)]
    chart = charts_in(open_run(one_cell_run(tmp_path, rows).path))["turns-ttft_s-0"]
    (trace,) = chart.traces
    assert len(trace["x"]) == 17
    assert [trace["customdata"][at] for at in (0, -1)] == ["turn 1", "turn 49"]
    assert "17 of 50 turns are drawn." in chart.note


def test_who_has_too_few_requests_for_a_median_is_named(tmp_path) -> None:
    def few(k: int) -> dict[str, str]:
        return {"outcome": "timeout"} if k > 3 else {}

    made = [Made(FP16), Made(Q8, changes=few)]
    notes = [each.note for each in charts_in(open_run(repeated_run(tmp_path, made, LOADS[:1], 1))).values()]
    assert any("No value: llama_cpp gguf-q8_0." in note for note in notes)
