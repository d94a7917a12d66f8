"""What `bench list`, `plan`, `doctor` and `compare` print: rows, and the same rows as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engines import ALIASES, ENGINES, QUANTIZATIONS, models
from harness import gpu, install
from harness.config import default_of_keys, option_keys
from harness.contracts import Deployment, EngineTerms, InstallSpec, Plan, Reason, Weights
from harness.doctor import Finding
from harness.errors import UserError
from harness.provision import install_spec
from scenarios import SCENARIOS

Row = dict[str, str]


def spec_of(engine: str) -> InstallSpec | Reason | None:
    """An engine's environment on this machine. Raises UserError for an unknown name."""
    if engine not in ENGINES:
        raise UserError(f"{engine}: no such engine; choose from {', '.join(sorted(ENGINES))}")
    return install_spec(engine, has_device=not isinstance(gpu.devices(), Reason))


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
    spec = spec_of(name)
    if isinstance(spec, Reason):
        return spec.text
    if spec is None:
        return "yes"
    found = install.installed(install.cache_dir(), spec)
    if found is None:
        return f"no: run `bench install {name}` ({spec.size_bytes / 2**20:.0f} MiB)"
    return f"installed, {found.size_bytes / 2**20:.0f} MiB"


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
    return [{"key": key, "default": default} for key, default in default_of_keys().items()]


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
            "users": str(cell.load.concurrency),
            "warm-up + window": f"{cell.load.warmup_s:g} s + {cell.load.duration_s:g} s",
        }
        for start in plan.starts
        for position, cell in enumerate(start.cells)
    ]
    if rows:
        print_rows(out, rows)
    for skip in plan.skips:
        out.print(f"skipped {escape(skip.what)}: {escape(skip.reason)}")
    cells = len(rows)
    if cells:
        out.print(f"{len(plan.starts)} starts, {cells} cells, about {_minutes(plan.estimate_s)}")


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


def _row(names: Sequence[str], cells: Sequence[str]) -> Row:
    return dict(zip(names, cells, strict=True))
