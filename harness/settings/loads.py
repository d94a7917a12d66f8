"""Read the keys of loads: how requests arrive, and which keys go together."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from serving_bench.harness.contracts import Load, ScenarioChoice
from serving_bench.harness.errors import Problem, UserError, refuse_first
from serving_bench.harness.settings.decoding import Choices, points, shown

# Arrivals that set themselves when conversations begin.
_BY_ITSELF = ("trace", "batch")
_NOT_OF_A_BATCH = ("load.warmup", "load.duration", "load.grace", "load.min_requests", "load.steps")


def loads(choices: Choices, given: Choices, scenarios: Sequence[ScenarioChoice]) -> tuple[Load, ...]:
    """Return all loads of a run; `choices` are the given ones over the defaults. Raises UserError."""
    chosen = dict(choices)
    if _is_replay(given, scenarios):
        chosen["load.arrival"] = ("trace",)
    itself = next((each for each in _BY_ITSELF if each in chosen.get("load.arrival", ())), "")
    both = [key for key in ("load.concurrency", "load.rate") if _is_given(given, key)]
    both_words = ", ".join(f"{key}={shown(given[key][0])}" for key in both)
    refuse_first(
        (len(both) == 2, f"{both_words}: closed and open loop exclude each other; give one of them"),
        (
            both and itself,
            f"load.arrival={itself}, {both_words}: a {itself} sets itself when conversations begin; give one "
            "of them",
        ),
    )
    if "load.rate" in both or itself:
        chosen["load.concurrency"] = (None,)
    # load.conversations, if given alone, is the only bound. A trace and a batch are played whole, without a
    # warm-up.
    loads_found = []
    for point in points("load", Load, chosen):
        load: Load = point.value
        if "load.duration" not in given and (load.conversations or load.kind in _BY_ITSELF):
            load = replace(load, duration_s=None)
        if "load.warmup" not in given and load.kind in _BY_ITSELF:
            load = replace(load, warmup_s=0.0)
        # A key that this kind of arrivals or ramp does not use must not turn one load into two.
        load = replace(
            load,
            burstiness=load.burstiness if load.arrival == "gamma" else 1.0,
            ramp_steps=load.ramp_steps if load.ramp == "steps" else Load.ramp_steps,
        )
        _check(load, given, scenarios)
        loads_found.append(load)
    return tuple(dict.fromkeys(loads_found))


def _is_given(given: Choices, key: str) -> bool:
    return any(value is not None for value in given.get(key, ()))


def _is_replay(given: Choices, scenarios: Sequence[ScenarioChoice]) -> bool:
    if any(_is_given(given, key) for key in ("load.concurrency", "load.rate", "load.arrival")):
        return False
    timed = [scenario.name for scenario in scenarios if scenario.span_s is not None]
    if timed and len(timed) < len(scenarios):
        raise UserError(
            f"scenario={','.join(s.name for s in scenarios)}: only {timed[0]} sets when conversations begin; "
            "give load.concurrency=N or load.rate=N for all, or measure it in a run of its own"
        )
    return bool(timed)


def _check(load: Load, given: Choices, scenarios: Sequence[ScenarioChoice]) -> None:
    untimed = next((scenario.name for scenario in scenarios if scenario.span_s is None), None)
    ramps = {"load.ramp_up": load.ramp_up_s, "load.ramp_down": load.ramp_down_s}
    ramp = next((f"{key}={seconds:g}s" for key, seconds in ramps.items() if seconds), "")
    refuse_first(
        *_wrong_arrivals(load, given, scenarios, untimed),
        *_wrong_by_itself(load, given, ramp),
        *_wrong_ramps(load, given, ramp),
        *_wrong_bounds(load, untimed),
    )


def _wrong_arrivals(
    load: Load, given: Choices, scenarios: Sequence[ScenarioChoice], untimed: str | None
) -> list[Problem]:
    is_closed, is_trace = load.kind == "closed", load.kind == "trace"
    return [
        (
            is_closed and load.concurrency is None,
            "load.concurrency=null: give a number of users, or load.rate=N",
        ),
        (
            is_closed and "load.arrival" in given,
            f"load.arrival={load.arrival}: belongs to an open loop; give load.rate=N",
        ),
        (
            "load.burstiness" in given and "gamma" not in given.get("load.arrival", ()),
            f"load.burstiness={_first(given, 'load.burstiness')}: belongs to load.arrival=gamma; give that "
            "too",
        ),
        (
            not is_trace and "load.speedup" in given,
            f"load.speedup={load.speedup:g}: belongs to a trace; give scenario=trace scenario.path=FILE, "
            "and neither load.concurrency nor load.rate",
        ),
        (
            load.kind in ("closed", "open") and any(each.name == "burst" for each in scenarios),
            "scenario=burst: begins its requests itself, else there is no burst; leave out "
            "load.concurrency, load.rate and load.arrival, and give scenario.rate=N scenario.burst=N",
        ),
        (
            is_trace and untimed,
            f"load.arrival=trace: scenario {untimed} has no arrival times; give scenario=trace",
        ),
    ]


def _wrong_by_itself(load: Load, given: Choices, ramp: str) -> list[Problem]:
    is_batch, unheeded = load.kind == "batch", next((key for key in _NOT_OF_A_BATCH if key in given), "")
    return [
        (
            load.kind in _BY_ITSELF and ramp,
            f"{ramp}: a {load.kind} sets its own pace; leave it out, or give load.rate=N",
        ),
        (
            is_batch and load.conversations is None,
            "load.arrival=batch: give load.conversations=N, which begin at once",
        ),
        (
            is_batch and unheeded,
            f"{unheeded}={_first(given, unheeded)}: a batch begins at once and ends with its last answer; "
            "leave it out",
        ),
        (
            is_batch and load.workers > 1,
            f"load.workers={load.workers}: a batch is played by one load process; leave it out",
        ),
    ]


def _wrong_ramps(load: Load, given: Choices, ramp: str) -> list[Problem]:
    return [
        (
            load.ramp_down_s > 0 and load.duration_s is None,
            f"load.ramp_down={load.ramp_down_s:g}s: needs to know when the window ends; give load.duration",
        ),
        (
            "load.ramp_steps" in given and "steps" not in given.get("load.ramp", ()),
            f"load.ramp_steps={_first(given, 'load.ramp_steps')}: belongs to load.ramp=steps; give that too",
        ),
        (
            "load.ramp" in given and not ramp,
            f"load.ramp={load.ramp}: there is no ramp; give load.ramp_up=10s",
        ),
    ]


def _wrong_bounds(load: Load, untimed: str | None) -> list[Problem]:
    counts = {"concurrency": load.concurrency, "conversations": load.conversations}
    bounds = ((count, key) for key, count in counts.items() if count is not None)
    fewest, smallest_key = min(bounds, default=(load.workers, ""))
    return [
        (
            load.duration_s is None and load.conversations is None and untimed,
            "load.duration=null: nothing would end it; give load.duration=20s or load.conversations=100",
        ),
        (
            fewest < load.workers,
            f"load.workers={load.workers}: more load processes than load.{smallest_key}={fewest} gives work "
            "to",
        ),
        (
            load.tokenizer is not None and not Path(load.tokenizer).is_file(),
            f"load.tokenizer={load.tokenizer}: there is no such file; give a tokenizer.json",
        ),
    ]


def _first(given: Choices, key: str) -> str:
    """Return the first value of a key as a message shows it; an empty text if it was not given."""
    return shown(given[key][0]) if key in given else ""
