"""The loads of a run: which defaults hold for which kind, and which keys make no sense together.

Pure, but that it looks whether a file is there.

Used by harness/settings/config.py alone, which decodes each key by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from harness.contracts import Load, Scalar, ScenarioChoice
from harness.errors import UserError
from harness.settings.values import Choices, shown


class Point(Protocol):
    @property
    def value(self) -> Any: ...


Decode = Callable[[dict[str, tuple[Scalar, ...]]], Sequence[Point]]


def loads(
    choices: Choices, given: Choices, scenarios: Sequence[ScenarioChoice], decode: Decode
) -> tuple[Load, ...]:
    """All loads of a run; `choices` are the given ones over the defaults. Raises UserError.

    Without load.concurrency and load.rate a scenario that has arrival times is replayed by them.
    """
    chosen = dict(choices)
    if _is_replay(given, scenarios):
        chosen["load.arrival"] = ("trace",)
    if _is_given(given, "load.rate") or "trace" in chosen.get("load.arrival", ()):
        _refuse_two_kinds(given, chosen)
        chosen["load.concurrency"] = (None,)
    made = tuple(dict.fromkeys(_completed(point.value, given) for point in decode(chosen)))
    for load in made:
        for problem in _problems(load, given, scenarios):
            raise UserError(problem)
    return made


def _is_given(given: Choices, key: str) -> bool:
    return any(value is not None for value in given.get(key, ()))


def _is_replay(given: Choices, scenarios: Sequence[ScenarioChoice]) -> bool:
    how = ("load.concurrency", "load.rate", "load.arrival")
    if any(_is_given(given, key) for key in how):
        return False
    timed = [scenario.name for scenario in scenarios if scenario.span_s is not None]
    if timed and len(timed) < len(scenarios):
        raise UserError(
            f"scenario={','.join(s.name for s in scenarios)}: only {timed[0]} says when conversations begin; "
            "give load.concurrency=N or load.rate=N for all, or measure it in a run of its own"
        )
    return bool(timed)


def _refuse_two_kinds(given: Choices, chosen: Choices) -> None:
    rate, concurrency = given.get("load.rate", ()), given.get("load.concurrency", ())
    if _is_given(given, "load.rate") and _is_given(given, "load.concurrency"):
        raise UserError(
            f"load.concurrency={shown(concurrency[0])}, load.rate={shown(rate[0])}: closed and open loop "
            "exclude each other; give one of them"
        )
    other = next((key for key in ("load.concurrency", "load.rate") if _is_given(given, key)), None)
    if "trace" in chosen.get("load.arrival", ()) and other:
        value = shown(given[other][0])
        raise UserError(
            f"load.arrival=trace, {other}={value}: a trace says itself when conversations begin; "
            "give one of them"
        )


def _completed(load: Load, given: Choices) -> Load:
    """A load with the defaults of its kind.

    load.conversations without load.duration is the only bound; with it, whichever comes first. A trace is
    played whole, without a warm-up that would leave out its beginning, unless they are given.
    """
    if "load.duration" not in given and (load.conversations is not None or load.kind == "trace"):
        load = replace(load, duration_s=None)
    if load.kind == "trace" and "load.warmup" not in given:
        load = replace(load, warmup_s=0.0)
    # What a swept kind of arrivals or ramp does not use must not make two loads of one.
    if load.arrival != "gamma":
        load = replace(load, burstiness=1.0)
    if load.ramp != "steps":
        load = replace(load, ramp_steps=Load.ramp_steps)
    return load


def _problems(load: Load, given: Choices, scenarios: Sequence[ScenarioChoice]) -> Iterator[str]:
    """What makes no sense, each in one line that says what would work."""
    yield from _problems_of_arrival(load, given, scenarios)
    yield from _problems_of_ramps(load, given)
    yield from _problems_of_bounds(load, scenarios)
    yield from _problems_of_workers(load)


def _problems_of_arrival(load: Load, given: Choices, scenarios: Sequence[ScenarioChoice]) -> Iterator[str]:
    if load.kind == "closed" and load.concurrency is None:
        yield "load.concurrency=null: give a number of users, or load.rate=N, conversations per second"
    if load.kind == "closed" and "load.arrival" in given:
        yield f"load.arrival={load.arrival}: is of an open loop; give load.rate=N, conversations per second"
    if "load.burstiness" in given and "gamma" not in given.get("load.arrival", ()):
        value = shown(given["load.burstiness"][0])
        yield f"load.burstiness={value}: is the shape of load.arrival=gamma; give that too"
    if load.kind != "trace" and "load.speedup" in given:
        yield f"load.speedup={load.speedup:g}: is of a trace; give scenario=trace scenario.path=FILE"
    for scenario in scenarios:
        if load.kind == "trace" and scenario.span_s is None:
            yield (
                f"load.arrival=trace: scenario {scenario.name} has no arrival times; "
                "give scenario=trace scenario.path=FILE"
            )


def _problems_of_ramps(load: Load, given: Choices) -> Iterator[str]:
    ramps = {"load.ramp_up": load.ramp_up_s, "load.ramp_down": load.ramp_down_s}
    key, ramp_s = next(((key, value) for key, value in ramps.items() if value), ("", 0.0))
    if load.kind == "trace" and key:
        yield f"{key}={ramp_s:g}s: a trace has its own course; leave it out, or give load.rate=N instead"
    if load.ramp_down_s and load.duration_s is None:
        yield f"load.ramp_down={load.ramp_down_s:g}s: needs to know when the window ends; give load.duration"
    if "load.ramp_steps" in given and "steps" not in given.get("load.ramp", ()):
        yield f"load.ramp_steps={shown(given['load.ramp_steps'][0])}: is of load.ramp=steps; give that too"
    if not key and "load.ramp" in given:
        yield f"load.ramp={load.ramp}: there is no ramp; give load.ramp_up=10s, load.ramp_down=10s or both"


def _problems_of_bounds(load: Load, scenarios: Sequence[ScenarioChoice]) -> Iterator[str]:
    endless = any(scenario.span_s is None for scenario in scenarios)
    if load.duration_s is None and load.conversations is None and endless:
        yield "load.duration=null: nothing would end it; give load.duration=20s or load.conversations=100"


def _problems_of_workers(load: Load) -> Iterator[str]:
    most = load.concurrency if load.conversations is None else load.conversations
    if most is not None and load.workers > min(most, load.concurrency or most):
        fewest = min(most, load.concurrency or most)
        key = "concurrency" if load.concurrency == fewest else "conversations"
        yield f"load.workers={load.workers}: more load processes than load.{key}={fewest} gives work to"
    if load.tokenizer is not None and not Path(load.tokenizer).is_file():
        yield f"load.tokenizer={load.tokenizer}: there is no such file; give a tokenizer.json"
