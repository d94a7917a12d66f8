"""Repeats in which the machine was disturbed decide nothing: names, titles, ratios and values agree."""

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import S, deployment, summary
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import CompareTerms, GuardFinding, Load, Unfit, because, quoted
from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.data.run import Run
from serving_bench.reports.measures import aggregate
from serving_bench.reports.measures.distributions import spreads_of
from serving_bench.reports.measures.over_starts import pooled, turn_values
from serving_bench.reports.outputs.as_json import to_builtins
from serving_bench.reports.outputs.as_markdown import markdown_text
from serving_bench.reports.outputs.tables import tables_of
from serving_bench.reports.page.answer import opening
from serving_bench.reports.page.document import page
from serving_bench.reports.verdicts.comparisons import comparisons_of
from serving_bench.reports.verdicts.decisions import decisions_of
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.report import standings
from serving_bench.reports.words.verdict_words import title_at

FOUR = (Load(concurrency=4),)
SPEED, TTFT = "output_tokens_per_s", "ttft_s.p50"
SEEN = GuardFinding("foreign_load", quoted("other programs used 60 % of the cores"), "during", "suspect")
FP16, Q8 = deployment("llama_cpp", "fp16"), deployment("llama_cpp", "gguf-q8_0")
STEADY, BUMPY = (1.0,) * 5, (1.0, 1.001, 0.999, 1.001, 1.0)


def busy_run(
    path: Path,
    made: list[Made],
    hit: Collection[int],
    kind: Unfit = SEEN.kind,
    only: Any = None,
    **given: Any,
) -> Run:
    """A run in which the guard saw this in some repeats, of all deployments or of one only."""
    seen = replace(SEEN, kind=kind)

    def changes(cell: Any, start: Any) -> dict[str, Any]:
        return {"guard": (seen,)} if start.repeat in hit and only in (None, start.deployment) else {}

    return open_run(repeated_run(path, made, FOUR, cell_changes=changes, **given))


def test_a_run_that_was_busy_throughout_names_no_leader_anywhere(tmp_path: Path) -> None:
    run = busy_run(tmp_path, [Made(FP16, 0.8), Made(Q8, per_repeat=BUMPY)], range(5))
    [made], [said] = decisions_of(run), answers_of(run)
    assert (made.kind, made.leaders) == ("values", {})
    assert "busy or not fit in 5 of 5 repeats" in said.text
    # Three more are the fewest that a verdict needs.
    assert said.note.endswith(f": bench run --resume {tmp_path} repeats=8")
    [standing] = standings(tmp_path, 5)
    assert (standing.leader, standing.ratio) == (None, None)
    assert standing.words.startswith("no repeat that counts yet (")
    assert title_at(run, SPEED, run.groups) is None
    assert title_at(run, TTFT, run.groups) is None
    assert {verdict.kind for verdict in comparisons_of(run).by_key.values()} == {"none"}
    # The same run on a quiet machine names one in all of these places.
    calm = busy_run(tmp_path / "calm", [Made(FP16, 0.8), Made(Q8, per_repeat=BUMPY)], ())
    assert title_at(calm, SPEED, calm.groups) == "llama_cpp fp16 gives the most output tokens/s at 4 users"
    assert "better" in {verdict.kind for verdict in comparisons_of(calm).by_key.values()}


@pytest.mark.parametrize("kind", ["throttled", "clocks_low", "swap", "device_lost"])
def test_what_a_deployment_does_to_itself_counts(tmp_path: Path, kind: Unfit) -> None:
    """The faster one throttles in three of five starts, which makes it the slower one."""
    hot = Made(FP16, 0.95, per_repeat=(1.0, 1.5, 1.5, 1.0, 1.5))
    run = busy_run(tmp_path, [hot, Made(Q8, per_repeat=BUMPY)], (1, 2, 4), kind, only=FP16)
    [decision] = decisions_of(run)
    assert (decision.kind, decision.repeats, decision.disturbed) == ("open", 5, 0)
    assert decision.groups[0].deployment == Q8.label
    assert "machine_unfit" in {finding.check for finding in findings_of(run)}


def test_what_falls_on_one_deployment_alone_may_be_its_own_doing_and_counts(tmp_path: Path) -> None:
    hot = Made(FP16, 0.95, per_repeat=(1.0, 1.5, 1.5, 1.0, 1.5))
    made = [hot, Made(Q8, per_repeat=BUMPY)]
    run = busy_run(tmp_path / "one", made, (1, 2, 4), only=FP16)
    [decision] = decisions_of(run)
    assert (decision.repeats, decision.groups[0].deployment) == (5, Q8.label)
    texts = {finding.check: finding.text for finding in findings_of(run)}
    assert "3 of 5 starts of llama_cpp fp16, far more often" in texts["one_disturbed"]
    of_all = busy_run(tmp_path / "all", made, (1, 2))
    assert [decision.repeats for decision in decisions_of(of_all)] == [3]
    assert "one_disturbed" not in {finding.check for finding in findings_of(of_all)}


def test_pooled_percentiles_distributions_and_values_by_turn_are_of_the_repeats_that_decide(tmp_path: Path):
    whole = Made(FP16, per_repeat=(1.0, 1.0, 1.0, 3.0, 3.0))
    run, calm = (busy_run(tmp_path / name, [whole], hit) for name, hit in (("hit", (3, 4)), ("calm", ())))
    (group,), (all_five,) = run.groups, calm.groups
    assert sorted(turn_values(run, group, "ttft_s.p50")[0]) == [0, 1, 2]
    assert sorted(turn_values(calm, all_five, "ttft_s.p50")[0]) == [0, 1, 2, 3, 4]
    slowest, of_all = pooled(run, group, "ttft_s.p90"), pooled(calm, all_five, "ttft_s.p90")
    assert slowest.value == pytest.approx(0.11)  # of the second block, which is 1.1 times as slow
    assert (of_all.value or 0) > 0.2
    assert slowest.n < of_all.n
    assert pooled(calm, all_five, "ttft_s.p90", [0, 1, 2]) == slowest
    [spread] = spreads_of(run, run.groups, "ttft_s", is_split=True)
    assert (spread.whole.n, list(spread.starts)) == (slowest.n, [1, 2, 3])


def test_values_standing_and_ratios_are_of_the_repeats_that_decide(tmp_path: Path) -> None:
    """In its two disturbed repeats the leader was much slower than the other one."""
    leads = Made(FP16, 0.95, per_repeat=(1.0, 1.001, 1.0, 2.0, 2.0))
    run = busy_run(tmp_path, [leads, Made(Q8, per_repeat=BUMPY)], (3, 4))
    [made] = decisions_of(run)
    assert (made.served, made.repeats, made.disturbed) == (FP16.label, 3, 2)
    first, second = to_builtins(run)["answers"][0]["rows"]
    values = [row["values"][SPEED]["value"] for row in (first, second)]
    assert values[1] / values[0] == pytest.approx(second["to_leader"]["ratio"])
    verdict = comparisons_of(run).of(made.case.scenario, "4 users", SPEED, FP16.label, Q8.label)
    assert verdict
    assert verdict.k == 3
    assert verdict.ratio == pytest.approx(values[0] / values[1])
    [standing] = standings(run.path, 5)
    assert standing.ratio == pytest.approx(values[0] / values[1])
    left_out = "Left out: 2 repeats, in which the machine was busy or not fit."
    assert left_out in to_builtins(run)["answers"][0]["sentence"]
    assert left_out in re.sub(r"\s+", " ", re.sub("<[^>]*>", "", opening(run)))


def test_a_start_that_failed_leaves_its_repeat_out_of_the_values_too(tmp_path: Path) -> None:
    """The leader was slowest in the repeat that the other one has not."""

    def changes(cell: Any, start: Any) -> dict[str, Any]:
        is_lost = start.deployment == Q8 and start.repeat == 4
        return {"status": "failed", "error": "it died"} if is_lost else {}

    made = [Made(FP16, 0.95, per_repeat=(1.0, 1.001, 1.0, 1.001, 4.0)), Made(Q8, per_repeat=BUMPY)]
    run = open_run(repeated_run(tmp_path, made, FOUR, cell_changes=changes))
    assert "failed in" not in answers_of(run)[0].text
    [found] = decisions_of(run)
    values = [found.value(run, group, SPEED).mean for group in found.groups]
    assert found.served == FP16.label
    assert None not in values
    assert values[0] > values[1]


def test_a_winner_of_whose_starts_some_failed_is_not_served_without_a_word(tmp_path: Path) -> None:
    def changes(cell: Any, start: Any) -> dict[str, Any]:
        is_lost = start.deployment == FP16 and start.repeat > 2
        return {"status": "failed", "error": "it died"} if is_lost else {}

    made = [Made(FP16, 0.8), Made(Q8, per_repeat=BUMPY)]
    run = open_run(repeated_run(tmp_path, made, FOUR, cell_changes=changes))
    [answer] = answers_of(run)
    assert answer.lead == "Serve llama_cpp fp16"
    assert "llama_cpp fp16 failed in 2 of 5 starts." in answer.text


def test_what_may_decide_instead_is_said_only_of_one_that_is_better_in_the_repeats_that_decide(tmp_path):
    slow = Made(FP16, 0.9, per_repeat=(1.0, 1.001, 1.0, 2.0, 2.0))
    terms = CompareTerms(metrics=("memory_peak_bytes",))
    asked = {"compare": terms, "settings": {"compare.metric": ["memory_peak_bytes"]}}
    run = busy_run(tmp_path, [slow, Made(Q8, memory=0.5, per_repeat=BUMPY)], (3, 4), **asked)
    [said], [made] = answers_of(run), decisions_of(run)
    assert (made.served, made.leaders[TTFT]) == (Q8.label, FP16.label)
    [(first, second)] = re.findall(r"fp16 answers first \(([\d.]+) against ([\d.]+) ms\)", said.unless)
    assert float(first) < float(second)


@pytest.fixture
def alone(tmp_path: Path) -> Run:
    """One deployment at two loads; of its three starts two were disturbed, at 4 users alone."""

    def changes(cell: Any, start: Any) -> dict[str, Any]:
        is_hit = start.repeat > 0 and cell.load.concurrency == 4
        return {"guard": (SEEN,), "validity": "suspect"} if is_hit else {}

    loads = (Load(concurrency=2), *FOUR)
    return open_run(repeated_run(tmp_path, [Made(FP16)], loads, repeats=3, cell_changes=changes))


def test_disturbed_repeats_count_at_each_load_where_too_few_others_remain(alone: Run) -> None:
    [made], [said] = decisions_of(alone), answers_of(alone)
    [group] = made.groups
    assert made.value(alone, group, SPEED) == aggregate(alone, group, SPEED)
    assert (made.value(alone, group, SPEED).k, made.repeats) == (3, 1)
    counted = (
        "In 2 of 3 repeats the machine was busy or not fit; they count, since fewer than 3 others remain."
    )
    assert counted in said.text
    assert "Left out" not in said.text
    assert re.search(r"output tokens/s [\d.]+ \[", said.text)


def test_the_page_states_once_which_repeats_count(alone: Run) -> None:
    text = re.sub(r"\s+", " ", page(alone))
    rule = "A repeat in which the machine was busy or not fit at a load is left out there, if 3 others remain"
    assert text.count(rule) == text.count("suspect ones count") == 1


@pytest.mark.parametrize(("repeats", "counted", "marks"), [(5, 3, []), (4, 4, ["client_late"])])
def test_only_starts_that_count_in_a_number_mark_it(tmp_path, repeats: int, counted: int, marks: list[str]):
    """The client was late in the two starts that were disturbed."""

    def changes(cell: Any, start: Any) -> dict[str, Any]:
        late = summary((1005 + 200 * start.index) * S, loop_lag_s=(0.1, 0.5, 0.6))
        return {"guard": (SEEN,), "summary": late} if start.repeat >= repeats - 2 else {}

    run = open_run(repeated_run(tmp_path, [Made(FP16)], FOUR, repeats=repeats, cell_changes=changes))
    [row] = to_builtins(run)["answers"][0]["rows"]
    assert (row["values"][TTFT]["starts"], row["values"][TTFT]["marks"]) == (counted, marks)
    table = opening(run).partition("<table")[2].partition("</table")[0]
    assert ("▲ 1" in table) == ("▲ 1" in markdown_text(run).partition("Reasons")[0]) == bool(marks)
    [own] = tables_of(run)["values"].query("metric == @TTFT").to_dict("records")
    assert own["marks"] == (" ".join(marks) or None)


def test_what_a_budget_left_out_and_what_was_disturbed_are_measured_by_one_command(tmp_path):
    run = busy_run(tmp_path / "run", [Made(FP16, 1.0), Made(Q8, 0.9)], {0, 1, 2})
    assert answers_of(run)[0].note.endswith(" repeats=6")
    said = because("budget_holds", whole=5, repeats=9, budget="run.budget (8 minutes)")
    cut = replace(run, record=replace(run.record, stopped_because=said))
    assert answers_of(cut)[0].note.endswith(" repeats=9")
