"""What is measured of one kind of traffic only."""

from dataclasses import replace

import pytest
from page_data import notes_of, rows_of, topics_of

from serving_bench.harness.contracts import (
    Adapter,
    Form,
    GuardFinding,
    Load,
    Plan,
    PlannedCell,
    PlannedStart,
    ScenarioChoice,
    Tool,
    quoted,
)
from serving_bench.harness.store import store
from serving_bench.reports import tables_of
from serving_bench.reports.checks.examine import examine, marks_of
from serving_bench.reports.data import open_run
from serving_bench.reports.measures import Value, aggregate, by_start, metric_of, metrics_of, values_of
from serving_bench.reports.measures.anatomy import kv_bytes_per_token
from serving_bench.reports.measures.traffic.of_groups import (
    by_part,
    cost_of_constraint,
    parts_of,
    validities_of,
)
from serving_bench.reports.measures.traffic.validity import is_by, kind_of
from serving_bench.reports.page.answer import opening
from serving_bench.reports.page.document import page
from serving_bench.reports.page.sections.traffic import batch, burst, rates, validity
from serving_bench.reports.page.sections.traffic_parts import by_adapter
from tests.support.runs.make_run import (
    MS,
    S,
    deployment,
    one_cell_run,
    row,
    run_record,
    starts_run,
    write_cell,
    write_start,
)

SHARED = ScenarioChoice("shared_prefix", {"prefixes": 3}, "shared_prefix")


def _run(tmp_path, rows, scenario=SHARED, **cell):
    return open_run(one_cell_run(tmp_path, rows, scenario=scenario, **cell).path)


def test_parts_are_the_ok_requests_of_the_window_by_the_scenarios_number(tmp_path):
    rows = [
        row(1, 103 * S, group=0, input_tokens=100, cached_tokens=60),
        row(2, 104 * S, group=0, input_tokens=300, cached_tokens=180),
        row(3, 105 * S, group=2, input_tokens=50, cached_tokens=None),
        row(4, 105 * S, group=2, outcome="timeout"),
        row(5, 101 * S, group=1),  # warm-up
        row(6, 105 * S, group=None),
    ]
    first, third = parts_of(_run(tmp_path, rows), "shared_prefix")
    assert (first.number, first.requests, first.input_tokens) == (0, 2, 200.0)
    assert first.cached_share == pytest.approx(0.6)
    assert first.ttft_s == pytest.approx(100 * MS / S)
    assert (third.number, third.requests, third.cached_share) == (2, 1, None)


def test_a_run_of_other_traffic_has_none(tmp_path):
    chat = ScenarioChoice("chat_multi_turn", {}, "chat_multi_turn")
    assert parts_of(_run(tmp_path, [row(1, 103 * S)], chat), "shared_prefix") == []


# --- prefill and decode apart ----------------------------------------------------------------------

FIXED = ScenarioChoice("fixed", {}, "fixed")


def test_rates_are_tokens_read_and_made_per_second(tmp_path):
    rows = [
        row(1, 103 * S, input_tokens=1000, cached_tokens=200),  # TTFT 100 ms, 9 tokens in 80 ms
        row(2, 104 * S, input_tokens=400, cached_tokens=None),
        row(3, 105 * S, output_tokens=1, input_tokens=100, cached_tokens=0),
    ]
    values = values_of(_run(tmp_path, rows, FIXED))[0]
    assert values["prefill_tokens_per_s"] == Value(pytest.approx((800 + 400 + 100) / 0.3), 3)
    assert values["decode_tokens_per_s"] == Value(pytest.approx(18 / 0.16), 2)


def test_a_single_chunk_has_no_rate_and_a_prompt_of_unknown_length_leaves_the_answers(tmp_path):
    rows = [
        row(1, 103 * S),  # 9 tokens in 80 ms
        row(2, 104 * S, chunk_ns=(104 * S + 100 * MS,)),
        row(3, 105 * S, input_tokens=None),
    ]
    values = values_of(_run(tmp_path, rows, FIXED))[0]
    assert values["decode_tokens_per_s"] == Value(pytest.approx(18 / 0.16), 2)
    assert values["prefill_tokens_per_s"].n == 2


def test_other_traffic_has_no_such_value(tmp_path):
    run = _run(tmp_path, [row(1, 103 * S)])
    assert "prefill_tokens_per_s" not in values_of(run)[0]
    assert "prefill_tokens_per_s" not in {metric.name for metric in metrics_of(run)}
    assert "prefill_tokens_per_s" not in set(tables_of(run)["values"]["metric"])


def test_the_page_and_the_tables_have_the_rates(tmp_path):
    run = _run(tmp_path, [row(1, 103 * S, input_tokens=1000, cached_tokens=0)], FIXED)
    assert "rates" in topics_of(run)
    values = tables_of(run)["values"].set_index("metric")["value"]
    assert values["prefill_tokens_per_s"] == pytest.approx(10_000)


# --- answers with a form ---------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "years": {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        "mood": {"enum": ["glad", "sad"]},
        "score": {"type": "integer", "minimum": 1, "maximum": 10},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ({"name": "Ada", "years": [1815, 1852], "mood": "glad", "score": 10}, True),
        ({"name": "Ada", "score": 3.0}, True),
        ({"name": "Adaline"}, False),
        ({"name": 3}, False),
        ({"years": [1815]}, False),
        ({"name": "Ada", "age": 36}, False),
        ({"name": "Ada", "years": []}, False),
        ({"name": "Ada", "years": [1, 2, 3]}, False),
        ({"name": "Ada", "years": ["1815"]}, False),
        ({"name": "Ada", "mood": "angry"}, False),
        ({"name": "Ada", "score": 0}, False),
        ({"name": "Ada", "score": 11}, False),
        ({"name": "Ada", "score": True}, False),
        ({"name": "Ada", "score": 1.5}, False),
        ([], False),
    ],
)
def test_a_schema_allows_what_the_specification_says(value, allowed):
    assert is_by(value, SCHEMA) is allowed


@pytest.mark.parametrize(
    ("value", "schema", "allowed"),
    [
        (True, {"enum": [1]}, False),
        ([False], {"enum": [[0]]}, False),
        ({"a": 1}, {"enum": [{"a": True}]}, False),
        (True, {"enum": [1, True]}, True),
        (1.0, {"enum": [1]}, True),
        (True, {"minimum": 5}, True),
        (True, {"maximum": 0}, True),
    ],
)
def test_true_and_false_are_no_numbers(value, schema, allowed):
    assert is_by(value, schema) is allowed


@pytest.mark.parametrize("schema", [{"oneOf": [{}]}, {"type": ["string", "null"]}, {"items": True}, True])
def test_a_schema_that_is_not_read_allows_nothing_and_forbids_nothing(schema):
    with pytest.raises(ValueError, match="not supported"):
        is_by([1], schema)


PERSON = Form("person", schema=SCHEMA)
STEP = Form("step", (Tool("search", "", {"type": "object", "required": ["query"]}),))


@pytest.mark.parametrize(
    ("form", "answer", "kind"),
    [
        (PERSON, {"output_text": '{"name": "Ada"}'}, "valid"),
        (PERSON, {"output_text": 'Here it is: {"name": "Ada"}'}, "not JSON"),
        (PERSON, {"output_text": '{"name": NaN}'}, "not JSON"),
        (PERSON, {"output_text": "[" * 100_000}, "not JSON"),
        (PERSON, {"output_text": '{"name": 1}'}, "not by the schema"),
        (PERSON, {"output_text": '{"name": "A', "finish_reason": "length"}, "cut at max_tokens"),
        (PERSON, {"output_text": "Ada, who", "finish_reason": "length"}, "not JSON"),
        (STEP, {"output_text": "I would search", "finish_reason": "length"}, "no call"),
        (
            STEP,
            {"calls": '[{"name": "search", "arguments": "{"}]', "finish_reason": "length"},
            "cut at max_tokens",
        ),
        (PERSON, {"output_text": '{"name": "Ada"}', "finish_reason": "length"}, "valid"),
        (STEP, {"calls": '[{"name": "search", "arguments": "{\\"query\\": 1}"}]'}, "valid"),
        (STEP, {"calls": None}, "no call"),
        (STEP, {"calls": '[{"name": "seek", "arguments": "{}"}]'}, "no such tool"),
        (STEP, {"calls": '[{"name": "search", "arguments": "query"}]'}, "not JSON"),
        (STEP, {"calls": '[{"name": "search", "arguments": "{}"}]'}, "not by the schema"),
    ],
)
def test_an_answer_is_valid_or_the_first_thing_that_is_wrong_with_it(form, answer, kind):
    assert kind_of(form, {"calls": None, "output_text": "", "finish_reason": "stop"} | answer) == kind


def _answers(*texts):
    changes = {"form": "person", "finish_reason": "stop"}
    return [row(k, 103 * S + k * MS, output_text=text, **changes) for k, text in enumerate(texts)]


STRUCTURED = ScenarioChoice("structured_output", {}, "structured_output")


def test_the_share_of_valid_answers_and_a_reason_to_distrust(tmp_path):
    rows = [
        *_answers('{"name": "Ada"}', '{"name": "Bo"}', '{"name": 1}', "Ada"),
        row(9, 104 * S, form="person", outcome="timeout"),
        row(10, 101 * S, form="person"),  # warm-up
    ]
    run = _run(tmp_path, rows, STRUCTURED, forms=(PERSON,))
    assert values_of(run)[0]["valid_share"] == Value(0.5, 4)
    [found] = validities_of(run)
    assert found.counts == {"valid": 2, "not by the schema": 1, "not JSON": 1}
    assert found.interval == pytest.approx((0.150, 0.850), abs=0.001)  # Wilson's of 2 in 4
    said = examine(run)["Answers do not have the form asked for"]
    assert "50 % of 4 (1 not JSON, 1 not by the schema)" in said.text
    assert "validity" in topics_of(run)
    assert "valid answers %" in opening(run)


UNKNOWN, WRONG = (
    "this JSON Schema keyword, or its value, is not supported.",
    "a keyword of its JSON Schema has a value of the wrong type.",
)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"anyOf": []}, f"anyOf: {UNKNOWN}"),
        ({"type": ["string", "null"]}, f"type: {UNKNOWN}"),
        ({"pattern": "A.*"}, f"pattern: {UNKNOWN}"),
        ({"properties": 3}, WRONG),
        ({"properties": ["name"], "additionalProperties": False}, WRONG),
        ({"required": 3}, WRONG),
        ({"enum": 3}, WRONG),
        ({"maxLength": "long", "properties": {"name": {"maxLength": "long"}}}, WRONG),
    ],
)
def test_a_schema_that_is_not_read_gives_no_share_and_a_note(tmp_path, schema, why):
    run = _run(tmp_path, _answers('{"name": "Ada"}'), STRUCTURED, forms=(Form("person", schema=schema),))
    assert values_of(run)[0]["valid_share"] == Value(None, 0)
    note = page(run).partition("Not judged: llama_cpp fp16 at 1 user, because ")[2].partition("</p>")[0]
    assert note == why


def test_the_constraint_costs_the_ratio_of_tpot_over_the_starts_that_have_both(tmp_path):
    slower = (1.1, 1.2, 1.3)
    path = _constrained_run(tmp_path, slower)
    run = open_run(path)
    held, free = sorted(validities_of(run), key=lambda each: not each.is_forced)
    cost = cost_of_constraint(run, held)
    assert cost.shown == pytest.approx((1.1 * 1.2 * 1.3) ** (1 / 3), rel=1e-3)
    assert cost.k == 3
    assert cost_of_constraint(run, free) is None
    shown = {row["schema given to the server"]: row for row in rows_of(validity(run).parts[0])}
    assert shown["yes"]["TPOT with / without"].startswith("1.20× [")


@pytest.mark.parametrize("free", [("agent_loop", {}), ("structured_output", {"input_tokens": 64})])
def test_the_constraint_is_not_held_against_other_traffic(tmp_path, free):
    run = open_run(_constrained_run(tmp_path, (1.1, 1.2, 1.3), *free))
    assert [cost_of_constraint(run, each) for each in validities_of(run)] == [None, None]


def test_each_length_of_a_sweep_has_a_cost_of_its_own(tmp_path):
    lengths = [_constrained(held, input_tokens=tokens) for tokens in (64, 128) for held in (True, False)]
    run = open_run(_choices_run(tmp_path, lengths, [1.1] * 3))
    costs = [cost_of_constraint(run, each) for each in validities_of(run) if each.is_forced]
    assert [cost.shown for cost in costs] == pytest.approx([1.1, 1.1], rel=1e-3)


def _constrained(held, name="structured_output", **options):
    given = {"constrained": held} | options
    return ScenarioChoice(name, given, f"{name} {given}")


def _constrained_run(path, slower, name="structured_output", options=None):
    return _choices_run(path, [_constrained(True), _constrained(False, name, **options or {})], slower)


def _planned(path, choices, repeats=1):
    """The starts of a run, each with a cell of each choice."""
    starts = []
    for repeat in range(repeats):
        cells = tuple(
            PlannedCell(len(choices) * repeat + at, choice, Load(concurrency=1), repeat, 7)
            for at, choice in enumerate(choices)
        )
        starts.append(PlannedStart(repeat, deployment("llama_cpp", "fp16"), repeat, cells))
        write_start(path, starts[-1])
    store.write_record(path / "run.json", run_record(Plan(tuple(starts), (), 100.0)))
    return starts


def _choices_run(path, choices, slower):
    """A start per factor, each with a cell of each choice; answers that are held to their form are slower."""
    for start, factor in zip(_planned(path, choices, len(slower)), slower, strict=True):
        for cell in start.cells:
            held = cell.scenario.options["constrained"]
            gap_ns = int(20 * MS * (factor if held else 1.0))
            rows = []
            for k in range(12):
                sent_ns = 103 * S + k * 100 * MS
                chunks = tuple(sent_ns + 100 * MS + j * gap_ns for j in range(5))
                rows.append(row(k, sent_ns, chunk_ns=chunks, form="person", output_text='{"name": "Ada"}'))
            write_cell(path, cell, start, rows, forms=(replace(PERSON, is_forced=held),))
    return path


# --- agents ----------------------------------------------------------------------------------------

AGENTS = ScenarioChoice("agent_loop", {}, "agent_loop")


def _step(number, conversation, turn, at_s, **changes):
    """A step of a task of three, which takes 190 ms."""
    fields = {"conversation": conversation, "turn": turn, "turns": 3, "form": "step", "finish_reason": "stop"}
    call = '[{"name": "search", "arguments": "{\\"query\\": 1}"}]'
    return row(number, int(at_s * S), **(fields | {"calls": call} | changes))


def test_tasks_are_conversations_that_began_in_the_window(tmp_path):
    rows = [
        *(_step(k, 1, k, 103 + k) for k in range(3)),  # finished: 2.19 s
        _step(5, 1, 1, 104, part=1, outcome="timeout"),  # which ends no task
        _step(6, 1, 1, 104, part=2),  # nor is it a step
        *(_step(10 + k, 2, k, 103 + 2 * k) for k in range(3)),  # finished: 4.19 s
        _step(20, 3, 0, 103),
        _step(21, 3, 1, 104, outcome="timeout"),  # failed
        _step(30, 4, 0, 109),  # cut by the window's end
        *(_step(40 + k, 5, k, 101 + k) for k in range(3)),  # began before it
        _step(50, 6, 0, 109, calls=None, outcome="cancelled"),  # cut, too
    ]
    run = _run(tmp_path, rows, AGENTS, forms=(STEP,))
    values = values_of(run)[0]
    assert values["task_s"] == Value(pytest.approx((2.19 + 4.19) / 2), 2)
    assert values["finished_share"] == Value(pytest.approx(2 / 3), 3)
    # 3 + 3 + 1 + 1 and those at 102 and 103 s, in 8 s
    assert values["steps_per_s"] == Value(pytest.approx(10 / 8), 10)
    assert values["valid_share"] == Value(1.0, 11)
    assert "tasks" in topics_of(run)


def test_no_task_is_known_to_be_finished_where_nobody_wrote_how_many_steps_it_has(tmp_path):
    rows = [_step(k, 1, k, 103 + k, turns=None) for k in range(3)]
    rows += [_step(9, 2, 0, 104, turns=None, outcome="timeout")]
    values = values_of(_run(tmp_path, rows, AGENTS))[0]
    assert values["task_s"] == Value(None, 0)
    assert values["finished_share"] == Value(None, 0)


# --- depths ----------------------------------------------------------------------------------------

LONG = ScenarioChoice("long_context", {}, "long_context")


def _deep(number, tokens, seconds, group):
    sent_ns = 103 * S + number * 100 * MS
    chunks = tuple(sent_ns + int(seconds * S) + k * 20 * MS for k in range(5))
    return row(number, sent_ns, chunk_ns=chunks, input_tokens=tokens, cached_tokens=0, group=group)


def test_the_quadratic_part_is_that_of_the_law_that_was_drawn(tmp_path):
    depths = [512, 1024, 2048, 3072]
    rows = [_deep(at, n, 0.01 + 1e-4 * n + 5e-8 * n**2, at) for at, n in enumerate(depths)]
    # A stall of one request in three moves no median.
    rows += [_deep(10 + at, n, 0.01 + 1e-4 * n + 5e-8 * n**2, at) for at, n in enumerate(depths)]
    rows += [_deep(20, 1024, 5.0, 1)]
    quadratic, whole = 5e-8 * 3072**2, 0.01 + 1e-4 * 3072 + 5e-8 * 3072**2
    run = _run(tmp_path, rows, LONG)
    assert values_of(run)[0]["quadratic_share"] == Value(pytest.approx(quadratic / whole, abs=1e-4), 9)
    assert "TTFT p50 against depth" in topics_of(run)["depths"].body


def test_three_depths_give_no_quadratic_part(tmp_path):
    rows = [_deep(at, 512 * (at + 1), 0.1 * (at + 1), at) for at in range(3)]
    assert values_of(_run(tmp_path, rows, LONG))[0]["quadratic_share"] == Value(None, 3)


# --- thoughts, and users who leave -----------------------------------------------------------------


REASONING = ScenarioChoice("reasoning", {}, "reasoning")


def test_the_first_answer_is_told_apart_from_the_first_thought(tmp_path):
    rows = [
        row(k, 103 * S + k * MS, first_answer_ns=103 * S + k * MS + 160 * MS, reasoning_chunks=3)
        for k in range(11)
    ]
    values = values_of(_run(tmp_path, rows, REASONING))[0]
    assert values["first_answer_s"] == Value(pytest.approx(0.16), 11)
    assert values["thinking_share"] == Value(pytest.approx(3 / 5), 11)


@pytest.mark.parametrize(("still_thinking", "seconds"), [(10, 0.16), (11, None), (40, None)])
def test_who_never_answers_is_later_than_all_who_do(tmp_path, still_thinking, seconds):
    rows = [row(k, 103 * S, first_answer_ns=None, reasoning_chunks=5) for k in range(11 + still_thinking)]
    rows[:11] = [replace(each, first_answer_ns=103 * S + 160 * MS) for each in rows[:11]]
    rows[0] = replace(rows[0], reasoning_chunks=None)
    found = values_of(_run(tmp_path, rows, REASONING))[0]["first_answer_s"]
    assert found == Value(seconds and pytest.approx(seconds), 11 + still_thinking)


def test_a_run_that_did_not_count_thoughts_has_no_share_of_them(tmp_path):
    values = values_of(_run(tmp_path, [row(k, 103 * S) for k in range(12)], REASONING))[0]
    assert (values["thinking_share"], values["first_answer_s"]) == (Value(None, 0), Value(None, 0))


def test_fewer_wasted_chunks_are_better():
    assert metric_of("wasted_share").words == ("fewer", "more")


def test_chunks_of_requests_that_were_left_came_for_nobody(tmp_path):
    completion = ScenarioChoice("code_completion", {}, "code_completion")
    rows = [row(k, 103 * S + k * MS) for k in range(2)]
    rows += [row(3, 103 * S + 3 * MS, leave_after_s=0.4)]  # answered in time
    came = (104 * S + 1, 104 * S + 2)
    rows += [row(9, 104 * S, outcome="left", leave_after_s=0.1, chunk_ns=came, output_tokens=None)]
    values = values_of(_run(tmp_path, rows, completion))[0]
    assert values["left_share"] == Value(0.25, 4)
    assert values["in_time_share"] == Value(0.5, 2)
    assert values["wasted_share"] == Value(pytest.approx(2 / 17), 4)
    assert values["answered_per_s"] == Value(3 / 8, 3)


# --- many at once ----------------------------------------------------------------------------------

BATCH = Load(concurrency=None, arrival="batch", conversations=30, duration_s=None)
BURST = ScenarioChoice("burst", {}, "burst")


def test_a_batch_takes_from_its_first_sending_to_its_last_end(tmp_path):
    rows = [row(1, 103 * S), row(2, 103 * S, end_ns=108 * S)]
    values = values_of(open_run(starts_run(tmp_path, rows, load=BATCH)))[0]
    assert values["makespan_s"] == Value(5.0, 2)
    assert values["batch_tokens_per_s"] == Value(pytest.approx(2 * 60 / 5), 2)


def test_a_batch_of_which_one_in_a_hundred_failed_has_a_makespan_with_a_mark(tmp_path):
    rows = [row(k, 103 * S) for k in range(99)] + [row(99, 103 * S, outcome="timeout", end_ns=108 * S)]
    run = open_run(starts_run(tmp_path, rows, load=BATCH))
    assert values_of(run)[0]["makespan_s"] == Value(5.0, 100)
    for name in ("makespan_s", "batch_tokens_per_s"):
        assert "requests_failed" in {each.check for each in marks_of(run, run.planned_cells, name)}
    table = page(run).partition('id="batch"')[2].partition("</table>")[0]
    assert "#distrust-requests_failed" in table or 'href="#distrust"' in table


def test_a_batch_that_was_refused_took_no_time_at_all(tmp_path):
    rows = [row(k, 103 * S) for k in range(2)]
    rows += [row(10 + k, 103 * S, outcome="http_error", end_ns=103 * S + MS) for k in range(28)]
    run = open_run(starts_run(tmp_path, rows, load=BATCH))
    assert values_of(run)[0]["makespan_s"] == Value(None, 30)
    assert values_of(run)[0]["batch_tokens_per_s"] == Value(None, 30)
    assert_told(batch(run), "no time, since over 1 % of requests failed, in 1 of 1 window.")


def assert_told(topic, ends):
    """One sentence below the topic's table ends so, and stands on the page."""
    [told] = notes_of(topic)
    assert told.endswith(ends)
    assert told in topic.body


def _burst(*ends_s):
    """A request each second, alone; ten at 106 s, that end at these instants; then one each second again."""
    took = 0.19
    quiet = [row(k, (103 + k) * S, group=0) for k in range(3)]
    many = [
        row(10 + k, 106 * S, scheduled_ns=106 * S, group=1, end_ns=int(at * S)) for k, at in enumerate(ends_s)
    ]
    after = [row(30 + k, (107 + k) * S, group=2, end_ns=int((107 + k + took) * S)) for k in range(4)]
    return [*quiet, *many, *after]


@pytest.mark.parametrize(
    ("ends_s", "recovery_s"),
    [
        ((106.5, 106.6, 106.7), 0.6),  # then one of them is left, as at most before
        ((107.5, 108.5, 109.5), 2.5),  # beside others that came meanwhile
        ((111.0, 112.0, 113.0), None),  # after the last one was sent
    ],
)
def test_a_server_has_recovered_when_no_more_are_in_flight_than_before(tmp_path, ends_s, recovery_s):
    run = _run(tmp_path, _burst(*ends_s), BURST)
    assert values_of(run)[0]["recovery_s"] == Value(recovery_s and pytest.approx(recovery_s), 3)
    never = ["llama_cpp fp16 at 1 user: not recovered when the last request was sent, in 1 of 1 window."]
    assert notes_of(burst(run)) == (never if recovery_s is None else [])


def test_a_burst_that_was_refused_is_none_that_a_server_recovered_from(tmp_path):
    rows = [replace(each, outcome="http_error") if each.group == 1 else each for each in _burst(106.1, 106.1)]
    run = _run(tmp_path, rows, BURST)
    assert values_of(run)[0]["recovery_s"].value is None
    assert_told(burst(run), "no time, since over 1 % of requests failed, in 1 of 1 window.")


def test_a_start_that_never_recovered_leaves_no_mean(tmp_path):
    ends = [(111.0, 112.0, 113.0), (106.5, 106.6, 106.7), (106.5, 106.6, 106.7)]
    path = starts_run(tmp_path, *(_burst(*each) for each in ends), scenario=BURST)
    run = open_run(path)
    found = aggregate(run, run.groups[0], "recovery_s")
    assert (found.mean, str(found.why)) == (None, "only 2 of 3 starts have a value")


def test_where_no_burst_was_sent_there_is_nothing_to_recover_from(tmp_path):
    quiet = [row for row in _burst() if row.group == 0]
    run = _run(tmp_path, quiet, ScenarioChoice("burst", {}, "burst"))
    said = "at 1 user: no burst was sent, or nothing was sent before it, in 1 of 1 window."
    assert_told(burst(run), said)


# --- adapters --------------------------------------------------------------------------------------

LORA = ScenarioChoice("lora_mix", {}, "lora_mix")


def _adapted(tmp_path, rows, *adapters):
    return _run(tmp_path, rows, LORA, adapters=adapters)


def test_swaps_are_requests_sent_after_one_for_another_adapter(tmp_path):
    sent_s = {0: (104, 106, 107, 101), 1: (103, 105), 2: (108,)}  # in order: 1 0 1 0 0 2; 101 is the warm-up
    rows = [
        row(number, at_s * S, group=group)
        for number, (group, at_s) in enumerate(((g, at_s) for g, each in sent_s.items() for at_s in each), 1)
    ]
    assert values_of(_run(tmp_path, rows, LORA))[0]["swap_share"] == Value(4 / 5, 5)


def test_one_request_has_no_swaps(tmp_path):
    assert values_of(_run(tmp_path, [row(1, 103 * S, group=0)], LORA))[0]["swap_share"] == Value(None, 0)


def test_the_page_names_adapters(tmp_path):
    rows = [row(1, 103 * S, group=0), row(2, 104 * S, group=1), row(3, 105 * S, group=1)]
    run = _adapted(tmp_path, rows, Adapter("chat"), Adapter("<b>sql"))
    assert [part.number for part in parts_of(run, "lora_mix")] == [0, 1]
    whole = page(run)
    assert "chat</td>" in whole
    assert "&lt;b&gt;sql</td>" in whole
    assert "<b>sql" not in whole


def test_an_adapter_that_the_record_does_not_name_has_its_number(tmp_path):
    rows = [row(1, 103 * S, group=0), row(2, 104 * S, group=1)]
    [chart] = by_adapter(_adapted(tmp_path, rows, Adapter("chat")))
    assert [each["adapter"] for each in rows_of(chart)] == ["chat", "adapter 1"]


def test_a_part_leaves_out_the_repeats_that_its_group_leaves_out(tmp_path):
    calm = [[row(k, 103 * S + k * S, group=0) for k in range(3)]] * 3
    loud = [row(k, 103 * S + k * S, group=0, chunk_ns=(103 * S + k * S + 900 * MS,)) for k in range(3)]
    path = starts_run(tmp_path, *calm, loud, scenario=LORA)
    hit = store.read_cells(path)[-1]
    seen = GuardFinding("foreign_load", quoted("other programs used 60 % of the cores"), "during", "suspect")
    store.write_record(store.cell_dir(path, hit.number) / "cell.json", replace(hit, guard=(seen,)))
    run = open_run(path)
    [part] = parts_of(run, "lora_mix")
    found, starts = by_part(run, part, "ttft_s.p50")
    assert list(starts) == list(by_start(run, part.group, "ttft_s.p50")) == [0, 1, 2]
    assert found.mean == pytest.approx(0.1)


def test_a_token_of_the_kv_cache_takes_what_the_server_says_else_what_the_shape_gives(tmp_path):
    path = _run(tmp_path, [_deep(1, 512, 0.1, 0)], LONG).path
    label, start = "llama_cpp fp16", open_run(path).start_records[0]
    assert kv_bytes_per_token(open_run(path), label) is None
    write_start(path, replace(start, memory_expected={"kv_bytes_per_token": 4096}))
    assert kv_bytes_per_token(open_run(path), label) == 4096
    said = {"kv_cache": 1024 * 2048}
    write_start(path, replace(start, memory_said=said, resolved={"kv_cache_tokens": 1024}))
    assert kv_bytes_per_token(open_run(path), label) == 2048


def test_lengths_of_a_sweep_stand_in_their_order_and_are_named(tmp_path):
    lengths = (256, 64)
    [start] = _planned(tmp_path, [ScenarioChoice("fixed", {}, f"fixed input_tokens={n}") for n in lengths])
    for cell, tokens in zip(start.cells, lengths, strict=True):
        write_cell(tmp_path, cell, start, [row(1, 103 * S, input_tokens=tokens)])
    shown = rows_of(rates(open_run(tmp_path)).parts[0])
    assert [each["load"].split()[-1] for each in shown] == ["input_tokens=64", "input_tokens=256"]
