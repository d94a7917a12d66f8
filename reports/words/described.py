"""A run in words: its question, device, traffic and command."""

import shlex
from pathlib import PurePath

import msgspec

from harness.contracts import Load, ScenarioChoice
from reports.data.cells import load_family, load_level
from reports.data.run import Run
from reports.measures.written import flat, plural
from reports.words.verdict_words import slo_words


def question(run: Run) -> str:
    """Return what was compared, of which model, on which device, as a question."""
    starts = run.record.plan.starts
    deployments = {start.deployment.label: start.deployment for start in starts}.values()
    engines = {d.engine for d in deployments}
    quantizations = {d.quantization for d in deployments if d.quantization != "-"}
    models = " and ".join(dict.fromkeys(d.model for d in deployments if d.model != "-"))
    where = f"for {models} on {device(run)}?" if models else f"on {device(run)}?"
    if len(engines) > 1 and len(quantizations) > 1:
        return f"Which engine, at which quantization, {where}"
    if len(engines) > 1:
        return f"Which engine {where}"
    if len(quantizations) > 1:
        return f"Which quantization {where[:-1]}, served by {next(iter(engines))}?"
    if len(deployments) > 1:
        return f"Which options should {next(iter(engines))} have {where}"
    name = next((d.label for d in deployments), "a server")
    return f"How does {name} serve {where.removeprefix('for ')}"


def device(run: Run) -> str:
    """Return the card's name where the run used one, else the processor's."""
    facts = dict(flat(run.record.environment))
    on_card = any(record.memory_kind == "device" for record in run.start_records)
    wanted = ("name",) if on_card else ("cpu_model",)
    for key, value in facts.items():
        is_device = not on_card or any(word in key for word in ("device", "gpu"))
        if key.rpartition(".")[2] in wanted and is_device and value:
            return str(value)
    return "one device" if on_card else "this processor"


def environment_words(run: Run) -> str:
    """Return the device and what served on it: `NVIDIA H100; llama_cpp b6000, vllm 0.11.0; bench 0.1.0`."""
    served = dict.fromkeys(
        " ".join(filter(None, (record.deployment.engine, record.version))) for record in run.start_records
    )
    packages = run.record.environment.get("packages")
    version = packages.get("serving-bench") if isinstance(packages, dict) else None
    return "; ".join(filter(None, (device(run), ", ".join(served), f"bench {version}" if version else "")))


def what_was_run(run: Run) -> str:
    """Return scenario, loads, starts, windows, SLO and date in one line."""
    cells = run.planned_cells
    choices = {cell.planned.scenario.label: cell.planned.scenario for cell in cells}
    scenarios = "; ".join(map(_scenario, choices.values())) or "nothing planned"
    loads = _ordered(run)
    repeats = len({cell.planned.repeat for cell in cells})
    parts = [scenarios]
    if loads:
        parts.append(loads_words(run))
        attached = any(record.attached for record in run.start_records)
        blocks = "on a server that was running already" if attached else "each"
        word = "block" if attached else "start"
        parts.append(f"{plural(repeats, word)} {blocks}" + (", interleaved" if repeats > 1 else ""))
        if len(run.start_records) > len(run.record.plan.starts):  # --resume starts a server anew
            parts.append(f"{len(run.start_records)} starts in all, with those measured again")
        parts.append(f"windows of {', '.join(dict.fromkeys(map(window_bound, loads)))}")
    if run.record.slo:
        parts.append(f"SLO: {slo_words(run.record.slo)}")
    done = sum(cell.status == "completed" for cell in cells)
    if done < len(cells):
        parts.append(f"{done} of {plural(len(cells), 'cell')} measured")
    return " · ".join([*parts, run.record.created_at[:10]])


def _scenario(choice: ScenarioChoice) -> str:
    """Return `chat_multi_turn: 4 turns, system prompt of 60 words, the model's own history`."""
    options = msgspec.to_builtins(choice.options)
    said = [plural(turns, "turn")] if isinstance(turns := options.get("turns"), int) else []
    if isinstance(words := options.get("system_words"), int):
        said.append(f"system prompt of {plural(words, 'word')}" if words else "no system prompt")
    histories = {"model": "the model's own history", "scripted": "scripted history"}
    if history := histories.get(str(options.get("history"))):
        said.append(history)
    if path := options.get("path"):
        said.insert(0, PurePath(str(path)).name)
    return f"{choice.label}: {', '.join(said)}" if said else choice.label


def loads_words(run: Run) -> str:
    """Return `1, 4 users`, `searched from 1 to 64 users`; empty where nothing was planned."""
    if terms := run.record.search:
        unit = "users" if terms.over == "concurrency" else "conversations begun per second"
        return f"searched from {terms.lowest:g} to {terms.highest:g} {unit}"
    loads = _ordered(run)
    users = sorted({load.concurrency or 0 for load in loads if load.kind == "closed"})
    closed = [", ".join(map(str, users)) + (" user" if users == [1] else " users")] if users else []
    return ", ".join([*closed, *dict.fromkeys(load.label for load in loads if load.kind != "closed")])


def _ordered(run: Run) -> list[Load]:
    loads = dict.fromkeys(cell.load for cell in run.planned_cells)
    return sorted(loads, key=lambda load: (load_family(load), load_level(load)))


def window_bound(load: Load) -> str:
    """Return what ends a load's window: `8 s`, `100 conversations`, `8 s or 100 conversations`."""
    ends = [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    if load.conversations is not None:
        ends.append(plural(load.conversations, "conversation"))
    return " or ".join(ends) or "the whole trace"


def command(run: Run) -> str:
    """Return `bench run key=value,value ...`, or `bench search`, with the values as they were given."""
    overrides = [f"{key}={','.join(values)}" for key, values in run.record.settings.items()]
    return shlex.join(["bench", "search" if run.record.search else "run", *overrides])
