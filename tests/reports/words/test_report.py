"""What a terminal and a program are told of a run: its standings, and its answer at the end."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from make_run import all_failed_run, deployment
from repeated_run import Made, repeated_run

from serving_bench.harness.cli.ending import tell
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import CompareTerms, Load, PlannedCell, PlannedStart
from serving_bench.harness.run.session import sole_writer
from serving_bench.reports import open_run
from serving_bench.reports.outputs.as_json import to_builtins
from serving_bench.reports.verdicts.decisions import decisions_of
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.report import standings

FOUR = (Load(concurrency=4),)
FAST, SLOW = Made(deployment("llama_cpp", "fp16")), Made(deployment("vllm", "awq"), 1.2)


def stands(path: Path, *made: Made, **given: Any) -> str:
    [found] = standings(repeated_run(path, made, FOUR, **given), 2)
    assert found.repeats == 2
    return found.words


def test_the_leader_stands_with_its_lead_and_is_never_decided(tmp_path: Path) -> None:
    path = repeated_run(tmp_path, [FAST, SLOW], FOUR)
    [decided], [found] = decisions_of(open_run(path)), standings(path, 5)
    assert decided.kind == "named", "the statistics would name it, but a standing is no look"
    assert (found.leader, found.next, found.metric) == ("llama_cpp fp16", "vllm awq", "output_tokens_per_s")
    assert found.ratio == pytest.approx(1.2, rel=0.1)
    lead = f"{100 * (found.ratio - 1):.0f} %"
    where = "next vllm awq; output tokens/s at 4 users"
    assert found.words == f"llama_cpp fp16 ahead by {lead}, not yet decided ({where})"


def test_twice_as_much_is_a_ratio_and_equals_are_level(tmp_path: Path) -> None:
    said = stands(tmp_path / "twice", FAST, replace(SLOW, slow=3.0))
    assert said.startswith("llama_cpp fp16 ahead, ")
    assert "x, not yet decided (next vllm awq; " in said
    said = stands(tmp_path / "same", FAST, replace(SLOW, slow=1.0))
    assert "level with the next, not yet decided" in said


def test_where_less_is_better_the_lead_is_still_above_one(tmp_path: Path) -> None:
    given = {"compare": CompareTerms(metrics=("ttft_s.p50",)), "settings": {"compare.metric": ["ttft_s.p50"]}}
    [found] = standings(repeated_run(tmp_path, [FAST, SLOW], FOUR, **given), 1)
    assert found.leader == "llama_cpp fp16"
    assert found.ratio == pytest.approx(1.2, rel=0.05)
    assert "ahead by 20 %, not yet decided (next vllm awq; TTFT p50 at 4 users)" in found.words


def test_a_deployment_that_failed_is_named_and_one_alone_is_not_compared(tmp_path: Path) -> None:
    def fail(cell: PlannedCell, start: PlannedStart) -> Mapping[str, Any]:
        is_lost = start.deployment.engine == "vllm"
        return {"status": "failed", "error": "it crashed"} if is_lost else {}

    said = stands(tmp_path, FAST, SLOW, cell_changes=fail)
    where = "output tokens/s at 4 users"
    assert said == f"only llama_cpp fp16 has a value ({where}); not compared: vllm awq"


def test_of_one_deployment_there_is_no_standing(tmp_path: Path) -> None:
    assert standings(repeated_run(tmp_path, [FAST], FOUR), 2) == ()


def test_a_program_is_told_what_the_page_says(tmp_path: Path) -> None:
    run = open_run(repeated_run(tmp_path, [FAST, SLOW], FOUR))
    [said], [made] = answers_of(run), decisions_of(run)
    found = to_builtins(run)
    [answer] = found["answers"]
    assert answer["sentence"] == f"{said.lead}. {said.text}"
    assert (answer["kind"], answer["deployment"], answer["next"]) == ("named", "llama_cpp fp16", "vllm awq")
    ratio, bound = re.findall(r"([\d.]+)x", said.text)[:2]
    assert (answer["ratio"], answer["bound"]) == pytest.approx((float(ratio), float(bound)), abs=0.005)
    assert f"{100 * answer['confidence']:.3g} %" in said.text
    first, second = answer["rows"]
    assert first["to_leader"] is None
    assert (second["to_leader"]["ratio"], second["to_leader"]["low"], second["to_leader"]["high"]) == (
        made.ratio_to_leader("vllm awq")
    )
    assert first["values"]["output_tokens_per_s"]["is_decided"]
    assert (found["cells"]["planned"], found["cells"]["counted"], found["cells"]["failed"]) == (10, 10, [])


def test_the_terminal_shows_intervals_of_the_level_at_their_head(tmp_path: Path, capsys: Any) -> None:
    made = [FAST, SLOW, replace(SLOW, deployment=deployment("vllm", "bf16"), slow=1.5)]
    run = open_run(repeated_run(tmp_path, made, FOUR))
    found, [decided] = to_builtins(run), decisions_of(run)
    [answer] = found["answers"]
    assert answer["each"] == answer["confidence"] == 0.96
    tell(run, 0, Show(quiet=False), as_json=False)
    said = capsys.readouterr().err
    assert any(re.search(r"96 %(?! confidence)", line) for line in said.splitlines())
    assert "95 %" not in said
    low, high = decided.best.over["vllm awq"].interval(answer["each"])
    assert f"[{1 / high:.2f}, {1 / low:.2f}]" in said


def test_who_is_ahead_is_ahead_by_the_mean_that_is_shown(tmp_path: Path) -> None:
    """One was three times as slow in a repeat: by plain means it is ahead, by geometric ones it is not."""
    uneven = replace(FAST, per_repeat=(1.0, 1.0, 3.0, 1.0, 1.0))
    path = repeated_run(tmp_path, [uneven, SLOW], FOUR, status="running")
    with sole_writer(path):
        [found] = standings(path, 5)
    assert re.match(r"vllm awq ahead by [1-9] %, not yet decided", found.words), found.words


def test_a_run_in_which_all_failed_is_told_with_its_reasons(tmp_path: Path) -> None:
    found = to_builtins(open_run(all_failed_run(tmp_path)))
    [answer] = found["answers"]
    assert (answer["kind"], answer["deployment"], answer["rows"]) == ("none", None, [])
    assert found["cells"]["counted"] == 0
    assert all(cell["why"] for cell in found["cells"]["failed"])
