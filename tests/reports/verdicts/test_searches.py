"""What a search's cells come to on reading: answers, capacities, verdicts, and the page."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from make_run import (
    MS,
    S,
    deployment,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)

from harness.contracts import Load, Objective, PlannedCell, SearchTerms
from harness.store import store
from reports import open_run
from reports.measures.over_starts import aggregate
from reports.page.document import page
from reports.page.sections import throughput
from reports.verdicts.search_starts import answers_of
from reports.verdicts.searches import capacities_of
from reports.words.search_text import as_plain, words

SLO = (Objective("ttft_s", 0.95, 0.15), Objective("success", 0.9))
USERS = SearchTerms("concurrency", 1.0, 64.0)


def write_search(path, capacities, terms=USERS, count=80, **changes):
    """A run of as many deployments as there are lists of capacities, one for each repeat; on every start each
    load of the doubling and the two around the capacity are tried, of `count` requests each."""
    deployments = [deployment("llama_cpp", q) for q in ("fp16", "gguf-q4_k_m")[: len(capacities)]]
    whole = plan_of(deployments, [], len(capacities[0]))
    number, starts = 0, []
    for start in whole.starts:
        capacity = capacities[deployments.index(start.deployment)][start.repeat]
        levels = [level for level in (1, 2, 4, 8, 16, 32, 64) if level <= min(2 * capacity, 64)]
        levels = sorted({*levels, *(n for n in (capacity, capacity + 1) if 0 < n <= 64), 1})
        cells = []
        for level in levels:
            number += 1
            scenario = plan_of(deployments, [Load(concurrency=1)]).starts[0].cells[0].scenario
            cells.append(PlannedCell(number, scenario, Load(concurrency=level), start.repeat, number))
        starts.append(replace(start, cells=tuple(cells)))
    record = run_record(replace(whole, starts=tuple(starts)), slo=SLO, search=terms)
    store.write_record(path / "run.json", record)
    for start in starts:
        write_start(path, start_record(start, (100 + 1000 * start.index) * S, **changes))
        capacity = capacities[deployments.index(start.deployment)][start.repeat]
        for cell in start.cells:
            write_trial(path, start, cell, cell.load.concurrency <= capacity, count)
    return path


def write_trial(path, start, cell, is_good, count):
    began = summary((200 + 20 * cell.number) * S)
    late_ns = 0 if is_good else 100 * MS
    rows = []
    for k in range(count):
        sent_ns = began.window_start_ns + k * 90 * MS
        rows.append(row(k, sent_ns, chunk_ns=(sent_ns + 100 * MS + late_ns, sent_ns + 250 * MS)))
    write_cell(path, cell, start, rows, began)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """A second deployment that takes twice as many users as the first, in every block."""
    return open_run(write_search(tmp_path_factory.mktemp("twice") / "run", [[4, 5, 4], [8, 10, 8]]))


def test_an_answer_is_the_highest_load_kept_with_its_bracket(tmp_path):
    run = open_run(write_search(tmp_path / "run", [[6]]))
    (found,) = answers_of(run)
    assert (found.kept, found.broken, found.proven_kept, found.proven_broken) == (6, 7, 6, 7)
    assert found.words == "6 users"
    assert found.uncertain == []
    assert [tried.keeps for tried in found.tried] == [True, True, True, True, False, False]
    assert words(run, capacities_of(run)[0]) == "6 users, of one start (7 users broke them)"


def test_what_the_shares_alone_decided_is_uncertain_and_not_proven(tmp_path):
    """20 good requests of 20 are no proof of 95 %."""
    (found,) = answers_of(open_run(write_search(tmp_path / "run", [[6]], count=20)))
    assert (found.kept, found.proven_kept, found.proven_broken) == (6, None, 7)
    assert [tried.level for tried in found.uncertain] == [6]


def test_the_highest_that_was_allowed_is_a_least(tmp_path):
    run = open_run(write_search(tmp_path / "run", [[64, 64, 64], [64, 64, 64]]))
    first, second = capacities_of(run)
    assert first.answers[0].words == "64 users or more"
    assert second.verdict is not None
    assert (second.verdict.kind, second.verdict.why) == (
        "none", "search.highest was kept; a higher one would tell them apart",
    )  # fmt: skip


def test_nothing_kept_is_none_and_has_no_mean(tmp_path):
    run = open_run(write_search(tmp_path / "run", [[6, 0, 6]]))
    (found,) = capacities_of(run)
    assert [answer.words for answer in found.answers] == ["6 users", "none", "6 users"]
    assert found.estimate is None
    assert found.why == "no load that was tried kept the objectives on 1 of 3 starts"


def test_a_start_that_failed_has_no_answer(tmp_path):
    run = open_run(write_search(tmp_path / "run", [[6]], status="failed"))
    (found,) = capacities_of(run)
    assert found.answers[0].words == "not known"
    assert found.why == "the search did not come to its end on 1 of 1 starts"


def test_capacities_are_compared_by_repeat(twice):
    """Twice as many users in every block: 8 / 4, 10 / 5 and 8 / 4. The truth is from 8 / 5 to 9 / 4."""
    first, second = capacities_of(twice)
    assert first.verdict is None
    assert second.baseline == "llama_cpp fp16"
    assert second.verdict is not None
    assert (second.verdict.kind, second.verdict.ratio) == ("better", pytest.approx(2.0))
    assert (second.verdict.low or 2) < 8 / 5
    assert (second.verdict.high or 2) > 9 / 4
    assert first.told["capacity", "llama_cpp gguf-q4_k_m"].kind == "worse"
    assert second.estimate is not None
    assert second.estimate.shown == pytest.approx((8 * 10 * 8) ** (1 / 3))
    low, high = second.span or (0, 0)
    assert low < 8
    assert high > 9
    said = words(twice, second)
    assert re.fullmatch(r"8\.6 users \[6\.\d, 13\.\d\], mean of 3 starts \(.*\)", said), said


def test_equal_answers_on_all_starts_have_an_interval_and_no_verdict_of_a_difference(tmp_path):
    """6 and 7 users on every start: the truth may be 6.9 and 7.1."""
    first, second = capacities_of(open_run(write_search(tmp_path / "run", [[6, 6, 6], [7, 7, 7]])))
    assert second.verdict is not None
    assert second.verdict.kind == "unknown"
    low, high = first.span or (0, 0)
    assert low < 6
    assert high > 7
    assert second.told["memory_peak_bytes", "llama_cpp fp16"].why == "a start has no value"


def test_two_starts_give_numbers_and_no_verdict(tmp_path):
    run = open_run(write_search(tmp_path / "run", [[4, 4], [8, 8]]))
    verdict = capacities_of(run)[1].verdict
    assert verdict is not None
    assert verdict.kind == "none"
    assert "needs 3 starts" in (verdict.why or "")
    assert as_plain(run, capacities_of(run)[1])["verdict"]["ratio"] is None


def test_two_starts_have_their_range_and_no_interval(tmp_path):
    run = open_run(write_search(tmp_path / "run", [[4, 6]]))
    (found,) = capacities_of(run)
    assert (found.has_interval, found.span) == (False, (4, 7))
    assert words(run, found) == "4.90 users 4–7, mean of 2 starts (4 users, 6 users)"
    assert as_plain(run, found)["is_interval"] is False


def test_blocks_on_a_server_that_ran_already_have_no_interval(tmp_path):
    path = write_search(tmp_path / "run", [[4, 5, 4]], attached=True)
    run = open_run(path)
    (found,) = capacities_of(run)
    assert (found.has_interval, found.span) == (False, (4, 6))
    assert words(run, found).endswith("mean of 3 blocks (4 users, 5 users, 4 users)")


def test_an_invalid_window_is_not_in_the_curve(tmp_path):
    path = write_search(tmp_path / "run", [[6]])
    record = next(cell for cell in store.read_cells(path) if cell.load.concurrency == 6)
    cell_file = store.cell_dir(path, record.number) / "cell.json"
    store.write_record(cell_file, replace(record, validity="invalid", reasons=("the device was used",)))
    made = throughput.section(open_run(path))
    assert made is not None
    assert "6 users" not in made.charts[0].traces[0]["customdata"]


def test_the_answers_are_plain_for_json(twice):
    first, second = (as_plain(twice, each) for each in capacities_of(twice))
    assert [start["kept"] for start in first["starts"]] == [4, 5, 4]
    assert second["verdict"]["kind"] == "better"
    assert second["low"] < second["answer"] < second["high"]


def test_the_page_has_answers_curve_and_every_trial(twice):
    made = throughput.section(twice)
    assert made is not None
    text = made.body.text
    assert "The highest load, in users, that keeps the SLO" in text
    assert re.search(r"more load</b>.*?2\.00x \[1\.\d\d, \d\.\d\d\]", text)
    (chart,) = made.charts
    tried = [[1, 2, 4, 5, 6, 8], [1, 2, 4, 8, 9, 10, 11, 16]]
    assert [[at.split()[0] for at in trace["customdata"]] for trace in chart.traces] == [
        list(map(str, each)) for each in tried
    ]
    good, late = chart.traces[0]["y"][2], chart.traces[0]["y"][-1]
    assert (good, late) == (10.0, 0.0), "80 requests in 8 s"
    assert [shape["x0"] for shape in chart.layout["shapes"]] == [
        pytest.approx((4 * 5 * 4) ** (1 / 3)), pytest.approx((8 * 10 * 8) ** (1 / 3)),
    ]  # fmt: skip
    assert chart.layout["xaxis"]["ticktext"] == ["1", "2", "4", "5", "6", "8", "9", "10", "11", "16"]
    assert re.search(r">SLO</th></tr>.*?keeps it</span>.*?does not</span>", text)
    assert "not clear (" not in text
    assert "Every load that was tried" in page(twice)


def test_windows_of_one_start_are_one_observation(tmp_path):
    """A load that was tried again on one start has its mean, and no interval as of two starts."""
    path = write_search(tmp_path / "run", [[6]])
    record = store.read_run(path)
    (start,) = record.plan.starts
    again = replace(next(cell for cell in start.cells if cell.load.concurrency == 6), number=50)
    grown = replace(start, cells=(*start.cells, again))
    store.write_record(path / "run.json", replace(record, plan=replace(record.plan, starts=(grown,))))
    write_trial(path, grown, again, False, 40)
    run = open_run(path)
    (group,) = [group for group in run.groups if group.load == "6 users"]
    found = aggregate(run, group, "goodput_per_s")
    assert (found.mean, found.k, found.n, found.interval) == (5.0, 1, 120, None)
    (answer,) = answers_of(run)
    (tried,) = [tried for tried in answer.tried if tried.level == 6]
    assert tried.judged is not None
    assert (tried.judged.windows, tried.judged.attained[0].met, tried.judged.attained[0].n) == (2, 80, 120)
    assert answer.kept == 4
