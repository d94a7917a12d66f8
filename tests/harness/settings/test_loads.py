"""Which defaults hold for which kind of load, and what makes no sense together."""

from pathlib import Path

import pytest

from serving_bench.harness.contracts import Load
from serving_bench.harness.errors import UserError
from serving_bench.harness.settings import config, overrides

TRACE = '{"timestamp": 0, "input_length": 5, "output_length": 2}\n'


def loads(*lines: str) -> tuple[Load, ...]:
    return config.settings(overrides.parse(list(lines))).loads


@pytest.fixture
def replay(tmp_path: Path) -> list[str]:
    path = tmp_path / "trace.jsonl"
    path.write_text(TRACE + TRACE.replace("0", "9000", 1))
    return ["scenario=trace", f"scenario.path={path}"]


def test_a_rate_makes_an_open_loop_without_the_users_of_the_default() -> None:
    (load,) = loads("load.rate=2.5/s")
    assert (load.kind, load.concurrency, load.rate_per_s, load.arrival) == ("open", None, 2.5, "poisson")
    assert (load.warmup_s, load.duration_s) == (1.5, 8)


def test_rates_are_swept_and_read_with_their_units() -> None:
    found = loads("load.rate=1,120/min,3/s", "load.arrival=constant,poisson")
    assert [(load.rate_per_s, load.arrival) for load in found] == [
        (rate, arrival) for rate in (1, 2, 3) for arrival in ("constant", "poisson")
    ]


def test_equal_loads_count_once() -> None:
    swept = loads("load.rate=2", "load.arrival=poisson,gamma", "load.burstiness=0.5,2")
    assert [load.label for load in swept] == ["2/s poisson", "2/s gamma 0.5", "2/s gamma 2"]


def test_a_number_of_conversations_alone_is_the_only_bound() -> None:
    assert loads("load.conversations=50")[0].duration_s is None
    both = loads("load.conversations=50", "load.duration=5s")[0]
    assert (both.conversations, both.duration_s) == (50, 5)


def test_a_trace_is_replayed_whole_unless_a_load_is_given(replay: list[str]) -> None:
    (load,) = loads(*replay)
    assert (load.kind, load.concurrency, load.duration_s, load.warmup_s) == ("trace", None, None, 0)
    (given,) = loads(*replay, "load.duration=5s", "load.warmup=1s", "load.speedup=10")
    assert (given.duration_s, given.warmup_s, given.speedup) == (5, 1, 10)
    assert [load.kind for load in loads(*replay, "load.concurrency=1,2")] == ["closed", "closed"]
    assert loads(*replay, "load.rate=3")[0].kind == "open"
    assert loads(*replay, "load.arrival=trace")[0].kind == "trace"


def test_ramps_failures_and_workers_are_read() -> None:
    (load,) = loads(
        "load.concurrency=8", "load.ramp_up=4s", "load.ramp_down=500ms", "load.ramp=steps",
        "load.ramp_steps=2", "load.max_failed=10%", "load.workers=2",
    )  # fmt: skip
    assert (load.ramp_up_s, load.ramp_down_s, load.ramp, load.ramp_steps) == (4, 0.5, "steps", 2)
    assert (load.max_failed_share, load.workers) == (0.1, 2)


def test_a_tokenizer_is_a_file_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert loads("load.tokenizer=tokenizer.json")[0].tokenizer == str(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["load.concurrency=null"], "load.concurrency=null: give a number of users"),
        (["load.arrival=poisson"], "load.arrival=poisson: belongs to an open loop; give load.rate=N"),
        (["load.rate=2", "load.burstiness=2"], "load.burstiness=2: belongs to load.arrival=gamma"),
        (["load.rate=2", "load.speedup=2"], "load.speedup=2: belongs to a trace"),
        (["scenario=burst", "load.rate=2"], "scenario=burst: begins its requests itself, else"),
        (["scenario=burst", "load.concurrency=2"], "scenario=burst: begins its requests itself, else"),
        (["load.rate=2", "load.arrival=trace"], "load.arrival=trace, load.rate=2: a trace sets itself"),
        (["load.concurrency=2", "load.arrival=trace"], "load.arrival=trace, load.concurrency=2: a trace"),
        (["load.concurrency=4", "load.rate=2"], "load.concurrency=4, load.rate=2: closed and open loop"),
        (["load.arrival=trace"], "load.arrival=trace: scenario chat_multi_turn has no arrival times"),
        (["load.ramp_up=2s", "load.ramp_steps=3"], "load.ramp_steps=3: belongs to load.ramp=steps"),
        (["load.ramp=steps"], "load.ramp=steps: there is no ramp; give load.ramp_up=10s"),
        (["load.ramp_up=2s", "load.ramp=steep"], "load.ramp=steep: choose from linear, steps"),
        (["load.ramp_down=2s", "load.conversations=9"], "load.ramp_down=2s: needs to know when the window"),
        (["load.duration=null"], "load.duration=null: nothing would end it"),
        (["load.arrival=batch"], "load.arrival=batch: give load.conversations=N"),
        (["load.arrival=batch", "load.conversations=8", "load.concurrency=2"],
         "load.arrival=batch, load.concurrency=2: a batch sets itself"),
        (["load.arrival=batch", "load.conversations=8", "load.warmup=1s"],
         "load.warmup=1s: a batch begins at once"),
        (["load.arrival=batch", "load.conversations=8", "load.workers=2"],
         "load.workers=2: a batch is played by one load process"),
        (["load.concurrency=2", "load.workers=3"], "load.workers=3: more load processes than load.concu"),
        (["load.rate=2", "load.conversations=2", "load.workers=3"], "load.workers=3: more load processes"),
        (["load.tokenizer=/nowhere.json"], "load.tokenizer=/nowhere.json: there is no such file"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_one_line(lines: list[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        loads(*lines)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_ramp_of_a_trace_is_refused(replay: list[str]) -> None:
    with pytest.raises(UserError, match=r"load\.ramp_up=2s: a trace sets its own pace"):
        loads(*replay, "load.ramp_up=2s")


def test_a_trace_beside_another_scenario_needs_a_load(replay: list[str]) -> None:
    both = ["scenario=trace,chat_multi_turn", *replay[1:]]
    with pytest.raises(UserError, match="only trace sets when conversations begin"):
        loads(*both)
    assert loads(*both, "load.rate=2")[0].kind == "open"
