"""Checks the flags of `bench report` together and writes the files that they ask for."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from serving_bench.harness.contracts import inert, masked
from serving_bench.harness.errors import UserError, choose_from
from serving_bench.harness.store.named_files import check_named, write_named
from serving_bench.reports.data import Run, open_run
from serving_bench.reports.outputs.as_json import json_text
from serving_bench.reports.outputs.as_markdown import markdown_text
from serving_bench.reports.outputs.pictures import ALL, chosen, pictures
from serving_bench.reports.outputs.tables import TABLES, tables_of
from serving_bench.reports.page.document import page, write_report

_TEXTS = {"html": page, "markdown": markdown_text, "json": json_text}
_OF_TABLES, _OF_CHARTS = ("csv", "parquet"), ("png", "svg")
_ENDINGS = {name: f".{name}" for name in (*_TEXTS, *_OF_TABLES, *_OF_CHARTS)} | {"markdown": ".md"}
REQUESTS = "requests"
_STDOUT = "-"
# A spreadsheet takes text that starts with one of these for a formula.
_FORMULA = tuple("=+-@＝＋－＠")


@dataclass(frozen=True)
class Asked:
    """The flags of `bench report` as given. An `output` that ends in a slash is a directory."""

    format: str | None = None
    as_json: bool = False
    output: str | None = None
    table: str | None = None
    chart: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether files go into a directory, which may have to be made.

        One table or chart goes into a file, unless `output` is an existing directory.
        """
        if self.output in (None, _STDOUT):
            return False
        path, is_one = Path(self.output or ""), self.table is not None or self.chart not in (None, ALL)
        is_named = str(self.output).endswith("/") or not (path.suffix or is_one)
        return path.is_dir() or (is_named and not path.exists())


def write_output(run_dir: Path, options: Asked) -> Iterator[Path]:
    """Write what was asked for, and yield the path of each file once it is written; none for standard output.

    Raises UserError if flags contradict each other or something cannot be written, StoreError if the run
    cannot be read.
    """
    form = _format(options)
    _check(options, form)
    output = None if options.output is None else Path(options.output)
    if form == "html" and options.output != _STDOUT:
        yield write_report(run_dir, output)
        return
    run = open_run(run_dir)
    beside = run.path / "charts" if form in _OF_CHARTS and output is None else None
    if beside and beside.is_symlink():
        raise UserError(f"{beside}: is a link, which is not followed; remove it, or give --output DIR")
    folder = output if options.is_folder else beside
    for name, contents in _contents(run, options, form):
        path = folder / f"{name}{_ENDINGS[form]}" if folder else output
        if path is None or str(path) == _STDOUT:
            sys.stdout.flush()
            sys.stdout.buffer.write(contents)
            sys.stdout.buffer.flush()
        else:
            check_named(path)
            # A missing directory is made, but not its parents.
            with suppress(OSError):
                path.parent.mkdir(exist_ok=True)
            write_named(path, contents)
            yield path


def _format(options: Asked) -> str:
    suffix = Path(options.output or "").suffix.lower() if not options.is_folder else ""
    flags = {
        f"--format {options.format}": options.format,
        "--json": "json" if options.as_json else None,
        f"--output {options.output}": next((n for n, ending in _ENDINGS.items() if ending == suffix), None),
    }
    flagged = {flag: name for flag, name in flags.items() if name is not None}
    if len(set(flagged.values())) > 1:
        raise UserError(f"{' and '.join(flagged)} name different formats; give one of them")
    if not flagged and suffix:
        endings = ", ".join(_ENDINGS.values())
        raise UserError(f"--output {options.output}: end it in one of {endings}, or give --format")
    if not flagged and options.chart is not None:
        raise UserError("--chart needs --format png or svg, or an --output that ends so")
    return next(iter(flagged.values()), "html" if options.table is None else "csv")


def _check(options: Asked, form: str) -> None:
    output, tables = options.output, (*TABLES, REQUESTS)
    of_tables, of_charts = form in _OF_TABLES, form in _OF_CHARTS
    is_file = output is not None and not options.is_folder
    wrong = {
        "--output: the name is empty; give a file, a directory, or -": output == "",
        f"--table goes with --format csv or parquet, not {form}": options.table and not of_tables,
        f"--table {options.table}: no such table; {choose_from(options.table or '', tables)}": (
            options.table not in (None, *tables)
        ),
        f"--chart goes with --format png or svg, not {form}": options.chart and not of_charts,
        f"{form} needs --chart ID or --chart all; --charts lists the ids": of_charts and not options.chart,
        f"--chart all writes a file for each chart, and {output} is one; give a directory": (
            options.chart == ALL and is_file
        ),
        "--format parquet needs --output: a file, or a directory for all tables": (
            form == "parquet" and output is None
        ),
        f"--output {output}: {form} is one file; give its name, or -": form in _TEXTS and options.is_folder,
    }
    if why := next((why for why, is_wrong in wrong.items() if is_wrong), None):
        raise UserError(why)


def _contents(run: Run, options: Asked, form: str) -> Iterator[tuple[str, bytes]]:
    if form in _TEXTS:
        yield "report", _TEXTS[form](run).encode()
    elif options.chart is not None:
        yield from pictures(run, chosen(run, options.chart), form).items()
    else:
        names = list(TABLES) if options.is_folder and options.table is None else [options.table or "values"]
        frames = {REQUESTS: _requests(run)} if names == [REQUESTS] else tables_of(run)
        for name in names:
            frame = frames[name]
            yield name, csv_text(frame).encode() if form == "csv" else frame.to_parquet(index=False)


# --- tables as files -------------------------------------------------------------------------------


def _requests(run: Run) -> pd.DataFrame:
    errors = run.requests["error"]
    return run.requests.assign(error=errors.map({text: masked(text) for text in errors.dropna().unique()}))


def csv_text(frame: pd.DataFrame) -> str:
    """Return CSV (RFC 4180) with a heading line; a missing value is empty.

    Text that a spreadsheet would run as a formula gets an apostrophe in front. The lone `-` of a missing
    quantization does not need one.
    """
    safe = frame.copy()
    for name in frame.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]]:
        safe[name] = frame[name].map(_inert, na_action="ignore")
    return str(safe.to_csv(index=False, lineterminator="\n"))


def _inert(value: object) -> object:
    """Return text that is no formula and whose only control characters are tabs and line feeds.

    A carriage return outside quotes would end a line of the CSV.
    """
    if not isinstance(value, str):
        return value
    text = inert(value.replace("\r\n", "\n").replace("\r", "\n"), keep="\n\t")
    return f"'{text}" if len(text) > 1 and text.lstrip().startswith(_FORMULA) else text
