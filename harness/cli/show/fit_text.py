"""What `bench fit` prints: a table for each question, and below them what its numbers stand on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.contracts import KnownFacts, ModelFacts
from harness.fit.fit import MOST_USERS, FitRow, FitTable, Memory
from harness.plan.memory import FITS_SHARE
from harness.settings.units import grouped

_COLUMNS = ("deployment", "weights", "KV", "other", "total", "share", "verdict", "users", "context")
# Behind a deployment whose weights cannot be had.
_NOT_HAD = " !"
_STYLES = {"fits": "green", "tight": "yellow", "does not fit": "red"}


def print_fit(
    out: Console, tables: Sequence[FitTable], known: Mapping[str, KnownFacts], memory: Memory
) -> None:
    """Print all tables, after what they are about; `known`: of each model."""
    for line in _about(known, memory):
        out.print(escape(line), soft_wrap=False)
    for table in tables:
        out.print()
        out.print(escape(_question(table, several=len(known) > 1)), soft_wrap=False)
        if table.rows:
            _print_rows(out, table.rows)
    out.print()
    for line in note_lines(tables, {model: about.facts for model, about in known.items()}):
        out.print(escape(line), soft_wrap=False)


def fit_record(tables: Sequence[FitTable], known: Mapping[str, KnownFacts], memory: Memory) -> dict[str, Any]:
    """Return the same, for `--json`."""
    return {"memory": memory, "fits_share": FITS_SHARE, "models": known, "tables": tables}


def _gib(size_bytes: int) -> str:
    gib = size_bytes / 2**30
    return f"{gib:.2f}" if gib < 10 else f"{gib:,.1f}"


def _about(known: Mapping[str, KnownFacts], memory: Memory) -> Iterator[str]:
    """Say what memory and which models the tables are about."""
    what = "the machine" if memory.device == "cpu" else "each device"
    yield f"Memory of {what}: {_gib(memory.device_bytes)} GiB ({memory.source})."
    for model, about in known.items():
        most = f"up to {about.facts.context_length:,} tokens of context"
        yield f"{model}: {_count(about.facts.parameters or 0)} parameters, {most} ({about.source})."


def _count(parameters: int) -> str:
    """Return a number of parameters in three digits, whatever rounding makes of it."""
    if parameters < 999.5e6:
        return f"{parameters / 1e6:.0f} M"
    billions = parameters / 1e9
    return f"{billions:.{2 if billions < 9.995 else 1 if billions < 99.95 else 0}f} B"


def _question(table: FitTable, *, several: bool) -> str:
    users = f"{table.users:,} user{'' if table.users == 1 else 's'} at once"
    words = [f"{users} x {table.context_length:,} tokens"]
    if table.kv_cache_tokens != table.users * table.context_length:
        words.append(f"KV cache of {table.kv_cache_tokens:,} tokens")
    if table.tensor_parallel > 1:
        words.append(f"{table.tensor_parallel} devices")
    words += [f"{key}={value}" for key, value in table.differs.items() if key != "engine.tensor_parallel"]
    return (f"{table.model}, " if several else "") + ", ".join(words) + ", in GiB:"


def _print_rows(out: Console, rows: Sequence[FitRow]) -> None:
    """Print a line for each deployment. On a terminal that is too narrow its name stands above its numbers,
    so that neither is broken."""
    whole = _rich_table(rows, with_names=True)
    if _width(out, whole) <= out.width:
        out.print(whole, soft_wrap=False)
        return
    numbers = _rich_table(rows, with_names=False)
    options = out.options.update(width=_width(out, numbers))
    head, *lines = (
        Text.assemble("  ", *((part.text, part.style or "") for part in line))
        for line in out.render_lines(numbers, options, pad=False)
    )
    out.print(head)
    for row, line in zip(rows, lines, strict=True):
        out.print(escape(_name(row)))
        out.print(line)


def _width(out: Console, table: Table) -> int:
    return Measurement.get(out, out.options.update(width=1000), table).maximum


def _name(row: FitRow) -> str:
    return row.label + (_NOT_HAD if row.why_not_had else "")


def _rich_table(rows: Sequence[FitRow], *, with_names: bool) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in _COLUMNS if with_names else _COLUMNS[1:]:
        is_text = name in ("deployment", "verdict")
        made.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        need = row.need
        numbers = (
            _gib(need.weights_bytes),
            _gib(need.kv_cache_bytes),
            _gib(need.overhead_bytes) + ("*" if need.is_assumed else " "),
            _gib(row.total_bytes),
            f"{row.share:.0%}",
            f"[{_STYLES[row.verdict]}]{row.verdict}[/]",
            _users(row.most_users),
            "-" if row.longest_context is None else f"{row.longest_context:,}",
        )
        made.add_row(*([escape(_name(row))] if with_names else []), *numbers)
    return made


def _users(most: int | None) -> str:
    if most is None:
        return "any"
    return f"{most:,}" + ("+" if most == MOST_USERS else "")


def note_lines(tables: Sequence[FitTable], facts: Mapping[str, ModelFacts]) -> Iterator[str]:
    """Say what the columns mean, what is assumed and by whom, what cannot be had or is not served, and
    why."""
    rows = [row for table in tables for row in table.rows]
    if rows:
        yield (
            f"fits: up to {FITS_SHARE:.0%} of the memory; tight: up to all of it, where this estimate's own "
            "error decides. users: the most that fit with this context; context: the longest "
            "that fits for as many users."
        )
        if any(row.most_users is None for row in rows):
            yield "any: more users take no more memory; they wait for each other."
        yield from _kv_lines(tables, facts)
    for engine, program in dict.fromkeys((row.engine, row.program) for row in rows if row.program):
        yield f"{engine}: as {engine}.program={program}, since its first program does not serve on a GPU."
    needs = [(row.need, row.engine) for row in rows]
    yield from _named("other*", ((each.overhead_source, name) for each, name in needs if each.is_assumed))
    yield from _named("other", ((each.overhead_source, name) for each, name in needs if not each.is_assumed))
    lacks = ((row.why_not_had, row.label) for row in rows if row.why_not_had)
    yield from _named(f"{_NOT_HAD.strip()} cannot be had", lacks)
    for asked in dict.fromkeys(asked for table in tables for asked in table.uncounted):
        yield f"{asked}: not counted; the numbers are of all of a device's memory."
    yield from _named(
        "not served", ((each.reason, each.label) for table in tables for each in table.unserved)
    )


def _named(heading: str, pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a line for each text, with the names that have it."""
    for text, names in grouped(pairs).items():
        yield f"{heading}, {', '.join(names)}: {text}"


def _kv_lines(tables: Sequence[FitTable], facts: Mapping[str, ModelFacts]) -> Iterator[str]:
    """Say what a token of each model takes, and why the column is not that times the tokens."""
    rows_of: dict[str, list[FitRow]] = {}
    for table in tables:
        rows_of.setdefault(table.model, []).extend(table.rows)
    several = len(rows_of) > 1
    said = [(f"{model} " if several else "") + _kv_per_token(rows) for model, rows in rows_of.items() if rows]
    yield f"KV cache per token: {'; '.join(said)}."
    windows = [
        f"{each.sliding_layers} of {each.layers} layers{f' of {model}' if several else ''} need the last "
        f"{each.sliding_window:,} tokens alone"
        for model, each in facts.items()
        if each.sliding_window and each.sliding_layers and rows_of.get(model)
    ]
    if windows:
        yield (
            f"KV: {', '.join(windows)}. Some engines keep all of them even so; the others have room beside "
            "for the tokens that are read in a step, in whole blocks, which on a GPU are other numbers than "
            "on a CPU."
        )


def _kv_per_token(rows: Sequence[FitRow]) -> str:
    named = grouped((f"{row.need.kv_bytes_per_token / 1024:,.5g} KiB", row.engine) for row in rows)
    if len(named) == 1:
        return next(iter(named))
    return "; ".join(f"{what} ({', '.join(engines)})" for what, engines in named.items())
