"""Tables and lines on a terminal. Knows nothing of what they are about."""

from collections.abc import Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Row = dict[str, str]


def print_rows(out: Console, rows: Sequence[Row]) -> None:
    """Print a table with a column per key of the first row.

    The names in the first column are cut last. Where the table is too wide, columns move together, and words
    are broken only where they do not fit even so.
    """
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


def print_lines(out: Console, lines: Iterable[str]) -> None:
    """Print each line as it is, folded at the terminal's width."""
    for line in lines:
        out.print(escape(line), soft_wrap=False)


def print_numbered(out: Console, texts: Sequence[str]) -> None:
    """Print each text with its number from 1, its further lines below its first."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", min_width=2, no_wrap=True)
    table.add_column()
    for number, text in enumerate(texts, start=1):
        table.add_row(str(number), escape(text))
    out.print(table, soft_wrap=False)
