"""The panel as a person reads it, at several widths, in each state of a run."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from make_run import deployment, plan_of
from rich.console import Console

from harness.cli.progress.live import (
    BAR_WIDTH,
    Doing,
    SelfTesting,
    View,
    clock,
    panel,
    time_text,
)
from harness.cli.progress.outlook import Left
from harness.contracts import Load, PlannedStart
from harness.load.pulse import Glance, Progress
from harness.run.watch import Now

LOAD = Load(concurrency=32, warmup_s=5.0, duration_s=30.0)
GLANCE = Glance(10.0, 212, 1234.0, 617.0, 0.0412, 0.0983, 212)
PROGRESS = Progress(17.0, 1023, 3, 36, "window", {"http_error": 1, "timeout": 2}, GLANCE, 0.0012)
NOW = Now(running=32.0, waiting=4.0, memory_bytes=20 << 30, memory_of="on the device, its own")
WHOLE = View(0.0, done=7, total=24, left=Left(later_s=1000.0, step_s=40.0, began_s=700.0, is_least=False))


@pytest.fixture
def start() -> PlannedStart:
    [start] = plan_of([deployment("llama_cpp", "fp16")], [LOAD]).starts
    return start


def measuring(start: PlannedStart, **changes: object) -> Doing:
    plain = Doing(
        start, "start 2 of 6", 700.0, cell=start.cells[0], progress=PROGRESS, now=NOW,
        heard_s=720.0,
    )  # fmt: skip
    return replace(plain, **changes)


def shown(view: View, now_s: float = 720.0, width: int = 80, *, color: bool = True) -> list[str]:
    """The panel's lines as they stand on a terminal, without its colours."""
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=color, color_system=None, no_color=not color)
    console.print(panel(view, now_s, width))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def words(view: View, **options: object) -> dict[str, str]:
    """What each label says, without its bar."""
    found = {}
    for line in shown(view, **options):
        label, _, value = line.partition(" ")
        found[label] = value.strip().lstrip("━╌").strip()
    return found


def test_a_cell_is_shown_with_all_that_there_is(start):
    assert words(replace(WHOLE, doing=measuring(start))) == {
        "": "",
        "run": "7 of 24 cells after 12 min, about 17 min left",
        "now": "llama_cpp fp16, 32 users; start 2 of 6",
        "phase": "window, 12 of 30 s",
        "lately": "1,234 tokens/s; TTFT p50 41.2 ms, p95 98.3 ms (last 10 s, n=212)",
        "requests": "1,023 ok, 3 failed (2 timeout, 1 http_error)",
        "server": "32 running, 4 waiting; memory 20.0 GiB (on the device, its own)",
        "client": "36 in flight; its loop late by p99 1.20 ms",
    }


def test_what_is_not_known_is_a_dash_and_never_zero(start):
    nothing = Glance(8.0, 0, None, None, None, None)
    progress = Progress(17.0, 0, 0, 36, "window", {}, nothing, None)
    found = words(replace(WHOLE, doing=measuring(start, progress=progress, now=Now())))
    assert found["lately"] == "no request has ended well in the last 8 s"
    assert found["requests"] == "0 ok, 0 failed"
    assert found["server"] == "running and waiting requests not known; memory not known"
    assert found["client"] == "36 in flight; its loop late by p99 -"


def test_a_server_that_counts_no_tokens_is_shown_by_chunks(start):
    progress = replace(PROGRESS, recent=replace(GLANCE, tokens_per_s=None))
    assert words(replace(WHOLE, doing=measuring(start, progress=progress)))["lately"].startswith(
        "617 chunks/s; "
    )


def test_percentiles_of_too_few_requests_are_dashes_with_how_many_there_are(start):
    few = Glance(10.0, 1, 12.0, 6.0, None, None, 1)
    found = words(replace(WHOLE, doing=measuring(start, progress=replace(PROGRESS, recent=few))))
    assert found["lately"] == "12.0 tokens/s; TTFT p50 -, p95 - (last 10 s, n=1)"


@pytest.mark.parametrize(
    ("phase", "t_s", "said"),
    [
        ("warmup", 2.0, "warm-up, 2 of 5 s"),
        ("window", 36.0, "window, 31 of 60 s"),
        ("window", 200.0, "window, 120 of 120 s"),
        ("drain", 36.0, "drain, 36 requests to end"),
    ],
)
def test_each_phase_tells_how_far_it_is(start, phase, t_s, said):
    progress = replace(PROGRESS, phase=phase, t_s=t_s)
    assert words(replace(WHOLE, doing=measuring(start, progress=progress)))["phase"] == said


def test_a_window_without_a_length_has_no_bar():
    [start] = plan_of(
        [deployment("a", "b")], [Load(concurrency=1, warmup_s=5.0, duration_s=None, conversations=9)]
    ).starts
    assert words(replace(WHOLE, doing=measuring(start)))["phase"] == "window, 12 s"


def test_a_load_process_that_falls_silent_is_shown_as_such(start):
    said = words(replace(WHOLE, doing=measuring(start)), now_s=760.0)["phase"]
    assert said == "window, 15 of 30 s (last heard 40 s ago)"


def test_a_start_tells_its_stage_or_what_is_waited_for(start):
    doing = Doing(start, "start 1 of 6", 700.0, detail=", last step: weights loaded")
    assert words(replace(WHOLE, doing=doing))["phase"] == "starting, 20 s, last step: weights loaded"
    held = replace(doing, what="waiting", detail=", up to 30 s: 1.00 GiB more")
    assert words(replace(WHOLE, doing=held))["phase"] == "waiting, 20 s, up to 30 s: 1.00 GiB more"


def test_a_search_has_no_end_and_a_first_start_up_makes_the_time_left_a_least(start):
    assert words(View(0.0, done=3))["run"] == "3 cells after 12 min"
    assert WHOLE.left
    for least in (
        replace(WHOLE, left=replace(WHOLE.left, is_least=True)),
        replace(WHOLE, may_grow=True),
    ):
        assert words(least)["run"] == "7 of 24 cells after 12 min, at least 17 min left"


def test_the_self_test_shows_its_load():
    view = View(700.0, "load", 1, 3, doing=SelfTesting("64 streams x 100 chunks/s", PROGRESS))
    found = words(view)
    assert found["run"] == "1 of 3 loads after 20 s"
    assert (found["now"], found["phase"]) == ("64 streams x 100 chunks/s", "window")
    assert found["client"] == "36 in flight; its loop late by p99 1.20 ms"
    assert "server" not in found


@pytest.mark.parametrize("width", [20, 40, 59, 80, 200])
@pytest.mark.parametrize("color", [True, False])
def test_no_line_is_longer_than_the_terminal_is_wide(start, width, color):
    held = Doing(start, "start 2 of 6", 700.0, what="others " * 50)
    for doing in (measuring(start), held):
        lines = shown(replace(WHOLE, doing=doing), width=width, color=color)
        assert max(map(len, lines)) <= width
        assert [line[:8].strip() for line in lines][1:4] == ["run", "now", "phase"]


def test_a_bar_shows_how_much_is_done_without_colours_too(start):
    [run] = [line for line in shown(WHOLE, color=False) if line.startswith("run")]
    assert run.count("━") == round(BAR_WIDTH * 7 / 24)
    assert run.count("━") + run.count("╌") == BAR_WIDTH


def test_control_characters_and_markup_are_words(start):
    label = "\x1b[31m[bold]x\r\n\u202ey"
    hostile = replace(start, deployment=replace(start.deployment, label=label))
    doing = Doing(hostile, "start 1 of 1", 700.0, detail=", last step: [red]\x07")
    text = "\n".join(shown(replace(WHOLE, doing=doing)))
    assert " [31m[bold]x   y; start 1 of 1" in text
    assert "last step: [red]" in text
    assert not {"\x1b", "\r", "\u202e", "\x07"} & set(text)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.00421, "4.21 ms"), (0.842, "842 ms"), (12.34, "12.3 s"), (0.0004, "0.400 ms")]
)
def test_times_have_three_digits(seconds, said):
    assert time_text(seconds) == said


@pytest.mark.parametrize(("seconds", "said"), [(-1, "0 s"), (42.4, "42 s"), (720, "12 min"), (7600, "2.1 h")])
def test_long_times_are_told_roughly(seconds, said):
    assert clock(seconds) == said
