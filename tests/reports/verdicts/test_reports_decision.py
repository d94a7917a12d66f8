"""Which deployment to take: who keeps the SLO, the best of those, and who is not told apart from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from make_run import (
    GIB,
    MS,
    S,
    begin_run,
    deployment,
    host_samples,
    row,
    start_record,
    summary,
    write_cell,
    write_start,
)

from serving_bench.harness.contracts import Load, Objective, RequestRow, SearchTerms, because
from serving_bench.reports import open_run
from serving_bench.reports.data.run import Run
from serving_bench.reports.page.by_load import load_charts
from serving_bench.reports.verdicts.decisions import decisions_of
from serving_bench.reports.verdicts.searches import SloRow, slo_rows
from serving_bench.reports.words.answer import answers_of
from serving_bench.reports.words.verdict_words import slo_words

SLO = (Objective("ttft_s", 0.95, 0.3), Objective("success", 0.98))
ONE, FOUR = Load(concurrency=1), Load(concurrency=4)


@dataclass(frozen=True)
class Does:
    """A deployment: requests of ten tokens in the window of each start, those of all that have a first token
    after 400 ms, and its peak memory. `at`: what differs at a load."""

    counts: Sequence[int] = (100, 100, 100)
    late: int = 0
    peak_gib: float = 1.0
    at: Mapping[Load, Mapping[str, Any]] | None = None

    def under(self, load: Load) -> "Does":
        return replace(self, **(self.at or {}).get(load, {}))


def rows_of(does: Does, repeat: int, begin_ns: int) -> list[RequestRow]:
    count = does.counts[repeat]
    rows = []
    for k in range(count):
        sent_ns = begin_ns + k * 7 * S // count
        first_ns = sent_ns + (400 if k < does.late else 100) * MS
        rows.append(row(k, sent_ns, chunk_ns=tuple(first_ns + j * 90 * MS for j in range(2))))
    return [replace(each, end_ns=(each.last_content_ns or 0) + MS) for each in rows]


def run_of(
    path: Path,
    does: Mapping[str, Does],
    loads: Sequence[Load] = (FOUR,),
    start_changes: Mapping[str, Mapping[str, Any]] | None = None,
    **changes: Any,
) -> Run:
    """Deployments by their label (`vllm awq`)."""
    deployments = [deployment(*label.split()) for label in does]
    repeats = len(next(iter(does.values())).counts)
    plan = begin_run(path, deployments, loads, repeats, **{"slo": SLO, **changes})
    for start in plan.starts:
        spawned_ns = (1000 + 100 * start.index) * S
        own = does[start.deployment.label]
        record = start_record(start, spawned_ns, **(start_changes or {}).get(start.deployment.label, {}))
        peak = int((own.peak_gib + 0.001 * start.repeat) * GIB)
        write_start(path, record, host_samples(spawned_ns, peak, 36))
        for place, cell in enumerate(start.cells):
            made = summary(spawned_ns + (5 + 20 * place) * S)
            rows = rows_of(own.under(cell.load), start.repeat, made.window_start_ns)
            write_cell(path, cell, start, rows, made)
    return open_run(path)


def answer(run: Run) -> str:
    """Return what the page says first."""
    return " ".join(each.plain for each in answers_of(run))


def only(run: Run) -> SloRow:
    [found] = slo_rows(run)
    return found


FAST = Does((133, 135, 132))
MIDDLE = Does((100, 101, 100))
SLOW = Does((66, 67, 66), peak_gib=0.5)
# Half of its requests are late.
BROKEN = Does((200, 200, 200), late=100, peak_gib=0.1)
# 94.0 % of 502 are in time, and the interval has 95 % in it.
UNCLEAR = Does((167, 167, 168), late=10)


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three that keep the SLO at both loads, far from each other, and one that is faster and does not."""
    slow = replace(SLOW, counts=(84, 85, 84))
    does = {"vllm fp16": MIDDLE, "vllm awq": FAST, "sglang awq": slow, "tgi fp16": BROKEN}
    return run_of(tmp_path_factory.mktemp("clear"), does, (FOUR, ONE))


def test_best_of_those_that_keep_the_slo_is_named_with_its_ratio(clear: Run) -> None:
    _, found = slo_rows(clear)
    assert found.labels("kept") == ["vllm fp16", "vllm awq", "sglang awq"]
    assert found.labels("broken") == ["tgi fp16"]
    [made] = decisions_of(clear)
    assert (made.kind, made.served, made.best.next) == ("named", "vllm awq", "vllm fp16")
    assert made.left_out == {"tgi fp16": because("misses_slo")}
    assert made.leaders["memory_peak_bytes"] == "sglang awq"


def test_the_loads_of_a_question_are_a_family(tmp_path: Path) -> None:
    """199 good requests of 199 prove 98 % at one load, and not at either of two: 188 and 246 would."""
    [alone] = slo_rows(run_of(tmp_path / "one", {"vllm awq": SLOW, "tgi fp16": SLOW}, (FOUR,)))
    assert alone.labels("kept") == ["vllm awq", "tgi fp16"]
    both = slo_rows(run_of(tmp_path / "two", {"vllm awq": SLOW, "tgi fp16": SLOW}, (FOUR, ONE)))
    assert [row.labels("unclear") for row in both] == [["vllm awq", "tgi fp16"]] * 2


def test_a_start_alone_has_no_bar_in_the_curve_of_a_search(tmp_path: Path) -> None:
    run = searched(tmp_path, {"vllm awq": up_to(4, replace(FAST, counts=(133,)))})
    [chart] = load_charts(run, "goodput_per_s")
    [trace] = chart.traces
    assert trace["error_y"]["array"] == trace["error_y"]["arrayminus"] == ["none"] * len(trace["x"])


def test_who_breaks_the_slo_or_is_unclear_is_not_served(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"sglang awq": UNCLEAR, "tgi fp16": BROKEN})
    assert only(run).labels("unclear") == ["sglang awq"]
    assert decisions_of(run)[0].served is None
    assert answer(run) == (
        "No winner. No deployment is known to keep the SLO (p95 TTFT 300 ms, 98 % success) at any load."
    )


def searched(path: Path, does: Mapping[str, Does], users: Sequence[int] = (2, 4, 8), **changes: Any) -> Run:
    loads = [Load(concurrency=count) for count in users]
    return run_of(path, does, loads, search=SearchTerms(lowest=2, highest=64), **changes)


def up_to(users: int, does: Does) -> Does:
    """Half of its requests are late at any more users."""
    most = {"late": does.counts[0] // 2}
    late = {Load(concurrency=count): most for count in (1, 2, 3, 4, 8, 16, 17) if count > users}
    return replace(does, at=late)


def test_a_search_with_several_at_the_highest_load_goes_by_tokens_there(tmp_path: Path) -> None:
    run = searched(tmp_path, {"vllm awq": up_to(4, FAST), "vllm fp16": up_to(4, MIDDLE)})
    said = (
        "Serve vllm awq. It has 1.33x the output tokens/s of vllm fp16 at 4 users within the SLO (at least "
    )
    assert answer(run).startswith(said)


def test_stand_in_kernels_do_not_set_the_load_of_a_search(tmp_path: Path) -> None:
    changes = {"sglang awq": {"resolved": {"kernel_stand_in": True}}}
    does = {"sglang awq": up_to(8, FAST), "vllm fp16": up_to(2, MIDDLE)}
    said = answer(searched(tmp_path, does, start_changes=changes))
    assert said.startswith("vllm fp16. It keeps the SLO")
    assert said.endswith("Not compared: sglang awq.")


def test_more_is_known_than_that_one_keeps_it_only_where_all_others_break_it(tmp_path: Path) -> None:
    """At 4 users 94.0 % of the other's requests are in time, of which nothing is known."""
    unclear = replace(UNCLEAR, at={Load(concurrency=2): {"late": 0}, Load(concurrency=8): {"late": 80}})
    said = answer(searched(tmp_path, {"vllm awq": up_to(4, FAST), "tgi fp16": unclear}))
    assert said.startswith(
        "vllm awq. It keeps the SLO up to 4 users on each of 3 starts, next best tgi fp16 "
    )
    assert said.endswith("Not clear at that load: tgi fp16.")


@pytest.mark.parametrize("starts", [1, 2])
def test_one_or_two_starts_say_what_a_search_measured_and_what_would_make_it_known(tmp_path, starts: int):
    does = {"vllm awq": up_to(4, Does((400,) * starts)), "vllm fp16": up_to(2, Does((400,) * starts))}
    run = searched(tmp_path, does, settings={"slo.ttft_s.p95": ["300ms"], "repeats": [str(starts)]})
    said = answer(run)
    each = "on one start" if starts == 1 else "on each of 2 starts"
    assert said.startswith(
        "No winner. Kept as measured, but not known to be kept (p95 TTFT 300 ms, 98 % success): vllm awq "
        f"4 users {each} (an interval needs 3 starts or more), vllm fp16 2 users {each} (an interval needs 3 "
        "starts or more)."
    )
    assert said.endswith("would narrow it down: bench search slo.ttft_s.p95=300ms repeats=5")
    assert "Serve" not in said


def test_slo_in_words() -> None:
    slo = (Objective("tpot_s", 0.999, 0.02), Objective("success", 0.995), Objective("e2e_s", 0.5, 2.0))
    assert slo_words(slo) == "p99.9 TPOT 20 ms, 99.5 % success, p50 E2E 2000 ms"
