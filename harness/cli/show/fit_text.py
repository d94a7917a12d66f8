"""What `bench fit` prints: a table for each question, and below them what its numbers stand on."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from harness.cli.show.tables import print_lines
from harness.contracts import KnownFacts
from harness.fit.fit import MOST_USERS, FitRow, FitTable, Memory
from harness.plan.terms import FITS_SHARE
from harness.settings.units import counted, grouped

_COLUMNS = ("weights", "KV", "other", "total", "share", "verdict", "users", "context")
# Behind a deployment whose weights cannot be had.
_NOT_HAD = " !"
_STYLES = {"fits": "green", "tight": "yellow", "does not fit": "red"}


def print_fit(
    out: Console, tables: Sequence[FitTable], known: Mapping[str, KnownFacts], memory: Memory
) -> None:
    """Print all tables, after what they are about; `known`: of each model."""
    what = "the machine" if memory.device == "cpu" else "each device"
    lines = [f"Memory of {what}: {_gib(memory.device_bytes)} GiB ({memory.source})."]
    for model, about in known.items():
        most = f"up to {about.facts.context_length:,} tokens of context"
        lines.append(f"{model}: {_count(about.facts.parameters or 0)} parameters, {most} ({about.source}).")
    print_lines(out, lines)
    for table in tables:
        out.print()
        print_lines(out, [_question(table, several=len(known) > 1)])
        if table.rows:
            _print_rows(out, table.rows)
    out.print()
    print_lines(out, _note_lines(tables, known))


def _gib(size_bytes: int) -> str:
    gib = size_bytes / 2**30
    return f"{gib:.2f}" if gib < 10 else f"{gib:,.1f}"


def _count(parameters: int) -> str:
    """Return a number of parameters in three digits, whatever rounding makes of it."""
    if parameters < 999.5e6:
        return f"{parameters / 1e6:.0f} M"
    billions = parameters / 1e9
    return f"{billions:.{2 if billions < 9.995 else 1 if billions < 99.95 else 0}f} B"


def _question(table: FitTable, *, several: bool) -> str:
    words = [f"{counted(table.users, 'user')} at once x {table.context_length:,} tokens"]
    if table.kv_cache_tokens != table.users * table.context_length:
        words.append(f"KV cache of {table.kv_cache_tokens:,} tokens")
    if table.tensor_parallel > 1:
        words.append(f"{table.tensor_parallel} devices")
    words += [f"{key}={value}" for key, value in table.differs.items() if key != "engine.tensor_parallel"]
    return (f"{table.model}, " if several else "") + ", ".join(words) + ", in GiB:"


def _print_rows(out: Console, rows: Sequence[FitRow]) -> None:
    """Print a line for each deployment. On a terminal that is too narrow its name stands above its numbers,
    so that neither is broken."""
    names = [row.label + (_NOT_HAD if row.why_not_had else "") for row in rows]
    cells = [_cells(row) for row in rows]
    whole = _rich_table(
        ("deployment", *_COLUMNS), [(escape(name), *row) for name, row in zip(names, cells, strict=True)]
    )
    if _width(out, whole) <= out.width:
        out.print(whole, soft_wrap=False)
        return
    numbers = _rich_table(_COLUMNS, cells)
    options = out.options.update(width=_width(out, numbers))
    for name, line in zip(["", *names], out.render_lines(numbers, options, pad=False), strict=True):
        if name:
            out.print(escape(name))
        out.print(Text.assemble("  ", *((part.text, part.style or "") for part in line)))


def _width(out: Console, table: Table) -> int:
    return Measurement.get(out, out.options.update(width=1000), table).maximum


def _cells(row: FitRow) -> tuple[str, ...]:
    most = "any" if row.most_users is None else f"{row.most_users:,}"
    return (
        _gib(row.need.weights_bytes),
        _gib(row.need.kv_cache_bytes),
        _gib(row.need.overhead_bytes) + ("*" if row.need.is_assumed else " "),
        _gib(row.total_bytes),
        f"{row.share:.0%}",
        f"[{_STYLES[row.verdict]}]{row.verdict}[/]",
        most + ("+" if row.most_users == MOST_USERS else ""),
        "-" if row.longest_context is None else f"{row.longest_context:,}",
    )


def _rich_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        is_text = name in ("deployment", "verdict")
        made.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return made


def _note_lines(tables: Sequence[FitTable], known: Mapping[str, KnownFacts]) -> Iterator[str]:
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
        yield from _kv_lines(tables, known)
    for engine, program in dict.fromkeys((row.engine, row.program) for row in rows if row.program):
        yield f"{engine}: as {engine}.program={program}, since its first program does not serve on a GPU."
    for asked in dict.fromkeys(asked for table in tables for asked in table.uncounted):
        yield f"{asked}: not counted; the numbers are of all of a device's memory."
    named = {
        "other*": [(row.need.overhead_source, row.engine) for row in rows if row.need.is_assumed],
        "other": [(row.need.overhead_source, row.engine) for row in rows if not row.need.is_assumed],
        f"{_NOT_HAD.strip()} cannot be had": [
            (row.why_not_had, row.label) for row in rows if row.why_not_had
        ],
        "not served": [(each.reason, each.label) for table in tables for each in table.unserved],
    }
    for heading, pairs in named.items():
        for text, names in grouped(pairs).items():
            yield f"{heading}, {', '.join(names)}: {text}"


def _kv_lines(tables: Sequence[FitTable], known: Mapping[str, KnownFacts]) -> Iterator[str]:
    """Say what a token of each model takes, and why the column is not that times the tokens."""
    rows_of: dict[str, list[FitRow]] = {}
    for table in tables:
        if table.rows:
            rows_of.setdefault(table.model, []).extend(table.rows)
    several = len({table.model for table in tables}) > 1
    said = [(f"{model} " if several else "") + _kv_per_token(rows) for model, rows in rows_of.items()]
    yield f"KV cache per token: {'; '.join(said)}."
    shapes = {model: known[model].facts for model in rows_of}
    windows = [
        f"{each.sliding_layers} of {each.layers} layers{f' of {model}' if several else ''} need the last "
        f"{each.sliding_window:,} tokens alone"
        for model, each in shapes.items()
        if each.sliding_window and each.sliding_layers
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
