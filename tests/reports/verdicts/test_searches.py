"""What a search's cells come to on reading: what each start kept, the decision, and the page."""

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
from page_data import rows_of
from repeated_run import sentences

from serving_bench.harness.contracts import Load, Objective, PlannedCell, SearchTerms, quoted
from serving_bench.harness.store import store
from serving_bench.reports import open_run
from serving_bench.reports.measures.over_starts import aggregate
from serving_bench.reports.page.document import page
from serving_bench.reports.page.sections.throughput import answers, search
from serving_bench.reports.verdicts.decisions import decisions_of
from serving_bench.reports.verdicts.searches import capacities_of
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.report import search_words

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


def searched(path, *capacities, **changes):
    run = open_run(write_search(path / "run", list(capacities), **changes))
    return run, capacities_of(run)


def answer(run):
    [said] = answers_of(run)
    return said.plain


def test_an_answer_is_the_highest_load_kept_with_its_bracket(tmp_path):
    run, [capacity] = searched(tmp_path, [6])
    [found] = capacity.answers
    assert (found.kept, found.broken) == (6, 7)
    assert found.words == "6 users"
    assert [tried.keeps for tried in found.tried] == [True, True, True, True, False, False]
    assert (capacity.level, capacity.measured, capacity.words) == (None, 6, "not known (6 users as measured)")
    assert (
        search_words(run, capacity)
        == "not known: an interval needs 3 starts or more; 6 users as measured on one start"
    )
    assert answer(run).startswith(
        "No winner. Kept as measured, but not known to be kept (p95 TTFT 150 ms, 90 % success)"
    )


def test_what_is_known_is_no_more_than_the_intervals_over_starts_say(tmp_path):
    """20 requests at 6 users on each of three starts prove no 95 %; 80 do."""
    few, many = (searched(tmp_path / str(n), [6, 6, 6], count=n)[1][0] for n in (20, 80))
    assert (few.measured, few.level, few.words) == (6, None, "not known (6 users as measured)")
    assert str(few.why) == "at each load the interval over its starts reaches below the share asked for"
    assert (many.measured, many.level, many.broken) == (6, 6, 7)


def test_a_server_that_was_not_restarted_is_not_known_to_keep_anything(tmp_path):
    _, [found] = searched(tmp_path, [6, 6, 6], attached=True)
    assert (found.measured, found.level) == (6, None)
    assert str(found.why) == "the server was running already, so its repeats are blocks on one start"


@pytest.mark.parametrize(
    ("kept", "changes", "answers", "why"),
    [
        ([6, 0, 6], {}, ["6 users", "none", "6 users"],
         "no load that was tried kept the objectives on 1 of 3 starts"),
        ([6], {"status": "failed"}, ["not known"], "the search was not finished on 1 of 1 start"),
    ],
)  # fmt: skip
def test_a_start_without_an_answer_leaves_the_deployment_without_one(tmp_path, kept, changes, answers, why):
    _, [found] = searched(tmp_path, kept, **changes)
    assert [each.words for each in found.answers] == answers
    assert (found.level, found.words, str(found.why)) == (None, "not known", why)


def test_the_one_that_alone_keeps_the_highest_load_is_served_without_a_test(twice):
    """The load that counts is the one that every start kept."""
    first, second = capacities_of(twice)
    assert (first.level, second.level, second.words) == (4, 8, "8 users")
    assert search_words(twice, second) == "8 users on each of 3 starts (8 users, 10 users, 8 users)"
    [made] = decisions_of(twice)
    assert (made.kind, made.case.load, made.best) == ("only", "8 users", None)
    assert sentences(made.left_out) == {"llama_cpp fp16": "it keeps the SLO up to 4 users"}
    assert answer(twice) == (
        "Serve llama_cpp gguf-q4_k_m. It keeps the SLO up to 8 users on each of 3 starts, next best "
        "llama_cpp fp16 up to 4 users (p95 TTFT 150 ms, 90 % success)."
    )


def test_tokens_at_the_highest_load_decide_between_those_that_keep_it(tmp_path):
    run, _ = searched(tmp_path, [8, 8, 10], [8, 9, 9])
    [made] = decisions_of(run)
    assert (made.kind, made.metric, made.case.load) == ("same", "output_tokens_per_s", "8 users")
    assert (made.repeats, len(made.groups)) == (3, 2)


def test_repeats_count_in_which_each_measured_the_highest_load(tmp_path):
    """Starts that kept 9 of 9 never tried 9: doubled to 16, they went down to 10 and up to 11."""
    run, capacities = searched(tmp_path, [9, 10, 10], [9, 9, 9])
    assert [each.level for each in capacities] == [9, 9]
    [made] = decisions_of(run)
    assert (made.kind, made.repeats) == ("values", 1)
    assert "a verdict needs 3 repeats in which all have a value, here 1" in answer(run)


def test_the_highest_that_was_allowed_is_a_least(tmp_path):
    run, [first, _] = searched(tmp_path, [64, 64, 64], [64, 64, 64])
    assert first.words == first.answers[0].words == "64 users (the highest tried)"
    assert decisions_of(run)[0].kind == "same"


def test_on_too_few_starts_the_highest_that_was_allowed_is_measured_as_a_least(tmp_path):
    run, [capacity] = searched(tmp_path, [64])
    assert capacity.words == "not known (64 users or more as measured)"
    assert search_words(run, capacity) == (
        "not known: an interval needs 3 starts or more; 64 users or more as measured (the highest tried) "
        "on one start"
    )
    assert "llama_cpp fp16 64 users or more on one start" in answer(run)


def test_where_nothing_is_kept_nothing_is_named_and_each_has_its_reason(tmp_path):
    run, _ = searched(tmp_path, [0, 0, 0], [0, 2, 0])
    assert answer(run) == (
        "No winner. No deployment is known to keep the SLO (p95 TTFT 150 ms, 90 % success) at any load."
    )
    why = "no load that was tried kept the objectives on {} of 3 starts"
    assert list(map(str, decisions_of(run)[0].left_out.values())) == [why.format(3), why.format(2)]


def test_an_invalid_window_is_not_in_the_curve(tmp_path):
    path = write_search(tmp_path / "run", [[6]])
    record = next(cell for cell in store.read_cells(path) if cell.load.concurrency == 6)
    cell_file = store.cell_dir(path, record.number) / "cell.json"
    store.write_record(
        cell_file, replace(record, validity="invalid", reasons=(quoted("the device was used"),))
    )
    made = search(open_run(path))
    assert made is not None
    assert "6 users" not in made.charts[0].traces[0]["customdata"]


def test_the_page_has_answers_curve_and_every_trial(twice):
    text = search(twice).body
    assert "The highest load, in users, that keeps the SLO" in text
    assert rows_of(answers(twice))[0]["highest kept – lowest missed, by start"] in text
    assert re.search(r">SLO</th></tr>.*?keeps it</span>.*?does not</span>", text)
    assert "not clear (" not in text
    assert "Every load that was tried" in page(twice)


def test_the_section_has_brackets_and_the_curve_of_all_trials(twice):
    assert rows_of(answers(twice))[0]["highest kept – lowest missed, by start"] == "4 – 5; 5 – 6; 4 – 5"
    (chart,) = search(twice).charts
    tried = [[1, 2, 4, 5, 6, 8], [1, 2, 4, 8, 9, 10, 11, 16]]
    assert [[at.split()[0] for at in trace["customdata"]] for trace in chart.traces] == [
        list(map(str, each)) for each in tried
    ]
    good, late = chart.traces[0]["y"][2], chart.traces[0]["y"][-1]
    assert (good, late) == (10.0, 0.0), "80 requests in 8 s"
    assert chart.layout["xaxis"]["ticktext"] == ["1", "2", "4", "5", "6", "8", "9", "10", "11", "16"]


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
    assert (found.mean, found.k, found.n, found.interval) == (pytest.approx(5.0), 1, 120, None)
    [answer] = capacities_of(run)[0].answers
    (tried,) = [tried for tried in answer.tried if tried.level == 6]
    assert tried.judged is not None
    assert (tried.judged.attained[0].met, tried.judged.attained[0].n) == (80, 120)
    assert answer.kept == 4
