"""`bench list` of engines, tools, quantizations and models as rows that a person reads. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from engines import QUANTIZATIONS
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

Row = dict[str, str]

_LAUNCHERS = {"native": "process", "docker": "container"}


def engine_rows(engines: Sequence[EngineHere]) -> tuple[list[Row], list[str]]:
    """Each engine with what is here of it and how it is started; below, its programs where it has a choice.
    Then the reasons that the numbers in it count from 1."""
    rows: list[Row] = []
    reasons: dict[str, None] = {}
    for engine in engines:
        states = [_state(each, reasons) for each in engine.programs]
        how = ", ".join(_LAUNCHERS[each] for each in engine.launchers) or "runs already"
        has_choice = any(each.program for each in engine.programs)
        here = _count(engine.programs) if has_choice else states[0]
        rows.append({"engine": engine.engine, "here": here, "started as": how})
        named = zip(engine.programs, states, strict=True) if has_choice else ()
        rows += [{"engine": f"  {each.program}", "here": state, "started as": ""} for each, state in named]
    return rows, list(reasons)


def _count(programs: Sequence[Installable]) -> str:
    here = sum(each.state in ("ready", "installed") for each in programs)
    return f"{here} of {len(programs)} programs"


def tool_rows(tools: Sequence[ToolHere]) -> list[Row]:
    return [{"tool": each.tool, "here": _state(each.here, {})} for each in tools]


def _state(item: Installable, reasons: dict[str, None]) -> str:
    """In a line; a reason becomes its number among `reasons`."""
    if item.state == "ready":
        return "needs nothing"
    if item.state == "installing":
        return "is being installed"
    if item.state == "none":
        reasons.setdefault(item.reason or "")
        return f"no {list(reasons).index(item.reason or '') + 1}"
    size = size_text(item.size_bytes or 0)
    if item.state == "installed":
        return ", ".join(filter(None, (f"installed {item.version or ''}".strip(), size)))
    said = "not installed" if item.state == "not installed" else "to be made anew"
    return f"{said}: `{item.install}` ({'compiles, ' if item.compiles else ''}{size})"


def quantization_rows(served: Sequence[QuantizationServed]) -> tuple[list[Row], list[str]]:
    """The engine x quantization matrix, and the reasons that the numbers in it count from 1."""
    names: dict[str, list[str]] = {}  # of the quantizations that have a reason, their own name in it left out
    rows = []
    for row in served:
        cells = {}
        for engine, said in row.engines.items():
            if said == "yes":
                cells[engine] = said
                continue
            reason = said.replace(row.quantization, _NAME)
            names.setdefault(reason, []).append(row.quantization)
            answer = "yes" if said.startswith(SERVED_BUT) else "no"
            cells[engine] = f"{answer} {list(names).index(reason) + 1}"
        first = {
            "quantization": f"{row.quantization} ({row.alias})" if row.alias else row.quantization,
            "bits": f"{row.bits_per_weight:g}",
            "format": row.file_format or "any",
        }
        rows.append(first | cells)
    return rows, [reason.replace(_NAME, _or(each)) for reason, each in names.items()]


# Stands in a reason for the quantization that it is about.
_NAME = "\0"


def _or(names: Sequence[str]) -> str:
    *others, last = dict.fromkeys(names)
    return f"{', '.join(others)} or {last}" if others else last


def metric_rows(metrics: Sequence[Row]) -> list[Row]:
    """Each metric with its unit; below, how it is computed, and from what."""
    rows = []
    for each in metrics:
        better = f"; {each['better']} is better" if each["better"] in ("lower", "higher") else ""
        rows.append({"metric": each["metric"], "what it is": f"{each['title']}, in {each['unit']}{better}"})
        rows.append({"metric": "  formula", "what it is": each["formula"]})
        rows.append({"metric": "  source", "what it is": each["source"]})
    return rows


def scenario_rows(scenarios: Sequence[Row]) -> list[Row]:
    """Each scenario; below, its options with their defaults."""
    rows = []
    for each in scenarios:
        rows.append({"scenario": each["scenario"], "what it is": each["description"]})
        rows.append({"scenario": "  options", "what it is": each["options"]})
    return rows


def model_rows(models: Sequence[ModelHere]) -> list[Row]:
    """Each model with its facts; below, what is prepared of it and what can be."""
    rows = []
    for each in models:
        facts = (
            f"{_parameters(each.facts.parameters)} parameters, context {each.facts.context_length:,} tokens"
        )
        gated = ", to be accepted on the hub" if each.is_gated else ""
        rows.append({"model": each.model, "facts": f"{facts}; {each.licence}{gated}"})
        rows.append({"model": "  prepared", "facts": ", ".join(map(_kind, each.prepared)) or "-"})
        rows.append({"model": "  can be prepared", "facts": ", ".join(map(_kind, each.possible)) or "-"})
    return rows


def _kind(weights: Weights) -> str:
    """A precision is named with the file format that it is in."""
    is_plain = QUANTIZATIONS[weights.quantization].file_format is None
    return f"{weights.quantization} ({weights.file_format})" if is_plain else weights.quantization


def _parameters(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e9:.2g} B" if count >= 999.5e6 else f"{count / 1e6:.0f} M"
