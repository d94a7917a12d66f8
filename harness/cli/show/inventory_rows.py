"""The facts of `bench list` as rows that a person reads. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from engines import QUANTIZATIONS
from harness.cli.show.tables import Row
from harness.contracts import Weights
from harness.install.inventory import (
    SERVED_BUT,
    EngineHere,
    Installable,
    ModelHere,
    QuantizationServed,
    ToolHere,
)
from harness.settings.units import size_text

_LAUNCHERS = {"native": "process", "docker": "container"}
# Stands in a reason for the quantization that it is about.
_NAME = "\0"


def engine_rows(engines: Sequence[EngineHere]) -> tuple[list[Row], list[str]]:
    """Return a row for each engine and, where it has a choice, for each of its programs below it.

    A number in a row is a reason's place in the second list, from 1.
    """
    rows: list[Row] = []
    reasons: dict[str, None] = {}
    for engine in engines:
        states = [_state(each, reasons) for each in engine.programs]
        how = ", ".join(_LAUNCHERS[each] for each in engine.launchers) or "runs already"
        has_choice = any(each.program for each in engine.programs)
        here = sum(each.state in ("ready", "installed") for each in engine.programs)
        said = f"{here} of {len(states)} programs" if has_choice else states[0]
        rows.append({"engine": engine.engine, "here": said, "started as": how})
        named = zip(engine.programs, states, strict=True) if has_choice else ()
        rows += [{"engine": f"  {each.program}", "here": state, "started as": ""} for each, state in named]
    return rows, list(reasons)


def tool_rows(tools: Sequence[ToolHere]) -> list[Row]:
    """Return a row for each tool."""
    return [{"tool": each.tool, "here": _state(each.here, {})} for each in tools]


def _state(item: Installable, reasons: dict[str, None]) -> str:
    """Return its state in a line; a reason becomes its number among `reasons`."""
    size = size_text(item.size_bytes or 0)
    match item.state:
        case "ready":
            return "needs nothing"
        case "installing":
            return "is being installed"
        case "none":
            reasons.setdefault(item.reason or "")
            return f"no {list(reasons).index(item.reason or '') + 1}"
        case "installed":
            return ", ".join(filter(None, (f"installed {item.version or ''}".strip(), size)))
        case _:
            said = "not installed" if item.state == "not installed" else "to be made anew"
            return f"{said}: `{item.install}` ({'compiles, ' if item.compiles else ''}{size})"


def quantization_rows(served: Sequence[QuantizationServed]) -> tuple[list[Row], list[str]]:
    """Return the engine x quantization matrix, and the reasons that the numbers in it count from 1."""
    named: dict[str, list[str]] = {}  # a reason without the names in it -> the quantizations that have it
    rows = []
    for row in served:
        cells = {}
        for engine, said in row.engines.items():
            if said != "yes":
                reason = said.replace(row.quantization, _NAME)
                named.setdefault(reason, []).append(row.quantization)
                answer = "yes" if said.startswith(SERVED_BUT) else "no"
                said = f"{answer} {list(named).index(reason) + 1}"
            cells[engine] = said
        first = {
            "quantization": f"{row.quantization} ({row.alias})" if row.alias else row.quantization,
            "bits": f"{row.bits_per_weight:g}",
            "format": row.file_format or "any",
        }
        rows.append(first | cells)
    return rows, [reason.replace(_NAME, _or(names)) for reason, names in named.items()]


def _or(names: Sequence[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} or {last}" if others else last


def metric_rows(metrics: Sequence[Row]) -> list[Row]:
    """Return each metric with its unit; below, how it is computed, and from what."""
    rows = []
    for each in metrics:
        better = f"; {each['better']} is better" if each["better"] in ("lower", "higher") else ""
        rows.append({"metric": each["metric"], "what it is": f"{each['title']}, in {each['unit']}{better}"})
        rows += [{"metric": f"  {name}", "what it is": each[name]} for name in ("formula", "source")]
    return rows


def scenario_rows(scenarios: Sequence[Row]) -> list[Row]:
    """Return each scenario; below, its options with their defaults."""
    names = {"scenario": "description", "  options": "options"}
    return [
        {"scenario": each["scenario"] if what == "scenario" else what, "what it is": each[name]}
        for each in scenarios
        for what, name in names.items()
    ]


def model_rows(models: Sequence[ModelHere]) -> list[Row]:
    """Return each model with its facts; below, what is prepared of it and what can be."""
    rows = []
    for each in models:
        count, context = _parameters(each.facts.parameters), f"{each.facts.context_length:,}"
        gated = ", to be accepted on the hub" if each.is_gated else ""
        facts = f"{count} parameters, context {context} tokens; {each.licence}{gated}"
        rows.append({"model": each.model, "facts": facts})
        for what, weights in (("prepared", each.prepared), ("can be prepared", each.possible)):
            rows.append({"model": f"  {what}", "facts": ", ".join(map(_kind, weights)) or "-"})
    return rows


def _kind(weights: Weights) -> str:
    """Return the quantization, a plain precision with the file format that it is in."""
    is_plain = QUANTIZATIONS[weights.quantization].file_format is None
    return f"{weights.quantization} ({weights.file_format})" if is_plain else weights.quantization


def _parameters(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e9:.2g} B" if count >= 999.5e6 else f"{count / 1e6:.0f} M"
