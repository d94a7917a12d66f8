"""`bench list`: what bench knows, as facts for `--json` and as tables for people.

A list imports what it alone needs when it is asked for: `bench list engines` waits for no other.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console

from engines import QUANTIZATIONS
from harness.cli.arguments import Json, out, print_json
from harness.cli.show.tables import Row, print_numbered, print_rows
from harness.contracts import Reason, Weights
from harness.errors import UserError
from harness.install import builds
from harness.install.builds import SERVED_BUT, Installable, QuantizationServed
from harness.install.install import cache_dir
from harness.sampling import gpu
from harness.settings.units import size_text

_LAUNCHERS = {"native": "process", "docker": "container"}
# Stands in a reason for the quantization that it is about.
_NAME = "\0"


def list_command(
    what: Annotated[
        str, typer.Argument(help="engines, tools, scenarios, quantizations, models, metrics or keys")
    ] = "engines",
    as_json: Json = False,
) -> None:
    """List what bench knows, with what is available here and why not."""
    if as_json:
        print_json(facts_of(what))
    else:
        print_list(out, what)


def facts_of(what: str) -> list[Any]:
    """Return one list as `--json` prints it. Raises UserError for an unknown one."""
    if what not in _LISTS:
        raise UserError(f"list {what}: no such list; choose from {', '.join(_LISTS)}")
    return _LISTS[what][0]()


def print_list(out: Console, what: str) -> None:
    """Print one list for people. Raises UserError for an unknown one."""
    facts = facts_of(what)
    _LISTS[what][1](out, facts)


def has_device() -> bool:
    """Return whether this machine has a device that engines can use."""
    return not isinstance(gpu.devices(), Reason)


# --- engines and tools


def _print_engines(out: Console, engines: Sequence[builds.EngineHere]) -> None:
    """Print a row for each engine and, where it has a choice, for each of its programs below it.

    A number in a row is that of a reason in the second table. The third says what each engine is.
    """
    rows: list[Row] = []
    reasons: list[str] = []
    for engine in engines:
        states = [_state(each, reasons) for each in engine.programs]
        how = ", ".join(_LAUNCHERS[each] for each in engine.launchers) or "runs already"
        has_choice = any(each.program for each in engine.programs)
        here = sum(each.state in ("ready", "installed") for each in engine.programs)
        said = f"{here} of {len(states)} programs" if has_choice else states[0]
        rows.append({"engine": engine.engine, "here": said, "started as": how})
        named = zip(engine.programs, states, strict=True) if has_choice else ()
        rows += [{"engine": f"  {each.program}", "here": state, "started as": ""} for each, state in named]
    print_rows(out, rows)
    out.print()
    if reasons:
        print_numbered(out, reasons)
        out.print()
    print_rows(out, [{"engine": each.engine, "what it is": each.description} for each in engines])


def _tools() -> list[dict[str, Any]]:
    return [{"tool": name, "here": here} for name, here in builds.tools_here(cache_dir()).items()]


def _print_tools(out: Console, tools: Sequence[dict[str, Any]]) -> None:
    print_rows(out, [{"tool": each["tool"], "here": _state(each["here"], [])} for each in tools])


def _state(item: Installable, reasons: list[str]) -> str:
    """Return its state in a line; a reason becomes its number among `reasons`, from 1."""
    size = size_text(item.size_bytes or 0)
    match item.state:
        case "ready":
            return "needs nothing"
        case "none":
            return f"no {_number(item.reason or '', reasons)}"
        case "installed":
            return ", ".join(filter(None, (f"installed {item.version or ''}".strip(), size)))
        case _:
            said = "not installed" if item.state == "not installed" else "to be made again"
            return f"{said}: `{item.install}` ({'compiles, ' if item.compiles else ''}{size})"


def _number(reason: str, reasons: list[str]) -> int:
    if reason not in reasons:
        reasons.append(reason)
    return reasons.index(reason) + 1


# --- quantizations and models


def _quantizations() -> list[QuantizationServed]:
    from engines.model import weights
    from harness.settings.keys import DEFAULT_MODEL

    return builds.quantizations_served(DEFAULT_MODEL, weights.can_prepare)


def _print_matrix(out: Console, served: Sequence[QuantizationServed]) -> None:
    """Print the engine x quantization matrix. A number in a cell is that of the reason below it."""
    from harness.settings.keys import DEFAULT_MODEL

    reasons: list[str] = []  # each with _NAME instead of the quantizations that have it
    named: dict[int, list[str]] = {}
    rows = []
    for row in served:
        cells = {}
        for engine, said in row.engines.items():
            if said != "yes":
                number = _number(said.replace(row.quantization, _NAME), reasons)
                named.setdefault(number, []).append(row.quantization)
                said = f"{'yes' if said.startswith(SERVED_BUT) else 'no'} {number}"
            cells[engine] = said
        first = {
            "quantization": f"{row.quantization} ({row.alias})" if row.alias else row.quantization,
            "bits": f"{row.bits_per_weight:g}",
            "format": row.file_format or "any",
        }
        rows.append(first | cells)
    print_rows(out, rows)
    out.print()
    print_numbered(out, [text.replace(_NAME, _or(named[k])) for k, text in enumerate(reasons, start=1)])
    out.print(
        f"Of {DEFAULT_MODEL}, as each engine is first started; `bench plan` says what this machine can."
    )


def _or(names: Sequence[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} or {last}" if others else last


def _models() -> list[dict[str, Any]]:
    from engines.model import models, weights

    rows = []
    for name, model in models.MODELS.items():
        every = [
            Weights(name, quantization, file_format)
            for quantization, facts in QUANTIZATIONS.items()
            for file_format in ([facts.file_format] if facts.file_format else ["gguf", "safetensors"])
        ]
        had = [each for each in every if weights.can_prepare(each) is None]
        here = [each for each in had if weights.find(each, cache_dir())]
        rest = [each for each in had if each not in here]
        facts = {"licence": model.licence, "is_gated": model.is_gated, "facts": model.facts}
        rows.append({"model": name} | facts | {"prepared": here, "possible": rest})
    return rows


def _print_models(out: Console, models: Sequence[dict[str, Any]]) -> None:
    """Print each model with its facts; below, what is prepared of it and what can be."""
    rows = []
    for each in models:
        count, context = _parameters(each["facts"].parameters), f"{each['facts'].context_length:,}"
        gated = ", to be accepted on the hub" if each["is_gated"] else ""
        facts = f"{count} parameters, context {context} tokens; {each['licence']}{gated}"
        rows.append({"model": each["model"], "facts": facts})
        for what, key in (("prepared", "prepared"), ("can be prepared", "possible")):
            rows.append({"model": f"  {what}", "facts": ", ".join(map(_kind, each[key])) or "-"})
    print_rows(out, rows)


def _kind(weights: Weights) -> str:
    """Return the quantization, a plain precision with the file format that it is in."""
    is_plain = QUANTIZATIONS[weights.quantization].file_format is None
    return f"{weights.quantization} ({weights.file_format})" if is_plain else weights.quantization


def _parameters(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e9:.2g} B" if count >= 999.5e6 else f"{count / 1e6:.0f} M"


# --- scenarios, metrics and keys


def _scenarios() -> list[Row]:
    from harness.settings.decoding import fields_by_key
    from scenarios import SCENARIOS

    return [
        {
            "scenario": name,
            "description": scenario.description,
            "options": ", ".join(
                f"{key}={field.default_text}"
                for key, field in fields_by_key("scenario", scenario.options).items()
            ),
        }
        for name, scenario in SCENARIOS.items()
    ]


def _metrics() -> list[Row]:
    from reports import METRICS

    names = ("title", "unit", "better", "formula", "source")
    return [{"metric": metric.name} | {name: getattr(metric, name) for name in names} for metric in METRICS]


def _print_metrics(out: Console, metrics: Sequence[Row]) -> None:
    """Print each metric with its unit; below, how it is computed, and from what."""
    rows = []
    for each in metrics:
        better = f"; {each['better']} is better" if each["better"] in ("lower", "higher") else ""
        rows.append({"metric": each["metric"], "what it is": f"{each['title']}, in {each['unit']}{better}"})
        rows += [{"metric": f"  {name}", "what it is": each[name]} for name in ("formula", "source")]
    print_rows(out, rows)


def _print_scenarios(out: Console, scenarios: Sequence[Row]) -> None:
    """Print each scenario; below, its options with their defaults."""
    rows = []
    for each in scenarios:
        rows.append({"scenario": each["scenario"], "what it is": each["description"]})
        rows.append({"scenario": "  options", "what it is": each["options"]})
    print_rows(out, rows)


def _keys() -> list[Row]:
    from harness.plan.candidates import CONTEXT_LENGTH
    from harness.settings.keys import listed_keys

    defaults = {
        "engine.launcher": "each engine's first",
        "engine.context_length": str(CONTEXT_LENGTH),
        "engine.concurrent_sequences": "largest load.concurrency, or what load.rate needs",
        "engine.kv_cache_tokens": "engine.context_length x engine.concurrent_sequences, if all hold it",
        "engine.prefix_cache": "true",
        "fit.device_memory": "this machine's device, or the machine",
    }
    return [
        {"key": key, "default": defaults.get(key, default), "takes": takes}
        for key, (default, takes) in listed_keys().items()
    ]


# By its name: what returns its facts, and what prints them.
_LISTS: dict[str, tuple[Callable[[], list[Any]], Callable[[Console, list[Any]], None]]] = {
    "engines": (lambda: builds.engines_here(cache_dir(), has_device=has_device()), _print_engines),
    "tools": (_tools, _print_tools),
    "scenarios": (_scenarios, _print_scenarios),
    "quantizations": (_quantizations, _print_matrix),
    "models": (_models, _print_models),
    "metrics": (_metrics, _print_metrics),
    "keys": (_keys, print_rows),
}
