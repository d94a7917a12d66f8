"""The parts of a server's memory, from numbers worked out by hand, and how the page shows them."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from make_run import (
    GIB,
    HOSTILE,
    S,
    begin_run,
    deployment,
    host_samples,
    marked_samples,
    plan_of,
    row,
    start_record,
    summary,
    write_cell,
    write_start,
)
from page_data import charts_of, plain, rows_of, section_of

from serving_bench.harness.contracts import Load
from serving_bench.harness.sampling.device_sample import DeviceSample
from serving_bench.harness.store import store
from serving_bench.harness.store.store import Phase
from serving_bench.reports import open_run, write_report
from serving_bench.reports.measures.anatomy import (
    HELD_COLUMNS,
    KvCache,
    anatomies,
    long_conversation,
    parts_of,
    peak_tokens,
    pool_of,
)
from serving_bench.reports.measures.memory_parts import alike, expectations, mean_parts
from serving_bench.reports.page.sections import memory

MIB = 2**20
SPAWNED_NS = 100 * S
# Seconds since the spawn, name, PSS in MiB: a server that grows at each stage.
MARKS = (
    (1, "process_up", 10), (2, "weights_begin", 50), (5, "weights_loaded", 160), (8, "engine_ready", 250),
    (10, "ready", 260), (25, "cell 000 end", 280), (30, "stopping", 275),
)  # fmt: skip
STAGES = {"process_up": 10 * MIB, "weights_begin": 50 * MIB, "weights_loaded": 160 * MIB,
          "engine_ready": 250 * MIB, "ready": 260 * MIB}  # fmt: skip
SAID = {"weights": 100 * MIB, "kv_cache": 64 * MIB, "workspace": 20 * MIB}


def answers():
    """Two requests: at 17 s the first is about to end with 140 tokens and the second has 210 of its 220."""
    first = row(
        0, SPAWNED_NS + 13 * S, conversation=0, input_tokens=100, output_tokens=40,
        chunk_ns=(SPAWNED_NS + 14 * S, SPAWNED_NS + 16 * S), end_ns=SPAWNED_NS + 17 * S,
    )  # fmt: skip
    second = row(
        1, SPAWNED_NS + 15 * S, conversation=1, input_tokens=200, output_tokens=20,
        chunk_ns=(SPAWNED_NS + 16 * S, SPAWNED_NS + 18 * S), end_ns=SPAWNED_NS + 19 * S,
    )  # fmt: skip
    return [first, second]


def marked_run(path, marks=MARKS, starts=1, rows=None, label=("llama_cpp", "bf16"), **changes):
    """A run whose starts made these marks, with a cell from 12 s (window: 14 to 22 s) after the spawn."""
    plan = begin_run(path, [deployment(*label)], [Load(concurrency=4)], repeats=starts)
    for start in plan.starts:
        named = [(at, name.replace("000", f"{start.cells[0].number:03d}"), size) for at, name, size in marks]
        record = start_record(start, SPAWNED_NS, phases=phases_of(named), **changes)
        write_start(path, record, taken_at(named))
        cell_rows = answers() if rows is None else rows
        write_cell(path, start.cells[0], start, cell_rows, summary(SPAWNED_NS + 12 * S))
    return path


def only(path):
    """The anatomy of a run's only start."""
    [[found]] = anatomies(open_run(path)).values()
    return found


def in_mib(parts):
    return {name: part.size_bytes / MIB for name, part in parts.items()}


def said_record(**changes):
    [start] = plan_of([deployment("llama_cpp", "bf16")], [Load(1)]).starts
    return start_record(start, SPAWNED_NS, **{"memory_said": SAID, **changes})


# --- the parts -------------------------------------------------------------------------------------


def test_parts_are_what_the_server_says_and_the_measured_steps_and_add_up(tmp_path):
    found = only(marked_run(tmp_path, memory_said=SAID))
    # 50 before the weights; 260 - 50 - 100 - 64 = 46 of workspace at the first answers; 280 - 260 under load
    assert in_mib(found.parts) == {"program": 50, "weights": 100, "kv_cache": 64, "workspace": 46, "rest": 20}
    assert found.total_bytes == 280 * MIB
    assert found.parts["workspace"].sources == ("said", "measured step")
    assert found.parts["program"].sources == ("measured step",)


def test_device_whose_use_never_exceeds_the_baseline_has_no_parts_and_the_page_is_made(tmp_path):
    path = marked_run(tmp_path, memory_kind="device", baseline_bytes=8 * GIB)
    [start] = open_run(path).start_records
    samples = [
        DeviceSample(SPAWNED_NS + k * S, 0, 8 * GIB, None, 90, 50, 300.0, 1.0, 60, 1700) for k in range(31)
    ]
    store.write_samples(path / "starts" / start.name / "device.parquet", samples)
    assert anatomies(open_run(path)) == {}
    assert write_report(path).is_file()


UNSEEN = {name: size for name, size in STAGES.items() if name != "weights_begin"}
UNTOUCHED = {**SAID, "kv_cache": 400 * MIB}
# 260 - 100 - 64 - 20 is left for the program.
LATE = (76, 100, 64, 20, 20, {})
# What the server says, stages, other changes; then the parts in MiB: program, weights, KV cache, workspace,
# the rest, and others.
PARTS = {
    "the server says nothing": ({}, STAGES, {}, (50, 110, None, 100, 20, {})),
    "reserved and not touched is no part": (UNTOUCHED, STAGES, {}, (50, 100, 130, 0, 0, {})),
    # 70 of the weights were there at the mark.
    "weights begin seen too late": (SAID, {**STAGES, "weights_begin": 120 * MIB}, {}, LATE),
    # 190 at the mark, 195 when they were loaded: all 100 were there, and 14 more.
    "weights begin seen after them": (
        SAID, {**STAGES, "weights_begin": 190 * MIB, "weights_loaded": 195 * MIB}, {}, LATE
    ),
    # One that took 150 itself, with a cache that nothing touched: as it was seen.
    "a large program": (
        {**SAID, "kv_cache": 120 * MIB},
        {**STAGES, "weights_begin": 150 * MIB, "weights_loaded": 250 * MIB}, {}, (150, 100, 30, 0, 0, {}),
    ),
    # 160 - 100 at weights loaded
    "weights begin not seen": (SAID, UNSEEN, {}, (60, 100, 64, 36, 20, {})),
    "nothing is known": ({}, {"ready": 200 * MIB}, {}, (None, None, None, None, 280, {})),
    "weights by their files": (
        {}, {"weights_loaded": 160 * MIB, "ready": 260 * MIB}, {"weights": {"size_bytes": 90 * MIB}},
        (70, 90, None, 100, 20, {}),
    ),
    # A checkpoint's files have its tokenizer among them.
    "weights by the model's shape": (
        {}, {"weights_loaded": 160 * MIB, "ready": 260 * MIB},
        {"weights": {"size_bytes": 90 * MIB}, "memory_expected": {"weights": 80 * MIB}},
        (80, 80, None, 100, 20, {}),
    ),
    "saved states": ({**SAID, "kv_copies": 15 * MIB}, STAGES, {}, (50, 100, 64, 46, 5, {"kv_copies": 15})),
    "graphs": ({**SAID, "graphs": 30 * MIB}, STAGES, {}, (50, 100, 64, 20, 16, {"graphs": 30})),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTS)
def test_parts_are_given_of_the_total_in_turn(case):
    said, stages, changes, (*sizes, others) = PARTS[case]
    known = dict(zip(("program", "weights", "kv_cache", "workspace", "rest"), sizes, strict=True))
    parts = parts_of(said_record(memory_said=said, **changes), stages, 280.0 * MIB)
    expected = {**known, **others}
    assert in_mib(parts) == {name: size for name, size in expected.items() if size is not None}


def test_each_part_says_how_it_is_known():
    late = parts_of(said_record(), {**STAGES, "weights_begin": 120 * MIB}, 280.0 * MIB)
    assert (late["program"].sources, late["weights"].sources) == (("computed",), ("said",))
    silent = parts_of(said_record(memory_said={}), STAGES, 280.0 * MIB)
    assert silent["weights"].sources == ("measured step",)


def test_parts_of_several_starts_are_means_that_still_add_up(tmp_path):
    path = marked_run(tmp_path, starts=2, memory_said=SAID)
    second = open_run(path).start_records[1]
    more = [(at + 0.05, size * MIB + 40 * MIB * (at > 8)) for at, _, size in MARKS]
    store.write_samples(path / "starts" / second.name / "host.parquet", marked_samples(SPAWNED_NS, more))
    [found] = anatomies(open_run(path)).values()
    assert [a.total_bytes / MIB for a in found] == [280, 320]
    sizes = in_mib(mean_parts(found))
    assert sizes == {"program": 50, "weights": 100, "kv_cache": 64, "workspace": 66, "rest": 20}
    assert sum(sizes.values()) == 300


def phases_of(marks):
    return tuple(Phase(name, SPAWNED_NS + at * S) for at, name, _ in marks)


def taken_at(marks):
    """Samples a moment after each mark, with its size if it has one."""
    sizes = [(at + 0.05, None if size is None else size * MIB) for at, _, size in marks]
    return marked_samples(SPAWNED_NS, sizes)


def two_loads(path, outcomes, resolved=None):
    """Starts of one deployment with a cell of 1 user and one of 4; `outcomes` has each cell's status, None:
    it was measured by another start. Each start's memory is 100 MiB more at its end than the one's before."""
    loads = [Load(concurrency=1), Load(concurrency=4)]
    plan = begin_run(path, [deployment("llama_cpp", "bf16")], loads, repeats=len(outcomes))
    said = {"memory_said": SAID, "resolved": resolved or {"kv_cache_tokens": 1024}}
    for number, (start, statuses) in enumerate(zip(plan.starts, outcomes, strict=True)):
        names = [f"cell {cell.number:03d} end" for cell in start.cells]
        marks = [*MARKS[:5], *((25 + k, name, 280 + 100 * number) for k, name in enumerate(names))]
        record = start_record(start, SPAWNED_NS, phases=phases_of(marks), **said)
        write_start(path, record, taken_at(marks))
        for cell, status in zip(start.cells, statuses, strict=True):
            if status is not None:
                # Conversations of cells that do not count are longer.
                longer = {} if status == "completed" else {"input_tokens": 900}
                rows = [replace(each, **longer) for each in answers()]
                write_cell(path, cell, start, rows, summary(SPAWNED_NS + 12 * S), status=status)
    return path


def test_means_are_of_starts_that_measured_the_same_cells(tmp_path):
    path = two_loads(tmp_path, [("completed", None), ("completed", "completed"), ("completed", "failed")])
    [found] = anatomies(open_run(path)).values()
    assert [a.record.repeat for a in alike(found)] == [1]
    assert len(alike([found[0], found[2]])) == 2
    said = "Left out, since other cells were measured on them: 00-llama_cpp-bf16, 02-llama_cpp-bf16."
    assert memory.held(open_run(path)).claim.endswith(said)


def test_a_start_on_which_no_cell_counts_is_not_said_to_have_measured_others(tmp_path):
    path = two_loads(tmp_path, [("completed", "completed"), ("interrupted", None)])
    claim = memory.held(open_run(path)).claim
    assert claim.endswith("Left out, since no cell on them counts: 01-llama_cpp-bf16.")
    assert "other cells were measured" not in claim


def test_what_a_failed_cell_held_is_no_need(tmp_path):
    assert only(two_loads(tmp_path, [("completed", "failed")])).kv.peak_tokens == pytest.approx(350)
    assert long_conversation(open_run(tmp_path)) == 220


# --- what was measured -----------------------------------------------------------------------------


def test_a_mark_whose_pss_could_not_be_read_does_not_take_the_next_ones(tmp_path):
    marks = [(at, name, None if name == "weights_loaded" else size) for at, name, size in MARKS]
    found = only(marked_run(tmp_path, marks))
    # The weights are not known by a step; the first answers are.
    assert in_mib(found.parts) == {"program": 50, "workspace": 210, "rest": 20}


def test_without_pss_it_is_rss_and_says_so(tmp_path):
    path = marked_run(tmp_path, [(at, name, None) for at, name, _ in MARKS], memory_said=SAID)
    found = only(path)
    assert found.total_bytes == GIB
    assert found.what.endswith("(RSS of the server's process tree), as PSS could not be read")
    assert "as PSS could not be read" in write_report(path).read_text(encoding="utf-8")


def device_run(path, *, is_attributed):
    """100 MiB in use before; marks at 50, 160, 250, 260 MiB of the server's, and a peak of 300 between."""
    path = marked_run(path, memory_kind="device", baseline_bytes=100 * MIB, memory_said=SAID)
    [start] = open_run(path).start_records
    levels = [(at + 0.05, size) for at, _, size in MARKS] + [(20.0, 300)]
    samples = [
        DeviceSample(SPAWNED_NS + int(at * S), 0, (size + 100) * MIB, size * MIB if is_attributed else None,
                     50, 10, 90.0, None, 40, 1000)
        for at, size in sorted(levels)
    ]  # fmt: skip
    store.write_samples(path / "starts" / start.name / "device.parquet", samples)
    return path


@pytest.mark.parametrize("is_attributed", [True, False])
def test_on_a_device_it_is_the_servers_own_or_what_is_above_the_baseline(tmp_path, is_attributed):
    found = only(device_run(tmp_path, is_attributed=is_attributed))
    assert found.total_bytes == 300 * MIB
    assert in_mib(found.parts) == {"program": 50, "weights": 100, "kv_cache": 64, "workspace": 46, "rest": 40}
    assert found.what == (
        "device memory of the server's processes"
        if is_attributed
        else "device memory in use, less what was in use before the start"
    )


def test_a_start_that_never_was_ready_has_no_anatomy(tmp_path):
    assert anatomies(open_run(marked_run(tmp_path, MARKS[:4], status="failed", ready_ns=None))) == {}


# --- the KV cache ----------------------------------------------------------------------------------


def held(rows):
    return np.array([[getattr(each, name) for each in rows] for name in HELD_COLUMNS], dtype=float)


@pytest.mark.parametrize(
    ("begin_s", "end_s", "tokens"),
    [
        (12, 22, 350),  # at 17 s: 140, and 200 with half of 20
        (12, 15.5, 330),  # at 15.5 s: 100 with 1.5 of 2 s of 40, and 200
        (17.5, 18.5, 220),  # the second alone
        (19.5, 20, 0),
    ],
)
def test_tokens_in_flight_are_the_prompts_and_the_answers_so_far(begin_s, end_s, tokens):
    edges = (SPAWNED_NS + int(begin_s * S), SPAWNED_NS + int(end_s * S))
    assert peak_tokens(held(answers()), *edges) == pytest.approx(tokens, abs=1e-6)


def test_an_answer_of_one_chunk_is_there_at_once():
    at_ns = SPAWNED_NS + 14 * S
    one = row(0, SPAWNED_NS + 13 * S, input_tokens=100, output_tokens=7, chunk_ns=(at_ns,), end_ns=at_ns + S)
    assert peak_tokens(held([one]), SPAWNED_NS, SPAWNED_NS + 20 * S) == 107


def test_what_is_needed_has_the_kv_cache_in_flight_instead_of_the_one_reserved(tmp_path):
    resolved = {"kv_cache_tokens": 1024}
    found = only(marked_run(tmp_path, memory_said=SAID, resolved=resolved))
    # 64 MiB / 1024 tokens = 64 KiB each, of 350 tokens
    assert found.kv.peak_tokens == pytest.approx(350)
    assert found.kv.needed_bytes == pytest.approx(350 * 64 * 1024)
    assert found.spare_bytes == pytest.approx(64 * MIB - 350 * 64 * 1024)
    assert found.kv.users == 4  # of 220 tokens, the longer of two


def test_the_models_shape_says_what_a_token_needs_and_the_pool_is_the_most(tmp_path):
    resolved = {"kv_cache_tokens": 1024}
    expected = {"kv_bytes_per_token": 128 * 1024}
    path = marked_run(tmp_path / "a", memory_said=SAID, resolved=resolved, memory_expected=expected)
    assert only(path).kv.needed_bytes == pytest.approx(350 * 128 * 1024)
    path = marked_run(
        tmp_path / "b", memory_said=SAID, resolved=resolved, memory_expected={"kv_bytes_per_token": MIB}
    )
    assert only(path).kv.needed_bytes == 64 * MIB


def test_a_pool_that_is_said_in_tokens_only_is_computed():
    record = said_record(
        memory_said={"weights": MIB}, resolved={"kv_cache_tokens": 512},
        memory_expected={"kv_bytes_per_token": 2048},
    )  # fmt: skip
    assert pool_of(record) == KvCache(MIB, 512, is_computed=True)
    assert parts_of(record, STAGES, 280.0 * MIB)["kv_cache"].sources == ("computed",)


def test_without_a_pool_nothing_is_called_needed(tmp_path):
    found = only(marked_run(tmp_path, memory_said={"weights": MIB}))
    assert found.spare_bytes is found.kv.users is None


def test_users_that_fit_are_of_the_95th_percentile_of_conversations(tmp_path):
    # Of 1 to 200 tokens: the first of two turns is the longer one.
    rows = [row(k, S, conversation=k // 2, input_tokens=k // 2, output_tokens=1 - k % 2) for k in range(400)]
    path = marked_run(tmp_path, memory_said=SAID, resolved={"kv_cache_tokens": 1024}, rows=rows)
    assert long_conversation(open_run(path)) == 191
    assert only(path).kv.users == 5


def test_a_user_needs_room_for_all_that_is_sent_at_once(tmp_path):
    def parts(turn, *tokens):
        return [
            row(4 * turn + part, S, conversation=0, turn=turn, part=part, input_tokens=n, output_tokens=0)
            for part, n in enumerate(tokens)
        ]

    path = marked_run(tmp_path, memory_said=SAID, resolved={"kv_cache_tokens": 1024},
                      rows=[*parts(0, 90), *parts(1, 40, 50, 60), *parts(2, 100)])  # fmt: skip
    assert long_conversation(open_run(path)) == 150
    assert only(path).kv.users == 6


# --- what was expected -----------------------------------------------------------------------------


def test_the_error_of_what_was_expected_is_told(tmp_path):
    expected = {"weights": 105 * MIB, "kv_cache": 60 * MIB, "overhead": 115 * MIB, "kv_bytes_per_token": 1}
    path = marked_run(tmp_path, memory_said=SAID, memory_expected=expected)
    [found] = anatomies(open_run(path)).values()
    made = {name: (asked / MIB, size / MIB) for name, (asked, size) in expectations(found).items()}
    assert made == {"weights": (105, 100), "kv_cache": (60, 64), "total": (280, 280)}
    untouched = marked_run(tmp_path / "untouched", memory_said=UNTOUCHED, memory_expected=expected)
    [found] = anatomies(open_run(untouched)).values()
    assert expectations(found)["kv_cache"] == (60 * MIB, 400 * MIB)


def test_a_computed_part_is_no_measurement_of_what_was_expected(tmp_path):
    marks = [mark for mark in MARKS if mark[1] != "weights_begin"]
    weights = {"size_bytes": 90 * MIB}
    path = marked_run(tmp_path, marks, weights=weights, memory_expected={"weights": 90 * MIB})
    [found] = anatomies(open_run(path)).values()
    assert found[0].parts["weights"].sources == ("computed",)
    assert expectations(found) == {}


# --- the page --------------------------------------------------------------------------------------


def test_the_title_names_nobody_whose_heavier_load_does_not_count(tmp_path):
    plan = begin_run(
        tmp_path,
        [deployment("llama_cpp", "bf16"), deployment("vllm", "bf16")],
        [Load(concurrency=1), Load(concurrency=4)],
    )
    phases = tuple(Phase(name, SPAWNED_NS + at * S) for at, name, _ in MARKS[:5])
    taken = marked_samples(SPAWNED_NS, [(at + 0.05, size * MIB) for at, _, size in MARKS[:5]])
    for start, pool_mib, status in zip(plan.starts, (64, 32), ("failed", "completed"), strict=True):
        record = start_record(
            start, SPAWNED_NS, phases=phases, memory_said={**SAID, "kv_cache": pool_mib * MIB},
            resolved={"kv_cache_tokens": 1024},
        )  # fmt: skip
        write_start(tmp_path, record, taken)
        for cell, how in zip(start.cells, ("completed", status), strict=True):
            write_cell(tmp_path, cell, start, answers(), summary(SPAWNED_NS + 12 * S), status=how)
    made = memory.held(open_run(tmp_path))
    # vllm: 32 MiB of which 350 of 1,024 tokens were needed, of 260 MiB: 8 %, which is not much
    assert made.title == "What the servers' memory is made of"


def test_title_and_bars_say_what_was_not_needed(tmp_path):
    made = memory.held(open_run(marked_run(tmp_path, memory_said=SAID, resolved={"kv_cache_tokens": 1024})))
    # 64 - 21.875 of 280 MiB
    assert made.title == "Up to 15 % of a server's memory is KV cache that no request needed"
    assert "at marks): one start each. Needed counts" in made.claim
    bars = {t["name"]: t["x"][0] for t in made.charts[0].traces if t["type"] == "bar"}
    assert sum(bars.values()) == pytest.approx(280 / 1024, abs=5e-4)
    assert bars["KV cache that requests held"] == pytest.approx(350 / 16 / 1024, abs=1e-4)
    assert bars["KV cache reserved, not needed"] == pytest.approx((64 - 350 / 16) / 1024, abs=1e-4)


def test_each_part_stands_with_its_source_and_its_pattern(tmp_path):
    said = {**SAID, "kv_cache": 400 * MIB}
    run = open_run(marked_run(tmp_path, memory_said=said))
    assert [pattern for _, _, pattern, _ in memory.held(run).charts[0].key] == ["", "crosses", "dots"]
    [parts], [kv] = rows_of(memory.pieces(run)), rows_of(memory.kv_cache(run))
    assert (parts["weights"], parts["KV cache"]) == ("0.098 said", "0.127 said")
    assert kv["reserved GiB"].startswith("0.391")
    assert parts["program"] == "0.049 measured step"


def test_every_deployment_that_was_ready_is_on_the_page(engines):
    page = engines.read_text(encoding="utf-8")
    assert len(charts_of(page)["memory-parts"]["traces"][0]["y"]) == 8
    section = plain(section_of(page, "memory"))
    assert "vllm bf16" in section
    assert "nan" not in section.lower().split()
    assert {"slash", "dots"} <= set(re.findall(r'class="swatch ([^"]*)"', section_of(page, "memory")))


def test_hostile_names_stay_text(tmp_path):
    path = marked_run(tmp_path, memory_said=SAID)
    for record in [path / "run.json", *path.glob("*/*/start.json"), *path.glob("*/*/cell.json")]:
        record.write_text(record.read_text().replace('"llama_cpp bf16"', json.dumps(f"llama_cpp {HOSTILE}")))
    page = write_report(path).read_text(encoding="utf-8")
    assert "<script>" not in charts_of(page)["memory-parts"]["traces"][0]["y"][0]
    assert "<img" not in section_of(page, "memory")


# --- memory over time ------------------------------------------------------------------------------


def chart_of(run, id_):
    return next(chart for chart in memory.course(run).charts if chart.id == id_)


def test_a_course_has_its_peak_and_its_end_in_the_table(tmp_path):
    record = said_record()
    begin_run(tmp_path, [record.deployment], [Load(1)])
    write_start(tmp_path, replace(record, status="completed"), host_samples(SPAWNED_NS, GIB, 100))
    chart = chart_of(open_run(tmp_path), "memory-0")
    [row] = rows_of(chart)
    assert list(row)[1:] == ["start", "peak GiB", "end GiB"]
    assert list(row.values())[1:3] == ["1", "1.00"]
