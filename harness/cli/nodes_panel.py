"""Shows the repeats that nodes measure: lines, each with its repeat and node; on a terminal a panel below."""

from __future__ import annotations

from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.cli.ending import REPORTING
from harness.cli.progress import REFRESHES_PER_S, Show
from harness.contracts import inert


class NodesPanel:
    """A row per repeat: on which node it is, and what bench said there last. Use as a context manager."""

    def __init__(self, show: Show, repeats: int) -> None:
        self._show = show
        self._rows = dict.fromkeys(range(1, repeats + 1), ("-", "waits for a machine"))
        console = show.console
        is_drawn = console.is_interactive and not console.quiet
        self._live = (
            Live(
                console=console,
                get_renderable=self._table,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
            )
            if is_drawn
            else None
        )

    def __enter__(self) -> NodesPanel:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def say(self, node: str, number: int, line: str) -> None:
        """Show a line of a node, but for what a repeat says at its end: the whole run says it."""
        if self._rows[number] == (node, REPORTING):
            return
        self._rows[number] = (node, line)
        self._show.line(f"repeat {number} on {node}: {line}")

    def _table(self) -> Table:
        table = Table("repeat", "node", "", box=None, pad_edge=False)
        for number, (node, line) in self._rows.items():
            done = "measured" if line == REPORTING else line
            table.add_row(str(number), node, Text(inert(done), no_wrap=True, overflow="ellipsis"))
        return table
