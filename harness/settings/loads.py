"""The loads of a run: which defaults hold for which kind, and which keys make no sense together.

Pure, but that it looks whether a tokenizer's file is there.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.contracts import Load, ScenarioChoice
from harness.errors import UserError
from harness.settings.decoding import Choices, points, shown


def loads(choices: Choices, given: Choices, scenarios: Sequence[ScenarioChoice]) -> tuple[Load, ...]:
    """Return all loads of a run; `choices` are the given ones over the defaults. Raises UserError.

    Without load.concurrency and load.rate a scenario that has arrival times is replayed by them.
    """
    chosen = dict(choices)
    if _is_replay(given, scenarios):
        chosen["load.arrival"] = ("trace",)
    is_trace = "trace" in chosen.get("load.arrival", ())
    both = [key for key in ("load.concurrency", "load.rate") if _is_given(given, key)]
    said = ", ".join(f"{key}={shown(given[key][0])}" for key in both)
    if len(both) == 2:
        raise UserError(f"{said}: closed and open loop exclude each other; give one of them")
    if both and is_trace:
        raise UserError(
            f"load.arrival=trace, {said}: a trace says itself when conversations begin; give one of them"
        )
    if "load.rate" in both or is_trace:
        chosen["load.concurrency"] = (None,)
    made = tuple(dict.fromkeys(_completed(point.value, given) for point in points("load", Load, chosen)))
    for load in made:
        _check(load, given, scenarios)
    return made


def _is_given(given: Choices, key: str) -> bool:
    return any(value is not None for value in given.get(key, ()))


def _is_replay(given: Choices, scenarios: Sequence[ScenarioChoice]) -> bool:
    if any(_is_given(given, key) for key in ("load.concurrency", "load.rate", "load.arrival")):
        return False
    timed = [scenario.name for scenario in scenarios if scenario.span_s is not None]
    if timed and len(timed) < len(scenarios):
        raise UserError(
            f"scenario={','.join(s.name for s in scenarios)}: only {timed[0]} says when conversations begin; "
            "give load.concurrency=N or load.rate=N for all, or measure it in a run of its own"
        )
    return bool(timed)


def _completed(load: Load, given: Choices) -> Load:
    """Return a load with the defaults of its kind.

    load.conversations without load.duration is the only bound; with it, whichever comes first. A trace is
    played whole, without a warm-up that would leave out its beginning, unless they are given.
    """
    is_trace, is_bounded = load.kind == "trace", "load.duration" in given
    return replace(
        load,
        duration_s=load.duration_s if is_bounded or not (load.conversations or is_trace) else None,
        warmup_s=0.0 if is_trace and "load.warmup" not in given else load.warmup_s,
        # What a swept kind of arrivals or ramp does not use must not make two loads of one.
        burstiness=load.burstiness if load.arrival == "gamma" else 1.0,
        ramp_steps=load.ramp_steps if load.ramp == "steps" else Load.ramp_steps,
    )


def _check(load: Load, given: Choices, scenarios: Sequence[ScenarioChoice]) -> None:
    """Raise UserError for the first of these that is so, in one line that says what would work."""
    first = {key: shown(values[0]) for key, values in given.items()}
    is_closed, is_trace = load.kind == "closed", load.kind == "trace"
    untimed = [scenario.name for scenario in scenarios if scenario.span_s is None]
    ramps = {"load.ramp_up": load.ramp_up_s, "load.ramp_down": load.ramp_down_s}
    ramp, ramp_s = next(((key, value) for key, value in ramps.items() if value), ("", 0.0))
    counts = {"concurrency": load.concurrency, "conversations": load.conversations}
    fewest, counted = min(
        ((count, key) for key, count in counts.items() if count is not None), default=(load.workers, "")
    )
    problems = [
        (
            is_closed and load.concurrency is None,
            "load.concurrency=null: give a number of users, or load.rate=N, conversations per second",
        ),
        (
            is_closed and "load.arrival" in given,
            f"load.arrival={load.arrival}: is of an open loop; give load.rate=N, conversations per second",
        ),
        (
            "load.burstiness" in given and "gamma" not in given.get("load.arrival", ()),
            f"load.burstiness={first.get('load.burstiness')}: is the shape of load.arrival=gamma; "
            "give that too",
        ),
        (
            not is_trace and "load.speedup" in given,
            f"load.speedup={load.speedup:g}: is of a trace; give scenario=trace scenario.path=FILE",
        ),
        (
            is_trace and bool(untimed),
            f"load.arrival=trace: scenario {''.join(untimed[:1])} has no arrival times; "
            "give scenario=trace scenario.path=FILE",
        ),
        (
            is_trace and bool(ramp),
            f"{ramp}={ramp_s:g}s: a trace has its own course; leave it out, or give load.rate=N instead",
        ),
        (
            load.ramp_down_s > 0 and load.duration_s is None,
            f"load.ramp_down={load.ramp_down_s:g}s: needs to know when the window ends; give load.duration",
        ),
        (
            "load.ramp_steps" in given and "steps" not in given.get("load.ramp", ()),
            f"load.ramp_steps={first.get('load.ramp_steps')}: is of load.ramp=steps; give that too",
        ),
        (
            "load.ramp" in given and not ramp,
            f"load.ramp={load.ramp}: there is no ramp; give load.ramp_up=10s, load.ramp_down=10s or both",
        ),
        (
            load.duration_s is None and load.conversations is None and bool(untimed),
            "load.duration=null: nothing would end it; give load.duration=20s or load.conversations=100",
        ),
        (
            fewest < load.workers,
            f"load.workers={load.workers}: more load processes than load.{counted}={fewest} gives work to",
        ),
        (
            load.tokenizer is not None and not Path(load.tokenizer).is_file(),
            f"load.tokenizer={load.tokenizer}: there is no such file; give a tokenizer.json",
        ),
    ]
    for is_wrong, problem in problems:
        if is_wrong:
            raise UserError(problem)
