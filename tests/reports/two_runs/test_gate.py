"""The gate: pass, fail and inconclusive by hand-worked intervals; its files and exit codes."""

import math
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from bench_command import printed
from make_run import HOSTILE, S, deployment, failed_row
from make_sides import A, B, rows_of, sides_run
from typer.testing import CliRunner

from serving_bench.harness.cli.app import app
from serving_bench.harness.cli.compare_text import print_comparison, print_gate
from serving_bench.harness.contracts import GateTerms, GuardFinding, Objective, quoted
from serving_bench.harness.errors import UserError
from serving_bench.harness.store import store
from serving_bench.reports import compare_runs, gate_runs
from serving_bench.reports.checks.examine import LEGEND
from serving_bench.reports.outputs.gate_files import junit_text, markdown_text
from serving_bench.reports.page.several_runs import comparison_page
from serving_bench.reports.stats.intervals import Estimate
from serving_bench.reports.two_runs.gate import check_terms, more_repeats

TTFT = GateTerms("ttft_s.p50", 0.05)
STEADY = (100.0, 100.5, 101.0)
SLOWER = tuple(1.1 * value for value in STEADY)
# Welch's interval of these against STEADY at 95 % is 1.050 [1.023, 1.078]: neither side of 1.05.
ON_THE_LIMIT = tuple(1.05 * value for value in (99.0, 100.5, 102.0))


def gated(folder, base=STEADY, new=STEADY, terms=TTFT, **new_has):
    sides_run(folder / "base", {A: base})
    sides_run(folder / "new", {A: new}, **new_has)
    return gate_runs(folder / "base", folder / "new", terms)


@pytest.mark.parametrize(
    ("new", "outcome", "code"),
    [(STEADY, "pass", 0), ((50.0, 50.5, 51.0), "pass", 0), (SLOWER, "fail", 1),
     (ON_THE_LIMIT, "inconclusive", 3)],
)  # fmt: skip
def test_the_whole_interval_decides(tmp_path, new, outcome, code):
    gate = gated(tmp_path, new=new)
    assert (gate.outcome, gate.exit_code, gate.cases[0].outcome) == (outcome, code, outcome)


def test_the_regression_is_welchs_interval_around_the_ratio(tmp_path):
    base = (100 / 1.1, 100, 110)
    [case] = gated(tmp_path, base, [1.2 * value for value in base]).cases
    # error sqrt(2 x 0.09531^2 / 3) = 0.07782, 4 degrees of freedom, t = 2.7764: half-width 0.21606.
    verdict = case.case.rows[0].verdict
    assert verdict.ratio == pytest.approx(1.2, rel=1e-4)
    assert (verdict.low, verdict.high) == pytest.approx((1.2 / 1.2412, 1.2 * 1.2412), rel=1e-3)
    assert case.cells[2] == "20 % more [3 % less, 49 % more]"


@pytest.mark.parametrize(("share", "outcome"), [(0.951, "pass"), (0.949, "fail"), (0.81, "fail")])
def test_five_percent_of_a_rate_are_five_percent_less(tmp_path, share, outcome):
    """The same tokens in each start, so that the intervals are points; worse is above one."""
    base, new = ([rows_of(100, output_tokens=count)] * 3 for count in (1000, round(1000 * share)))
    gate = gated(tmp_path, base, new, GateTerms("output_tokens_per_s", 0.05))
    assert gate.cases[0].case.rows[0].verdict.ratio == pytest.approx(1 / share, rel=1e-3)
    assert gate.outcome == outcome
    assert gate.cases[0].rule.text.endswith(", limit: 5 % less than BASE")
    percent, _, words = gate.cases[0].cells[2].partition(" % less [")
    assert float(percent) == pytest.approx(100 * (1 - share), abs=0.51)
    assert "more" not in words


def with_failures(failed):
    return [*rows_of(100, 50 - failed), *(failed_row(90 + k, (102 + k) * S) for k in range(failed))]


@pytest.mark.parametrize(("limit", "outcome"), [(0.05, "fail"), (0.1, "pass")])
def test_a_share_is_gated_by_its_difference(tmp_path, limit, outcome):
    """From 100 % to 92 % is worse by 8 percentage points."""
    gate = gated(tmp_path, [with_failures(0)] * 3, [with_failures(4)] * 3, GateTerms("success_share", limit))
    assert gate.cases[0].case.rows[0].verdict.ratio == pytest.approx(0.08)
    assert gate.cases[0].cells[2].startswith("−8.0 [−8.0, −8.0] %")
    assert gate.cases[0].rule.text.endswith(f", limit: {100 * limit:g} percentage points less than BASE")
    assert gate.outcome == outcome


@pytest.mark.parametrize(
    ("terms", "why"),
    [(GateTerms("send_lag_s.p50"), "gate.metric=send_lag_s.p50: neither direction is better"),
     (GateTerms("input_tokens"), "gate.metric=input_tokens: neither direction is better"),
     (GateTerms("ttft_s"), "ttft_s.p95"), (GateTerms("ttft"), "did you mean ttft_s.p50 or"),
     (GateTerms("nonesuch"), "no such metric")],
)  # fmt: skip
def test_what_cannot_be_gated_is_refused(terms, why):
    with pytest.raises(UserError, match=re.escape(why)):
        check_terms(terms)


# --- inconclusive ----------------------------------------------------------------------------------


def test_needed_repeats_are_the_fewest_whose_expected_interval_separates():
    """Deviation 0.06, 0.05 from the limit: t(7) x 0.06 / sqrt(8) = 0.0502, t(8) x 0.06 / sqrt(9) = 0.0461."""
    seen = Estimate(mean=0.10, error=0.06 / math.sqrt(4), df=3.0, k=4, is_log=True)
    assert more_repeats(seen, math.exp(0.05), 0.95) == 5
    assert more_repeats(replace(seen, mean=0.0), math.exp(0.05), 0.95) == 5
    assert more_repeats(replace(seen, mean=0.0501), math.exp(0.05), 0.95) is None
    assert more_repeats(seen, math.exp(0.05), 0.99) > 5


def test_an_inconclusive_gate_says_how_many_repeats_it_needs(tmp_path):
    [case] = gated(tmp_path, new=tuple(1.03 * value for value in (97.5, 100.5, 103.5))).cases
    assert case.more_repeats in range(1, 20)
    assert (
        str(case.why) == f"needs about {case.more_repeats} more repeats, if the measured difference is real"
    )


@pytest.mark.parametrize(
    ("sides", "given", "why"),
    [((STEADY[:2], SLOWER[:2]), {}, "a verdict needs 3 starts of each or more, here 2 and 2"),
     ((STEADY, STEADY), {"environment": {"machine": {"cpu_model": "Other"}}},
      "machine.cpu_model: Test CPU and Other"),
     ((STEADY, STEADY), {"terms": GateTerms("ttft_s.p99")}, "BASE: p99 needs n of 662 or more, here n = 16")],
)  # fmt: skip
def test_what_gets_no_verdict_is_inconclusive(tmp_path, sides, given, why):
    gate = gated(tmp_path, *sides, **given)
    assert (gate.outcome, gate.exit_code) == ("inconclusive", 3)
    assert str(gate.cases[0].why).startswith(why)


# --- several cases ---------------------------------------------------------------------------------


def test_one_failed_case_fails_the_whole_and_all_are_one_family(tmp_path):
    sides_run(tmp_path / "base", {A: STEADY, B: STEADY, "tgi fp16": STEADY})
    sides_run(tmp_path / "new", {A: STEADY, B: SLOWER, "sglang fp16": STEADY})
    gate = gate_runs(tmp_path / "base", tmp_path / "new", TTFT)
    outcomes = [(case.case.deployment, case.outcome) for case in gate.cases]
    assert outcomes == [(A, "pass"), (B, "fail"), ("tgi fp16", "inconclusive")]
    assert (gate.outcome, gate.compared.family) == ("fail", 2)
    assert [str(each.why) for each in gate.compared.left_out] == ["only NEW has it"]


@pytest.fixture(scope="module")
def unseen(tmp_path_factory):
    """NEW lacks a deployment of BASE, and has others' requests fail."""
    folder = tmp_path_factory.mktemp("unseen")
    sides_run(folder / "base", {A: STEADY, B: STEADY})
    sides_run(folder / "new", {A: [with_failures(2)] * 3})
    return gate_runs(folder / "base", folder / "new", TTFT)


def test_what_new_does_not_have_is_inconclusive(unseen):
    seen, other = unseen.cases
    assert (seen.outcome, other.outcome) == ("pass", "inconclusive")
    assert str(other.why) == "NEW has no vllm fp16, chat_multi_turn, 1 user"
    assert (unseen.exit_code, unseen.compared.left_out, other.cells) == (3, (), ("–", "–", "–"))
    assert unseen.summary == "INCONCLUSIVE: ttft_s.p50 is not decided in 1 of 2 cases"
    [suite] = ElementTree.fromstring(junit_text(unseen))
    assert (suite.get("tests"), suite.get("skipped")) == ("2", "1")
    assert str(other.why) in suite.findall("testcase")[1][0].get("message")


def test_every_form_of_the_gate_shows_marks_and_what_they_stand_for(unseen):
    assert "requests_failed" in unseen.cases[0].case.rows[0].marks
    [remedy] = [each.remedy for each in unseen.compared.distrust if each.check == "requests_failed"]
    [suite] = ElementTree.fromstring(junit_text(unseen))
    for text in (" ".join(printed(300, print_gate, unseen).split()), suite.find("system-out").text):
        assert "▲" in text
        assert remedy in text
    markdown = markdown_text(unseen)
    assert re.search(r"▲ \d \| ", markdown)
    assert "\n- Requests failed (NEW). See Trust" in markdown


def test_no_form_of_the_gate_explains_a_mark_that_no_change_bears(tmp_path):
    """Two quantizations of a run whose starts the machine disturbed: reasons, none of which marks."""
    path = sides_run(tmp_path / "r", {"llama_cpp fp16": STEADY, "llama_cpp gguf-q8_0": STEADY})
    for cell in store.read_cells(path):
        seen = GuardFinding(
            "foreign_load", quoted("other programs used 60 % of the cores"), "during", "suspect"
        )
        record = replace(cell, guard=(seen,), validity="suspect")
        store.write_record(path / "cells" / f"{cell.number:03d}" / "cell.json", record)
    sides = [f"{path}:llama_cpp fp16", f"{path}:llama_cpp gguf-q8_0"]
    gate = gate_runs(*sides, TTFT)
    assert {"machine_unfit", "quality_not_measured"} <= {each.check for each in gate.compared.distrust}
    compared = compare_runs(*sides)
    texts = [printed(300, print_gate, gate), junit_text(gate), markdown_text(gate)]
    texts += [printed(300, print_comparison, compared)]
    for text in texts:
        assert "Reasons to distrust:" in text
        assert "▲" not in text
        assert "Quality is not known" in text
        # The two are compared because their quantizations differ.
        assert "quantization=NAME" not in text
    assert LEGEND not in comparison_page(compared)


# --- what is written -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A gate of three cases, one of each outcome, under hostile names."""
    folder = tmp_path_factory.mktemp("hostile")
    labels = [f"vllm {HOSTILE} | `x` @team \x07\n", "fails", "unsure"]
    made = {label: replace(deployment("vllm", "fp16"), label=label) for label in labels}
    news = (STEADY, SLOWER, ON_THE_LIMIT)
    sides_run(folder / "base", dict.fromkeys(labels, STEADY), made=made)
    sides_run(folder / "new", dict(zip(labels, news, strict=True)), made=made)
    return gate_runs(folder / "base", folder / "new", TTFT)


def test_junit_has_a_test_case_for_each_case(hostile):
    [suite] = ElementTree.fromstring(junit_text(hostile))
    counts = {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "3", "failures": "1", "errors": "0", "skipped": "1"}
    assert [child.tag for child in suite] == ["properties", *["testcase"] * 3, "system-out", "system-err"]
    passed, failed, unsure = suite.findall("testcase")
    assert [[child.tag for child in each] for each in (passed, failed, unsure)] == [
        [],
        ["failure"],
        ["skipped"],
    ]
    said = failed[0].get("message")
    assert said.startswith("ttft_s.p50 in ms, limit: 5 % more than BASE; BASE 100.5 ")
    assert said.endswith("; NEW against BASE: 10 % more [8 % more, 12 % more]")
    assert "needs more than 100 more repeats" in unsure[0].get("message")
    assert suite.find("system-out").text.splitlines()[-1] == hostile.summary
    # What the usual schema asks for; any name stands as it is but for what XML cannot hold.
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", suite.get("timestamp"))
    assert set(suite.keys()) >= {"name", "package", "id", "hostname", "time"}
    assert all(set(case.keys()) == {"name", "classname", "time"} for case in suite.findall("testcase"))
    name = passed.get("name")
    assert name.startswith("vllm </script><script>document.title='pwned'</script>")
    assert name == " ".join(name.replace("\x07", "?").split()), "a token has no line break"


def test_markdown_is_one_table_whatever_the_names(hostile):
    text = markdown_text(hostile)
    assert text.startswith("### bench gate: ❌ fail\n")
    rows = [line for line in text.splitlines() if re.match(r"\| `", line)]
    assert len(rows) == 3
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {8}
    outside = re.sub(r"`[^`]*`", "", text)
    assert not [trap for trap in ("<script", "<img", "@team") if trap in outside]


def test_the_terminal_ends_with_the_verdict_in_one_line(hostile):
    assert printed(300, print_gate, hostile).splitlines()[-1] == (
        "FAIL: ttft_s.p50 is worse by more than 5 % in 1 of 3 cases "
        "(95 % confidence, corrected for 3 comparisons)"
    )


def test_the_command_writes_its_files_and_exits_by_the_outcome(tmp_path):
    sides_run(tmp_path / "base", {A: STEADY, B: SLOWER})
    sides = [f"{tmp_path}/base:{name}" for name in (A, B)]
    files = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "m.md")]
    keys = ["gate.metric=ttft_s.p50", "gate.max_regression=5%"]
    done = CliRunner().invoke(app, ["gate", *sides, *keys, *files])
    assert (done.exit_code, "FAIL: " in done.output) == (1, True)
    assert ElementTree.parse(tmp_path / "j.xml").getroot().tag == "testsuites"
    assert "❌ fail" in (tmp_path / "m.md").read_text(encoding="utf-8")
    assert CliRunner().invoke(app, ["gate", *keys, *reversed(sides)]).exit_code == 0, "in any order"


@pytest.mark.parametrize("words", [("base",), ("gate.metric=ttft_s.p50",), ("a", "b", "c")])
def test_other_than_two_sides_are_refused_with_what_would_work(words):
    done = CliRunner().invoke(app, ["gate", *words])
    assert isinstance(done.exception, UserError)
    assert "give two, BASE and NEW, each DIR or DIR:DEPLOYMENT" in str(done.exception)


def test_starts_of_new_that_died_do_not_pass(tmp_path):
    sides_run(tmp_path / "base", {A: (*STEADY, 100.2)})
    sides_run(tmp_path / "new", {A: (*STEADY, 100.2)})
    shutil.rmtree(tmp_path / "new" / "cells" / "003")
    gate = gate_runs(tmp_path / "base", tmp_path / "new", TTFT)
    assert gate.outcome == "inconclusive"
    assert "1 of 4 starts of NEW has no value" in str(gate.cases[0].why)


def test_goodput_by_other_objectives_is_not_gated(tmp_path):
    base, new = (Objective("ttft_s", 0.9, limit) for limit in (0.09, 0.5))
    sides_run(tmp_path / "base", {A: STEADY}, slo=(base,))
    sides_run(tmp_path / "new", {A: STEADY}, slo=(new,))
    gate = gate_runs(tmp_path / "base", tmp_path / "new", GateTerms("slo_share", 0.05))
    assert (gate.outcome, str(gate.cases[0].why)) == ("inconclusive", "their objectives (slo.*) differ")
