"""What `bench plan` says of each cell's load."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from harness import config, overrides, plan
from harness.listing import print_plan, rows_of


def printed(*lines: str) -> str:
    settings = config.settings(overrides.parse(["engine=reference", "repeats=1", *lines]))
    out = io.StringIO()
    print_plan(Console(file=out, width=200), plan.make(settings, lambda weights: None))
    return out.getvalue()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["load.concurrency=1"], ["1 user ", "2 s + 8 s"]),
        (["load.rate=120/min", "load.arrival=constant"], ["2/s constant", "2 s + 8 s"]),
        (["load.rate=2", "load.arrival=gamma", "load.burstiness=0.5"], ["2/s gamma 0.5"]),
        (["load.ramp_up=3s", "load.ramp_down=4s"], ["3 s + 2 s + 8 s + 4 s"]),
        (["load.conversations=9"], ["2 s + 9 conversations"]),
        (["load.conversations=9", "load.duration=5s"], ["2 s + 5 s or 9 conversations"]),
    ],
)
def test_a_plan_says_how_load_arrives_and_what_ends_it(lines: list[str], said: list[str]) -> None:
    text = printed(*lines)
    assert all(part in text for part in said), text


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (["load.concurrency=1,4"], 4),
        (["load.rate=9"], 8),
        (["load.rate=9", "engine.concurrent_sequences=3"], 3),
    ],
)
def test_a_plan_says_how_many_requests_are_served_at_once(lines: list[str], count: int) -> None:
    said = f"requests that a server serves at once: {count} (engine.concurrent_sequences)"
    assert said in printed(*lines)


def test_the_keys_say_what_decides_over_the_requests_served_at_once() -> None:
    (default,) = [row["default"] for row in rows_of("keys") if row["key"] == "engine.concurrent_sequences"]
    assert default == "largest load.concurrency; without one 8"


def test_a_trace_is_played_whole(tmp_path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,input_length,output_length\n0,5,2\n4000,5,2\n")
    text = printed("scenario=trace", f"scenario.path={path}", "load.speedup=2")
    assert "trace x2" in text
    assert "0 s + the whole trace" in text
    assert "about 10 s" in text  # the start, 2 s of trace, and what a cell takes


def test_the_keys_say_what_they_take() -> None:
    takes = {row["key"]: row["takes"] for row in rows_of("keys")}
    assert takes["load.ramp"] == "linear or steps"
    assert takes["load.rate"] == "a rate, such as 2/s or 90/min"
    assert takes["load.warmup"] == "a duration, such as 500ms or 20s"
    assert takes["load.conversations"] == "a whole number"
    assert takes["load.keep_bytes"] == "true or false"
