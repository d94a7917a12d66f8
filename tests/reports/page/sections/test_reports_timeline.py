"""The timeline of a cell: which requests are drawn, on which lanes, and what is drawn beside them."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from make_run import (
    GIB,
    HOSTILE,
    MS,
    S,
    deployment,
    empty_run,
    engines_run,
    failed_row,
    full_run,
    host_samples,
    lost_row,
    one_cell_run,
    plan_of,
    row,
    run_record,
    start_record,
    summary,
    write_cell,
    write_start,
)
from page_data import unpacked

from harness.contracts import Load
from harness.servers.scrape import ServerSample
from harness.store import store
from reports import open_run
from reports.data.run import Run
from reports.page.drawn.lanes import LANES_AT_MOST, in_flight, lanes_of
from reports.page.sections import timeline

BEGAN_NS = 100 * S
WINDOW_NS = BEGAN_NS + 2 * S


def run_of(path: Path, load: Load, rows: list[Any], **summary_changes: Any) -> Run:
    """One cell under a load; its window is from 2 to 10 s after BEGAN_NS."""
    plan = plan_of([deployment("vllm", "fp16")], [load])
    store.write_record(path / "run.json", run_record(plan))
    start = plan.starts[0]
    write_start(path, start_record(start, BEGAN_NS - 10 * S), host_samples(BEGAN_NS - 10 * S, GIB))
    write_cell(path, start.cells[0], start, rows, summary(BEGAN_NS, **summary_changes))
    return open_run(path)


def at(number: int, ms: float, **changes: Any) -> Any:
    """A request sent so many ms after the window's begin, due a millisecond before; done after 190 ms."""
    return row(number, WINDOW_NS + int(ms * MS), **changes)


def lanes(run: Run, at_most: int = 300) -> Any:
    found = lanes_of(run, run.planned_cells[0], at_most)
    assert found is not None
    return found


def data_of(run: Run) -> dict[str, Any]:
    made = timeline.section(run)
    assert made is not None
    return dict(json.loads(unpacked(made.body.text, "timeline-data")))


# --- lanes -----------------------------------------------------------------------------------------


def test_users_of_a_closed_loop_have_a_lane_each(tmp_path: Path) -> None:
    rows = [at(k, 250 * k, user=(7, 3)[k % 2]) for k in range(8)]
    found = lanes(run_of(tmp_path, Load(concurrency=2), rows))
    assert found.users == (3, 7)
    assert list(found.requests["lane"]) == [1, 0] * 4
    assert list(found.requests["number"]) == list(range(1, 9))
    assert found.is_whole


def test_requests_of_an_open_loop_take_the_first_free_lane(tmp_path: Path) -> None:
    rows = [at(k, ms) for k, ms in enumerate((0, 100, 150, 200, 1000))]
    found = lanes(run_of(tmp_path, Load(concurrency=None, rate_per_s=5.0), rows))
    # Each takes 190 ms and is due a ms before it is sent: the fourth finds the first one's lane free.
    assert list(found.requests["lane"]) == [0, 1, 2, 0, 0]
    assert found.users == ()


def test_a_user_with_two_requests_at_once_gets_no_lane_of_its_own(tmp_path: Path) -> None:
    found = lanes(run_of(tmp_path, Load(concurrency=1), [at(0, 0), at(1, 50)]))
    assert list(found.requests["lane"]) == [0, 1]


def test_instants_count_from_the_window(tmp_path: Path) -> None:
    first = lanes(run_of(tmp_path, Load(), [at(0, 40)])).requests.iloc[0]
    assert [first[name] for name in ("begin", "sent", "first", "end")] == pytest.approx(
        [39, 40, 140, 230 - 0]
    )


# --- the stretch -----------------------------------------------------------------------------------


def slow_at(position: int, count: int = 200) -> list[Any]:
    """Requests of one user every 250 ms from 2 s before the window's begin, one of which waits 30 ms more."""
    rows = [at(k, 250 * k - 2000) for k in range(count)]
    slow = rows[position]
    rows[position] = replace(
        slow,
        chunk_ns=tuple(ns + 30 * MS for ns in slow.chunk_ns),
        first_content_ns=slow.chunk_ns[0] + 30 * MS,
        last_content_ns=slow.chunk_ns[-1] + 30 * MS,
        end_ns=slow.end_ns + 30 * MS,
    )
    return rows


def test_a_long_cell_is_drawn_around_its_slowest_first_token(tmp_path: Path) -> None:
    found = lanes(run_of(tmp_path, Load(), slow_at(30)), at_most=10)
    numbers = list(found.requests["number"])
    assert found.slowest == 31
    assert found.slowest_s == pytest.approx(0.130)
    assert 9 <= len(numbers) <= 10
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert abs(numbers[0] + numbers[-1] - 62) <= 1
    middle = (found.begin_ms + found.end_ms) / 2
    assert middle == pytest.approx(250 * 30 - 2000 + (130 - 1) / 2, abs=1)


def test_every_request_that_touches_the_stretch_is_drawn(tmp_path: Path) -> None:
    run = run_of(tmp_path, Load(), slow_at(30))
    found = lanes(run, at_most=25)
    whole = lanes(run, at_most=1000).requests
    touching = whole[(whole["begin"] <= found.end_ms) & (whole["end"] >= found.begin_ms)]
    assert list(touching["number"]) == list(found.requests["number"])


def test_the_slowest_is_sought_in_the_window_only(tmp_path: Path) -> None:
    rows = slow_at(2)  # of the warm-up
    assert lanes(run_of(tmp_path, Load(), rows), at_most=10).slowest != 3


def test_a_cell_without_a_token_is_drawn_from_its_window_on(tmp_path: Path) -> None:
    rows = [failed_row(k, WINDOW_NS + k * S // 4) for k in range(-8, 30)]
    found = lanes(run_of(tmp_path, Load(), rows), at_most=6)
    assert found.slowest is None
    assert found.begin_ms < 0 < found.end_ms
    assert 0 < len(found.requests) <= 6


def test_many_users_are_drawn_in_part_the_slowest_among_them(tmp_path: Path) -> None:
    count = 2 * LANES_AT_MOST
    rows = [at(k, 40 * (k // count), user=k % count) for k in range(count)]
    slow = rows[100]
    rows[100] = replace(
        slow, chunk_ns=(slow.end_ns,), first_content_ns=slow.end_ns, last_content_ns=slow.end_ns
    )
    found = lanes(run_of(tmp_path, Load(concurrency=count), rows), at_most=1000)
    assert found.lanes == LANES_AT_MOST
    assert found.all_lanes == count
    assert 100 in found.users


def test_more_requests_at_once_than_may_be_drawn_are_cut_to_those_due_nearest(tmp_path: Path) -> None:
    rows = [at(k, k, chunk_ns=(WINDOW_NS + (2000 + k) * MS,), end_ns=WINDOW_NS + 3 * S) for k in range(100)]
    found = lanes(run_of(tmp_path, Load(concurrency=None, rate_per_s=100.0), rows), at_most=20)
    assert len(found.requests) <= 20
    assert found.slowest in set(found.requests["number"])


def test_a_cell_without_requests_has_no_timeline(tmp_path: Path) -> None:
    run = run_of(tmp_path, Load(), [])
    assert lanes_of(run, run.planned_cells[0], 300) is None
    assert timeline.section(run) is None


# --- beside them -----------------------------------------------------------------------------------


def test_in_flight_counts_what_was_sent_and_has_not_ended(tmp_path: Path) -> None:
    run = run_of(tmp_path, Load(concurrency=2), [at(0, 0), at(1, 100, user=1)])
    course = in_flight(run, lanes(run), 30)
    counts = dict(zip([round(x) for x in course.x_ms], course.y, strict=True))
    assert course.x_ms[0] == pytest.approx(-1)
    assert {counts[x] for x in counts if 0 <= x < 100} == {1}
    assert {counts[x] for x in counts if 101 < x < 189} == {2}
    assert counts[max(counts)] == 0


def test_what_the_server_says_stands_before_what_the_client_counts(tmp_path: Path) -> None:
    run = run_of(tmp_path, Load(), slow_at(30))
    name = run.start_records[0].name
    names = [f.name for f in fields(ServerSample)]
    samples = [
        ServerSample(**dict.fromkeys(names) | {"t_ns": WINDOW_NS + k * S, "running": k, "waiting": 2 * k})
        for k in range(8)
    ]
    store.write_samples(tmp_path / "starts" / name / "server.parquet", samples)
    queue = data_of(open_run(tmp_path))["cells"][0]["queue"]
    assert [each["name"] for each in queue] == ["running", "waiting"]
    assert queue[1]["x"] == [0, 1000, 2000, 3000, 4000, 5000, 6000, 7000]
    assert queue[1]["y"] == [0, 2, 4, 6, 8, 10, 12, 14]


def test_memory_is_that_of_the_stretch_in_gib(tmp_path: Path) -> None:
    memory = data_of(run_of(tmp_path, Load(), [at(0, 0), at(1, 500)]))["cells"][0]["memory"]
    # 12 s after the spawn, of 20 s in which it rises to 1 GiB; a sample each 100 ms, one on either side.
    assert memory["x"] == [-100, 0, 100, 200, 300, 400, 500, 600, 700]
    assert memory["y"][1] == pytest.approx(0.6)


def test_samples_that_end_before_the_stretch_make_no_line(tmp_path: Path) -> None:
    run = run_of(tmp_path, Load(), [at(0, 35_000)], duration_s=60.0)
    assert data_of(run)["cells"][0]["memory"] is None


# --- the section -----------------------------------------------------------------------------------


def test_columns_are_lengths_of_the_phases(tmp_path: Path) -> None:
    lost = lost_row(2, WINDOW_NS + 600 * MS)
    rows = [at(0, 0), failed_row(1, WINDOW_NS + 300 * MS), replace(lost, end_ns=WINDOW_NS + 700 * MS)]
    requests = data_of(run_of(tmp_path, Load(), rows))["cells"][0]["requests"]
    assert requests["due"] == [-1, 299, 600]
    assert requests["wait"] == [1, 1, None]
    assert requests["prefill"] == [100, None, None]
    assert requests["decode"] == [90, None, None]
    assert requests["outcome"] == ["ok", "http_error", "lost"]
    assert requests["output_tokens"] == [10, None, None]


def test_the_first_cell_shown_is_the_first_start_of_the_first_deployment_at_the_highest_load(
    tmp_path: Path,
) -> None:
    run = open_run(full_run(tmp_path))
    made = timeline.section(run)
    assert made is not None
    first = re.search(r'data-first="(\d+)"', made.body.text)
    assert first is not None
    assert data_of(run)["cells"][int(first[1])]["name"] == "llama_cpp fp16, 4 users, start 1"


def test_every_cell_with_requests_can_be_chosen_and_follows_the_filters(tmp_path: Path) -> None:
    run = open_run(full_run(tmp_path))
    made = timeline.section(run)
    assert made is not None
    options = re.findall(r"<option (.*?)</option>", made.body.text)
    assert len(options) == 15  # of 16 cells one failed before its load
    assert 'data-deployment="llama_cpp fp16" data-load="1 user" data-start="2"' in "".join(options)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    cell = data_of(run_of(tmp_path, Load(), slow_at(30, 400)))["cells"][0]
    assert re.fullmatch(
        r"300 of 400 requests: [\d.]+ s around the slowest first token of the window \(130\.0 ms\)\.",
        cell["said"],
    )


def test_a_page_of_many_cells_draws_less_of_each(tmp_path: Path) -> None:
    run = open_run(engines_run(tmp_path))
    made = timeline.section(run)
    assert made is not None
    assert len(run.planned_cells) == 32
    assert len(made.body.text) < 400_000


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    plan = plan_of([replace(deployment("vllm", "fp16"), label=HOSTILE)], [Load()])
    store.write_record(tmp_path / "run.json", run_record(plan))
    start = plan.starts[0]
    write_start(tmp_path, start_record(start, BEGAN_NS - 10 * S))
    write_cell(tmp_path, start.cells[0], start, [at(0, 0)], summary(BEGAN_NS))
    made = timeline.section(open_run(tmp_path))
    assert made is not None
    assert "<script>document" not in made.body.text
    assert "<img" not in made.body.text


def test_runs_without_a_window_have_no_timeline(tmp_path: Path) -> None:
    assert timeline.section(open_run(empty_run(tmp_path / "empty"))) is None
    rows = [row(0, 101 * S)]
    one_cell_run(tmp_path / "one", rows, summary(100 * S, duration_s=0.0))
    assert timeline.section(open_run(tmp_path / "one")) is None
