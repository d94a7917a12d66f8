"""What `bench list`, `plan`, `doctor` and `compare` print: rows, and the same rows as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines import ALIASES, ENGINES, QUANTIZATIONS, models
from harness import gpu, install
from harness.config import default_of_keys, option_keys, takes_of_keys
from harness.contracts import (
    Deployment,
    EngineTerms,
    InstallSpec,
    Load,
    Plan,
    Reason,
    SelfTest,
    SelfTestStep,
    Weights,
)
from harness.doctor import Finding
from harness.errors import UserError
from harness.plan import OPEN_LOOP_SEQUENCES
from harness.provision import install_spec, programs_of
from harness.selftest import Rung
from scenarios import SCENARIOS

Row = dict[str, str]


def spec_of(engine: str, program: str | None = None) -> InstallSpec | Reason | None:
    """A program's environment on this machine; without one, of the engine's first that needs any.

    Raises UserError for an unknown name.
    """
    if engine not in ENGINES:
        raise UserError(f"{engine}: no such engine; choose from {', '.join(sorted(ENGINES))}")
    programs = programs_of(engine)
    if program is not None and program not in programs:
        choices = ", ".join(filter(None, programs)) or "none: it has one program"
        raise UserError(f"--program {program}: {engine} has no such program; choose from {choices}")
    has_device = not isinstance(gpu.devices(), Reason)
    wanted = programs if program is None else (program,)
    specs = (install_spec(engine, each, has_device=has_device) for each in wanted)
    return next((spec for spec in specs if spec is not None), None)


def rows_of(what: str) -> list[Row]:
    """The rows of one list. Raises UserError for an unknown one."""
    lists = {
        "engines": _engines,
        "scenarios": _scenarios,
        "quantizations": _quantizations,
        "models": _models,
        "metrics": _metrics,
        "keys": _keys,
    }
    if what not in lists:
        raise UserError(f"list {what}: no such list; choose from {', '.join(lists)}")
    return lists[what]()


def _engines() -> list[Row]:
    return [
        {"engine": name, "here": _engine_state(name), "description": engine.description}
        for name, engine in ENGINES.items()
    ]


def _engine_state(name: str) -> str:
    first, *others = programs_of(name)
    states = [_program_state(name, first, f"bench install {name}")]
    for program in others:
        states.append(
            f"{program}: {_program_state(name, program, f'bench install {name} --program {program}')}"
        )
    return "; ".join(states)


def _program_state(engine: str, program: str | None, command: str) -> str:
    spec = install_spec(engine, program, has_device=not isinstance(gpu.devices(), Reason))
    if isinstance(spec, Reason):
        return spec.text
    if spec is None:
        return "yes"
    found = install.installed(install.cache_dir(), spec)
    if found is None:
        return f"no: run `{command}` (" + (
            "compiles)" if spec.sources else f"{spec.size_bytes / 2**20:.0f} MiB)"
        )
    return f"installed, {found.size_bytes / 2**20:.1f} MiB"


def _scenarios() -> list[Row]:
    return [
        {
            "scenario": name,
            "description": scenario.description,
            "options": ", ".join(option_keys("scenario", scenario.options)),
        }
        for name, scenario in SCENARIOS.items()
    ]


def _quantizations() -> list[Row]:
    """The engine x quantization matrix, derived from the engines' own files."""
    aliases = {target: alias for alias, target in ALIASES.items()}
    rows = []
    for name, facts in QUANTIZATIONS.items():
        row = {
            "quantization": f"{name} ({aliases[name]})" if name in aliases else name,
            "bits per weight": f"{facts.bits_per_weight:g}",
            "format": facts.file_format or "the engine's own",
        }
        row |= {engine: _served(engine, name) for engine in ENGINES}
        rows.append(row)
    return rows


def _served(engine: str, quantization: str) -> str:
    deployment = Deployment(
        engine, next(iter(models.MODELS)), quantization, EngineTerms(), ENGINES[engine].options(), ""
    )
    needed = ENGINES[engine].weights(deployment)
    if isinstance(needed, Reason):
        return f"no: {needed.text}"
    return "yes" if isinstance(needed, Weights) else "-"


def _models() -> list[Row]:
    from engines import weights

    rows = []
    for name, model in models.MODELS.items():
        here: list[str] = []
        possible: list[str] = []
        for quantization in QUANTIZATIONS:
            wanted = Weights(name, quantization, "gguf")
            if weights.can_prepare(wanted) is None:
                found = weights.find(wanted, install.cache_dir())
                (here if found else possible).append(quantization)
        rows.append(
            {
                "model": name,
                "prepared": ", ".join(here) or "-",
                "can be prepared": ", ".join(possible) or "-",
                "licence": model.licence,
            }
        )
    return rows


def _keys() -> list[Row]:
    found = default_of_keys()
    found["engine.concurrent_sequences"] = f"largest load.concurrency; without one {OPEN_LOOP_SEQUENCES}"
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
    """A table with a column per key of the first row."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    out.print(table, soft_wrap=False)


def print_plan(out: Console, plan: Plan) -> None:
    rows = [
        {
            "start": start.name if position == 0 else "",
            "repeat": str(cell.repeat + 1),
            "cell": f"{cell.number:03d}",
            "scenario": cell.scenario.label,
            "load": cell.load.label,
            "ramp-up + warm-up + window + ramp-down": _phases(cell.load),
        }
        for start in plan.starts
        for position, cell in enumerate(start.cells)
    ]
    if rows:
        print_rows(out, rows)
    for skip in plan.skips:
        out.print(f"skipped {escape(skip.what)}: {escape(skip.reason)}")
    for count in sorted(_sequences(plan)):
        out.print(f"requests that a server serves at once: {count} (engine.concurrent_sequences); more wait")
    cells = len(rows)
    if cells:
        out.print(f"{len(plan.starts)} starts, {cells} cells, about {_minutes(plan.estimate_s)}")


def _sequences(plan: Plan) -> set[int]:
    """What the servers that bench starts are told; they may have an option of their own that says else."""
    terms = [start.deployment.terms for start in plan.starts]
    return {each.concurrent_sequences for each in terms if each.concurrent_sequences and not each.base_url}


def _phases(load: Load) -> str:
    """Each phase that there is, in order; the window with what bounds it."""
    bounds = [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    if load.conversations is not None:
        bounds.append(f"{load.conversations} conversations")
    window = " or ".join(bounds) or "the whole trace"
    before = [load.ramp_up_s, load.warmup_s] if load.ramp_up_s else [load.warmup_s]
    after = [load.ramp_down_s] if load.ramp_down_s else []
    return " + ".join([*(f"{s:g} s" for s in before), window, *(f"{s:g} s" for s in after)])


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} minutes"


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


def print_comparison(out: Console, comparison: Any) -> None:
    """What differs between two runs, then their values side by side."""
    names = ("deployment", "scenario", "load", "metric", "unit", "A", "B")
    out.print(f"A: {escape(str(comparison.a))}\nB: {escape(str(comparison.b))}\n")
    if comparison.differences:
        out.print("What differs in how they were made:")
        print_rows(out, [_row(("what", "A", "B"), each.cells()) for each in comparison.differences])
        out.print()
    if comparison.rows:
        print_rows(out, [_row(names, each.cells()) for each in comparison.rows])
    out.print("Values stand side by side; a difference needs an interval, which bench does not give yet.")


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


def _row(names: Sequence[str], cells: Sequence[str]) -> Row:
    return dict(zip(names, cells, strict=True))
