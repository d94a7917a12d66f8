"""Whether deployments did the same work: turns that all answered, unlike prompts, and figures withheld."""

import re
from dataclasses import replace

import pytest
from make_run import (
    S,
    begin_run,
    deployment,
    failed_row,
    one_cell_run,
    row,
    write_cell,
    write_start,
)
from page_data import charts_of

from serving_bench.harness.contracts import Load
from serving_bench.reports import compare_runs, open_run, write_report
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.measures.equal_work import mean_lengths, turn_table, work_of
from serving_bench.reports.measures.over_starts import aggregate

T0 = 102 * S
PROMPTS = {"user": 18, "system": 34, "turns": 41}
NAMES = FIRST, SECOND, THIRD = ("llama_cpp fp16", "vllm fp16", "sglang fp16")


def requests(count: int = 12, **changes):
    """Twelve in six seconds, of two turns each."""
    return [row(k, T0 + k * S // 2, **changes) for k in range(count)]


def run_of(path, starts, rows=(), models=()):
    """Three deployments, or as many as there are `starts` (changes of each one's record)."""
    wanted = [
        deployment(*name.split(), *models[at : at + 1])
        for at, name in zip(range(len(starts)), NAMES, strict=False)
    ]
    plan = begin_run(path, wanted, [Load(1)])
    for at, start in enumerate(plan.starts):
        write_start(path, start, **starts[at])
        own = rows[at] if at < len(rows) else requests()
        write_cell(path, start.cells[0], start, own)
    return open_run(path)


def prompts(**changes):
    return {"prompt_tokens": {**PROMPTS, **changes}}


# --- turns -----------------------------------------------------------------------------------------


def test_turns_are_of_ok_requests_with_a_count_and_the_last_where_answered_again(tmp_path):
    rows = [
        row(0, 103 * S, conversation=3, turn=1, output_tokens=4),
        row(1, 104 * S, conversation=3, turn=1, output_tokens=7),
        row(2, 105 * S, conversation=2, turn=0, output_tokens=5),
        row(3, 106 * S, conversation=2, turn=1, output_tokens=None, cached_tokens=None),
        failed_row(4, 107 * S),
    ]
    run = open_run(one_cell_run(tmp_path, rows).path)
    found = turn_table({"a": (run, run.groups[0])}, "output_tokens")
    assert (found["a"].tolist(), found.index.tolist()) == ([5, 7], [0, 1])


def test_what_was_sent_at_once_is_the_same_by_its_part(tmp_path):
    sides = {}
    for name, counts in {"a": [10, 20], "b": [11, 21]}.items():
        rows = [
            row(part, 103 * S, conversation=0, turn=0, part=part, output_tokens=n)
            for part, n in enumerate(counts)
        ]
        run = open_run(one_cell_run(tmp_path / name, rows).path)
        sides[name] = (run, run.groups[0])
    assert turn_table(sides, "output_tokens").to_numpy().tolist() == [[10, 11], [20, 21]]


def test_shared_turns_are_those_of_the_same_seed_conversation_and_turn(tmp_path):
    answered = {"a": {1: 10, 2: 20, 5: 50}, "b": {2: 21, 5: 51, 6: 61}}
    sides = {}
    for name, counts in answered.items():
        rows = [row(k, (103 + k) * S, conversation=k, turn=0, output_tokens=n) for k, n in counts.items()]
        run = open_run(one_cell_run(tmp_path / name, rows).path)
        sides[name] = (run, run.groups[0])
    assert turn_table(sides, "output_tokens").dropna().to_numpy().tolist() == [[20, 21], [50, 51]]


def test_nothing_counted_has_no_mean(tmp_path):
    run = open_run(one_cell_run(tmp_path, [row(0, 103 * S, cached_tokens=None)]).path)
    assert mean_lengths(run, run.groups, "cached_tokens") == {}


# --- prompts ---------------------------------------------------------------------------------------

LATER = [replace(each, input_tokens=60) if each.turn else each for each in requests()]
DROPS, ONE_MORE = f"{SECOND} drops the system prompt", f"{SECOND} has exactly one token more in each prompt"


@pytest.mark.parametrize(
    ("second", "rows", "why"),
    [
        (prompts(), None, None),
        (prompts(user=19, system=35, turns=42), None,
         f"{ONE_MORE}: a doubled BOS, or one that {FIRST} lacks (tokens of the fixed prompts, {FIRST} / "
         f"{SECOND}: user 18 / 19, system 34 / 35, turns 41 / 42)"),
        (prompts(user=17, system=33, turns=40), None,
         f"{FIRST} has exactly one token more in each prompt: a doubled BOS, or one that {SECOND} lacks"),
        # A system message that adds no token, or one.
        (prompts(system=18), None, f"{DROPS} (tokens of"),
        (prompts(system=19), None, f"{DROPS} (tokens of"),
        (prompts(system=20), None, "use different chat templates or tokenizers"),
        (prompts(user=19, system=19, turns=42), None, f"{DROPS} and {ONE_MORE}"),
        (prompts(user=20, system=36, turns=43), None, "use different chat templates or tokenizers"),
        (prompts(turns=42), None, "use different chat templates or tokenizers"),
        (prompts(), LATER,
         f"at 1 user, turn 2, {FIRST} 50.0 against {SECOND} 60.0 tokens: different tokenizers or chat "
         "templates, or different answers in the history"),
        ({}, None, None),
    ],
)  # fmt: skip
def test_what_sets_two_prompts_apart_is_named(tmp_path, second, rows, why):
    first = prompts() if second else {}
    work = work_of(run_of(tmp_path, [first, second], [requests(), rows or requests()]))
    [said] = work.differences.values() or [None]
    assert said is why is None or why in str(said)
    assert work.per_token_only == {}


def test_prompts_of_different_models_are_not_compared(tmp_path):
    run = run_of(tmp_path, [prompts(), prompts(user=25)], models=("tiny-lm", "other-lm"))
    assert work_of(run).differences == {}


def test_only_who_differs_from_most_others_is_marked_and_a_finding(tmp_path):
    run = run_of(tmp_path / "one", [prompts(system=18), prompts(), prompts()])
    assert (list(work_of(run).odd), len(work_of(run).differences)) == ([FIRST], 2)
    [found] = [each.text for each in findings_of(run) if each.check == "prompts_differ"]
    assert found.startswith(f"{FIRST}: {FIRST} drops the system prompt")
    page = plain(write_report(run.path))
    assert [bool(re.search(rf"{name}\s+≠ other prompts ", page)) for name in NAMES] == [True, False, False]
    # Of three that all differ none is like the others.
    run = run_of(tmp_path / "all", [prompts(), prompts(user=25), prompts(user=31)])
    assert set(work_of(run).odd) == {FIRST, SECOND, THIRD}


# --- answers ---------------------------------------------------------------------------------------

E2E = ("e2e_s.p50", "requests_per_s")
PER_TOKEN = ("ttft_s.p50", "itl_s.p50", "tpot_s.p50", "output_tokens_per_s")
NOT_FORCED = [{}, {"forces_length": False}]


def offered(run, name):
    group = next(group for group in run.groups if group.deployment == name)
    return {value: aggregate(run, group, value).mean for value in (*E2E, *PER_TOKEN)}


def test_an_engine_that_cannot_force_lengths_has_figures_per_token_only(tmp_path):
    run = run_of(tmp_path, NOT_FORCED)
    found = offered(run, SECOND)
    assert [found[name] for name in E2E] == [None, None]
    # 100 ms to the first of five chunks, 20 ms apart: 80 ms for nine tokens.
    assert found["tpot_s.p50"] == pytest.approx(0.080 / 9)
    assert None not in [found[name] for name in PER_TOKEN]
    assert None not in offered(run, FIRST).values()
    whole, reason = write_report(run.path), "the engine cannot force answers to the length asked for"
    values = whole.read_text(encoding="utf-8").partition('id="values">')[2].partition("</section>")[0]
    assert values.count(f'<span title="{reason}" class="none"') == 2
    assert "▲ per-token figures only" in plain(whole)


@pytest.mark.parametrize(("reason", "is_whole"), [("stop", False), ("length", True)])
def test_a_server_that_does_not_heed_the_length_it_is_told_has_figures_per_token_only(
    tmp_path, reason, is_whole
):
    # Of 13 answers one is two tokens shorter than asked: the means are less than 2 % apart.
    rows = [requests(max_tokens=100, output_tokens=100)] * 2
    early = row(12, T0 + 6 * S, max_tokens=100, output_tokens=98, finish_reason=reason)
    run = run_of(tmp_path, [{}, {}], [rows[0], [*rows[1], early]])
    assert (None not in offered(run, SECOND).values()) is is_whole
    assert None not in offered(run, FIRST).values()
    found = work_of(run).per_token_only.get((SECOND, "chat_multi_turn", "1 user"))
    assert str(found) == ("None" if is_whole else "its server ignores the length asked for")


def test_a_single_deployment_keeps_all_its_figures(tmp_path):
    assert None not in offered(run_of(tmp_path, NOT_FORCED[1:]), FIRST).values()


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [(100, 99, None), (100, 98, "its answers have 98.0 tokens where 100.0 were asked for"), (10, 10, None)],
)
def test_answers_of_other_lengths_than_asked_are_per_token_only_unless_all_are_alike(
    tmp_path, first, second, why
):
    rows = [requests(max_tokens=100, output_tokens=tokens) for tokens in (first, second)]
    run = run_of(tmp_path, [{}, {}], rows)
    found = work_of(run).per_token_only.get((SECOND, "chat_multi_turn", "1 user"))
    assert (found and str(found)) == why
    assert (offered(run, SECOND)["e2e_s.p50"] is None) is (why is not None)
    assert offered(run, FIRST)["e2e_s.p50"] is not None


def test_a_comparison_of_runs_withholds_them_too(tmp_path):
    for name in ("a", "b"):
        run_of(tmp_path / name, NOT_FORCED)
    rows = [(c.deployment, row) for c in compare_runs(tmp_path / "a", tmp_path / "b").cases for row in c.rows]
    assert {label for label, row in rows if row.metric == "e2e_s.p50"} == {FIRST}
    assert {label for label, row in rows if row.metric == "tpot_s.p50"} == {FIRST, SECOND}


def test_distributions_of_e2e_leave_them_out(engines):
    charts = charts_of(engines.read_text(encoding="utf-8"))
    for chart, has_it in (("ecdf-e2e_s-0", False), ("ecdf-ttft_s-0", True)):
        names = [trace["name"] for trace in charts[chart]["traces"]]
        assert ("tgi awq" in names) is has_it
        assert "vllm awq" in names


def plain(path):
    page = re.sub(r"<(script|style)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
