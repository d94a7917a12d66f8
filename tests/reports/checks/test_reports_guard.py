"""What the page makes of what the guard saw."""

from dataclasses import replace

from make_run import S, deployment, one_cell_run, row
from page_data import plain
from repeated_run import Made, repeated_run

from serving_bench.harness.contracts import GuardFinding, Load, because, quoted
from serving_bench.reports import open_run
from serving_bench.reports.checks.examine import findings_of
from serving_bench.reports.page.sections import trust
from serving_bench.reports.words import grounds

ROWS = [row(k, (102 + k) * S) for k in range(6)]
BUSY = GuardFinding("foreign_load", because("foreign_load", percent=40.0), "during", "suspect")
HOT = GuardFinding(
    "throttled", because("throttled", device=0, causes="power cap", percent=50.0), "during", "suspect"
)

MARKED = {"validity": "suspect", "guard_mode": "mark"}


def checks_of(run):
    return {finding.check: finding for finding in findings_of(run)}


def test_a_disturbed_start_names_itself_by_the_guards_own_measure(tmp_path):
    made = one_cell_run(tmp_path, ROWS, **MARKED, reasons=(BUSY.reason, HOT.reason), guard=(BUSY, HOT))
    found = checks_of(open_run(made.path))
    assert found["machine_unfit"].text == (
        "llama_cpp fp16 at 1 user (start 1): other programs used 40 % of the processor (during), device 0 "
        "was throttled (power cap) in 50 % of the samples (during)."
    )
    assert not found["machine_unfit"].marks
    assert "cells_not_valid" not in found


def test_what_was_seen_before_and_in_the_window_is_told_once_and_programs_of_one_cell(tmp_path):
    programs = "cc1 (process 7, 35 %)"
    named = replace(BUSY, fact=because("foreign_load_by", percent=40.0, programs=programs))
    guard = (replace(named, when="before"), named)

    def changes(cell, start):
        return {**MARKED, "guard": guard}

    made = [Made(deployment("llama_cpp", each)) for each in ("fp16", "gguf-q8_0")]
    path = repeated_run(tmp_path, made, (Load(concurrency=1),), 1, cell_changes=changes)
    assert checks_of(open_run(path))["machine_unfit"].text == (
        "llama_cpp fp16 at 1 user (start 1): other programs used 40 % of the processor, most by cc1 (process "
        "7, 35 %) (during); llama_cpp gguf-q8_0 at 1 user (start 1): other programs used 40 % of the "
        "processor (during)."
    )


def test_a_cell_with_reasons_of_its_own_is_listed_as_such_too(tmp_path):
    reasons = (because("requests_failed", failed=1, sent=6), BUSY.reason)
    made = one_cell_run(tmp_path, ROWS, **MARKED, reasons=reasons, guard=(BUSY,))
    found = checks_of(open_run(made.path))
    assert {"cells_not_valid", "machine_unfit"} <= found.keys()
    said = "llama_cpp fp16 at 1 user (start 1): suspect, 1 of 6 requests in the window failed."
    assert found["cells_not_valid"].text == said


def test_what_was_seen_is_told_by_cell_and_nothing_found_differs_from_nobody_looked(tmp_path):
    run = open_run(one_cell_run(tmp_path / "seen", ROWS, **MARKED, guard=(BUSY, HOT)).path)
    [seen] = map(grounds.guard_saw, run.planned_cells)
    assert seen.startswith("other programs used 40 % of the processor (during); device 0 was throttled")
    assert grounds.cells_claim(run) == "1 of 1 failed or in doubt"
    assert grounds.guard_notes(run) == ["Checked with guard=mark."]
    looked = open_run(one_cell_run(tmp_path / "looked", ROWS, guard_mode="strict").path)
    assert grounds.cells_claim(looked) == "none of 1 failed or in doubt"
    off = open_run(one_cell_run(tmp_path / "off", ROWS).path)
    assert grounds.guard_notes(off) == ["Nothing checked that the machine was fit."]


def test_the_section_lists_what_was_seen(tmp_path):
    run = open_run(one_cell_run(tmp_path, ROWS, **MARKED, guard=(BUSY, HOT)).path)
    shown = plain(trust.foundations(run).body)
    texts = (grounds.guard_saw(run.planned_cells[0]), grounds.cells_claim(run), *grounds.guard_notes(run))
    assert [text for text in texts if text not in shown] == []


def test_a_start_that_was_refused_has_its_findings(tmp_path):
    found = (
        GuardFinding("memory_not_back", quoted("1.00 GiB more host memory was in use"), "before", "invalid"),
    )
    made = one_cell_run(
        tmp_path, ROWS, status="failed", error=quoted("not fit"), guard=found, guard_mode="strict"
    )
    assert "machine_unfit" in checks_of(open_run(made.path))
