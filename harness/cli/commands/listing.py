"""`bench list`: what bench knows, as facts for `--json` and as tables. Each list has its own imports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from serving_bench.engines import ENGINES, QUANTIZATIONS, aliases
from serving_bench.harness.cli.terminal import Json, Row, out, print_json, print_rows
from serving_bench.harness.contracts import Fact, Reason, Weights, because
from serving_bench.harness.errors import UserError, choose_from
from serving_bench.harness.install import builds, install
from serving_bench.harness.sampling import gpu
from serving_bench.harness.settings.units import either, parameters_text, size_text

_LAUNCHERS = {"native": "process", "docker": "container"}


def list_command(
    what: Annotated[
        str, typer.Argument(help="engines, tools, scenarios, quantizations, models, metrics or keys")
    ] = "engines",
    as_json: Json = False,
) -> None:
    facts = facts_of(what)
    if as_json:
        print_json(facts)
    else:
        _LISTS[what][1](facts)


def facts_of(what: str) -> list[Any]:
    """Return one list as `--json` prints it. Raises UserError for an unknown one."""
    if what not in _LISTS:
        raise UserError(f"list {what}: no such list; {choose_from(what, _LISTS)}")
    return _LISTS[what][0]()


def has_device() -> bool:
    return not isinstance(gpu.devices(), Reason)


def _print_engines(engines: Sequence[builds.EngineHere]) -> None:
    rows: list[Row] = []
    for engine in engines:
        how = ", ".join(_LAUNCHERS[each] for each in engine.launchers) or "runs already"
        first, *others = engine.programs
        state = _state(first)
        if others:
            here = sum(each.state in ("ready", "installed") for each in engine.programs)
            state = f"{here} of {len(engine.programs)} programs"
        rows.append({"engine": engine.engine, "started as": how, "here": state})
        for each in engine.programs if others else ():
            rows.append({"engine": f"  {each.program}", "started as": "", "here": _state(each)})
    print_rows(rows)
    out.print()
    print_rows(
        [{"engine": each.engine, "what it is": each.description + _from(each.origin)} for each in engines]
    )


def _from(origin: str | None) -> str:
    return f" (of {origin})" if origin else ""


def _tools() -> list[dict[str, Any]]:
    return [{"tool": name, "here": here} for name, here in builds.tools_here(install.cache_dir()).items()]


def _print_tools(tools: Sequence[dict[str, Any]]) -> None:
    print_rows([{"tool": each["tool"], "here": _state(each["here"])} for each in tools])


def _state(item: builds.Installable) -> str:
    size = size_text(item.size_bytes or 0)
    remedy = f"`{item.install}` ({'compiles, ' if item.compiles else ''}{size})"
    states = {
        "ready": "needs nothing",
        "none": f"no: {item.reason}",
        "installed": f"installed {item.version}, {size}" if item.version else f"installed, {size}",
        "not installed": f"not installed: {remedy}",
    }
    return states.get(item.state, f"to be made again: {remedy}")


@dataclass(frozen=True)
class QuantizationServed:
    """A row of the engine x quantization matrix, for the default model.

    `engines`: for each engine that needs weights "served", "served_but" (the weights cannot be had), or the
    reason why it does not serve the quantization.
    """

    quantization: str
    alias: str | None
    bits_per_weight: float
    file_format: str | None
    description: str
    engines: Mapping[str, Fact]
    origin: str | None


def _quantizations() -> list[QuantizationServed]:
    from serving_bench.engines.model import weights
    from serving_bench.harness.settings.keys import DEFAULT_MODEL

    short = {target: alias for alias, target in aliases(DEFAULT_MODEL).items()}
    rows = []
    for name, facts in QUANTIZATIONS.items():
        served: dict[str, Fact] = {}
        for engine in ENGINES:
            needed = builds.weights_needed(engine, DEFAULT_MODEL, name)
            if isinstance(needed, Weights):
                lacking = weights.can_prepare(needed)
                served[engine] = because("served_but", why=lacking) if lacking else because("served")
            elif needed is not None:
                served[engine] = needed
        what = (facts.bits_per_weight, facts.file_format, facts.description)
        rows.append(QuantizationServed(name, short.get(name), *what, served, QUANTIZATIONS.origins.get(name)))
    return rows


def _print_matrix(served: Sequence[QuantizationServed]) -> None:
    """Print the matrix of quantizations and engines. A number in a cell names a reason below the table."""
    from serving_bench.engines.model.models import MODELS
    from serving_bench.engines.model.sizes import mixed_kinds
    from serving_bench.harness.settings.keys import DEFAULT_MODEL

    named: dict[Fact, list[tuple[str, Fact]]] = {}  # by what it is without the quantization's name
    rows = []
    for row in served:
        cells = {
            "quantization": row.quantization,
            "bits": f"{row.bits_per_weight:g}",
            "format": row.file_format or "any",
        }
        for engine, verdict in row.engines.items():
            if verdict.kind != "served":
                reason = verdict.of(quantization="")
                named.setdefault(reason, []).append((row.quantization, verdict))
                is_served = "yes" if verdict.kind == "served_but" else "no"
                cells[engine] = f"{is_served} {list(named).index(reason) + 1}"
            else:
                cells[engine] = str(verdict)
        rows.append(cells)
    print_rows(rows)
    out.print()
    reasons = (
        verdicts[0][1].of(quantization=either(dict.fromkeys(name for name, _ in verdicts)))
        for verdicts in named.values()
    )
    why: list[Row] = [{"": str(number), "why": str(each)} for number, each in enumerate(reasons, start=1)]
    if mixed := mixed_kinds(MODELS[DEFAULT_MODEL].facts, "gguf-q4_k_m"):
        why.append({"": "K", "why": f"gguf-q4_k_m and others with a k: {mixed}"})
    print_rows(why)
    for row in served:
        if row.origin:
            out.print(f"{row.quantization}: {row.description}{_from(row.origin)}")
    short = ", ".join(f"{row.alias} is {row.quantization}" for row in served if row.alias)
    out.print(f"For {DEFAULT_MODEL} ({short}) with default options; `bench plan` says what this machine can.")


def _models() -> list[dict[str, Any]]:
    from serving_bench.engines.model import models, weights

    rows = []
    for name, model in models.MODELS.items():
        every = [
            Weights(name, quantization, file_format)
            for quantization, facts in QUANTIZATIONS.items()
            for file_format in ([facts.file_format] if facts.file_format else ["gguf", "safetensors"])
        ]
        had = [each for each in every if weights.can_prepare(each) is None]
        here = [each for each in had if weights.find(each, install.cache_dir())]
        rest = [each for each in had if each not in here]
        facts = {"licence": model.licence, "is_gated": model.is_gated, "facts": model.facts}
        rows.append({"model": name, **facts, "prepared": here, "possible": rest})
    return rows


def _print_models(models: Sequence[dict[str, Any]]) -> None:
    rows = []
    for each in models:
        count, context = parameters_text(each["facts"].parameters), f"{each['facts'].context_length:,}"
        gated = ", must be accepted on the hub" if each["is_gated"] else ""
        facts = f"{count} parameters, context {context} tokens; {each['licence']}{gated}"
        prepared, possible = (", ".join(map(_kind, each[key])) or "-" for key in ("prepared", "possible"))
        rows += [
            {"model": each["model"], "facts": facts},
            {"model": "  prepared", "facts": prepared},
            {"model": "  can be prepared", "facts": possible},
        ]
    print_rows(rows)


def _kind(weights: Weights) -> str:
    is_plain = QUANTIZATIONS[weights.quantization].file_format is None
    return f"{weights.quantization} ({weights.file_format})" if is_plain else weights.quantization


def _scenarios() -> list[dict[str, Any]]:
    from serving_bench.harness.settings.decoding import fields_by_key
    from serving_bench.scenarios import SCENARIOS

    rows = []
    for name, scenario in SCENARIOS.items():
        fields = fields_by_key("scenario", scenario.options)
        options = ", ".join(f"{key}={field.default_text}" for key, field in fields.items())
        facts = {"scenario": name, "description": scenario.description, "options": options}
        rows.append({**facts, "origin": SCENARIOS.origins.get(name)})
    return rows


def _print_scenarios(scenarios: Sequence[dict[str, Any]]) -> None:
    rows = []
    for each in scenarios:
        rows += [
            {"scenario": each["scenario"], "what it is": each["description"] + _from(each["origin"])},
            {"scenario": "  options", "what it is": each["options"]},
        ]
    print_rows(rows)


def _metrics() -> list[dict[str, Any]]:
    from serving_bench.reports.measures.metrics import BY_NAME, METRICS

    names = ("title", "unit", "better", "formula", "source")
    return [
        {"metric": metric.name}
        | {name: getattr(metric, name) for name in names}
        | {"origin": BY_NAME.origins.get(metric.name)}
        for metric in METRICS
    ]


def _print_metrics(metrics: Sequence[dict[str, Any]]) -> None:
    rows = []
    for each in metrics:
        better = f"; {each['better']} is better" if each["better"] in ("lower", "higher") else ""
        what = f"{each['title']}, in {each['unit']}{better}{_from(each['origin'])}"
        rows.append({"metric": each["metric"], "what it is": what})
        rows += [{"metric": f"  {name}", "what it is": each[name]} for name in ("formula", "source")]
    print_rows(rows)


def _keys() -> list[Row]:
    from serving_bench.harness.settings.keys import listed_keys

    names = ("default", "takes", "help")
    return [{"key": key} | dict(zip(names, values, strict=True)) for key, values in listed_keys().items()]


# The lists by name: a function that returns the facts, and one that prints them.
_LISTS: dict[str, tuple[Callable[[], list[Any]], Callable[[list[Any]], None]]] = {
    "engines": (lambda: builds.engines_here(install.cache_dir(), has_device=has_device()), _print_engines),
    "tools": (_tools, _print_tools),
    "scenarios": (_scenarios, _print_scenarios),
    "quantizations": (_quantizations, _print_matrix),
    "models": (_models, _print_models),
    "metrics": (_metrics, _print_metrics),
    "keys": (_keys, print_rows),
}
