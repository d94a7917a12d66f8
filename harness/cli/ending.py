"""End a run: write its report, show the answer with its table, print the page's path or JSON on stdout."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from serving_bench.harness.cli import terminal
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import inert, plural
from serving_bench.harness.errors import BenchError, ReportError
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import PAGE_FILE

if TYPE_CHECKING:  # it imports pandas
    from serving_bench.reports.data import Run
    from serving_bench.reports.words.answer import Said
    from serving_bench.reports.words.report import Answer, Column, Entry, Report, Value

SIGN = "▲"
REPORTING = "writing the report"
_REASON_AT_MOST, _WHY_AT_MOST = 160, 200
_WIDEST = 10_000  # columns, to measure a table without a limit


def report_whatever_happened(directory: Path, show: Show, claim: str | None = None) -> "Run | None":
    """Write the report as `reported` does. If it cannot be written, print why and return None."""
    try:
        return reported(directory, show, claim)
    except ReportError as error:
        terminal.complaints.print(str(error), markup=False)
        return None


def reported(directory: Path, show: Show, claim: str | None = None) -> "Run":
    """Write the report, even if Ctrl-C arrives, and return the run. Raises ReportError.

    `claim`: the name of a claim to judge first, so that the page has the judgement.
    """

    def go_on(*_: object) -> None:
        show.line("finishing the report; nothing else is left to stop")

    with terminal.signals_handled(go_on):
        show.close_panel()
        show.line(REPORTING)
        from serving_bench.reports import open_run, write_report

        try:
            run = open_run(directory)
            if claim:
                from serving_bench.harness.cli.claim_verdict import judged

                judged(run, claim)
            write_report(directory, run=run)
            return run
        except (BenchError, OSError) as error:
            again = f"`bench report {directory}` tries again"
            raise ReportError(f"the report could not be written: {error}; {again}") from error


def print_no_answer(directory: Path, exit_code: int) -> None:
    """Print the JSON of a run that measured nothing, or whose report could not be written."""
    from serving_bench.reports.outputs.as_json import FORMAT

    record = store.read_run(directory)
    run = {"id": record.run_id, "status": record.status}
    ended = {"report": None, "directory": str(directory), "exit_code": exit_code}
    terminal.print_json({"format": FORMAT, "run": run, "answers": [], **ended})


def print_why_none(run: "Run") -> None:
    """Print on stderr, even with --quiet, why no cell of a run was measured."""
    whys = dict.fromkeys(cell.reason for cell in run.planned_cells if cell.reason)
    first, more = next(iter(whys), ""), len(whys) - 1
    message = f"no cell measured{f': {first}' if first else ''}{f' (and {more} more)' if more > 0 else ''}"
    terminal.complaints.print(inert(" ".join(message.split())), markup=False)


def tell(run: "Run", exit_code: int, show: Show, *, as_json: bool) -> None:
    """Show the run's answers, then print the page's path, or the JSON of `bench report --json` with it."""
    from serving_bench.reports.words.report import report_of

    path = str(run.path / PAGE_FILE)
    if run.record.search is None:
        _show_answers(report_of(run), show)
    if as_json:
        from serving_bench.reports.outputs.as_json import to_builtins

        terminal.print_json({**to_builtins(run), "report": path, "exit_code": exit_code})
        return
    terminal.print_lines([*(_search_lines(run) if run.record.search else ()), path])


def unfinished(run: "Run") -> int:
    """Return on how many starts a search did not end."""
    from serving_bench.reports.verdicts.searches import capacities_of

    return sum(not answer.is_whole for each in capacities_of(run) for answer in each.answers)


def _search_lines(run: "Run") -> Iterator[str]:
    """Yield the highest load of each deployment of a search."""
    from serving_bench.reports.verdicts.searches import capacities_of
    from serving_bench.reports.words.report import search_words

    capacities = capacities_of(run)
    has_scenarios = len({each.scenario for each in capacities}) > 1
    lines = [
        f"{each.deployment}{f', {each.scenario}' if has_scenarios else ''}: {search_words(run, each)}"
        for each in capacities
    ]
    yield from lines
    if any(SIGN in line for line in lines):
        yield f"{SIGN} n: n reasons to distrust it; see the report"


def _show_answers(report: "Report", show: Show) -> None:
    """Show each answer with its table, and a reason to distrust it."""
    from serving_bench.reports.words.verdict_words import clipped

    for answer in report.answers:
        for line, style in _sentences(answer.said):
            show.line(line, style, is_whole=line == answer.said.command)
        if answer.rows:
            show.console.print(*_tables(answer, show.console), sep="\n\n")
            if any(row.values[name].is_pooled for row in answer.rows for name in answer.table.first):
                show.line("* computed from the requests of all starts together")
        for row in answer.rows:
            if row.why_not:
                show.line(f"{row.deployment}: {clipped(row.why_not, _WHY_AT_MOST)}")
    if reasons := report.findings:
        first = shorten(f"{reasons[0].title}: {reasons[0].text}", _REASON_AT_MOST, placeholder=" …")
        the = "; the first" if reasons[1:] else ""
        show.line(f"{SIGN} {plural(len(reasons), 'reason')} to distrust this{the}: {first}")


def _sentences(words: "Said") -> Iterator[tuple[str, str]]:
    """Yield an answer's lines with their styles. A command is on its own line, so that it can be copied."""
    yield "", ""
    yield words.sentence, "bold"
    for line in filter(
        None, (words.unless, f"{words.advice}:" if words.command else words.advice, words.command)
    ):
        yield line, ""
    yield "", ""


def _tables(answer: "Answer", console: Console) -> Iterator[Table]:
    """Yield the table of an answer, or two if the quality columns do not fit beside speed."""
    columns = answer.table.columns(answer.table.first)
    columns = [column for column in columns if any(cell.narrow for cell in column.cells)]
    whole, quality = _drawn(answer, columns), [each for each in columns if not each.name]
    width = console.measure(whole, options=console.options.update(max_width=_WIDEST)).maximum
    if not quality or width <= console.width:
        yield whole
    else:
        yield from (_drawn(answer, [each for each in columns if each.name]), _drawn(answer, quality))


def _drawn(answer: "Answer", columns: Sequence["Column"]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("deployment", overflow="fold", min_width=12)
    for column in columns:
        # The unit goes on the next line, so that the table fits into 80 columns.
        head = column.lines or "\n".join(column.head.rsplit(" ", 1))
        table.add_column(head, justify="left" if column.lines else "right", no_wrap=True)
    for at, row in enumerate(answer.rows):
        style = "bold" if answer.decision and row.deployment == answer.decision.served else ""
        table.add_row(Text(inert(row.deployment), style), *(_text(column.cells[at]) for column in columns))
    return table


def _text(cell: "Value | Entry") -> Text:
    marks = f" {SIGN} {len(cell.marks)}" if cell.marks else ""
    return Text(cell.narrow + marks, "bold" if cell.is_decided else "")
