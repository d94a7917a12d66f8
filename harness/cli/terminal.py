"""Provide what commands share: arguments, the two consoles, tables, and signal handling."""

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

from serving_bench.harness.contracts import inert, sentence
from serving_bench.harness.errors import Interrupted

# Programs read what goes into a file or a pipe, so a row is one line there, unless COLUMNS gives a width.
UNBOUNDED_COLUMNS = 100_000
_PIPE_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else UNBOUNDED_COLUMNS
_PADDED_AT_MOST = 40
# Without emoji codes: in `run:x:` the `:x:` names a deployment and must not become a cross.
out = Console(highlight=False, emoji=False, soft_wrap=True, width=_PIPE_WIDTH)
complaints = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="What is measured, such as load.concurrency=1,8 (see `bench list keys`). scenario=FILE.py runs "
        "the file's code.",
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
    typer.Option("--quiet", "-q", help="Show no progress, only the result and errors."),
]
Row = dict[str, str]


def print_json(value: object) -> None:
    print(msgspec.json.format(msgspec.json.encode(value, enc_hook=sentence), indent=2).decode())


def print_rows(rows: Sequence[Row], *, right: Collection[str] = (), to: Console = out) -> None:
    """Print a table with a column per key of the first row. `right` names the right-aligned columns.

    A table wider than the terminal wraps between words, and breaks a word only if it does not fit otherwise.
    Without a limit on the width each row is one line, without trailing spaces.
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
        # Left alone, rich shrinks columns below their longest word, or cuts rows at the edge.
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
    # A few long cells move the rest of their own rows, not of all.
    sizes = {name: [cell_len(line[name]) for line in lines] for name in rows[0]}
    widths = {name: max(size for size in each if size <= _PADDED_AT_MOST) for name, each in sizes.items()}
    for line in lines:
        spaces = {name: " " * (widths[name] - cell_len(text)) for name, text in line.items()}
        cells = (spaces[k] + text if k in right else text + spaces[k] for k, text in line.items())
        to.print(escape("  ".join(cells).rstrip()))


def print_lines(lines: Iterable[str], *, fold: bool = False) -> None:
    """Print each line whole, or with `fold` wrapped at the terminal's width."""
    for line in lines:
        out.print(escape(inert(line)), soft_wrap=not fold)


# SIGHUP comes when the terminal is closed; `nohup bench` ignores it.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A second Ctrl-C soon after the first would only cut the cleanup short. One much later is a new request.
_PATIENCE_S = 60.0
_LATER_S = 0.05


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """Raise Interrupted in the block when a signal of _ENDING arrives.

    Further signals are ignored for _PATIENCE_S. If Python drops the exception, as it does in a callback, the
    signal is sent again.
    """
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
        # Raised here, it would be dropped as well.
        timers.append(threading.Timer(_LATER_S, os.kill, (os.getpid(), number)))
        timers[-1].start()

    with signals_handled(interrupt):
        sys.unraisablehook = raise_later
        try:
            yield
        finally:
            sys.unraisablehook = told_before
            for timer in timers:
                timer.cancel()  # after the block the signal would kill bench


def _leave_terminal() -> None:
    """Send output for the terminal to /dev/null: it is closed, and printing there raises OSError."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)


@contextmanager
def signals_handled(handler: Callable[[int, object], object]) -> Iterator[None]:
    """Call the handler when a signal of _ENDING arrives in the block. The terminal may be closed by then."""

    def handle(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            _leave_terminal()
        handler(number, frame)

    # Signals belong to the main thread; a program may run bench in another one.
    is_main = threading.current_thread() is threading.main_thread()
    heeded = [number for number in _ENDING if is_main and signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
