"""`import serving_bench` measures, plans, reads and compares as the commands do."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import serving_bench
from serving_bench.reports.words.quality import Cell

SHORT = {
    "engine": "reference", "reference.label": ["a", "b"], "load.concurrency": 2, "repeats": 2,
    "load.duration": "1s", "load.warmup": "200ms", "load.min_requests": 1, "guard": "off",
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[serving_bench.Report, list[str]]:
    """A run and its lines of progress. It is made in a thread, as a server or a notebook may do."""
    lines, reports = list[str](), list[serving_bench.Report]()
    output = tmp_path_factory.mktemp("api") / "run"

    def measure() -> None:
        reports.append(serving_bench.run(SHORT, output=output, progress=lines.append))

    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    return reports[0], lines


def test_a_run_is_measured_and_returned_with_its_answers(measured, capfd):
    report, lines = measured
    assert report.page.is_file()
    assert {row.deployment for row in report.answers[0].rows} == report.run.deployments.keys()
    assert report.answers[0].rows[0].values["output_tokens_per_s"].value > 0
    assert sum("completed" in line for line in lines) == 4
    assert capfd.readouterr() == ("", "")


def test_it_is_read_and_compared(measured):
    report, _ = measured
    again = serving_bench.open_run(report.run.path)
    assert again.answers[0].said == report.answers[0].said
    a, b = (f"{report.run.path}:{label}" for label in report.run.deployments)
    comparison = serving_bench.compare(a, b, {"compare.metric": "ttft_s.p50"})
    assert (comparison.a, comparison.b) == (a, b)
    assert {each.metric for case in comparison.cases for each in case.rows} >= {"ttft_s.p50"}


def test_a_wrong_metric_of_a_comparison_is_a_mistake_as_on_the_command_line(measured):
    a, b = (f"{measured[0].run.path}:{label}" for label in measured[0].run.deployments)
    with pytest.raises(serving_bench.UserError, match=r"compare.metric=ttft_s: no such metric; did you mean"):
        serving_bench.compare(a, b, {"compare.metric": "ttft_s"})


def test_a_notebook_shows_its_table_and_its_doubts(measured):
    report, _ = measured
    shown = report._repr_html_()
    assert report.answers[0].rows[0].values["output_tokens_per_s"].text in shown
    assert all(each.title in shown for each in report.findings)


def test_hostile_text_is_escaped_in_a_notebook(measured):
    report, _ = measured
    answer, hostile = report.answers[0], "<script>alert(1)</script>"
    row = replace(answer.rows[0], why_not=hostile, cells={hostile: Cell(hostile, hostile)})
    row = replace(row, group=replace(row.group, deployment=hostile), to_leader=None)
    table, said = (
        replace(answer.table, rows=[row], title=hostile),
        replace(answer.said, lead=hostile, rest=hostile),
    )
    answers = [replace(answer, said=said, table=table)]
    shown = serving_bench.Report(**{**vars(report), "answers": answers})._repr_html_()
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;") >= 6


def test_a_plan_starts_nothing():
    plan = serving_bench.plan(SHORT)
    assert len(plan.starts) == 4
    assert [each.what for each in plan.skips] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "vlm"}, "engine=vlm: no such engine; did you mean vllm?"),
        ({"load.duration": 5}, "load.duration=5: needs a unit"),
        ({"load": {"users": 1}}, "load is nested; keys are flat, such as `load.concurrency: 8`"),
        ({"engine": []}, "engine: must be a value or a list of values"),
        ({"engine": [Path("a")]}, "engine: must be a value or a list of values"),
    ],
)
def test_a_mistake_says_what_would_work(settings, words):
    with pytest.raises(serving_bench.UserError) as raised:
        serving_bench.plan(settings)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_all_that_is_named_is_there_and_nothing_is_imported_before():
    code = (
        "import serving_bench, sys\n"
        "assert not {'typer', 'pandas', 'msgspec', 'serving_bench.harness'} & {*sys.modules}\n"
        "for name in serving_bench.__all__: getattr(serving_bench, name)\n"
        "assert not hasattr(serving_bench, 'nothing')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
