"""How a run ends: its report, then the answer with its table; the page's path or JSON on stdout."""

import signal
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.cli import terminal
from harness.cli.panel import inert
from harness.cli.progress import Show
from harness.errors import BenchError
from harness.settings.units import counted
from harness.store import store

SIGN = "▲"
_COMMAND = ": bench "
_WORST_AT_MOST = 240


def report_whatever_happened(directory: Path, show: Show) -> dict[str, Any] | None:
    """Write the report undisturbed by another Ctrl-C. Return what to tell, None if it was not written."""
    with terminal.signals_handled(signal.SIG_IGN):
        show.close_panel()
        show.line("writing the report")
        from reports import open_run, write_report
        from reports.words.told import told

        try:
            run = open_run(directory)
            write_report(directory, run=run)
            return told(run)
        except (BenchError, OSError) as error:
            show.line(f"the report could not be written: {error}; try `bench report {directory}`")
            return None


def print_no_answer(directory: Path, exit_code: int) -> None:
    """Print the JSON of a run of which nothing was measured, or whose report could not be written."""
    from reports.words.told import FORMAT

    record = store.read_run(directory)
    said = {"format": FORMAT, "run": record.run_id, "status": record.status, "answers": [], "report": None}
    terminal.print_json({**said, "directory": str(directory), "exit_code": exit_code})


def tell(found: dict[str, Any], report: str, exit_code: int, show: Show, *, as_json: bool) -> None:
    """Show each answer with its table and what speaks against it, then print the page's path, or JSON."""
    for answer in found["answers"]:
        for line in _sentences(answer):
            show.line(line, "bold" if line == answer["sentence"] else "", is_whole=line.startswith("bench "))
        if answer["rows"]:
            show.console.print(_table(answer))
            if any(value["is_pooled"] for row in answer["rows"] for value in row["values"].values()):
                show.line("* of the requests of all starts together")
        for row in answer["rows"]:
            if row["why_not"]:
                show.line(f"{row['deployment']}: {row['why_not']}")
    if reasons := found["distrust"]:
        worst = shorten(f"{reasons[0]['title']}: {reasons[0]['text']}", _WORST_AT_MOST, placeholder=" …")
        first = "; the worst" if reasons[1:] else ""
        show.line(f"{SIGN} {counted(len(reasons), 'reason')} to distrust this{first}: {worst}")
    if as_json:
        terminal.print_json({**found, "report": report, "exit_code": exit_code})
    else:
        terminal.print_lines([report])


def _sentences(answer: dict[str, Any]) -> Iterator[str]:
    """Yield the answer between empty lines, a command in it on a line of its own, to be copied."""
    said, command, rest = answer["note"].partition(_COMMAND)
    yield ""
    yield answer["sentence"]
    yield from filter(None, (answer["unless"], f"{said}:" if command else said))
    if command:
        yield f"bench {rest}"
    yield ""


def _table(answer: dict[str, Any]) -> Table:
    rows = answer["rows"]
    has_ratios = any(row["to_leader"] for row in rows)
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("deployment", overflow="fold", min_width=12)
    for name in rows[0]["values"]:
        # The unit stands below, so that all fits into 80 columns.
        head = "\n".join(rows[0]["values"][name]["head"].rsplit(" ", 1))
        table.add_column(head, justify="right", no_wrap=True)
        if has_ratios and name == answer["metric"]:
            together = " together" * (sum(bool(row["to_leader"]) for row in rows) > 1)
            table.add_column(f"to the leader\n{100 * answer['together']:.4g} %{together}", no_wrap=True)
    of_quality = rows[0]["quality"] or {"cells": {}}
    for head in of_quality["cells"]:
        table.add_column("\n".join(head.rsplit(" ", 1)), justify="right", no_wrap=True)
    for row in rows:
        style = "bold" if row["deployment"] == answer["deployment"] else ""
        cells = [Text(inert(row["deployment"]), style)]
        for name, value in row["values"].items():
            said = value["text"] + "*" * value["is_pooled"]
            said += f" {SIGN} {len(value['marks'])}" if value["marks"] else ""
            cells.append(Text(said, "bold" if value["is_decided"] else ""))
            if has_ratios and name == answer["metric"]:
                cells.append(Text(row["to_leader"]["text"] if row["to_leader"] else ""))
        table.add_row(*cells, *(row["quality"]["cells"].values() if row["quality"] else ()))
    return table
