"""Writes what `bench report` was asked for: to a file, into a directory, or to standard output."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from harness.errors import UserError
from harness.store.named_files import check_named, write_named
from reports.data.run import Run, open_run
from reports.outputs.as_json import json_text
from reports.outputs.as_markdown import markdown_text
from reports.outputs.asked import ALL, ENDINGS, PICTURES, STDOUT, TABLES, Asked
from reports.outputs.files import csv_text, table_of, write_parquet
from reports.outputs.pictures import Look, chosen, pictures
from reports.outputs.tables import tables_of
from reports.page.document import page, write_report

_TEXTS: dict[str, Callable[[Run], str]] = {"json": json_text, "markdown": markdown_text}
_FIRST_TABLE = "values"


def write_output(run_dir: Path, asked: Asked) -> Iterator[Path]:
    """Write it, and give each file's path once it is there; none for standard output.

    Raises StoreError where the run cannot be read, UserError where something cannot be written.
    """
    if asked.is_folder and asked.format not in (*TABLES, *PICTURES):
        raise UserError(f"--output {asked.output}: {asked.format} is one file; give its name, or -")
    if asked.format == "html" and asked.output != STDOUT:
        yield write_report(run_dir, asked.output)
        return
    run = open_run(run_dir)
    if asked.format in PICTURES:
        yield from _write_pictures(run, asked)
    elif asked.format in TABLES:
        yield from _write_tables(run, asked)
    else:
        yield from _write_text(run, asked)


def _write_text(run: Run, asked: Asked) -> Iterator[Path]:
    write = page if asked.format == "html" else _TEXTS[asked.format]
    yield from _put(asked.output or STDOUT, write(run))


def _write_tables(run: Run, asked: Asked) -> Iterator[Path]:
    if asked.is_folder:
        assert asked.output is not None
        wanted = {asked.table: table_of(run, asked.table)} if asked.table else tables_of(run)
        for name, frame in wanted.items():
            yield from _put(asked.output / f"{name}{ENDINGS[asked.format]}", _encoded(frame, asked))
        return
    frame = table_of(run, asked.table or _FIRST_TABLE)
    yield from _put(asked.output or STDOUT, _encoded(frame, asked))


def _encoded(frame: pd.DataFrame, asked: Asked) -> str | bytes:
    if asked.format == "csv":
        return csv_text(frame)
    whole = io.BytesIO()
    write_parquet(frame, whole)
    return whole.getvalue()


def _write_pictures(run: Run, asked: Asked) -> Iterator[Path]:
    """Where nothing else is said, in charts/ of the run."""
    assert asked.chart is not None  # asked.py sees to it
    charts = chosen(run, asked.chart)
    is_one_file = asked.output is not None and not asked.is_folder
    if asked.chart == ALL and is_one_file:
        raise UserError(
            f"--chart all writes a file for each chart, and {asked.output} is one; give a directory"
        )
    folder = asked.output or run.path / "charts"
    look = Look(asked.format, asked.theme, asked.width_px, asked.height_px)
    for name, contents in pictures(run, charts, look):
        path = asked.output if is_one_file else folder / f"{name}{ENDINGS[asked.format]}"
        assert path is not None
        yield from _put(path, contents)


def _put(path: Path, contents: str | bytes) -> Iterator[Path]:
    """Whole or not at all. A directory that is not there is made, but not its parents."""
    if path == STDOUT:
        _print(contents)
        return
    check_named(path)
    if path.parent.parent.is_dir() and not path.parent.exists():
        try:
            path.parent.mkdir()
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    write_named(path, contents.encode() if isinstance(contents, str) else contents)
    yield path


def _print(contents: str | bytes) -> None:
    if isinstance(contents, str):
        sys.stdout.write(contents)
        return
    if sys.stdout.isatty():
        raise UserError("--output -: a terminal cannot show this; give a file, or a pipe")
    sys.stdout.flush()
    sys.stdout.buffer.write(contents)
    sys.stdout.buffer.flush()
