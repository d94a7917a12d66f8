"""`bench list`: what bench knows, as facts for `--json` and as tables for people.

A list imports what it alone needs when it is asked for: `bench list engines` waits for no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console

from engines import QUANTIZATIONS
from harness.cli.show.inventory_rows import (
    engine_rows,
    metric_rows,
    model_rows,
    quantization_rows,
    scenario_rows,
    tool_rows,
)
from harness.cli.show.tables import Row, print_numbered, print_rows
from harness.contracts import Reason, Weights
from harness.errors import UserError
from harness.install import inventory
from harness.install.install import cache_dir
from harness.install.inventory import EngineHere, ModelHere, QuantizationServed, ToolHere
from harness.sampling import gpu


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


def _as(rows_of: Callable[[list[Any]], Sequence[Row]]) -> Callable[[Console, list[Any]], None]:
    """Return a function that prints such rows."""
    return lambda out, facts: print_rows(out, rows_of(facts))


def _engines() -> list[EngineHere]:
    return inventory.engines_here(cache_dir(), has_device=has_device())


def _print_engines(out: Console, here: list[EngineHere]) -> None:
    """A number in the table is the reason below it; then what each engine is."""
    rows, reasons = engine_rows(here)
    print_rows(out, rows)
    out.print()
    if reasons:
        print_numbered(out, reasons)
        out.print()
    print_rows(out, [{"engine": each.engine, "what it is": each.description} for each in here])


def _tools() -> list[ToolHere]:
    return inventory.tools_here(cache_dir())


def _scenarios() -> list[Row]:
    from harness.settings.decoding import option_keys
    from scenarios import SCENARIOS

    return [
        {
            "scenario": name,
            "description": scenario.description,
            "options": ", ".join(option_keys("scenario", scenario.options)),
        }
        for name, scenario in SCENARIOS.items()
    ]


def _quantizations() -> list[QuantizationServed]:
    from engines.model import weights
    from harness.settings.keys import DEFAULT_MODEL

    return inventory.quantizations_served(DEFAULT_MODEL, weights.can_prepare)


def _print_matrix(out: Console, served: list[QuantizationServed]) -> None:
    """A number in a cell is the reason below it."""
    from harness.settings.keys import DEFAULT_MODEL

    rows, reasons = quantization_rows(served)
    print_rows(out, rows)
    out.print()
    print_numbered(out, reasons)
    first = f"Of {DEFAULT_MODEL}, as each engine is first started"
    out.print(f"{first}; `bench plan` says what this machine can.")


def _models() -> list[ModelHere]:
    from engines.model import models, weights

    rows = []
    for name, model in models.MODELS.items():
        had = [each for each in _weights_of(name) if weights.can_prepare(each) is None]
        here = tuple(each for each in had if weights.find(each, cache_dir()))
        rest = tuple(each for each in had if each not in here)
        rows.append(ModelHere(name, model.licence, model.is_gated, model.facts, here, rest))
    return rows


def _weights_of(model: str) -> Iterator[Weights]:
    """Yield every pair of quantization and file format."""
    for name, facts in QUANTIZATIONS.items():
        for file_format in [facts.file_format] if facts.file_format else ["gguf", "safetensors"]:
            yield Weights(model, name, file_format)


def _metrics() -> list[Row]:
    from reports import METRICS

    names = ("title", "unit", "better", "formula", "source")
    return [{"metric": metric.name} | {name: getattr(metric, name) for name in names} for metric in METRICS]


def _keys() -> list[Row]:
    from harness.plan.candidates import CONTEXT_LENGTH
    from harness.settings.keys import default_of_keys, takes_of_keys

    found = default_of_keys() | {
        "engine.launcher": "each engine's first",
        "engine.context_length": str(CONTEXT_LENGTH),
        "engine.concurrent_sequences": "largest load.concurrency, or what load.rate needs",
        "engine.kv_cache_tokens": "engine.context_length x engine.concurrent_sequences, if all hold it",
        "engine.prefix_cache": "true",
        "fit.device_memory": "this machine's device, or the machine",
    }
    takes = takes_of_keys()
    return [{"key": key, "default": default, "takes": takes.get(key, "")} for key, default in found.items()]


# By its name: what returns its facts, and what prints them.
_LISTS: dict[str, tuple[Callable[[], list[Any]], Callable[[Console, list[Any]], None]]] = {
    "engines": (_engines, _print_engines),
    "tools": (_tools, _as(tool_rows)),
    "scenarios": (_scenarios, _as(scenario_rows)),
    "quantizations": (_quantizations, _print_matrix),
    "models": (_models, _as(model_rows)),
    "metrics": (_metrics, _as(metric_rows)),
    "keys": (_keys, print_rows),
}
