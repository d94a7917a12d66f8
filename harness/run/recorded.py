"""Read what a run has on record: its settings, and the plan that `--resume` executes.

The record may be a stranger's. The user has agreed to its settings, and only what they ask for is executed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from serving_bench.engines import ENGINES, QUANTIZATIONS
from serving_bench.harness.cache import local
from serving_bench.harness.contracts import Deployment, Plan, PlannedStart, ScenarioChoice, scalars, words_of
from serving_bench.harness.errors import StoreError, UserError
from serving_bench.harness.plan import plan
from serving_bench.harness.plan.candidates import candidates
from serving_bench.harness.plan.terms import able_to_call
from serving_bench.harness.plugins import Table
from serving_bench.harness.sampling import environment
from serving_bench.harness.settings import overrides
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.settings.decoding import Choices, as_text
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import RUN_FILE
from serving_bench.scenarios import SCENARIOS

_MOST_VALUES = 1000  # of all settings
# What as_text writes: a text in quotes, or a word or number. A range or a list would be many values.
_ONE_VALUE = re.compile(r'"(?:[^"\\]|\\.)*"|[^"(,]*', re.DOTALL)
# Facts that all cells of one run must share to be comparable.
_MACHINE = ("cpu_model", "cores_usable", "memory_bytes", "architecture")
# What a run used that is not bench's own, by its kind and name.
OUTSIDE = "outside_packages"
_OF_DEPLOYMENTS = ("engine", "quantization")
_TABLES: Mapping[str, Table[Any]] = {
    "engine": ENGINES, "quantization": QUANTIZATIONS, "scenario": SCENARIOS,
}  # fmt: skip
_Typed = TypeVar("_Typed")
# What the settings ask for, each with its form on record.
_Known = Sequence[tuple[Any, _Typed]]


def choices_of(record: store.RunRecord) -> Choices:
    """Return a run's settings as they are given, with this machine's directories in their paths.

    Raises StoreError for what bench does not write: no value, a range of them, or thousands.
    """
    texts = [text for texts_of_key in record.settings.values() for text in texts_of_key]
    if len(texts) > _MOST_VALUES or not all(map(_ONE_VALUE.fullmatch, texts)):
        raise StoreError("run.json: damaged (settings: more values than bench writes)")
    try:
        return overrides.parse(
            words_of({key: [*map(_here, texts_of_key)] for key, texts_of_key in record.settings.items()})
        )
    except UserError as error:
        raise StoreError(f"run.json: damaged (settings: {error})") from error


def _here(text: str) -> str:
    path = local(text)
    return path if path == text or text.startswith('"') else as_text(path)


def check_machine(directory: Path, record: store.RunRecord) -> None:
    """Raise StoreError if a run was begun on another machine, or with other devices."""
    now = environment.facts()
    was, is_now = scalars(record.environment.get("machine")), now["machine"]
    changed = [f"{key} {was.get(key)} -> {is_now[key]}" for key in _MACHINE if was.get(key) != is_now[key]]
    if record.environment.get("devices") != msgspec.to_builtins(now["devices"]):
        changed.append("devices")
    if changed:
        raise StoreError(f"{directory}: was begun on another machine ({'; '.join(changed)}); begin a new run")


def outside(planned: Plan) -> dict[str, str]:
    """Return the package and version, or the file's SHA-256, of what is not bench's own in a plan."""
    used = [
        *((kind, getattr(each, kind)) for each in planned.deployments.values() for kind in _OF_DEPLOYMENTS),
        *(("scenario", cell.scenario.name) for start in planned.starts for cell in start.cells),
    ]
    return {f"{kind} {name}": origin for kind, name in used if (origin := _TABLES[kind].origins.get(name))}


def check_outside(directory: Path, record: store.RunRecord) -> None:
    """Raise StoreError if a run was begun with another version of what is not bench's own."""
    for used, was in scalars(record.environment.get(OUTSIDE)).items():
        kind, _, name = local(used).partition(" ")
        now = _TABLES[kind].origins.get(name) if kind in _TABLES else None
        if was != now:
            raise StoreError(f"{directory}: {used} was {was}, and is {now} now; begin a new run")


def recorded_plan(directory: Path, recorded: Plan, settings: Settings) -> Plan:
    """Return a plan on record with this bench's types, in its own order and with its own seeds.

    Raises StoreError if the settings do not ask for what it measures, defaults included.
    """
    if recorded.race and not {*recorded.race.going} <= recorded.deployments.keys():
        raise StoreError(f"{directory / RUN_FILE}: damaged (plan.race: who goes on is not in the plan)")
    deployments, _ = able_to_call(candidates(settings), settings.scenarios)
    planned = {each.label: each for each in deployments}
    scenarios, loads = _known(settings.scenarios), _known(settings.loads)
    try:
        starts = tuple(
            replace(
                start,
                deployment=_deployment(start.deployment, planned),
                cells=tuple(
                    replace(cell, scenario=_typed(cell.scenario, scenarios), load=_typed(cell.load, loads))
                    for cell in start.cells
                ),
            )
            for start in recorded.starts
        )
        is_asked = _is_asked(starts, len(scenarios) * len(loads))
    except LookupError:
        is_asked = False
    if not is_asked:
        refusal = "was planned by another bench, or changed since: now something else would be measured"
        raise StoreError(f"{directory / RUN_FILE}: {refusal}; begin a new run")
    return plan.estimated(replace(recorded, starts=starts))


def _is_asked(starts: Sequence[PlannedStart], most_cells: int) -> bool:
    """Return whether each deployment starts once in a repeat, with cells of its own, `most_cells` at most."""
    cells = [(start, cell) for start in starts for cell in start.cells]
    return (
        len({(start.deployment.label, start.repeat) for start in starts}) == len(starts)
        and len({cell.number for _, cell in cells}) == len(cells)
        and all(cell.repeat == start.repeat for start, cell in cells)
        and all(len(start.cells) <= most_cells for start in starts)
    )


def _known(items: Iterable[_Typed]) -> _Known[_Typed]:
    return [(_form(each), each) for each in items]


def _form(value: object) -> Any:
    """Return a value as it is on record, without what follows from a scenario's options."""
    if isinstance(value, ScenarioChoice):
        value = (value.name, value.label, value.options)
    return store.as_stored(value)


def _typed(recorded: _Typed, planned: _Known[_Typed]) -> _Typed:
    """Return what was asked for and is on record like this. Raises LookupError if nothing is."""
    stored = _form(recorded)
    for form, each in planned:
        if _has(form, stored):
            return each
    raise LookupError


def _has(form: Any, stored: Any) -> bool:
    """Return whether two values are equal, but for options that an earlier bench did not have."""
    if isinstance(form, dict) and isinstance(stored, dict):
        return all(name in form and _has(form[name], each) for name, each in stored.items())
    if isinstance(form, list) and isinstance(stored, list):
        return len(form) == len(stored) and all(map(_has, form, stored))
    return bool(form == stored)


def _deployment(recorded: Deployment, planned: Mapping[str, Deployment]) -> Deployment:
    """Return the deployment that was asked for, with the plan's size of its KV cache. Raises LookupError."""
    candidate = planned[recorded.label]
    tokens, most = recorded.terms.kv_cache_tokens, candidate.terms.kv_cache_tokens
    if tokens and most and 0 < tokens <= most:
        candidate = replace(candidate, terms=replace(candidate.terms, kv_cache_tokens=tokens))
    return _typed(recorded, _known([candidate]))
