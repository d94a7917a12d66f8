"""A run in words: its question, device and traffic, why it ended, and the facts that were recorded."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from serving_bench.harness.contracts import MASK, Load, ScenarioChoice, is_secret, masked
from serving_bench.reports.checks.ledger import COMMON, TOLD
from serving_bench.reports.data import Run, StartRecord, command, load_family, load_level, resumed
from serving_bench.reports.measures import NOTHING, flat, number, plural, several
from serving_bench.reports.words.verdict_words import capital, slo_words


def question(run: Run) -> str:
    """Return the run's question: what it compares, for which model, on which device; or who measured it."""
    deployments = {start.deployment.label: start.deployment for start in run.record.plan.starts}.values()
    engines = list(dict.fromkeys(each.engine for each in deployments))
    has_quantizations = len({each.quantization for each in deployments} - {"-"}) > 1
    models = " and ".join(dict.fromkeys(each.model for each in deployments if each.model != "-"))
    if run.foreign:
        return f"{models}: {run.foreign}"
    if len(deployments) < 2:
        name = next((each.label for each in deployments), "a server")
        return " ".join(filter(None, (f"How does {name} serve", models, f"on {device(run)}?")))
    if len(engines) > 1:
        what = "Which engine, at which quantization," if has_quantizations else "Which engine"
    else:
        what = f"Which {'quantization' if has_quantizations else 'options'} of {engines[0]}"
    return " ".join(filter(None, (what, models and f"for {models}", f"on {device(run)}?")))


def device(run: Run) -> str:
    """Return the name of the GPU if the run used one, else of the processor.

    A run that bench did not measure may have neither.
    """
    on_card = any(record.memory_kind == "device" for record in run.start_records)
    key = r"(device|gpu).*\.name$" if on_card else r"(^|\.)cpu_model$"
    matching = (str(value) for name, value in flat(run.record.environment) if value and re.search(key, name))
    where = "one device" if on_card else "this processor"
    return next(matching, "an unknown device" if run.foreign else where)


def environment_words(run: Run) -> str:
    """Return the device and what served on it: `NVIDIA H100; llama_cpp b6000, vllm 0.11.0; bench 0.1.0`."""
    served = dict.fromkeys(f"{r.deployment.engine} {r.version or ''}".strip() for r in run.start_records)
    version = dict(flat(run.record.environment)).get("packages.serving-bench")
    return "; ".join(filter(None, (device(run), ", ".join(served), version and f"bench {version}")))


def what_was_run(run: Run) -> str:
    """Return scenario, loads, starts, windows, SLO and date on one line."""
    cells = run.planned_cells
    scenarios = {cell.planned.scenario.label: cell.planned.scenario for cell in cells}
    is_again = len(run.start_records) > len(run.record.plan.starts)
    done = sum(cell.status == "completed" for cell in cells)
    parts = [
        "; ".join(map(_scenario, scenarios.values())) or "nothing planned",
        *(_loads_and_starts(run) if cells else ()),
        f"{len(run.start_records)} starts in all, including repeated ones" if is_again else "",
        f"SLO: {slo_words(run.record.slo)}" if run.record.slo else "",
        f"{done} of {plural(len(cells), 'cell')} measured" if done < len(cells) else "",
        run.record.created_at[:10],
    ]
    return " · ".join(filter(None, parts))


def _loads_and_starts(run: Run) -> tuple[str, str, str]:
    starts = f"{plural(run.repeats, 'start')} of each"
    if run.record.plan.race:
        counts = [len({cell.planned.repeat for cell in group.cells}) for group in run.groups]
        starts = f"{min(counts)} to {max(counts)} starts of each" if min(counts) < max(counts) else starts
    if any(record.attached for record in run.start_records):
        starts = f"{plural(run.repeats, 'block')} on a server that was running already"
    shares = ((cell.window_s or 0) / (cell.planned.load.duration_s or 1e9) for cell in run.planned_cells)
    longer = " or longer" if max(shares) > 1.05 else ""
    windows = dict.fromkeys(map(window_bound, _ordered(run)))
    return loads_words(run), starts, f"windows of {', '.join(windows)}{longer}"


def _scenario(choice: ScenarioChoice) -> str:
    options = msgspec.to_builtins(choice.options)
    turns, path = options.get("turns"), options.get("path")
    parts = [choice.label, PurePath(str(path)).name if path else "", plural(turns, "turn") if turns else ""]
    return ", ".join(filter(None, parts))


def loads_words(run: Run) -> str:
    """Return `1, 4 users` or `searched from 1 to 64 users`; empty if nothing was planned."""
    if terms := run.record.search:
        unit = "users" if terms.over == "concurrency" else "conversations begun per second"
        return f"searched from {terms.lowest:g} to {terms.highest:g} {unit}"
    loads = _ordered(run)
    users = [str(load.concurrency) for load in loads if load.kind == "closed"]
    closed = [f"{', '.join(users)} user{'' if users == ['1'] else 's'}"] if users else []
    return ", ".join([*closed, *(load.label for load in loads if load.kind != "closed")])


def _ordered(run: Run) -> list[Load]:
    loads = dict.fromkeys(cell.load for cell in run.planned_cells)
    return sorted(loads, key=lambda load: (load_family(load), load_level(load)))


def window_bound(load: Load) -> str:
    """Return what ends a load's window: `8 s`, `100 conversations`, `8 s or 100 conversations`."""
    ends = (
        f"{load.duration_s:g} s" if load.duration_s is not None else "",
        plural(load.conversations, "conversation") if load.conversations is not None else "",
    )
    return " or ".join(filter(None, ends)) or "the whole trace"


def cut_short(run: Run) -> tuple[str, str] | None:
    """Return that a run is going on, was cut short or was not measured by bench, and what to do about it.

    None for a whole run.
    """
    if run.foreign:
        return (
            capital(str(run.foreign)),
            "Its values follow bench's definitions. It has no winner and no verdicts.",
        )
    if run.is_going_on:
        return "This run is still running", "bench writes the report again when it ends."
    if run.record.status == "completed":
        return None
    are_measured = all(cell.status == "completed" for cell in run.planned_cells)
    if run.planned_cells and are_measured and not run.record.search:
        left = "goes on with until" if run.record.until else "asks for any quality that is still missing"
        return "This run was interrupted when all its cells were measured", f"{resumed(run)} {left}."
    return "This run was cut short", f"{resumed(run)} measures what is missing."


def stopped(run: Run) -> str:
    """Return why there are no more repeats; empty if all are there, or may still follow."""
    if number := run.record.only_repeat:
        return f"only repeat {number}; `bench merge` joins it with the others"
    why = run.record.stopped_because
    if run.record.repeats_cut:
        return f"{why}; {resumed(run)} repeats={run.record.repeats_cut} measures the others"
    if why and why.kind == "race_budget":
        return f"{why}; {resumed(run)} goes on with the race"
    return f"until ended: {why}" if run.record.until and why else capital(str(why or ""))


def more_repeats(run: Run, repeats: int) -> str:
    """Return the command that measures more repeats of a run, also if they are measured apart and merged."""
    if run.record.only_repeat or run.record.nodes:
        return f"{command(run, repeats=[str(repeats)])} --only-repeat K for each other K, then bench merge"
    if race := run.record.plan.race:
        return resumed(run) if race.may_go_on else f"{resumed(run)} repeats={max(repeats, race.most + 2)}"
    return f"{resumed(run)} repeats={repeats}"


# --- facts -----------------------------------------------------------------------------------------

# Terms of a load that its name does not say; shown if they are not 0 or None.
_TERMS = {
    "ramp_up_s": "ramp-up",
    "warmup_s": "warm-up",
    "ramp_down_s": "ramp-down",
    "timeout_s": "request timeout",
    "max_failed_share": "failed share at most",
    "tokenizer": "tokens counted by",
}
# Endings of keys, and the unit that a person reads.
_RATE = "_per_s"
_UNITS = {"_bytes": " bytes", "_s": " s", "_pct": " %", "_w": " W", "_mhz": " MHz", "_mib": " MiB"}


VARIABLE = "variable "


def facts_of(records: Sequence[StartRecord]) -> dict[str, Any]:
    """Return the facts about a deployment's server that the fairness ledger does not have, by key."""
    deployment = records[0].deployment
    image = next((record.image for record in records if record.image), {})
    launcher = deployment.terms.launcher or ("docker" if image else "native")
    # As Docker shows it; an image that was built here has an id but no digest.
    digest = (image.get("image_digest") or image.get("image_id") or "").rpartition(":")[2][:12]
    facts: dict[str, Any] = {
        "version": several([record.version for record in records if record.version]),
        "launcher": "attached" if records[0].attached else launcher,
        "image": " ".join(filter(None, (image.get("image"), digest))),
        **{f"option.{key}": value for key, value in msgspec.to_builtins(deployment.options).items()},
    }
    for record in records:
        facts |= {key: value for key, value in record.resolved.items() if key not in {**COMMON, **TOLD}}
        # The note is among the reasons to distrust.
        facts |= {f"weights.{key}": value for key, value in record.weights.items() if key != "note"}
        facts |= {f"{VARIABLE}{name}": value for name, value in record.environment.items()}
    return {key: value for key, value in facts.items() if value not in (None, "")}


def traffic_of(run: Run) -> Iterator[tuple[str, str]]:
    """Yield each scenario and load with its planned options, then each term that bench filled in, and why."""
    for label, cell in {cell.planned.scenario.label: cell for cell in run.planned_cells}.items():
        options = flat(cell.planned.scenario.options)
        yield label, ", ".join(f"{key_words(key)} {_value(key, value)}" for key, value in options)
    labels = {cell.load: cell.load_label for cell in run.planned_cells}
    for load in _ordered(run):
        terms = {key: value for key in _TERMS if (value := getattr(load, key))}
        texts = {key: f"{value:g} s" for key, value in terms.items() if key.endswith("_s")}
        given = [f"{_TERMS[key]} {texts.get(key) or _value(key, value)}" for key, value in terms.items()]
        yield labels[load], ", ".join([f"window {window_bound(load)}", *given])
    for key, why in run.record.plan.filled.items():
        yield key_words(key), why


def key_words(key: str) -> str:
    """Return a key in words, without its unit, which stands with the value; a rate keeps its unit."""
    if key.startswith(VARIABLE):
        return key
    for ending in _UNITS:
        key = key if key.endswith(_RATE) else key.removesuffix(ending)
    return key.replace("_", " ").replace(".", " ").replace(" per s", "/s")


def fact(key: str, value: Any) -> str:
    """Return a recorded value as a person reads it, with secrets masked."""
    return MASK if is_secret(key) else masked(_value(key, value))


def _value(key: str, value: Any) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    if key.endswith("_bytes") and value >= 2**20:
        return f"{number(value / 2**30, 2)} GiB" if value >= 2**30 else f"{value / 2**20:,.0f} MiB"
    units = {} if key.endswith(_RATE) else _UNITS
    unit = next((unit for ending, unit in units.items() if key.endswith(ending)), "")
    return (f"{value:,.0f}" if value % 1 == 0 else number(value, 2)) + unit
