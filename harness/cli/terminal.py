"""Share among commands: arguments, the two consoles, tables, and the handling of signals."""

import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.contracts import inert
from harness.errors import Interrupted

# Programs read what goes into a file or a pipe: there a row is one line, unless COLUMNS says how wide it is.
UNBOUNDED_COLUMNS = 100_000
_PIPE_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else UNBOUNDED_COLUMNS
# Without emoji codes: `run:x:` is a directory and a deployment, and no cross.
out = Console(highlight=False, emoji=False, soft_wrap=True, width=_PIPE_WIDTH)
complaints = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="What is measured, such as load.concurrency=1,8 (see `bench list keys`)",
    ),
]
Study = Annotated[
    Path | None, typer.Option("--from", metavar="STUDY.yaml", help="A file of the same keys; arguments win.")
]
Output = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Directory to write; new or empty.", show_default="results/<time>"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress: print what comes out, and errors."),
]
Row = dict[str, str]


def print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_rows(rows: Sequence[Row], *, right: Collection[str] = (), to: Console = out) -> None:
    """Print a table with a column per key of the first row; those named in `right` are aligned there.

    In a table that is too wide words are broken only if they do not fit even then. Where nothing bounds the
    width, each row is one line, without spaces at its end.
    """
    if to.width >= UNBOUNDED_COLUMNS:
        _print_whole(rows, right, to)
        return
    first, *others = rows[0]
    columns = {name: [name, *(row[name] for row in rows)] for name in rows[0]}
    whole = {name: max(map(cell_len, texts)) for name, texts in columns.items()}
    words = {name: max(map(cell_len, " ".join(texts).split()), default=0) for name, texts in columns.items()}
    is_short = whole[first] <= to.width // 2
    if is_short:
        words[first] = whole[first]
    is_narrow = sum(whole.values()) + 2 * len(others) > to.width
    spare = to.width - sum(words.values()) - len(others)
    widths = {}
    if is_narrow and spare >= 0:
        # rich shrinks columns below their words, or lets a row run over the edge, where it is cut.
        for name in sorted(others, key=lambda name: whole[name] - words[name]):
            more = min(spare, whole[name] - words[name])
            widths[name], spare = words[name] + more, spare - more
    table = Table(
        box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0) if is_narrow else (0, 1)
    )
    table.add_column(first, overflow="fold", no_wrap=is_short)
    for name in others:
        table.add_column(
            name, justify="right" if name in right else "left", overflow="fold", width=widths.get(name)
        )
    for row in rows:
        table.add_row(*(escape(inert(value, keep="\n")) for value in row.values()))
    to.print(table, soft_wrap=False)


def _print_whole(rows: Sequence[Row], right: Collection[str], to: Console) -> None:
    lines = [
        dict(zip(rows[0], rows[0], strict=True)),
        *({k: inert(v) for k, v in row.items()} for row in rows),
    ]
    widths = {name: max(cell_len(line[name]) for line in lines) for name in rows[0]}
    for line in lines:
        spaces = {name: " " * (widths[name] - cell_len(text)) for name, text in line.items()}
        cells = (spaces[k] + text if k in right else text + spaces[k] for k, text in line.items())
        to.print(escape("  ".join(cells).rstrip()))


def print_lines(lines: Iterable[str], *, fold: bool = False) -> None:
    """Print each line as it is, however long, or folded at the terminal's width."""
    for line in lines:
        out.print(escape(inert(line)), soft_wrap=not fold)


# SIGHUP comes when a terminal is closed; `nohup bench` has it ignored.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A second Ctrl-C while all is being stopped would only cut that short; one much later is meant as a new one.
_PATIENCE_S = 60.0
_LATER_S = 0.05


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise Interrupted in the block on a signal of _ENDING, once; again only after _PATIENCE_S, or where
    Python had to drop it, as it does in callbacks."""
    last_s = float("-inf")
    told_before = sys.unraisablehook
    timers = list[threading.Timer]()

    def interrupt(number: int, _: object) -> None:
        nonlocal last_s
        if time.monotonic() - last_s > _PATIENCE_S:
            last_s = time.monotonic()
            raise Interrupted(number)

    def raise_later(dropped: Any) -> None:
        nonlocal last_s
        if not isinstance(dropped.exc_value, Interrupted):
            told_before(dropped)
            return
        last_s = float("-inf")
        number = dropped.exc_value.exit_code - 128
        # Here it would be dropped, too.
        timers.append(threading.Timer(_LATER_S, os.kill, (os.getpid(), number)))
        timers[-1].start()

    with signals_handled(interrupt):
        sys.unraisablehook = raise_later
        try:
            yield
        finally:
            sys.unraisablehook = told_before
            for timer in timers:
                timer.cancel()  # beyond the block it would end bench by the signal


def _leave_terminal() -> None:
    """Print nowhere what would go to a terminal: it is closed, and printing there raises OSError."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)


@contextmanager
def signals_handled(handler: Callable[[int, object], object]) -> Iterator[None]:
    """Call the handler on a signal of _ENDING during the block, whose terminal may be closed by then."""

    def handle(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        handler(number, frame)

    heeded = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
