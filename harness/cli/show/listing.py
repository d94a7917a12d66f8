"""What `bench list`, `plan` and `doctor` print: rows, and the same rows as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines import QUANTIZATIONS
from engines.model import models
from harness.cli.doctor import Finding
from harness.cli.show.inventory_rows import (
    Row,
    engine_rows,
    metric_rows,
    model_rows,
    quantization_rows,
    scenario_rows,
    tool_rows,
)
from harness.cli.show.plan_text import plan_lines, plan_rows
from harness.contracts import InstallSpec, Plan, Reason, SelfTest, SelfTestStep, Until, Weights
from harness.errors import UserError
from harness.install import install, inventory
from harness.install.inventory import EngineHere, ModelHere, QuantizationServed
from harness.plan.candidates import CONTEXT_LENGTH
from harness.sampling import gpu
from harness.selftest.selftest import Rung
from harness.settings.config import DEFAULT_MODEL, default_of_keys, takes_of_keys
from harness.settings.decoding import option_keys
from scenarios import SCENARIOS

# Whose architecture the matrix is about.
_MATRIX_MODEL = DEFAULT_MODEL


def spec_of(name: str, program: str | None = None) -> InstallSpec | Reason | None:
    """See inventory.spec_of, for this machine."""
    return inventory.spec_of(name, program, has_device=_has_device())


def _has_device() -> bool:
    return not isinstance(gpu.devices(), Reason)


def facts_of(what: str) -> list[Any]:
    """One list, as `--json` prints it. Raises UserError for an unknown one."""
    cache = install.cache_dir()
    lists: dict[str, Callable[[], list[Any]]] = {
        "engines": lambda: inventory.engines_here(cache, has_device=_has_device()),
        "tools": lambda: inventory.tools_here(cache),
        "scenarios": _scenarios,
        "quantizations": _quantizations,
        "models": _models,
        "metrics": _metrics,
        "keys": _keys,
    }
    if what not in lists:
        raise UserError(f"list {what}: no such list; choose from {', '.join(lists)}")
    return lists[what]()


def print_list(out: Console, what: str) -> None:
    """The same for people."""
    facts = facts_of(what)
    special: dict[str, Callable[[Console, list[Any]], None]] = {
        "engines": _print_engines,
        "quantizations": _print_matrix,
    }
    if what in special:
        special[what](out, facts)
        return
    rows_of: dict[str, Callable[[list[Any]], list[Row]]] = {
        "tools": tool_rows,
        "models": model_rows,
        "metrics": metric_rows,
        "scenarios": scenario_rows,
    }
    print_rows(out, rows_of[what](facts) if what in rows_of else facts)


def _print_engines(out: Console, here: list[EngineHere]) -> None:
    """A number in the table is the reason below it; then what each engine is."""
    rows, reasons = engine_rows(here)
    print_rows(out, rows)
    out.print()
    if reasons:
        _print_reasons(out, reasons)
        out.print()
    print_rows(out, [{"engine": each.engine, "what it is": each.description} for each in here])


def _print_matrix(out: Console, served: list[QuantizationServed]) -> None:
    """A number in a cell is the reason below it."""
    rows, reasons = quantization_rows(served)
    print_rows(out, rows)
    out.print()
    _print_reasons(out, reasons)
    out.print(
        f"Of {_MATRIX_MODEL}, as each engine is first started; `bench plan` says what this machine can."
    )


def _print_reasons(out: Console, reasons: Sequence[str]) -> None:
    """Each with its number, further lines below its text."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", min_width=2, no_wrap=True)
    table.add_column()
    for number, reason in enumerate(reasons, start=1):
        table.add_row(str(number), escape(reason))
    out.print(table, soft_wrap=False)


def _scenarios() -> list[Row]:
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

    return inventory.quantizations_served(_MATRIX_MODEL, weights.can_prepare)


def _models() -> list[ModelHere]:
    from engines.model import weights

    cache = install.cache_dir()
    rows = []
    for name, model in models.MODELS.items():
        had = [each for each in _weights_of(name) if weights.can_prepare(each) is None]
        here = tuple(each for each in had if weights.find(each, cache))
        rest = tuple(each for each in had if each not in here)
        rows.append(ModelHere(name, model.licence, model.is_gated, model.facts, here, rest))
    return rows


def _weights_of(model: str) -> Iterator[Weights]:
    """Every pair of quantization and file format."""
    for name, facts in QUANTIZATIONS.items():
        for file_format in [facts.file_format] if facts.file_format else ["gguf", "safetensors"]:
            yield Weights(model, name, file_format)


def _keys() -> list[Row]:
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


def _metrics() -> list[Row]:
    from reports import METRICS

    return [
        {
            "metric": metric.name,
            "title": metric.title,
            "unit": metric.unit,
            "better": metric.better,
            "formula": metric.formula,
            "source": metric.source,
        }
        for metric in METRICS
    ]


# --- tables ----------------------------------------------------------------------------------------


def print_rows(out: Console, rows: Sequence[Row]) -> None:
    """A table with a column per key of the first row; the names in the first are cut last. Where it is too
    wide, columns move together, and words are broken only where they do not fit even so."""
    first, *others = rows[0]
    whole = {name: _longest([name, *(row[name] for row in rows)]) for name in rows[0]}
    words = {name: _longest(" ".join([name, *(row[name] for row in rows)]).split()) for name in rows[0]}
    is_narrow = sum(whole.values()) + 2 * len(others) > out.width
    is_short = whole[first] <= out.width // 2
    least = words | ({first: whole[first]} if is_short else {})
    keeps_words = sum(least.values()) + len(others) <= out.width
    table = Table(
        box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0) if is_narrow else (0, 1)
    )
    table.add_column(first, overflow="fold", no_wrap=is_short)
    for name in others:
        table.add_column(name, overflow="fold", min_width=words[name] if keeps_words else None)
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    out.print(table, soft_wrap=False)


def _longest(texts: Sequence[str]) -> int:
    return max(map(cell_len, texts), default=0)


def print_plan(out: Console, plan: Plan, until: Until | None = None) -> None:
    if rows := plan_rows(plan):
        print_rows(out, rows)
    for line in plan_lines(plan, until):
        out.print(escape(line))


def print_findings(out: Console, findings: Sequence[Finding]) -> None:
    marks = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
    print_rows(
        out,
        [
            {
                "": marks[f.state],
                "topic": f.topic,
                "finding": f"{f.text} {f.remedy and '- ' + f.remedy}".strip(),
            }
            for f in findings
        ],
    )


def step_in_short(step: SelfTestStep) -> str:
    """One load of the self-test, in a line."""
    rung = Rung(step.streams, step.chunks_per_s).label
    if step.ttft_error_s is None:
        return f"  {rung}: no request could be judged, {step.failed} of {step.requests} failed"
    middle, p99 = map(_error, step.ttft_error_s)
    return f"  {rung}: TTFT error p50 {middle}, p99 {p99}; {step.requests} requests, {step.failed} failed"


def print_selftest(out: Console, result: SelfTest) -> None:
    """The errors at each load, then up to where they are small."""
    print_rows(out, [_step_row(step) for step in result.steps])
    out.print("error: what the client reported minus what the server did, of each request (ITL: each gap);")
    out.print(
        "TTFT and E2E: the client's from sending the request, the server's from that request's arrival;"
    )
    out.print("of fewer than 100 the p99 is the largest")
    if result.stamp_source == "read":
        out.print("arrivals were stamped after the read: this system gives no kernel stamps")
    if result.stopped:
        out.print(escape(result.stopped))
    out.print(escape(verdict(result)))


def _step_row(step: SelfTestStep) -> Row:
    late, cpu_s = "" if step.server_kept_up else " (fell behind)", step.cpu_s_per_chunk
    return {
        "streams": str(step.streams),
        "chunks/s each": f"{step.chunks_per_s:g}",
        "reached, all": f"{step.reached_chunks_per_s:,.0f}/s",
        "requests": f"{step.requests}" + (f" ({step.failed} failed)" if step.failed else ""),
        "TTFT error p50, p99": _errors(step.ttft_error_s),
        "ITL error p50, p99": _errors(step.itl_error_s),
        "E2E error p50, p99": _errors(step.e2e_error_s),
        "server late p50, p99": _errors(step.server_late_s) + late,
        "CPU per chunk": "-" if cpu_s is None else _error(cpu_s),
    }


def _errors(pair: tuple[float, float] | None) -> str:
    return "-" if pair is None else ", ".join(map(_error, pair))


def _error(seconds: float) -> str:
    """In the unit that people read such times in: us below a millisecond."""
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def verdict(result: SelfTest) -> str:
    """The sentence that the self-test comes to."""
    server = f"({result.program} reference server)"
    if result.largest is None:
        first = Rung(result.steps[0].streams, result.steps[0].chunks_per_s).label
        return f"TTFT's p99 error is not under 1 ms even at {first} {server}"
    largest = Rung(*result.largest)
    last = result.steps[-1]
    is_last = (last.streams, last.chunks_per_s) == result.largest
    beyond = ", the largest load tried" if is_last else ""
    return f"TTFT's p99 error stays under 1 ms up to {largest.label} {server}{beyond}"
