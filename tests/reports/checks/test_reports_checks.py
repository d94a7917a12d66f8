"""Each reason to distrust is found where it is, and only there."""

import ast
import functools
import re
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from make_run import (
    GIB,
    MS,
    S,
    begin_run,
    deployment,
    failed_row,
    full_run,
    plan_of,
    row,
    run_record,
    selftest,
    summary,
    write_cell,
    write_start,
)
from page_data import plain

from serving_bench.harness.contracts import GuardFinding, Load, because, quoted
from serving_bench.harness.sampling.host import HostSample
from serving_bench.harness.settings import keys
from serving_bench.harness.store import store
from serving_bench.reports import checks, open_run, write_report
from serving_bench.reports.checks.examine import CHECKS, findings_of, marks_of
from serving_bench.reports.measures.metrics import BY_NAME
from serving_bench.reports.page.sections import trust

T0 = 102 * S
BUSY = GuardFinding("foreign_load", quoted("other programs used 71 % of the processor"), "during", "suspect")
LONG = 60.0


def chunks_of(sent_ns: int, count: int = 10, first_ms: int = 100) -> tuple[int, ...]:
    return tuple(sent_ns + (first_ms + 10 * j) * MS for j in range(count))


@functools.cache
def good_rows(over_s: float = 60, count: int = 180, **changes):
    """So many requests over so many seconds, each of ten tokens or what is asked for, a chunk per token."""
    sent = [T0 + int(k * over_s * S / count) for k in range(count)]
    tokens = changes.get("output_tokens", 10)
    return [row(k, at, **{"chunk_ns": chunks_of(at, tokens), **changes}) for k, at in enumerate(sent)]


def write_pair(
    path,
    first=None,
    second=None,
    load_summary=None,
    second_summary=None,
    start_changes=None,
    second_start=None,
    quantizations=("fp16", "fp16"),
    engine="llama_cpp",
    environment=None,
    load=None,
    repeats=2,
    **cell_changes,
):
    """Two deployments, nothing to distrust but what is asked for; that two starts are few is left out."""
    deployments = [deployment(engine, quantizations[0]), deployment("vllm", quantizations[1])]
    plan = plan_of(deployments, [load or Load(1)], repeats)
    record = run_record(plan)
    store.write_record(path / "run.json", replace(record, environment=environment or {}))
    for start in plan.starts:
        changes = {"memory_kind": "device", **(start_changes or {})}
        if second_start and start.deployment.engine == "vllm":
            changes |= second_start
        write_start(path, start, **changes)
        is_second = start.deployment.engine == "vllm"
        rows = (second if is_second else first) or good_rows()
        own_summary = (second_summary if is_second else None) or load_summary
        cell_summary = own_summary or summary(100 * S, duration_s=LONG)
        write_cell(path, start.cells[0], start, rows, cell_summary, **cell_changes)
    found = {finding.check: finding for finding in findings_of(open_run(path))}
    if repeats < 3:
        del found["single_repeat"]
    return found


def test_a_good_run_has_no_finding(tmp_path):
    assert write_pair(tmp_path, repeats=3) == {}


def test_missing_cells_come_before_a_late_client_and_that_before_few_starts(tmp_path):
    write_pair(tmp_path, load_summary=LATE)
    shutil.rmtree(tmp_path / "cells" / "001")
    assert [found.check for found in findings_of(open_run(tmp_path))][:3] == [
        "single_repeat",  # for which no winner is named
        "cells_not_valid",
        "client_late",
    ]


def test_what_decided_that_there_is_no_winner_comes_first(tmp_path):
    """Of three repeats that the machine disturbed, worse reasons beside it; of two that nothing did, the few
    starts, and of three that nothing did what is worst."""
    disturbed = {"guard": (BUSY,), "guard_mode": "mark", "validity": "suspect"}
    asked = {"busy": (3, disturbed), "few": (2, {}), "plain": (3, {})}
    first = {}
    for name, (repeats, changes) in asked.items():
        write_pair(tmp_path / name, repeats=repeats, load_summary=LATE, **changes)
        first[name] = findings_of(open_run(tmp_path / name))[0].check
    assert first == {"busy": "machine_unfit", "few": "single_repeat", "plain": "client_late"}
    html = write_report(tmp_path / "busy").read_text()
    doubts = html.partition("to distrust this</h2>")[2]
    assert doubts.index("#distrust-machine_unfit") < doubts.index("#distrust-client_late")


OPEN = Load(concurrency=None, rate_per_s=2.0)


def late_rows(lag_ms: float):
    """Each left so much after it was due, 100 ms or a little more before its first chunk."""
    return [replace(each, scheduled_ns=each.sent_ns - int(lag_ms * MS)) for each in good_rows()]


def falling_rows():
    """Twice as many in the first half of a minute as in the second."""
    sent = [T0 + k * 250 * MS for k in range(120)] + [T0 + 30 * S + k * 500 * MS for k in range(60)]
    return [row(k, at, chunk_ns=chunks_of(at)) for k, at in enumerate(sent)]


def queued_rows():
    """Three come in a second and one is answered: the k-th waits for 2k/3 seconds."""
    sent = [T0 + k * S // 3 for k in range(180)]
    return [
        row(
            k,
            at,
            chunk_ns=chunks_of(at, first_ms=100 + 2000 * k // 3),
            end_ns=at + (300 + 2000 * k // 3) * MS,
        )
        for k, at in enumerate(sent)
    ]


def with_first_chunks(first_ms):
    """Good rows of first turns whose k-th has its first chunk after first_ms(k) milliseconds."""
    return [
        replace(row(k, sent), turn=0, chunk_ns=chunks_of(sent, first_ms=first_ms(k)))
        for k, sent in enumerate(each.sent_ns for each in good_rows())
    ]


def stamped(rows):
    """Rows whose first and last content are those of their chunks."""
    return [replace(r, first_content_ns=r.chunk_ns[0], last_content_ns=r.chunk_ns[-1]) for r in rows]


def cut_row(**changes):
    """An answer of four tokens where ten were asked for."""
    return replace(row(170, T0 + 57 * S, chunk_ns=chunks_of(T0 + 57 * S, 4), output_tokens=4), **changes)


def known_error(**changes):
    return {"selftest": msgspec.to_builtins(replace(selftest(), **changes))}


# Its p99 error at one stream is 11 ms, and the TTFT 100.
LOUD = known_error(steps=tuple(replace(step, ttft_error_s=(1e-4, 0.011)) for step in selftest().steps))
LATE = summary(100 * S, duration_s=LONG, loop_lag_s=(0.001, 0.0101, 0.02))  # of a TTFT of 100 ms
READ = summary(100 * S, duration_s=LONG, stamp_source="read", stamp_lag_s=None, clock_uncertainty_ns=None)
DROPPED = summary(100 * S, duration_s=LONG, left_out=1234)
RISING = stamped(with_first_chunks(lambda k: 100 + k // 6 + k * 37 % 5))
QUEUED = {"first": queued_rows(), "second": queued_rows(), "load": OPEN}
FALLING = {"first": falling_rows(), "second": falling_rows(), "repeats": 3}
TWO_HUMPS = stamped(with_first_chunks(lambda k: (200 if k % 3 else 100) + k * 37 % 20))
ORIGIN = because("made_from", format="Q4_K_M")
SHORT = {
    "load_summary": summary(100 * S, duration_s=29.0),
    "first": good_rows(over_s=29),
    "second": good_rows(over_s=29),
}
# Eight a second, each 0.6 s in flight: 4.8 streams of 100 chunks/s.
CROWDED = [
    row(k, at, chunk_ns=chunks_of(at, 50), output_tokens=50, end_ns=at + 600 * MS)
    for k, at in enumerate(T0 + k * 125 * MS for k in range(480))
]
QUIET = known_error(steps=selftest().steps[:1], largest=(1, 100.0))
# A check, what it is to find in two deployments, and what it says of that.
CASES = [
    (
        "requests_failed",
        {"first": [*good_rows(), *(failed_row(k, T0 + S) for k in (200, 201))]},
        r"looks fast: llama_cpp fp16 at 1 user: 4 of 364\.$",
    ),
    (
        "output_lengths_differ",
        {"second": good_rows(output_tokens=11)},
        r"at 1 user llama_cpp fp16 10\.0 against vllm fp16 11\.0 tokens per request",
    ),
    (
        "prompts_differ",
        {"second": good_rows(input_tokens=52)},
        r"^llama_cpp fp16, vllm fp16: at 1 user, turn 1",
    ),
    (
        "terms_not_matched",
        {"second_start": {"resolved": {"tensor_parallel": 2}}},
        r"vllm fp16: tensor parallel asked 1, got 2",
    ),
    (
        "kernels_stand_in",
        {"second_start": {"resolved": {"kernel_stand_in": "pure Python"}}},
        "vllm fp16: pure",
    ),
    (
        "token_counts_differ",
        {"second": good_rows(tokenizer_tokens=11)},
        r"server 3,600, tokenizer 3,960 \(\+10\.0 %, n = 360 requests\)",
    ),
    (
        "answers_cut",
        {"first": [*good_rows(), cut_row(), cut_row(request_id="r171")]},
        r"llama_cpp fp16 at 1 user: 4 of 364\.",
    ),
    (
        "answers_cut",  # an engine that stops where it likes has none cut but by its context
        {"second": [*good_rows(), cut_row(), cut_row()], "second_start": {"forces_length": False}},
        r"vllm fp16 at 1 user: 4 of 364\.",
    ),
    (
        "length_not_heeded",  # Ollama and others take ignore_eos and ignore it
        {"first": [*good_rows(), *(cut_row(finish_reason="stop", request_id=f"r17{k}") for k in range(3))]},
        r"llama_cpp fp16 at 1 user: 6 of 366\.",
    ),
    (
        "prompts_cut",  # one word more than tokens may be a tokenizer's, ten are cut off
        {
            "first": [
                replace(row, sent_words=row.input_tokens + 1 + 9 * (k < 4))
                for k, row in enumerate(good_rows())
            ]
        },
        r"llama_cpp fp16 at 1 user: 8 of 360\.",
    ),
    (
        "bimodal",
        {"first": TWO_HUMPS},
        r"TTFT of turn 1: medians 1\d\d\.\d ms, and 2\d\d\.\d ms in 67 % \(n = 180 requests",
    ),
    ("window_drifted", {"first": RISING, "repeats": 3}, r"llama_cpp fp16 at 1 user: TTFT \+"),
    # 4 requests/s of ten tokens in the first 20 s, 2 in the last: with nothing in flight that is no queue.
    ("window_drifted", {**FALLING, "load": OPEN}, r"at 2/s poisson: output tokens/s -5.* % \(n = 3 starts"),
    # After t seconds 3t have come and t - 0.3 are answered; the thirds' middles are 10 s and 50 s.
    ("queue_only_grew", QUEUED, r"20\.\d in flight in the window's first third, 100\.\d in its last"),
    (
        "beyond_selftest",
        {"environment": known_error(largest=None)},
        r"streams? x \d+ chunks/s; at the nearest",
    ),
    (
        "beyond_selftest",
        {"first": CROWDED, "second": CROWDED, "environment": QUIET},
        r"5 streams x 100 chunks/s; at the nearest load tested \(1 stream x 100 chunks/s\) bench's own TTFT "
        r"error was p50 0\.03 ms, p99 0\.1",
    ),
    (
        "error_not_small",
        {"environment": LOUD},
        r"TTFT p50 100\.0 ms, error p99 11 ms \(.*, n = [\d,]+ requests",
    ),
    ("short_windows", SHORT, r"llama_cpp fp16 at 1 user: 180 requests in 29\.0 s;"),
    ("short_windows", {"first": good_rows(count=100)}, r"100 requests in 60\.0 s \(130 take 78 s\)\."),
    ("client_late", {"load_summary": LATE}, r"a timer 10\.1 ms late at p99, at a median TTFT of 100\.0 ms"),
    (
        "client_late",
        {"second": late_rows(10.2), "load": OPEN},
        r"requests left up to 10\.2 ms late \(n = 180\), at a median TTFT of 110\.2 ms",
    ),
    (
        "conversations_never_began",
        {"load_summary": DROPPED, "load": OPEN},
        r"never began: llama_cpp fp16 at 2/s poisson \(start 1\), vllm fp16 .*: 1,234 conversations\.",
    ),
    (
        "stamps_not_kernel",
        {"load_summary": READ},
        r"at least one read.*: llama_cpp fp16 at 1 user \(start 1\)",
    ),
    ("cores_shared", {"start_changes": {"memory_kind": "host"}}, "The servers ran on the processor"),
    (
        "weights_noted",
        {
            "start_changes": {"weights_notes": (ORIGIN,)},
            "second_start": {
                "weights_notes": (ORIGIN, because("cast_on_load", stored="bf16", wanted="fp16"))
            },
        },
        "^llama_cpp fp16, vllm fp16: made from the Q4_K_M file, so it holds no more information; vllm fp16: "
        r"stored as bf16, cast to fp16 on load\.$",
    ),
    (
        "weights_noted",
        {"start_changes": {"weights": {"note": "made from the Q4_1 file"}}},  # of an earlier bench
        r"^llama_cpp fp16, vllm fp16: made from the Q4_1 file\.$",
    ),
    (
        "images_by_tag",
        {
            "start_changes": {"image": {"image": "llama.cpp:b1"}},
            "second_start": {"image": {"image": "vllm/vllm-openai@sha256:7ce4"}},
        },
        r"another image later: llama_cpp fp16: llama\.cpp:b1\.$",
    ),
    ("quality_not_measured", {"quantizations": ("fp16", "awq")}, "llama_cpp fp16, vllm awq: not measured"),
    (
        "cells_not_valid",
        {"validity": "suspect", "reasons": ("clocks fell",)},
        r"\(start 1\): suspect, clocks fell",
    ),
]


# What makes a number no comparison; all other findings are listed.
MARKING = {
    "requests_failed", "answers_cut", "prompts_cut", "output_lengths_differ", "prompts_differ",
    "length_not_heeded",
    "kernels_stand_in", "token_counts_differ", "error_not_small", "client_late", "conversations_never_began",
}  # fmt: skip


@pytest.mark.parametrize(("check", "changes", "said"), CASES)
def test_a_check_finds_its_own_reason_alone(tmp_path, check, changes, said):
    found = write_pair(tmp_path, **changes)
    assert list(found) == [check]
    assert re.search(said, found[check].text), found[check].text
    assert found[check].remedy
    assert set(found[check].cells) <= set(range(2 * changes.get("repeats", 2)))
    metrics = set(found[check].metrics)
    assert metrics <= BY_NAME.keys()
    if found[check].marks and metrics & {"ttft_s", "tpot_s", "e2e_s"}:
        assert {"slo_share", "goodput_per_s"} <= metrics, "an objective may be on any of the three"
    assert found[check].cells or not found[check].marks
    assert found[check].marks == (check in MARKING)


def test_one_answer_in_a_hundred_that_ends_of_itself_is_cut_and_no_sign_that_the_server_heeds_no_length(
    tmp_path,
):
    found = write_pair(tmp_path, first=[*good_rows(), cut_row(finish_reason="stop")])
    assert list(found) == ["answers_cut"]
    assert "llama_cpp fp16 at 1 user: 2 of 362." in found["answers_cut"].text
    assert not found["answers_cut"].marks


@pytest.mark.parametrize(("engine", "is_told"), [("openai", True), ("llama_cpp", False)])
def test_the_key_of_one_engine_is_a_remedy_for_that_engine_alone(tmp_path, engine, is_told):
    early = [cut_row(finish_reason="stop", request_id=f"r17{k}") for k in range(3)]
    found = write_pair(tmp_path, first=[*good_rows(), *early], engine=engine)
    assert ("openai.ignore_eos" in found["length_not_heeded"].remedy) is is_told


@pytest.mark.parametrize(
    "changes",
    [
        {"second": [replace(r, input_tokens=51 if k % 4 else 50) for k, r in enumerate(good_rows())]},
        {"load": Load(concurrency=4), "start_changes": {"resolved": {"concurrent_sequences": 4}}},
        {"first": good_rows(cached_tokens=10)},
        {"second_start": {"forces_length": False}},  # they have the length asked for all the same
        {"first": [*good_rows(), cut_row(output_tokens=9)]},  # a server that leaves out its last token
        {"first": [*good_rows(), cut_row(token_source="tokenizer")]},
        {"second": [*good_rows(), cut_row(finish_reason="stop")], "second_start": {"forces_length": False}},
        {**FALLING, "load": Load(concurrency=None, arrival="trace")},  # a trace has the drift that it has
        {"first": stamped(with_first_chunks(lambda k: 100 + k * 37 % 90))},  # one wide hump
        {"first": stamped(with_first_chunks(lambda k: 100 + k // 20 + k * 37 % 5))},  # 9 % in a minute
        {"load_summary": replace(LATE, loop_lag_s=(0.001, 0.0099, 0.02))},
        {"second": good_rows(tokenizer_tokens=10)},
        {"second": late_rows(9.8), "load": OPEN},
        {"first": late_rows(200), "second": late_rows(200)},  # a closed loop has no schedule to keep
        {"environment": known_error()},
        {
            "load_summary": summary(100 * S, duration_s=30.0),
            "first": good_rows(over_s=30),
            "second": good_rows(over_s=30),
        },
    ],
)
def test_what_is_within_the_limits_is_no_finding(tmp_path, changes):
    assert write_pair(tmp_path, **changes) == {}


def test_one_failed_request_of_hundreds_is_told_and_marks_nothing(tmp_path):
    one, two = ([failed_row(200 + k, T0 + S) for k in range(count)] for count in (1, 2))
    alone = write_pair(tmp_path / "alone", first=[*good_rows(), *one])["requests_failed"]
    assert (alone.marks, alone.cells) == (False, ())
    beside = write_pair(tmp_path / "both", first=[*good_rows(), *one], second=[*good_rows(), *two])
    assert (beside["requests_failed"].marks, beside["requests_failed"].cells) == (True, (1, 3))
    assert "llama_cpp fp16 at 1 user: 2 of 362" in beside["requests_failed"].text


def test_rates_of_a_window_in_which_no_request_ended_are_marked(tmp_path):
    """A request from before the window until after it: 400 of its 500 tokens arrive in the 60 s."""
    chunks = tuple(T0 + k * 15 * S for k in range(5))
    outlasting = row(0, T0 - S, chunk_ns=chunks, end_ns=T0 + 61 * S, output_tokens=500)
    found = write_pair(tmp_path, first=[outlasting])["none_ended"]
    assert found.text.endswith("llama_cpp fp16 at 1 user (start 2): 6.67 tokens/s in 60.0 s.")
    run = open_run(tmp_path)
    [group, other] = run.groups
    assert found in marks_of(run, group.counted, "output_tokens_per_s")
    assert found not in marks_of(run, group.counted, "ttft_s.p50")
    assert found not in marks_of(run, other.counted, "output_tokens_per_s")


def write_starts(path, rows_by_start, samples=(), environment=None):
    """One deployment, a start per list of rows, samples for each."""
    plan = plan_of([deployment("llama_cpp", "fp16")], [Load(1)], repeats=len(rows_by_start))
    settings = {**run_record(plan).settings, "guard": ("off",)}
    written = replace(run_record(plan), environment=environment or {}, settings=settings)
    store.write_record(path / "run.json", written)
    for start, rows in zip(plan.starts, rows_by_start, strict=True):
        write_start(path, start, samples, memory_kind="device")
        write_cell(path, start.cells[0], start, rows, summary(100 * S, duration_s=LONG))
    return {finding.check: finding for finding in findings_of(open_run(path))}


def test_starts_that_lie_far_apart_are_a_finding(tmp_path):
    # 180 requests of 10 tokens in 60 s: 30 tokens/s; with 13 tokens: 39; the geometric mean is 32.7.
    found = write_starts(tmp_path / "far", [good_rows(), good_rows(output_tokens=13), good_rows()])
    case = "llama_cpp fp16 at 1 user: output tokens/s 30.0 to 39.0 (27 % of the mean)."
    assert list(found) == ["repeats_disagree"]
    assert found["repeats_disagree"].text == f"Their values differ by more than 20 % of the mean: {case}"
    # 30 and 36: 19 %.
    assert write_starts(tmp_path / "near", [good_rows(), good_rows(output_tokens=12), good_rows()]) == {}


def test_a_machine_that_nobody_looked_at_is_not_said_to_be_busy(tmp_path):
    """With guard=off. The server uses one of two cores, the client next to nothing, other programs 44 %."""
    samples = [
        HostSample(90 * S + k * S // 10, GIB, k / 10, 4, 1, 0, None, 4 * GIB, 95.0) for k in range(750)
    ]
    assert write_starts(tmp_path, [good_rows()] * 3, samples, {"machine": {"cores_logical": 2}}) == {}


def test_a_server_that_samples_at_temperature_0_is_a_finding_without_quality(tmp_path):
    run_dir = full_run(tmp_path)
    for start in store.read_starts(run_dir):
        resolved = {**start.resolved, "backend": "some.cpp"}
        is_alike = start.deployment.label != "vllm fp16"
        write_start(run_dir, replace(start, resolved=resolved, repeats_answers=is_alike))
    found = {finding.check: finding for finding in findings_of(open_run(run_dir))}["server_samples"]
    assert found.text == (
        "One prompt, asked again before any load, got another answer: "
        "vllm fp16 (backend: some.cpp): in 2 of 2 starts."
    )
    assert not found.marks


def test_a_server_that_generates_for_clients_that_left_is_a_finding(tmp_path):
    run_dir = full_run(tmp_path)
    for start in store.read_starts(run_dir):
        busy_s = {"vllm fp16": 7.25, "vllm awq": 0.4}.get(start.deployment.label)
        write_start(run_dir, replace(start, busy_after_leaving_s=busy_s))
    found = {finding.check: finding for finding in findings_of(open_run(run_dir))}["busy_after_leaving"]
    assert found.text == "After clients had left, short answers waited: vllm fp16: for about 7.25 s."
    assert found.cells


def test_missing_cells_are_a_finding(full):
    found = {finding.check: finding for finding in findings_of(full)}
    assert found["cells_not_valid"].text == "vllm fp16 at 4 users (start 1): failed."


def test_every_check_can_find_something():
    found = {check.name for check in CHECKS}
    by_hand = {"single_repeat", "repeats_disagree", "drift_over_run"}
    by_hand |= {"two_levels"}  # in test_alike
    by_hand |= {"none_ended"}  # its window is short, too
    by_hand |= {"cache_not_reset"}  # in test_prefix_cache
    by_hand |= {"machine_unfit", "one_disturbed"}  # in test_reports_guard, test_disturbed_repeats
    by_hand |= {"server_counts_differ"}  # in test_reports_served
    by_hand |= {
        "answers_change_under_load",
        "not_repeatable",
        "text_not_comparable",
    }  # in test_reports_quality
    by_hand |= {"answers_missing", "same_weights_differ", "speculation_changes_answers"}  # in test_answered
    by_hand |= {"variables_differ", "server_samples", "busy_after_leaving"}  # here
    by_hand |= {"powers_differ"}  # in test_reports_energy
    by_hand |= {
        "machines_differ",
        "nodes_lost",
        "measured_by_another_tool",
    }  # in test_merge and test_importing
    by_hand |= {"answers_not_valid", "cache_misreported"}  # in test_traffic and test_cache
    assert found - by_hand <= {check for check, _, _ in CASES}


def test_remedies_name_keys_that_there_are():
    """Every `load.warmup` and `repeats=4` in the texts of the checks."""
    named = set()
    sections = "|".join({key.partition(".")[0] for key in keys.known_keys() if "." in key} - {"reference"})
    for path in Path(checks.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(r"\b(?:[a-z_]+\.[a-z_]+(?==)|[a-z_]+(?==[\w{]))", node.value))
                named |= set(re.findall(rf"\b(?:{sections})\.(?!py\b)[a-z_]+", node.value))
    assert {"load.warmup", "engine.prefix_cache", "repeats", "quantization"} <= named
    assert named <= set(keys.known_keys())


@pytest.mark.parametrize(("repeats", "said"), [(1, "1 user: 1 start."), (2, "1 user: 2 starts."), (3, None)])
def test_fewer_starts_than_a_verdict_needs_are_a_finding_that_marks_nothing(tmp_path, repeats, said):
    found = write_starts(tmp_path, [good_rows()] * repeats).get("single_repeat")
    assert (found is None) == (said is None)
    if found:
        assert said in found.text


def test_a_deployment_that_slows_from_start_to_start_is_told_and_what_all_share_is_not(tmp_path):
    """Tokens per request: all have 10 more at each start, and vllm's 2 fewer than that."""

    def starts(path, own):
        deployments = [deployment("llama_cpp", "fp16"), deployment("vllm", "fp16")]
        plan = begin_run(path, deployments, [Load(1)], repeats=5)
        for start in plan.starts:
            write_start(path, start, memory_kind="device")
            is_second = start.deployment.engine == "vllm"
            count = 100 + 10 * start.repeat - (own[start.repeat] if is_second else 0)
            rows = [replace(each, output_tokens=count, max_tokens=count) for each in good_rows()]
            write_cell(path, start.cells[0], start, rows, summary(100 * S, duration_s=LONG))
        return {finding.check: finding for finding in findings_of(open_run(path))}

    assert "drift_over_run" not in starts(tmp_path / "common", [0] * 5)
    found = starts(tmp_path / "own", [0, 5, 11, 17, 22])["drift_over_run"]
    assert found.text.startswith("Values changed steadily from start to start, relative to any other ")
    assert "llama_cpp fp16 against vllm fp16: output tokens/s +4." in found.text
    assert found.text.endswith("), and either may have drifted.")


def test_a_run_that_was_resumed_in_another_shell_says_so(tmp_path):
    first = {"OMP_NUM_THREADS": "2", "OLLAMA_HOST": "127.0.0.1:5001"}  # the port is bench's own choice
    write_pair(tmp_path, start_changes={"argv": ("serve",), "environment": first})
    later = store.read_starts(tmp_path)[-1]
    others = {"OMP_NUM_THREADS": "1", "LD_PRELOAD": "/lib/tcmalloc.so", "OLLAMA_HOST": "127.0.0.1:5002"}
    changed = replace(later, environment=others)
    write_start(tmp_path, changed)
    found = {finding.check: finding for finding in findings_of(open_run(tmp_path))}
    assert found["variables_differ"].text == (
        "They may have changed the server's speed: "
        f"{later.deployment.label}: LD_PRELOAD (unset, then /lib/tcmalloc.so); "
        f"{later.deployment.label}: OMP_NUM_THREADS (2, then 1)."
    )


def test_variables_that_deployments_do_not_share_stand_side_by_side(tmp_path):
    write_pair(
        tmp_path,
        start_changes={"argv": ("serve",), "environment": {"OMP_NUM_THREADS": "2", "LD_BIND_NOW": "1"}},
        second_start={"environment": {"OMP_NUM_THREADS": "1", "LD_BIND_NOW": "1"}},
    )
    shown = plain(trust.foundations(open_run(tmp_path)).body)
    assert "variable OMP_NUM_THREADS 2 1" in shown
    assert "variable LD_BIND_NOW" not in shown
