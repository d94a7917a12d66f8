"""Write what `bench report` was asked for: to a file, into a directory, or to standard output."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from harness.errors import UserError
from harness.store.named_files import check_named, write_named
from reports.data.run import Run, open_run
from reports.outputs.as_json import json_text
from reports.outputs.as_markdown import markdown_text
from reports.outputs.asked import ALL, ENDINGS, PICTURES, STDOUT, TABLES, Asked
from reports.outputs.files import csv_text, table_of, write_parquet
from reports.outputs.pictures import chosen, pictures
from reports.outputs.tables import tables_of
from reports.page.document import page, write_report

_FIRST_TABLE = "values"


def write_output(run_dir: Path, asked: Asked) -> Iterator[Path]:
    """Write it, and yield each file's path once it is there; none for standard output.

    Raises StoreError where the run cannot be read, UserError where something cannot be written.
    """
    output, is_file = asked.output, asked.output is not None and not asked.is_folder
    if asked.is_folder and asked.format not in (*TABLES, *PICTURES):
        raise UserError(f"--output {output}: {asked.format} is one file; give its name, or -")
    if asked.chart == ALL and is_file:
        raise UserError(f"--chart all writes a file for each chart, and {output} is one; give a directory")
    if asked.format == "html" and output != STDOUT:
        yield write_report(run_dir, output)
        return
    run = open_run(run_dir)
    folder = output if output is not None and asked.is_folder else None
    if asked.format in PICTURES:
        folder = folder or (None if is_file else run.path / "charts")
    for name, contents in _contents(run, asked):
        path = folder / f"{name}{ENDINGS[asked.format]}" if folder else output or STDOUT
        if path == STDOUT:
            _print(contents)
        else:
            yield _put(path, contents)


def _contents(run: Run, asked: Asked) -> Iterator[tuple[str, str | bytes]]:
    """Yield each file's contents under its name, should it go into a directory."""
    if asked.chart is not None:
        yield from pictures(
            run, chosen(run, asked.chart), asked.format, asked.theme, asked.width_px, asked.height_px
        )
    elif asked.format in TABLES:
        all_of_them = tables_of(run) if asked.is_folder and asked.table is None else None
        name = asked.table or _FIRST_TABLE
        for each, frame in (all_of_them or {name: table_of(run, name)}).items():
            yield each, csv_text(frame) if asked.format == "csv" else _parquet(frame)
    else:
        write = {"html": page, "json": json_text, "markdown": markdown_text}[asked.format]
        yield "report", write(run)


def _parquet(frame: pd.DataFrame) -> bytes:
    whole = io.BytesIO()
    write_parquet(frame, whole)
    return whole.getvalue()


def _put(path: Path, contents: str | bytes) -> Path:
    """Write it whole or not at all. A directory that is not there is made, but not its parents."""
    check_named(path)
    if path.parent.parent.is_dir() and not path.parent.exists():
        try:
            path.parent.mkdir()
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    write_named(path, contents.encode() if isinstance(contents, str) else contents)
    return path


def _print(contents: str | bytes) -> None:
    if isinstance(contents, str):
        sys.stdout.write(contents)
        return
    if sys.stdout.isatty():
        raise UserError("--output -: a terminal cannot show this; give a file, or a pipe")
    sys.stdout.flush()
    sys.stdout.buffer.write(contents)
    sys.stdout.buffer.flush()
