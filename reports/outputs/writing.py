"""What `bench report` was asked to write, and where: its flags, checked together, then the files."""

import difflib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from harness.contracts import masked
from harness.errors import UserError
from harness.store.named_files import check_named, write_named
from reports.data.run import Run, open_run
from reports.outputs.as_json import json_text
from reports.outputs.as_markdown import markdown_text
from reports.outputs.columns import TABLES
from reports.outputs.pictures import ALL, chosen, pictures
from reports.outputs.tables import tables_of
from reports.page.document import page, write_report

_TEXTS = {"html": page, "markdown": markdown_text, "json": json_text}
OF_TABLES, OF_CHARTS = ("csv", "parquet"), ("png", "svg")
FORMATS = (*_TEXTS, *OF_TABLES, *OF_CHARTS)
_ENDINGS = {name: f".{'md' if name == 'markdown' else name}" for name in FORMATS}
_BY_ENDING = {ending: name for name, ending in _ENDINGS.items()} | {".htm": "html", ".markdown": "markdown"}
REQUESTS = "requests"
_STDOUT = Path("-")
_THEMES = ("light", "dark")
_SIZES_PX = (300, 4000)
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = tuple("=+-@＝＋－＠")


@dataclass(frozen=True)
class Asked:
    """What to write: None of `output`, `table` and `height_px` leaves it to the format, or to the chart.

    `chart`: its id, or `all`; None of what is no picture. `is_folder`: whether files go into a directory,
    which may have to be made.
    """

    format: str
    output: Path | None
    is_folder: bool
    table: str | None
    chart: str | None
    theme: Literal["light", "dark"]
    width_px: int
    height_px: int | None


def asked(
    format_: str | None = None,
    as_json: bool = False,
    output: str | None = None,
    table: str | None = None,
    chart: str | None = None,
    theme: str | None = None,
    width_px: int | None = None,
    height_px: int | None = None,
) -> Asked:
    """Check flags as they were given; an `output` that ends in a slash is a directory.

    Raises UserError where they do not go together, or say what does not exist.
    """
    path = None if output is None else Path(output)
    # One table and one chart are a file, unless the directory is there.
    is_one = table is not None or chart not in (None, ALL)
    is_folder = path not in (None, _STDOUT) and path is not None and _is_folder(output or "", path, is_one)
    made = _format(format_, as_json, None if is_folder else path, table, chart)
    _check_places(made, output, chart, is_folder)
    of_pictures = {"--chart": chart, "--theme": theme, "--width": width_px, "--height": height_px}
    for formats, given in ((OF_TABLES, {"--table": table}), (OF_CHARTS, of_pictures)):
        for flag, value in given.items():
            if value is not None and made not in formats:
                raise UserError(f"{flag} goes with --format {' or '.join(formats)}, not {made}")
    _check_choice("--table", table, (*TABLES, REQUESTS))
    _check_choice("--theme", theme, _THEMES)
    for flag, size in (("--width", width_px), ("--height", height_px)):
        if size is not None and not _SIZES_PX[0] <= size <= _SIZES_PX[1]:
            raise UserError(f"{flag} {size}: give {_SIZES_PX[0]} to {_SIZES_PX[1]} (CSS pixels)")
    scheme: Literal["light", "dark"] = "dark" if theme == "dark" else "light"
    return Asked(made, path, is_folder, table, chart, scheme, width_px or 900, height_px)


def _is_folder(output: str, path: Path, is_one: bool) -> bool:
    if not output:
        raise UserError("--output: its name is empty; give a file, a directory, or -")
    return path.is_dir() or (not path.exists() and (output.endswith("/") or not (path.suffix or is_one)))


def _format(given: str | None, as_json: bool, file: Path | None, table: str | None, chart: str | None) -> str:
    """Return what the flags say, else what --table or --chart want."""
    suffix = file.suffix.lower() if file else ""
    said = {f"--format {given}": given, "--json": "json" if as_json else None}
    _check_choice("--format", given, FORMATS)
    said[f"--output {file}"] = _BY_ENDING.get(suffix)
    known = {flag: name for flag, name in said.items() if name is not None}
    if len(set(known.values())) > 1:
        raise UserError(f"{' and '.join(known)} are of different formats; give one of them")
    if known:
        return next(iter(known.values()))
    if suffix:
        raise UserError(f"--output {file}: end it in one of {', '.join(_ENDINGS.values())}, or give --format")
    if chart is not None:
        raise UserError("--chart needs --format png or svg, or an --output that ends so")
    return "html" if table is None else "csv"


def _check_choice(flag: str, value: str | None, names: tuple[str, ...]) -> None:
    if value is not None and value not in names:
        near = difflib.get_close_matches(value, names, n=3, cutoff=0.5) or names
        raise UserError(f"{flag} {value}: no such {flag[2:]}; choose from {', '.join(near)}")


def _check_places(made: str, output: str | None, chart: str | None, is_folder: bool) -> None:
    """Raise UserError where the place cannot hold what is asked for."""
    if made in OF_CHARTS and chart is None:
        raise UserError(f"{made} needs --chart ID or --chart all; --charts lists the ids")
    if chart == ALL and output is not None and not is_folder:
        raise UserError(f"--chart all writes a file for each chart, and {output} is one; give a directory")
    if made == "parquet" and output is None:
        raise UserError("--format parquet needs --output: a file, or a directory for all tables")
    if made in _TEXTS and is_folder:
        raise UserError(f"--output {output}: {made} is one file; give its name, or -")


# --- writing ---------------------------------------------------------------------------------------


def write_output(run_dir: Path, asked: Asked) -> Iterator[Path]:
    """Write it, and yield each file's path once it is there; none for standard output.

    Raises StoreError where the run cannot be read, UserError where something cannot be written.
    """
    output = asked.output
    if asked.format == "html" and output != _STDOUT:
        yield write_report(run_dir, output)
        return
    run = open_run(run_dir)
    folder = output if asked.is_folder else None
    if asked.format in OF_CHARTS and output is None:
        folder = run.path / "charts"
    for name, contents in _contents(run, asked):
        path = folder / f"{name}{_ENDINGS[asked.format]}" if folder else output or _STDOUT
        if path == _STDOUT:
            _print(contents)
        else:
            yield _put(path, contents)


def _contents(run: Run, asked: Asked) -> Iterator[tuple[str, str | bytes]]:
    """Yield each file's contents under its name, should it go into a directory."""
    if asked.chart is not None:
        charts = chosen(run, asked.chart)
        look = asked.theme, asked.width_px, asked.height_px
        yield from pictures(run, charts, asked.format, *look).items()
    elif asked.format in OF_TABLES:
        names = list(TABLES) if asked.is_folder and asked.table is None else [asked.table or "values"]
        frames = {REQUESTS: _requests(run)} if names == [REQUESTS] else tables_of(run)
        for name in names:
            yield name, csv_text(frames[name]) if asked.format == "csv" else parquet(frames[name])
    else:
        yield "report", _TEXTS[asked.format](run)


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
    if isinstance(contents, bytes) and sys.stdout.isatty():
        raise UserError("--output -: a terminal cannot show this; give a file, or a pipe")
    sys.stdout.flush()
    sys.stdout.buffer.write(contents.encode() if isinstance(contents, str) else contents)
    sys.stdout.buffer.flush()


# --- tables as files -------------------------------------------------------------------------------


def _requests(run: Run) -> pd.DataFrame:
    """Return a row per request, without the secrets that a server's texts may have."""
    errors = run.requests["error"]
    return run.requests.assign(error=errors.map({text: masked(text) for text in errors.dropna().unique()}))


def csv_text(frame: pd.DataFrame) -> str:
    """Return RFC 4180 with a heading line, nothing for what is missing.

    A text that a spreadsheet would run as a formula begins with an apostrophe; the lone `-` of a missing
    quantization is none.
    """
    safe = frame.copy()
    for name in frame.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]]:
        safe[name] = frame[name].map(_inert, na_action="ignore")
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text


def _inert(value: object) -> object:
    """Return a text without a carriage return, which would end a line outside quotes, and no formula."""
    if not isinstance(value, str):
        return value
    said = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{said}" if len(said) > 1 and said.lstrip().startswith(_FORMULA) else said


def parquet(frame: pd.DataFrame) -> bytes:
    """Return a Parquet file: missing text and whole numbers are nulls, missing floats NaN."""
    whole = io.BytesIO()
    frame.to_parquet(whole, index=False)
    return whole.getvalue()
