"""A run in words: its question, device, traffic and command."""

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePath

import msgspec

from harness.contracts import Load, ScenarioChoice
from reports.data.cells import Cell, load_family, load_level
from reports.data.run import Run
from reports.measures.written import flat, plural
from reports.words.verdict_words import slo_words


def question(run: Run) -> str:
    """Return what was compared, of which model, on which device, as a question."""
    deployments = {start.deployment.label: start.deployment for start in run.record.plan.starts}.values()
    engines = list(dict.fromkeys(each.engine for each in deployments))
    has_quantizations = len({each.quantization for each in deployments} - {"-"}) > 1
    models = " and ".join(dict.fromkeys(each.model for each in deployments if each.model != "-"))
    if len(deployments) < 2:
        name = next((each.label for each in deployments), "a server")
        return " ".join(filter(None, (f"How does {name} serve", models, f"on {device(run)}?")))
    if len(engines) > 1:
        what = "Which engine, at which quantization," if has_quantizations else "Which engine"
    else:
        what = f"Which {'quantization' if has_quantizations else 'options'} of {engines[0]}"
    return " ".join(filter(None, (what, models and f"for {models}", f"on {device(run)}?")))


def device(run: Run) -> str:
    """Return the card's name where the run used one, else the processor's."""
    on_card = any(record.memory_kind == "device" for record in run.start_records)
    key = re.compile(r"(device|gpu).*\.name$" if on_card else r"(^|\.)cpu_model$")
    found = (str(value) for name, value in flat(run.record.environment) if value and key.search(name))
    return next(found, "one device" if on_card else "this processor")


def environment_words(run: Run) -> str:
    """Return the device and what served on it: `NVIDIA H100; llama_cpp b6000, vllm 0.11.0; bench 0.1.0`."""
    records = run.start_records
    served = dict.fromkeys(f"{each.deployment.engine} {each.version or ''}".strip() for each in records)
    version = dict(flat(run.record.environment)).get("packages.serving-bench")
    return "; ".join(filter(None, (device(run), ", ".join(served), version and f"bench {version}")))


def _is_prolonged(cell: Cell) -> bool:
    planned_s, summary = cell.planned.load.duration_s, cell.summary
    lasted_s = (summary.window_end_ns - summary.window_start_ns) / 1e9 if summary else 0.0
    return planned_s is not None and lasted_s > 1.05 * planned_s


def what_was_run(run: Run) -> str:
    """Return scenario, loads, starts, windows, SLO and date in one line."""
    cells = run.planned_cells
    choices = {cell.planned.scenario.label: cell.planned.scenario for cell in cells}
    parts = ["; ".join(map(_scenario, choices.values())) or "nothing planned"]
    if cells:
        is_attached = any(record.attached for record in run.start_records)
        blocks = plural(run.repeats, "block") + " on a server that was running already"
        starts = plural(run.repeats, "start") + " of each"
        windows = dict.fromkeys(window_bound(load) for load in _ordered(run))
        longer = " or longer, for requests enough" if any(map(_is_prolonged, cells)) else ""
        said = f"windows of {', '.join(windows)}{longer}"
        parts += [loads_words(run), blocks if is_attached else starts, said]
    if len(run.start_records) > len(run.record.plan.starts):
        parts.append(f"{len(run.start_records)} starts in all, with those measured again")
    if run.record.slo:
        parts.append(f"SLO: {slo_words(run.record.slo)}")
    done = sum(cell.status == "completed" for cell in cells)
    if done < len(cells):
        parts.append(f"{done} of {plural(len(cells), 'cell')} measured")
    return " · ".join([*parts, run.record.created_at[:10]])


def _scenario(choice: ScenarioChoice) -> str:
    options = msgspec.to_builtins(choice.options)
    turns, path = options.get("turns"), options.get("path")
    said = [choice.label, PurePath(str(path)).name if path else "", plural(turns, "turn") if turns else ""]
    return ", ".join(filter(None, said))


def loads_words(run: Run) -> str:
    """Return `1, 4 users`, `searched from 1 to 64 users`; empty where nothing was planned."""
    if terms := run.record.search:
        unit = "users" if terms.over == "concurrency" else "conversations begun per second"
        return f"searched from {terms.lowest:g} to {terms.highest:g} {unit}"
    loads = _ordered(run)
    users = [str(load.concurrency) for load in loads if load.kind == "closed"]
    closed = [", ".join(users) + (" user" if users == ["1"] else " users")] if users else []
    return ", ".join([*closed, *(load.label for load in loads if load.kind != "closed")])


def _ordered(run: Run) -> list[Load]:
    loads = dict.fromkeys(cell.load for cell in run.planned_cells)
    return sorted(loads, key=lambda load: (load_family(load), load_level(load)))


def window_bound(load: Load) -> str:
    """Return what ends a load's window: `8 s`, `100 conversations`, `8 s or 100 conversations`."""
    ends = [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    ends += [plural(load.conversations, "conversation")] if load.conversations is not None else []
    return " or ".join(ends) or "the whole trace"


def command(run: Run, **changes: Sequence[str]) -> str:
    """Return `bench run key=value,value ...`, or `bench search`, with the values as they were given or are to
    be changed."""
    settings = {**run.record.settings, **changes}
    overrides = [f"{key}={','.join(values)}" for key, values in settings.items()]
    return shlex.join(["bench", "search" if run.record.search else "run", *overrides])
