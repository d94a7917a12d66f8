"""The panel as a person reads it, at several widths, in each state of a run."""

from dataclasses import replace
from io import StringIO

import pytest
from make_run import deployment, plan_of
from rich.console import Console

from serving_bench.harness.cli.panel import BAR_WIDTH, Outlook, View, panel, time_text
from serving_bench.harness.contracts import Load
from serving_bench.harness.load.pulse import Glance, Progress

LOAD = Load(concurrency=32, warmup_s=5.0, duration_s=30.0)
GLANCE = Glance(10.0, 212, 1234.0, 617.0, 0.0412, 0.0983, 212)
PROGRESS = Progress(17.0, 1023, 3, 36, "window", {"http_error": 1, "timeout": 2}, GLANCE, 0.0012)
SERVER = "32 running, 4 waiting; memory 20.0 GiB (on the device, its own)"
[START] = plan_of([deployment("llama_cpp", "fp16")], [LOAD]).starts
# What is left is the load alone: 10 s of it are over.
OUTLOOK = Outlook([START], 700.0)
OUTLOOK.ends(START.name, 700.0)
WHOLE = View(0.0, done=7, total=24)
DOING = replace(WHOLE, start=START, since_s=700.0)
MEASURING = replace(DOING, cell=START.cells[0], progress=PROGRESS, server=SERVER)


def shown(view: View, now_s: float = 720.0, width: int = 80, *, color: bool = True) -> list[str]:
    """The panel's lines as they stand on a terminal, without its colours."""
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=color, color_system=None, no_color=not color)
    console.print(panel(view, OUTLOOK, now_s))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def words(view: View, **options: object) -> dict[str, str]:
    """What each label says, without its bar."""
    found = {}
    for line in shown(view, **options):
        label, _, value = line.partition(" ")
        found[label] = value.strip().rstrip("━╌…").strip()
    return found


def test_a_cell_is_shown_with_all_that_there_is():
    assert words(MEASURING) == {
        "": "",
        "run": "7 of 24 cells after 12 minutes, about 17 s left",
        "now": "llama_cpp fp16, 32 users; start 0",
        "phase": "window, 12 of 30 s",
        "lately": "1,234 tokens/s; TTFT p50 41.2 ms, p95 98.3 ms (last 10 s, n=212)",
        "requests": "1,023 ok, 3 failed (2 timeout, 1 http_error)",
        "server": SERVER,
        "client": "36 in flight; event loop lag p99 1.20 ms",
    }


def test_what_is_not_known_is_a_dash_and_never_zero():
    nothing = Glance(8.0, 0, None, None, None, None)
    progress = Progress(17.0, 0, 0, 36, "window", {}, nothing, None)
    found = words(replace(MEASURING, progress=progress))
    assert found["lately"] == "no request has succeeded"
    assert found["requests"] == "0 ok, 0 failed"
    assert found["client"] == "36 in flight; event loop lag p99 -"


def test_a_server_that_counts_no_tokens_is_shown_by_chunks():
    progress = replace(PROGRESS, recent=replace(GLANCE, tokens_per_s=None))
    assert words(replace(MEASURING, progress=progress))["lately"].startswith("617 chunks/s; ")


def test_percentiles_of_too_few_requests_are_not_shown_but_how_many_there_are():
    few = Glance(10.0, 1, 12.0, 6.0, None, None, 1)
    found = words(replace(MEASURING, progress=replace(PROGRESS, recent=few)))
    assert found["lately"] == "12.0 tokens/s; TTFT p50 needs 11 requests (last 10 s, n=1)"
    some = replace(GLANCE, ttft_p95_s=None, ttft_n=40)
    found = words(replace(MEASURING, progress=replace(PROGRESS, recent=some)))
    assert found["lately"] == "1,234 tokens/s; TTFT p50 41.2 ms (last 10 s, n=40)"


@pytest.mark.parametrize(
    ("phase", "t_s", "said"),
    [
        ("warmup", 2.0, "warm-up, 2 of 5 s"),
        ("window", 36.0, "window, 31 s"),
        ("drain", 36.0, "drain, 36 requests to end"),
    ],
)
def test_each_phase_tells_how_far_it_is(phase, t_s, said):
    assert words(replace(MEASURING, progress=replace(PROGRESS, phase=phase, t_s=t_s)))["phase"] == said


def test_a_window_without_a_length_tells_how_long_it_lasts():
    load = Load(concurrency=1, warmup_s=5.0, duration_s=None, conversations=9)
    assert words(replace(MEASURING, cell=replace(START.cells[0], load=load)))["phase"] == "window, 12 s"


def test_a_start_tells_its_stage_or_what_is_waited_for():
    stage = replace(DOING, detail=", last step: weights loaded")
    assert words(stage)["phase"] == "starting, 20 s, last step: weights loaded"
    held = replace(DOING, what="waiting", detail=", up to 30 s: 1.00 GiB more")
    assert words(held)["phase"] == "waiting, 20 s, up to 30 s: 1.00 GiB more"


def test_a_search_has_no_end_and_a_run_that_may_grow_tells_the_least_time():
    assert words(View(0.0, done=3))["run"] == "3 cells after 12 minutes"
    said = words(replace(WHOLE, may_grow=True))["run"]
    assert said == "7 of 24 cells after 12 minutes, at least 17 s left"


@pytest.mark.parametrize("width", [20, 40, 59, 80, 200])
@pytest.mark.parametrize("color", [True, False])
def test_no_line_is_longer_than_the_terminal_is_wide(width, color):
    for view in (MEASURING, replace(DOING, what="others " * 50)):
        lines = shown(view, width=width, color=color)
        assert max(map(len, lines)) <= width
        assert [line[:8].strip() for line in lines][1:4] == ["run", "now", "phase"]


def test_a_bar_shows_how_much_is_done_without_colours_too():
    [run] = [line for line in shown(WHOLE, width=100, color=False) if line.startswith("run")]
    assert run.count("━") == round(BAR_WIDTH * 7 / 24)
    assert run.count("━") + run.count("╌") == BAR_WIDTH


def test_control_characters_and_markup_are_words():
    label = "\x1b[31m[bold]x\r\n\u202ey"
    hostile = replace(START, deployment=replace(START.deployment, label=label))
    view = replace(DOING, start=hostile, detail=", last step: [red]\x07")
    text = "\n".join(shown(view))
    assert " [31m[bold]x   y; start 0" in text
    assert "last step: [red]" in text
    assert not {"\x1b", "\r", "\u202e", "\x07"} & set(text)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.00421, "4.21 ms"), (0.842, "842 ms"), (12.34, "12.3 s"), (0.0004, "0.400 ms")]
)
def test_times_have_three_digits(seconds, said):
    assert time_text(seconds) == said
