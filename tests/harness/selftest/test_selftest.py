"""The self-test: what a load comes to, the ladder on the real server, what is kept and what runs record."""

import json
import resource
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from statistics import median

import msgspec
import pytest
from begun_run import write_begun
from bench_command import BENCH, LIMIT_S, Place, begun, bench, ended, made, quick, side_by_side
from load_process import job_of, played
from reference_serving import serving
from test_truth import MS, row, sends
from timeline_server import Server
from waiting import patient, wait_until

from serving_bench.engines import ENGINES
from serving_bench.harness.contracts import Load, LoadSummary, NativeSpec, SelfTest, SelfTestStep
from serving_bench.harness.errors import CellError, UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.selftest import known_error, selftest
from serving_bench.harness.selftest.selftest import Ladder, Rung
from serving_bench.harness.selftest.sends import read_sends, served
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store import store

# --- what one load comes to -----------------------------------------------------------------------


def summary(start_ms: float, end_ms: float, cpu_s: float = 0.001) -> LoadSummary:
    return LoadSummary(
        started_ns=0, window_start_ns=int(start_ms * MS), window_end_ns=int(end_ms * MS), ended_ns=0,
        ended_by="duration", users=2, conversations_begun=0, requests=0, cpu_s=cpu_s,
    )  # fmt: skip


def sent_at(at_ms: float, made):
    return replace(made, sent_ns=int(at_ms * MS), scheduled_ns=int(at_ms * MS))


def judged(rows, lines, **changes) -> SelfTestStep:
    return selftest.step(Rung(2, 100), rows, summary(100, 200, **changes), served(lines))


def test_a_step_judges_the_requests_of_its_window_and_counts_all_chunks():
    rows = [
        sent_at(90, row("warm-up", [150, 160], 160)),
        sent_at(100, row("in", [151, 162], 163)),
        sent_at(110, row("lost", [], 170, "timeout")),
    ]
    lines = [
        *sends("warm-up", 90, [(140, 140), (150, 150)], 150),
        *sends("in", 100.25, [(150, 150), (160, 160)], 161),
    ]
    step = judged(rows, lines)
    assert (step.requests, step.failed, step.chunks) == (2, 1, 2)
    # 51 ms instead of 49.75, 62 instead of 60.75; the gap 11 instead of 10.
    assert step.ttft_error_s == (0.00125, 0.00125)
    assert step.itl_error_s == (0.001, 0.001)
    assert step.e2e_error_s == (0.00225, 0.00225)
    assert step.server_late_s == (0, 0)
    assert step.server_kept_up
    # All four chunks arrived within the window's 0.1 s, and cost 1 ms together.
    assert step.reached_chunks_per_s == pytest.approx(40)
    assert step.cpu_s_per_chunk == pytest.approx(0.00025)


def test_a_step_of_failures_has_no_errors_and_nothing_that_was_kept_up():
    step = judged([sent_at(100, row("a", [], 170, "reset"))], [])
    assert (step.requests, step.failed, step.ttft_error_s, step.cpu_s_per_chunk) == (1, 1, None, None)
    assert not step.server_kept_up


def test_a_request_that_the_server_knows_otherwise_counts_as_failed():
    step = judged([sent_at(100, row("a", [150], 170))], [])
    assert (step.requests, step.failed, step.ttft_error_s) == (1, 1, None)


def test_a_server_has_fallen_behind_when_the_median_chunk_is_later_than_the_next_is_due():
    made = [sent_at(100, row("a", [250], 250))]
    assert judged(made, sends("a", 100, [(200, 209.9)], 210)).server_kept_up
    assert not judged(made, sends("a", 100, [(200, 210)], 210)).server_kept_up


# --- the largest load -----------------------------------------------------------------------------

GOOD = SelfTestStep(
    streams=1, chunks_per_s=1, requests=9, failed=0, chunks=99, reached_chunks_per_s=1,
    ttft_error_s=(0.0001, 0.00099), itl_error_s=(0, 0), e2e_error_s=(0, 0), server_late_s=(0, 0),
    server_kept_up=True, cpu_s_per_chunk=1e-5,
)  # fmt: skip
BAD = {"ttft_error_s": (0.0001, 0.001)}


def at(streams: int, chunks_per_s: float, **changes) -> SelfTestStep:
    return replace(GOOD, streams=streams, chunks_per_s=chunks_per_s, **changes)


@pytest.mark.parametrize(
    ("steps", "largest"),
    [
        ([at(1, 100), at(64, 100)], (64, 100)),
        ([at(1, 100), at(64, 100, **BAD)], (1, 100)),
        ([at(1, 100, **BAD), at(64, 100)], None),
        # More streams at a lower rate is neither more nor less: chunks per second decide.
        ([at(64, 100), at(1024, 10), at(16, 400, **BAD)], (1024, 10)),
        ([at(64, 100), at(1024, 10, **BAD)], (64, 100)),
        ([at(1, 100), at(64, 100, failed=1)], (1, 100)),
        ([at(1, 100), at(64, 100, server_kept_up=False)], (1, 100)),
        ([at(1, 100, ttft_error_s=None)], None),
    ],
)
def test_the_largest_load_holds_with_all_smaller_ones(steps, largest):
    assert known_error.largest(steps) == largest


# --- the ladder, on the real server ---------------------------------------------------------------

SHORT = Ladder((Rung(2, 50), Rung(8, 50)), 0.2, 0.6)


class Altered:
    """The reference engine, its server with more arguments."""

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.name = "reference"
        self.options = ENGINES["reference"].options

    def launch(self, deployment, place) -> NativeSpec:
        spec = ENGINES["reference"].launch(deployment, place)
        assert isinstance(spec, NativeSpec)
        return replace(spec, argv=(*spec.argv, *self.arguments))


def climb(tmp_path: Path, ladder: Ladder = SHORT, *arguments: str, heard: list | None = None) -> SelfTest:
    reference = selftest.Reference(Altered(*arguments), "python", None)
    climbing = selftest.Climb(reference, ladder, tmp_path / "running")
    for step in climbing.steps():
        if heard is not None:
            heard.append(step)
    return climbing.result()


def test_the_ladder_measures_each_load_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    heard: list[SelfTestStep] = []
    result = climb(tmp_path, heard=heard)
    assert [(step.streams, step.chunks_per_s) for step in result.steps] == [(2, 50), (8, 50)]
    assert list(result.steps) == heard
    for step in result.steps:
        assert step.failed == 0
        assert step.requests >= step.streams
        assert step.ttft_error_s is not None
        assert step.ttft_error_s[0] < 0.05
    assert (result.program, result.stopped) == ("python", None)
    assert result.bench_version == known_error.version()
    assert [path.name for path in tmp_path.iterdir()] == ["running"]
    assert list((tmp_path / "running").iterdir()) == []


def test_the_client_is_late_by_both_ways_and_never_early(tmp_path):
    """It stamps before it sends and after the kernel has received: an early answer would be a wrong pair."""
    with serving("--ttft-s=0.02", "--itl-s=0.01", f"--sends={tmp_path}") as server:
        job = job_of(Server(server.port), tmp_path, Load(concurrency=4, warmup_s=0.0, duration_s=0.5),
                     scenario_options={"turns": 1})  # fmt: skip
        rows, summary, _ = played(job)

        def written():
            found = served(read_sends(tmp_path / "sends.bin"))
            ended = [answer for answer in found.values() if answer.ended_ns is not None]
            return found if len(ended) >= len(rows) else None

        answers = wait_until(written)
    found = known_error.errors(rows, answers)
    assert found.unpaired == 0
    assert len(found.ttft_s) == len(rows) > 8
    slack_s = (summary.clock_uncertainty_ns or 0) / 1e9
    assert min(found.ttft_s) > -slack_s
    assert 0 < median(found.ttft_s) < 0.05
    assert min(found.e2e_s) > -slack_s


def test_failed_requests_are_counted_and_the_climb_goes_on(tmp_path):
    result = climb(tmp_path, Ladder((Rung(2, 50), Rung(4, 50)), 0.1, 0.4), "--fault=reset@3/3")
    assert len(result.steps) == 2
    assert all(0 < step.failed < step.requests for step in result.steps)
    assert result.largest is None


def test_a_load_that_the_server_cannot_keep_ends_the_climb(tmp_path):
    ladder = Ladder((Rung(2, 50), Rung(64, 8000), Rung(64, 16000)), 0.2, 0.6)
    result = climb(tmp_path, ladder)
    assert [step.server_kept_up for step in result.steps] == [True, False]
    assert result.stopped is not None
    assert "the server could not keep its schedule at 64 streams x 8000 chunks/s" in result.stopped


def test_a_server_that_does_not_start_is_an_error_of_one_line(tmp_path):
    with pytest.raises(CellError, match="the reference server") as caught:
        climb(tmp_path, SHORT, "--nonsense")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "64", "64x", "0x100", "64x-1", "64x100;2x3", "1e3x10"])
def test_loads_that_cannot_be_read_are_refused_with_an_example(text):
    with pytest.raises(UserError, match="write it like 64x100,256x400"):
        selftest.ladder_of(text)


def test_loads_are_climbed_from_the_smallest():
    assert selftest.ladder_of("256x400, 1x100").rungs == (Rung(1, 100), Rung(256, 400))


# --- what is kept ---------------------------------------------------------------------------------


def result_of(machine, version: str = "1", largest=(64, 100.0)) -> SelfTest:
    return SelfTest("2026-01-01T00:00:00+00:00", version, "native", "kernel", machine, (GOOD,), largest)


def test_a_result_is_found_again_on_its_machine(tmp_path):
    here = result_of(known_error.machine(), known_error.version())
    known_error.keep(tmp_path / "cache", here)
    assert known_error.find(tmp_path / "cache") == here


def test_another_machine_or_version_is_not_ours(tmp_path):
    other = {**known_error.machine(), "cpu_model": "another"}
    known_error.keep(tmp_path, result_of(other, known_error.version()))
    assert known_error.find(tmp_path) is None
    known_error.keep(tmp_path, result_of(known_error.machine(), "0.0.0"))
    assert known_error.find(tmp_path) is None


def test_a_run_records_what_is_known_of_this_machine_and_nothing_of_another(tmp_path):
    settings = config.settings(overrides.parse(["engine=reference"]))
    whole = plan.make(settings)
    known_error.keep(
        tmp_path, result_of({**known_error.machine(), "cpu_model": "another"}, known_error.version())
    )
    assert "selftest" not in write_begun(tmp_path / "a", settings, whole, tmp_path).environment
    ours = result_of(known_error.machine(), known_error.version())
    known_error.keep(tmp_path, ours)
    write_begun(tmp_path / "b", settings, whole, tmp_path)
    assert msgspec.convert(store.read_run(tmp_path / "b").environment["selftest"], SelfTest) == ours


def test_each_machine_has_one_result(tmp_path):
    other = result_of({**known_error.machine(), "cpu_model": "another"})
    ours = result_of(known_error.machine(), known_error.version())
    for each in (other, replace(ours, largest=None), ours):
        path = known_error.keep(tmp_path, each)
    assert len(json.loads(path.read_text())) == 2
    assert known_error.find(tmp_path) == ours
    assert [each.name for each in tmp_path.iterdir()] == ["selftest.json"]


def of_steps(*steps: SelfTestStep, **changes) -> SelfTest:
    whole = result_of(known_error.machine(), known_error.version(), known_error.largest(steps))
    return replace(whole, steps=steps, **changes)


def test_a_few_loads_leave_the_others_that_were_measured_before(tmp_path):
    known_error.keep(tmp_path, of_steps(at(1, 100), at(64, 100), at(256, 100, **BAD), stopped="too much"))
    newer = of_steps(at(64, 100, requests=10), at(256, 100, requests=11))
    known_error.keep(tmp_path, replace(newer, created_at="2026-01-02T00:00:00+00:00"))
    found = known_error.find(tmp_path)
    assert [(step.streams, step.requests) for step in found.steps] == [(1, 9), (64, 10), (256, 11)]
    assert (found.largest, found.created_at[:10], found.stopped) == ((256, 100), "2026-01-02", None)


def test_what_is_found_worse_at_a_small_load_counts_for_the_larger_ones_of_before(tmp_path):
    known_error.keep(tmp_path, of_steps(at(1, 100), at(64, 100), stopped="no larger one"))
    known_error.keep(tmp_path, of_steps(at(1, 100, **BAD), stamp_source="read"))
    found = known_error.find(tmp_path)
    assert [step.streams for step in found.steps] == [1, 64]
    assert (found.largest, found.stamp_source, found.stopped) == (None, "read", "no larger one")


def test_a_busy_machines_result_replaces_none_of_a_quiet_one_and_is_replaced_by_it(tmp_path):
    quiet, busy = (of_steps(at(64, 100), foreign_share=share) for share in (0.05, 0.6))
    other = of_steps(at(1, 100), foreign_share=0.05)
    assert known_error.keep(tmp_path, busy) is not None, "better than none"
    assert known_error.find(tmp_path).is_of_busy_machine
    known_error.keep(tmp_path, other)
    assert known_error.find(tmp_path) == other, "nothing of the busy one is left in it"
    assert known_error.keep(tmp_path, busy) is None
    assert known_error.find(tmp_path) == other
    known_error.keep(tmp_path, quiet)
    assert [step.streams for step in known_error.find(tmp_path).steps] == [1, 64]


def test_loads_of_another_version_are_not_mixed_in(tmp_path):
    known_error.keep(tmp_path, replace(of_steps(at(1, 100), at(64, 100)), bench_version="0.0.0"))
    ours = of_steps(at(2, 100))
    path = known_error.keep(tmp_path, ours)
    assert known_error.find(tmp_path) == ours
    assert len(json.loads(path.read_text())) == 1


def test_the_native_servers_result_stays_beside_the_python_ones_and_is_preferred(tmp_path):
    native = of_steps(at(64, 100))
    for program in ("python", "native", "python"):
        path = known_error.keep(tmp_path, replace(native, program=program))
    assert len(json.loads(path.read_text())) == 2
    assert known_error.find(tmp_path) == native


def test_a_result_of_which_nothing_could_be_judged_is_not_kept(tmp_path):
    nothing = of_steps(at(1, 100, ttft_error_s=None))
    assert known_error.keep(tmp_path, nothing) is None
    assert not (tmp_path / "selftest.json").exists()
    ours = of_steps(at(1, 100))
    known_error.keep(tmp_path, ours)
    assert known_error.keep(tmp_path, nothing) is None
    assert known_error.find(tmp_path) == ours


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"steps": 1}]'])
def test_a_file_that_cannot_be_read_is_no_result_and_is_replaced(tmp_path, content):
    (tmp_path / "selftest.json").write_text(content)
    assert known_error.find(tmp_path) is None
    ours = result_of(known_error.machine(), known_error.version())
    known_error.keep(tmp_path, ours)
    assert known_error.find(tmp_path) == ours


# --- the command ----------------------------------------------------------------------------------


def self_tested(place: Place, *words: str) -> subprocess.CompletedProcess[str]:
    (place.path / "tmp").mkdir()
    return bench(place, "selftest", "--loads", "2x50,4x50", *words, TMPDIR=str(place.path / "tmp"))


def story_of_all(place: Place):
    done = self_tested(place)
    return place, done, bench(place, "run", *quick("load.duration=0.3s"), "--output", "run")


def story_of_an_interrupt(place: Place):
    (place.path / "tmp").mkdir()
    with begun(place, "selftest", "--loads", "2x1", TMPDIR=str(place.path / "tmp")) as process:
        # The server, then the load process: two records.
        wait_until(lambda: len(list((place.cache / "running").glob("*.json"))) == 2, 40)
        process.send_signal(signal.SIGINT)
        return place, ended(process)


STORIES = {
    "all": story_of_all,
    "json": lambda place: self_tested(place, "--json", "--quiet"),
    "interrupt": story_of_an_interrupt,
}


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    with side_by_side(tmp_path_factory.mktemp("selftest"), STORIES) as begun_now:
        return {name: story.result() for name, story in begun_now.items()}


def test_the_command_prints_a_table_and_its_verdict(told):
    place, done, _ = told["all"]
    assert done.returncode == 0, done.stderr
    assert "TTFT error" in done.stdout
    assert "p50, p99" in done.stdout
    assert "reference server)" in done.stdout.splitlines()[-1]
    assert "2 loads against the python reference server" in done.stderr
    assert "2 streams x 50 chunks/s: TTFT error p50" in done.stderr
    assert "bench install reference" in done.stderr
    assert list((place.path / "tmp").iterdir()) == []


def test_a_later_run_on_this_machine_has_a_copy(told):
    place, _, ran = told["all"]
    assert ran.returncode == 0, ran.stderr
    kept = json.loads((place.cache / "selftest.json").read_text())
    assert place.run()["environment"]["selftest"] == kept[0]


def test_json_is_the_whole_result(told):
    done = told["json"]
    assert done.returncode == 0
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert [(step["streams"], step["chunks_per_s"]) for step in result["steps"]] == [(2, 50), (4, 50)]
    assert set(result) >= {"largest", "program", "machine", "bench_version", "stamp_source", "created_at"}


def test_an_interrupt_leaves_nothing_behind(told):
    place, done = told["interrupt"]
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    place.wait_until_empty()
    assert list((place.path / "tmp").iterdir()) == []
    assert not (place.cache / "selftest.json").exists()


def test_more_streams_than_open_files_are_refused_in_one_line(tmp_path):
    place = made(tmp_path / "few")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))

    done = subprocess.run(
        [BENCH, "selftest", "--loads", "2000x1"], cwd=place.path, env=place.environment(), preexec_fn=limit,
        capture_output=True, text=True, timeout=patient(LIMIT_S),
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1]
        == "2000 streams x 1 chunks/s needs 2064 open files, the limit here is 300"
    )
