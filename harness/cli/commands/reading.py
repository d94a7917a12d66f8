"""`bench report`, `compare`, `gate`, `view` and `import`, which read results. Importing `reports` is slow."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving_bench.harness.cli.terminal import Json, Output, print_json, print_lines
from serving_bench.harness.cli.trust import tell_changed
from serving_bench.harness.errors import UserError, choose_from
from serving_bench.harness.imports.importing import TOOLS, read_files, write_files
from serving_bench.harness.run.session import check_output, new_directory, own_argv
from serving_bench.harness.settings import overrides, sections
from serving_bench.harness.settings.decoding import Choices
from serving_bench.harness.store.bundle import opened_run
from serving_bench.harness.store.named_files import write_named
from serving_bench.harness.store.store import read_run

if TYPE_CHECKING:  # it imports pandas
    from serving_bench.reports import Comparison

_FORMATS = ("html", "markdown", "json", "csv", "parquet", "png", "svg")
_KEY = re.compile(r"[a-z_]+(\.[a-z0-9_]+)*=")
_SIDES = "each a run's directory, or one deployment of it by its label; and keys, in any order:"


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run's directory.")],
    format_: Annotated[
        str | None,
        typer.Option("--format", metavar="|".join(_FORMATS), show_default="by --output's ending, else html"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR|-",
            help="Where to write; - is standard output.",
            show_default="html: DIR/report.html; pictures: DIR/charts; text: -",
        ),
    ] = None,
    as_json: Json = False,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The table to write as csv or parquet: values, verdicts, cells ... (docs/python.md).",
            show_default="values; all of them into a directory",
        ),
    ] = None,
    chart: Annotated[
        str | None, typer.Option(metavar="ID", help="The chart to write as png or svg; all: every one.")
    ] = None,
    charts: Annotated[bool, typer.Option("--charts", help="List the charts' ids and titles.")] = False,
) -> None:
    read_run(directory)  # a wrong path is told before pandas is imported
    from serving_bench.reports import open_run
    from serving_bench.reports.outputs.pictures import NO_CHARTS, charts_of
    from serving_bench.reports.outputs.writing import Asked, write_output

    format_ = "markdown" if format_ == "md" else format_
    if format_ not in (None, *_FORMATS):
        raise UserError(f"--format {format_}: no such format; {choose_from(format_, _FORMATS)}")
    options = Asked(format_, as_json, output, table, chart)
    folder = Path(output or "").parent
    if not options.is_folder and not folder.is_dir():
        raise UserError(f"--output {output}: cannot be written (there is no directory {folder})")
    if charts:
        if options != Asked():
            raise UserError("--charts lists the charts and goes with no other option")
        listed = charts_of(open_run(directory)).items()
        print_lines([f"{name:<28} {chart.title}" for name, chart in listed] or [NO_CHARTS])
    else:
        print_lines(map(str, write_output(directory, options)))
    tell_changed(directory)


def _sides_and_keys(words: Sequence[str], *names: str) -> tuple[str, str, list[str]]:
    """Return the two sides and the keys, given in any order. Raises UserError unless there are two sides.

    Raises StoreError if a side is nowhere, before pandas is imported.
    """
    keys = [word for word in words if _KEY.match(word) and not Path(word).exists()]
    sides = [word for word in words if word not in keys]
    if len(sides) != 2:
        given = " ".join(sides) or "none"
        raise UserError(f"given: {given}; give two, {' and '.join(names)}, each DIR or DIR:DEPLOYMENT")
    for side in sides:
        if not any(Path(head).exists() for head in _heads(side)):
            read_run(Path(side))  # raises
    return sides[0], sides[1], keys


def _heads(side: str) -> list[str]:
    """Return the possible paths of a side: all of it, and the part before each colon."""
    return [side, *(side[:at] for at, character in enumerate(side) if at and character == ":")]


@contextmanager
def _opened_side(side: str) -> Iterator[str]:
    """Yield the side, with a bundle unpacked for the block. Warns about changed files of a directory."""
    end = next((len(head) for head in _heads(side) if Path(head).is_file()), None)
    if end is None:
        yield side
        tell_changed(next((path for path in map(Path, _heads(side)) if path.is_dir()), Path(side)))
        return
    with opened_run(Path(side[:end])) as directory:
        yield f"{directory}{side[end:]}"


def compare(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR[:DEPLOYMENT]|compare.KEY=VALUE",
            help=f"A and B, {_SIDES} compare.margin=10%, compare.metric=ttft_s.p95,...",
        ),
    ],
    as_json: Json = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write it as a page.")
    ] = None,
) -> None:
    a, b, changes = _sides_and_keys(words, "A", "B")
    from serving_bench.harness.cli.compare_text import print_comparison
    from serving_bench.reports import write_comparison

    comparison = compared(a, b, overrides.parse(changes))
    if html is not None:
        write_comparison(comparison, html)
    if as_json:
        print_json(asdict(comparison))
    else:
        print_comparison(comparison)


def compared(a: str, b: str, given: Choices) -> "Comparison":
    """Compare two runs, bundles of them, or deployments of either, with the keys compare.*.

    Raises StoreError if a run cannot be read, UserError if the two have nothing that can be compared.
    """
    from serving_bench.reports import compare_runs
    from serving_bench.reports.measures.metrics import check_metric_name

    if "compare.baseline" in given:
        raise UserError("compare.baseline: the first of the two is the baseline here; swap them instead")
    terms = sections.only_compare_terms(given)
    for metric in terms.metrics:
        check_metric_name(metric, "compare.metric")
    with _opened_side(a) as first, _opened_side(b) as second:
        return replace(compare_runs(first, second, terms), a=a, b=b)


def gate(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR[:DEPLOYMENT]|gate.KEY=VALUE",
            help=f"BASE and NEW, {_SIDES} gate.max_regression=5%, slo.kl_nats.mean=0.05",
        ),
    ],
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also write JUnit XML for a CI system.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Also write it for a pull request.")
    ] = None,
    as_json: Json = False,
) -> None:
    base, new, changes = _sides_and_keys(words, "BASE", "NEW")
    from serving_bench.harness.cli.compare_text import print_gate
    from serving_bench.reports import gate_runs, gate_to_builtins
    from serving_bench.reports.outputs.gate_files import junit_text, markdown_text

    terms = sections.gate_terms(overrides.parse(changes))
    with _opened_side(base) as first, _opened_side(new) as second:
        gate = gate_runs(first, second, terms)
    gate = replace(gate, compared=replace(gate.compared, a=base, b=new))
    for path, write in ((junit, junit_text), (markdown, markdown_text)):
        if path is not None:
            write_named(path, write(gate).encode())
    if as_json:
        print_json(gate_to_builtins(gate))
    else:
        print_gate(gate)
    raise typer.Exit(gate.exit_code)


def view(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory with runs, which may be some levels below.")
    ] = Path("results"),
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write.", show_default="DIR/index.html")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an index of all runs in a directory: one page, a row per run with its headline, newest first.

    Each row links to the run's report. Open the page in a browser; it needs no server.
    """
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "no such directory"
        raise UserError(f"{directory}: {what}; give the directory that has the runs, such as results")
    from serving_bench.reports.page.several_runs import index_rows, write_index

    rows = index_rows(directory)
    if output is not None or not as_json:
        path = write_index(directory, rows, output)
    if as_json:
        print_json([row.to_builtins() for row in rows])
    else:
        print_lines([str(path)])


def import_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[TOOL=]FILE",
            help=f"Result files of one tool, recognised by their content unless named: {', '.join(TOOLS)}.",
        ),
    ],
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="The name of a file's server in the report; one for each file.",
            show_default="its model",
        ),
    ] = None,
    output: Output = None,
    as_json: Json = False,
) -> None:
    check_output(output)
    read = read_files(files, label or ())
    with new_directory(output, "import") as directory:
        write_files(read, directory, own_argv())
    from serving_bench.reports import write_report

    page = str(write_report(directory))
    if as_json:
        print_json({"directory": str(directory), "report": page})
    else:
        print_lines([page])
