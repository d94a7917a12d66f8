"""Whether deployments did the same work: what unlike prompts are called, and which figures are withheld."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from make_run import (
    S,
    deployment,
    engines_run,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)
from page_data import charts_of

from harness.contracts import Load
from harness.store import store
from reports import compare_runs, open_run, write_report
from reports.checks.examine import findings_of
from reports.measures.equal_work import work_of
from reports.measures.over_starts import aggregate

T0 = 102 * S
PROMPTS = {"user": 18, "system": 34, "turns": 41}
NAMES = ("llama_cpp fp16", "vllm fp16", "sglang fp16")


def requests(count: int = 12, **changes):
    """Twelve in six seconds, of two turns each."""
    return [row(k, T0 + k * S // 2, **changes) for k in range(count)]


def run_of(path, starts, rows=(), models=()):
    """Three deployments, or as many as there are `starts` (changes of each one's record)."""
    wanted = [
        deployment(*name.split(), *models[at : at + 1])
        for at, name in zip(range(len(starts)), NAMES, strict=False)
    ]
    plan = plan_of(wanted, [Load()])
    store.write_record(path / "run.json", run_record(plan))
    for at, start in enumerate(plan.starts):
        write_start(path, start_record(start, 90 * S, **starts[at]))
        own = rows[at] if at < len(rows) else requests()
        write_cell(path, start.cells[0], start, own, summary(100 * S))
    return open_run(path)


def why_of(run):
    [why] = work_of(run).differences.values()
    return why


def prompts(**changes):
    return {"prompt_tokens": {**PROMPTS, **changes}}


def test_equal_prompts_do_not_differ(tmp_path):
    work = work_of(run_of(tmp_path, [prompts()] * 3))
    assert work.differences == work.odd == {}


@pytest.mark.parametrize(("user", "system", "turns"), [(19, 35, 42), (17, 33, 40)])
def test_one_token_more_or_less_in_each_prompt_is_a_bos(tmp_path, user, system, turns):
    run = run_of(tmp_path, [prompts(), prompts(user=user, system=system, turns=turns)])
    more, less = (NAMES[1], NAMES[0]) if user == 19 else (NAMES[0], NAMES[1])
    said = f"{more} has exactly one token more in each prompt: a doubled BOS, or one that {less} lacks"
    assert why_of(run) == (
        f"{said} (tokens of the fixed prompts, {NAMES[0]} / {NAMES[1]}: user 18 / {user}, "
        f"system 34 / {system}, turns 41 / {turns})"
    )


@pytest.mark.parametrize(("system", "drops"), [(18, True), (19, True), (20, False), (17, True)])
def test_a_system_prompt_that_adds_no_token_or_one_is_called_dropped(tmp_path, system, drops):
    why = why_of(run_of(tmp_path, [prompts(), prompts(system=system)]))
    assert why.startswith("vllm fp16 drops the system prompt (tokens of") is drops


def test_a_dropped_system_prompt_and_a_doubled_bos_are_both_named(tmp_path):
    run = run_of(tmp_path, [prompts(), prompts(user=19, system=19, turns=42)])
    why = why_of(run)
    assert "vllm fp16 drops the system prompt and vllm fp16 has exactly one token more in each" in why


@pytest.mark.parametrize("changes", [{"user": 20, "system": 36, "turns": 43}, {"turns": 42}, {"system": 30}])
def test_any_other_difference_is_another_template(tmp_path, changes):
    run = run_of(tmp_path, [prompts(), prompts(**changes)])
    why = why_of(run)
    assert why.startswith("llama_cpp fp16 and vllm fp16 use another chat template or tokenizer")


def test_prompts_of_different_models_are_not_compared(tmp_path):
    run = run_of(tmp_path, [prompts(), prompts(user=25)], models=("tiny-lm", "other-lm"))
    assert work_of(run).differences == {}


def test_turns_that_differ_are_told_with_the_first_of_them(tmp_path):
    later = [replace(each, input_tokens=60) if each.turn else each for each in requests()]
    run = run_of(tmp_path, [prompts(), prompts()], [requests(), later])
    assert why_of(run) == (
        "at 1 user, turn 2, llama_cpp fp16 50.0 against vllm fp16 60.0 tokens: another tokenizer or chat "
        "template, or other answers in the history"
    )


def test_only_who_differs_from_most_others_is_marked_and_a_finding(tmp_path):
    run = run_of(tmp_path, [prompts(user=19, system=35, turns=42), prompts(), prompts()])
    assert list(work_of(run).odd) == ["llama_cpp fp16"]
    assert len(work_of(run).differences) == 2
    (finding,) = (found for found in findings_of(run) if found.check == "prompts_differ")
    assert finding.text.startswith("llama_cpp fp16: llama_cpp fp16 has exactly one token more")
    page = plain(write_report(run.path))
    assert [bool(re.search(rf"{name}\s+≠ other prompts ", page)) for name in NAMES] == [True, False, False]


def test_of_three_that_all_differ_the_first_is_what_the_others_are_unlike(tmp_path):
    run = run_of(tmp_path, [prompts(), prompts(user=25), prompts(user=31)])
    assert list(work_of(run).odd) == list(NAMES[1:])


def test_templates_by_other_names_are_no_finding_where_all_prompts_count_alike(tmp_path):
    names = [{"resolved": {"chat_template": name}, **prompts()} for name in ("a.jinja", "the given file")]
    run = run_of(tmp_path, names)
    assert "chat_templates_differ" not in [finding.check for finding in findings_of(run)]


# --- answers ---------------------------------------------------------------------------------------

E2E = ("e2e_s.p50", "requests_per_s")
PER_TOKEN = ("ttft_s.p50", "itl_s.p50", "tpot_s.p50", "output_tokens_per_s")


def offered(run, name):
    group = next(group for group in run.groups if group.deployment == name)
    return {value: aggregate(run, group, value).mean for value in (*E2E, *PER_TOKEN)}


def test_an_engine_that_cannot_force_lengths_has_figures_per_token_only(tmp_path):
    run = run_of(tmp_path, [{}, {"forces_length": False}])
    found = offered(run, "vllm fp16")
    assert [found[name] for name in E2E] == [None, None]
    # 100 ms to the first of five chunks, 20 ms apart: 80 ms for nine tokens.
    assert found["tpot_s.p50"] == pytest.approx(0.080 / 9)
    assert None not in [found[name] for name in PER_TOKEN]
    assert None not in offered(run, "llama_cpp fp16").values()


def test_the_reason_stands_where_the_figures_would(tmp_path):
    run = run_of(tmp_path, [{}, {"forces_length": False}])
    whole = write_report(run.path).read_text(encoding="utf-8")
    reason = "the engine cannot be made to give the length asked for"
    values = whole.partition('id="values">')[2].partition("</section>")[0]
    assert values.count(f'<span title="{reason}" class="none"') == 4  # two, by deployment and by cell
    assert f"No value: vllm fp16 at 1 user ({reason})." in plain(run.path / "report.html")
    assert "▲ per-token figures only" in plain(run.path / "report.html")


def test_a_single_deployment_keeps_all_its_figures(tmp_path):
    run = run_of(tmp_path, [{"forces_length": False}])
    assert None not in offered(run, "llama_cpp fp16").values()


@pytest.mark.parametrize(("tokens", "is_withheld"), [(99, False), (98, True)])
def test_answers_more_than_two_percent_off_what_was_asked_are_per_token_only(tmp_path, tokens, is_withheld):
    asked = {"max_tokens": 100, "output_tokens": 100}
    rows = [requests(**asked), requests(**{**asked, "output_tokens": tokens})]
    run = run_of(tmp_path, [{}, {}], rows)
    assert (offered(run, "vllm fp16")["e2e_s.p50"] is None) is is_withheld
    assert offered(run, "llama_cpp fp16")["e2e_s.p50"] is not None
    if is_withheld:
        why = work_of(run).per_token_only["vllm fp16", "chat_multi_turn", "1 user"]
        assert why == "its answers have 98.0 tokens where 100.0 were asked for"


def test_answers_that_all_stop_at_the_same_length_are_compared(tmp_path):
    short = requests(max_tokens=100, output_tokens=10)
    run = run_of(tmp_path, [{}, {}], [short, short])
    assert work_of(run).per_token_only == {}


def test_a_comparison_of_runs_withholds_them_too(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run_of(tmp_path / name, [{}, {"forces_length": False}])
    sides = str(tmp_path / "a"), str(tmp_path / "b")
    rows = [(case.deployment, row) for case in compare_runs(*sides).cases for row in case.rows]
    assert {label for label, row in rows if row.metric == "e2e_s.p50"} == {"llama_cpp fp16"}
    assert {label for label, row in rows if row.metric == "tpot_s.p50"} == {"llama_cpp fp16", "vllm fp16"}


def test_distributions_of_e2e_leave_them_out(tmp_path):
    path = write_report(engines_run(tmp_path))
    charts = charts_of(path.read_text(encoding="utf-8"))
    for chart, has_it in (("ecdf-e2e_s-0", False), ("ecdf-ttft_s-0", True)):
        names = [trace["name"] for trace in charts[chart]["traces"]]
        assert ("tgi awq" in names) is has_it
        assert "vllm awq" in names


def test_starts_that_say_nothing_withhold_nothing(tmp_path):
    run = run_of(tmp_path, [{}, {}])
    assert work_of(run) == work_of(run)
    assert work_of(run).per_token_only == {}
    assert work_of(run).differences == {}


def plain(path):
    page = re.sub(r"<(script|style)\b.*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
