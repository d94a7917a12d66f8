"""Every way in which load arrives, against the reference engine's own record of arrivals.

Three play at a time: each is a little work and much waiting.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from statistics import mean, median, stdev
from typing import Any

import pytest
from load_process import MS, TINY, WORKER, job_of, rows_of, summary_of, working
from reference_serving import serving
from timeline_server import Server
from waiting import wait_until

from serving_bench.harness.contracts import Load, LoadSummary, RequestRow
from serving_bench.harness.load.play import arrivals
from serving_bench.harness.load.processes import running_load
from serving_bench.harness.selftest.sends import ARRIVAL, read_sends

S = 1e9
# The limit for a busy machine. If a schedule is not kept, requests are far later.
LATE_MS = 100
QUICK = ("--ttft-s=0.005", "--itl-s=0.001")
# One slot, 40 ms for each answer: half of what is asked of it.
SLOW = ("--slots=1", "--ttft-s=0.037", "--itl-s=0.001")
# A load process that may open few files: 16 besides those that are not connections.
FEW_FILES = (
    "-c",
    "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80)); "
    f"runpy.run_path({TINY[0]!r}, run_name='__main__')",
)


@dataclass(frozen=True)
class Played:
    """What a load process reports, and `arrived_ns`: when the server had read each of its requests."""

    rows: Sequence[RequestRow]
    summary: LoadSummary
    arrived_ns: dict[str, int]
    log: str

    def scheduled_s(self) -> list[float]:
        """Each request's due instant, in seconds from the cell's start, in order."""
        return sorted((row.scheduled_ns - self.summary.started_ns) / S for row in self.rows)

    def late_ms(self) -> list[float]:
        """How long after its due instant each request was at the server, in order of the rows."""
        return [(self.arrived_ns[row.request_id] - row.scheduled_ns) / MS for row in self.rows]

    def begun_in_turn(self) -> Iterator[list[RequestRow]]:
        """The requests of each user, in order."""
        for user in sorted({row.user for row in self.rows}):
            yield sorted((row for row in self.rows if row.user == user), key=lambda row: row.scheduled_ns)


def play(
    folder: Path, load: Load, server: Sequence[str] = QUICK, program: tuple[str, ...] = TINY, **changes: Any
) -> Played:
    """Play a load of one-turn conversations at a reference server."""
    with serving(*server, f"--sends={folder}") as running:
        changes = {"scenario_options": {"turns": 1}, **changes}
        job = job_of(Server(running.port), folder, load, **changes)
        with working(job, program) as process:
            _, log = process.communicate(timeout=60)
        assert process.returncode == 0, log
        rows = rows_of(job)
        sent = [row for row in rows if row.sent_ns]
        found = wait_until(lambda: len(arrived := arrivals_at(folder)) >= len(sent) and arrived)
    return Played(rows, summary_of(job), found, log)


# What plays in a folder of its own, by name; each stands before the test that looks at it.
PLAYS: dict[str, Callable[[Path], Any]] = {}
Plays = Mapping[str, Future[Any]]


@pytest.fixture(scope="module")
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plays]:
    with ThreadPoolExecutor(3) as pool:
        yield {name: pool.submit(begin, tmp_path_factory.mktemp("play")) for name, begin in PLAYS.items()}


def arrivals_at(folder: Path) -> dict[str, int]:
    return {
        send.request_id: send.sent_ns for send in read_sends(folder / "sends.bin") if send.chunk == ARRIVAL
    }


def open_loop(rate_per_s: float, **changes: Any) -> Load:
    fields: dict[str, Any] = {
        "warmup_s": 0.0,
        "duration_s": 1.5,
        "arrival": "constant",
        "steps": 1,
        **changes,
    }
    return Load(concurrency=None, rate_per_s=rate_per_s, **fields)


def expected_s(load: Load, count: int) -> list[float]:
    """When the first conversations are due, in seconds from the cell's start."""
    points = islice(arrivals.points(load, Random("7 arrivals")), count)
    return [arrivals.instant_s(load, point, arrivals.phases(load).window_end_s) for point in points]


PLAYS["constant"] = partial(play, load=open_loop(50), server=SLOW)


def test_a_constant_rate_keeps_its_schedule_though_the_server_does_not(plays: Plays) -> None:
    played = plays["constant"].result()
    scheduled_s = played.scheduled_s()
    # All 75, but for the last ones on a machine that is too busy to begin them before the end.
    assert len(scheduled_s) > 65
    assert scheduled_s == pytest.approx([number / 50 for number in range(len(scheduled_s))], abs=1e-6)
    assert {row.outcome for row in played.rows} == {"ok"}
    # All are at the server in time, and the last of them is answered 1.5 s after it was due.
    assert median(played.late_ms()) < LATE_MS
    ends_s = [(row.end_ns - played.summary.started_ns) / S for row in played.rows]
    assert max(ends_s) > 2.9
    assert (played.summary.ended_by, played.summary.conversations_begun) == ("duration", len(played.rows))
    assert played.summary.left_out == 75 - len(played.rows)
    # As many users as there are waiting; the last ones find the queue of those before them.
    assert 30 < played.summary.users <= 60


PLAYS["rare"] = partial(play, load=open_loop(0.5, duration_s=1.0))


def test_a_window_is_as_long_as_its_duration_though_the_last_arrival_was_long_ago(plays: Plays) -> None:
    played = plays["rare"].result()
    assert played.scheduled_s() == [0]
    assert played.summary.ended_by == "duration"
    assert played.summary.window_end_ns - played.summary.window_start_ns == S


POISSON = open_loop(80, arrival="poisson")
PLAYS["poisson"] = partial(play, load=POISSON)


def test_poisson_arrivals_are_the_seeded_ones(plays: Plays) -> None:
    played = plays["poisson"].result()
    expected = expected_s(POISSON, len(played.rows))
    assert played.scheduled_s() == pytest.approx(expected, abs=1e-6)
    assert median(played.late_ms()) < LATE_MS
    by_number = sorted(played.rows, key=lambda row: row.conversation)
    assert [row.scheduled_ns for row in by_number] == sorted(row.scheduled_ns for row in played.rows)


for shape in (0.2, 16.0):
    PLAYS[f"gamma {shape:g}"] = partial(play, load=open_loop(80, arrival="gamma", burstiness=shape))


@pytest.mark.parametrize(("burstiness", "least", "most"), [(0.2, 1.4, 4.0), (16.0, 0.1, 0.6)])
def test_gamma_arrivals_come_to_the_server_as_bursty_as_asked(
    plays: Plays, burstiness: float, least: float, most: float
) -> None:
    played = plays[f"gamma {burstiness:g}"].result()
    assert median(played.late_ms()) < LATE_MS
    at_s = sorted(arrived_ns / S for arrived_ns in played.arrived_ns.values())
    gaps_s = [after - before for before, after in pairwise(at_s)]
    # Gamma's coefficient of variation is burstiness ** -0.5: 2.2 and 0.25; Poisson's would be 1.
    assert least < stdev(gaps_s) / mean(gaps_s) < most
    # 120 are due on average; with a shape of 0.2 the standard deviation is (120 / 0.2) ** 0.5 = 24.
    assert 50 < len(at_s) < 200


PLAYS["ramp"] = partial(play, load=open_loop(100, ramp_up_s=1.0, duration_s=0.5, ramp_down_s=1.0))


def test_a_ramp_of_the_rate_is_seen_at_the_server(plays: Plays) -> None:
    played = plays["ramp"].result()
    halves = [sum(half / 2 <= at < (half + 1) / 2 for at in played.scheduled_s()) for half in range(6)]
    # The area below the ramps: 12.5 and 37.5 of 50; on a busy machine the last ones may not have begun.
    assert halves[:4] == [13, 37, 50, 38]
    assert 8 <= halves[4] <= 12
    assert halves[5] == 0
    assert median(played.late_ms()) < LATE_MS
    summary = played.summary
    assert summary.window_start_ns - summary.started_ns == 1000 * MS
    assert summary.window_end_ns - summary.window_start_ns == 500 * MS
    assert summary.ended_by == "duration"


STEPS = Load(
    concurrency=8, ramp="steps", ramp_steps=2, ramp_up_s=0.8, warmup_s=0.2, duration_s=0.4, ramp_down_s=0.8
)
PLAYS["steps"] = partial(play, load=STEPS, server=("--ttft-s=0.02", "--itl-s=0.001"))


def test_users_come_and_go_in_steps(plays: Plays) -> None:
    played = plays["steps"].result()
    started_ns = played.summary.started_ns
    users = list(played.begun_in_turn())
    assert len(users) == played.summary.users == 8
    for number, rows in enumerate(users):
        begins_s = arrivals.user_begins_s(STEPS, number)
        assert (rows[0].scheduled_ns - started_ns) / S == pytest.approx(begins_s, abs=1e-6)
    last_s = [(rows[-1].scheduled_ns - started_ns) / S for rows in users]
    # Half of them stop with the window's end, at 1.4 s, the others 0.4 s later.
    assert max(last_s[:4]) < 1.4 < min(last_s[4:]) < max(last_s[4:]) < 1.8
    assert median(played.late_ms()) < LATE_MS


PLAYS["linear"] = partial(
    play,
    load=Load(concurrency=8, ramp_up_s=1.6, warmup_s=0.0, duration_s=0.3, ramp_down_s=0.8, steps=1),
    server=("--ttft-s=0.02", "--itl-s=0.001"),
)


def test_users_come_one_by_one_in_a_linear_ramp_as_the_server_saw_it(plays: Plays) -> None:
    played = plays["linear"].result()
    started_ns = played.summary.started_ns
    users = [
        [(played.arrived_ns[row.request_id] - started_ns) / S for row in rows]
        for rows in played.begun_in_turn()
    ]
    # One every 0.2 s; the window ends at 1.9 s, and then one goes every 0.1 s, the first one first.
    for number, arrived_s in enumerate(users):
        assert 0 <= arrived_s[0] - 0.2 * number < LATE_MS / 1000
        assert -0.15 < arrived_s[-1] - (1.9 + 0.1 * (number + 1)) < LATE_MS / 1000
    assert len(users) == 8


TRACE_MS = (0, 300, 300, 900, 2000, 2400)


def replay(folder: Path) -> Played:
    trace = [{"timestamp": at, "input_length": 9, "output_length": n + 3} for n, at in enumerate(TRACE_MS)]
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in trace))
    load = Load(concurrency=None, arrival="trace", speedup=2.0, warmup_s=0.0, duration_s=None)
    return play(
        folder, load, scenario="trace", scenario_options={"path": str(path)}, program=WORKER,
        engine="reference",
    )  # fmt: skip


PLAYS["trace"] = replay


def test_a_trace_is_replayed_at_its_instants_divided_by_the_speedup(plays: Plays) -> None:
    played = plays["trace"].result()
    assert played.scheduled_s() == pytest.approx([at / 2000 for at in TRACE_MS], abs=1e-6)
    assert median(played.late_ms()) < LATE_MS
    assert sorted(row.max_tokens for row in played.rows) == [3, 4, 5, 6, 7, 8]
    # The window ends one mean gap, 240 ms, after the last row: all of them are in it.
    summary = played.summary
    assert summary.ended_by == "conversations"
    assert (summary.window_end_ns - summary.started_ns) / S == pytest.approx(1.44, abs=1e-6)


PLAYS["conversations"] = partial(play, load=open_loop(50, warmup_s=0.4, duration_s=None, conversations=30))


def test_open_conversations_count_from_the_windows_start_and_end_it(plays: Plays) -> None:
    played = plays["conversations"].result()
    assert len(played.rows) == 20 + 30
    assert played.summary.ended_by == "conversations"
    # When the 31st would have been due.
    assert (played.summary.window_end_ns - played.summary.started_ns) / S == pytest.approx(1.0, abs=1e-6)


PLAYS["turns"] = partial(
    play, load=open_loop(20, duration_s=0.8), scenario_options={"turns": 2, "think_time_s": 0.03}
)


def test_a_further_turn_is_due_its_think_time_after_the_one_before(plays: Plays) -> None:
    played = plays["turns"].result()
    by_talk = {(row.conversation, row.turn): row for row in played.rows}
    pairs = [(by_talk[talk, 0], row) for (talk, turn), row in by_talk.items() if turn == 1]
    assert len(pairs) > 8
    assert {second.scheduled_ns - first.end_ns for first, second in pairs} == {30 * MS}
    first_turns = sorted(row.scheduled_ns for row in played.rows if row.turn == 0)
    expected_s = [number / 20 for number in range(len(first_turns))]
    assert [(due_ns - first_turns[0]) / S for due_ns in first_turns] == pytest.approx(expected_s, abs=1e-6)


PLAYS["users"] = partial(play, load=Load(concurrency=2, warmup_s=0.0, duration_s=0.8, steps=1))


def test_a_user_hands_over_to_its_next_conversation_without_a_gap(plays: Plays) -> None:
    played = plays["users"].result()
    for rows in played.begun_in_turn():
        assert len(rows) > 10
        for before, after in pairwise(rows):
            assert after.scheduled_ns == before.end_ns
    assert median(((row.sent_ns or 0) - row.scheduled_ns) / MS for row in played.rows) < LATE_MS / 5


PLAYS["few files"] = partial(
    play, load=open_loop(100, duration_s=0.5), server=("--ttft-s=0.3", "--itl-s=0.001"), program=FEW_FILES
)


def test_without_a_descriptor_for_another_user_conversations_wait_and_are_late(plays: Plays) -> None:
    played = plays["few files"].result()
    assert {row.outcome for row in played.rows} == {"ok"}
    assert played.summary.users <= 16
    assert played.log.count("all 16 users that this process has file descriptors for") == 1
    # The 16 take 16 conversations in the first 0.16 s, and the next of them 0.3 s after that, all late.
    assert 16 < len(played.rows) <= 48
    # 50 were due, at 0, 0.01, ... 0.49 s.
    assert played.summary.left_out == 50 - len(played.rows) > 0
    assert max(played.late_ms()) > 130
    assert min(played.late_ms()) < LATE_MS


FAILING = (*QUICK, "--fault=http@503/2")
PLAYS["failures"] = partial(play, load=open_loop(100, duration_s=20, max_failed_share=0.1), server=FAILING)


def test_too_many_failures_end_it_and_what_runs_ends_by_itself(plays: Plays) -> None:
    played = plays["failures"].result()
    assert played.summary.ended_by == "failures"
    assert (played.summary.window_end_ns - played.summary.started_ns) / S < 5
    assert 20 <= len(played.rows) < 100
    assert {row.outcome for row in played.rows} == {"ok", "http_error"}
    assert "of the last 20 requests failed" in played.log


PLAYS["fewer failures"] = partial(
    play, load=open_loop(60, duration_s=1.0, max_failed_share=0.6), server=FAILING
)


def test_fewer_failures_than_the_share_do_not_end_it(plays: Plays) -> None:
    played = plays["fewer failures"].result()
    assert played.summary.ended_by == "duration"
    assert len(played.rows) > 40


PAIR = open_loop(60, arrival="poisson", duration_s=1.0, workers=2)


def play_in_two(folder: Path) -> tuple[list[RequestRow], LoadSummary]:
    with serving(*QUICK, f"--sends={folder}") as running:
        job = job_of(
            Server(running.port), folder, PAIR, engine="reference", scenario="chat_multi_turn",
            scenario_options={"turns": 1},
        )  # fmt: skip
        with running_load(job, folder / "running") as pulses:
            list(pulses)
    return rows_of(job), summary_of(job)


PLAYS["two processes"] = play_in_two


def test_two_load_processes_together_play_the_schedule_of_one(plays: Plays) -> None:
    rows, summary = plays["two processes"].result()
    expected = expected_s(PAIR, len(rows))
    assert sorted((row.scheduled_ns - summary.started_ns) / S for row in rows) == pytest.approx(
        expected, abs=1e-6
    )
    assert len(rows) > 30
    assert {(row.worker, row.conversation % 2) for row in rows} == {(0, 0), (1, 1)}
    assert len({row.request_id for row in rows}) == len(rows)
    assert not {row.user for row in rows if row.worker == 0} & {row.user for row in rows if row.worker == 1}
