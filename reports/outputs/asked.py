"""What `bench report` was asked to write, and where: its flags, checked together. Knows no run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from harness.errors import UserError
from reports.outputs.files import check_table

Format = Literal["html", "markdown", "csv", "json", "parquet", "png", "svg"]
Theme = Literal["light", "dark"]
FORMATS: tuple[Format, ...] = get_args(Format)
THEMES: tuple[Theme, ...] = get_args(Theme)
PICTURES: tuple[Format, ...] = ("png", "svg")
TABLES: tuple[Format, ...] = ("csv", "parquet")
ENDINGS: Mapping[Format, str] = {name: f".{'md' if name == 'markdown' else name}" for name in FORMATS}
_BY_ENDING = {ending: name for name, ending in ENDINGS.items()} | {".htm": "html", ".markdown": "markdown"}
ALL = "all"
STDOUT = Path("-")
_SIZES_PX = (300, 4000)


@dataclass(frozen=True)
class Asked:
    """What to write: None of `output`, `table` and `height_px` leaves it to the format, or to the chart.

    `chart`: its id, or `all`; None of what is no picture. `is_folder`: whether files go into a directory,
    which may have to be made.
    """

    format: Format
    output: Path | None
    is_folder: bool
    table: str | None
    chart: str | None
    theme: Theme
    width_px: int
    height_px: int | None


def asked(
    format_: str | None = None,
    as_json: bool = False,
    output: str | Path | None = None,
    table: str | None = None,
    chart: str | None = None,
    theme: str | None = None,
    width_px: int | None = None,
    height_px: int | None = None,
) -> Asked:
    """Check flags as they were given; an `output` that ends in a slash is a directory.

    Raises UserError where they do not go together, or say what does not exist.
    """
    if output == "":
        raise UserError("--output: its name is empty; give a file, a directory, or -")
    path = None if output is None else Path(output)
    is_named_folder = os.fspath(output or "").endswith(os.sep)
    chosen = _format(format_, as_json, None if is_named_folder else path, table, chart)
    of_pictures = {"--chart": chart, "--theme": theme, "--width": width_px, "--height": height_px}
    stray = [name for name, value in of_pictures.items() if value is not None]
    if table is not None and chosen not in TABLES:
        raise UserError(f"--table goes with --format csv or parquet, not {chosen}")
    if stray and chosen not in PICTURES:
        raise UserError(f"{stray[0]} goes with --format png or svg, not {chosen}")
    if chosen in PICTURES and chart is None:
        who = f"--format {chosen}" if format_ else f"--output {output}"
        raise UserError(f"{who} needs --chart ID or --chart all; --charts lists the ids")
    if chart == ALL and path == STDOUT:
        raise UserError("--chart all writes a file for each chart: give a directory as --output")
    if chosen == "parquet" and path is None:
        raise UserError("--format parquet needs --output: a file, or a directory for all tables")
    if table is not None:
        check_table(table)
    for name, size in (("--width", width_px), ("--height", height_px)):
        if size is not None and not _SIZES_PX[0] <= size <= _SIZES_PX[1]:
            raise UserError(f"{name} {size}: give {_SIZES_PX[0]} to {_SIZES_PX[1]} (CSS pixels)")
    if theme not in (None, *THEMES):
        raise UserError(f"--theme {theme}: choose from {', '.join(THEMES)}")
    # One table and one chart are a file, unless the directory is there.
    is_one = table is not None or chart not in (None, ALL)
    is_folder = path is not None and path != STDOUT and _is_folder(path, is_named_folder, is_one)
    dark: Theme = "dark" if theme == "dark" else "light"
    return Asked(chosen, path, is_folder, table, chart, dark, width_px or 900, height_px)


def _is_folder(path: Path, is_named_folder: bool, is_one: bool) -> bool:
    if path.exists():
        return path.is_dir()
    return is_named_folder or (not path.suffix and not is_one)


def _format(
    given: str | None, as_json: bool, file: Path | None, table: str | None, chart: str | None
) -> Format:
    """Return what was said, else what the output's ending says, else what --table or --chart want."""
    suffix = file.suffix.lower() if file and not file.is_dir() else ""
    ending = _BY_ENDING.get(suffix)
    if as_json and given not in (None, "json"):
        raise UserError(f"--json is --format json; here --format {given} is given too")
    named = "json" if as_json else given
    if named is not None and ending not in (None, named) and named in FORMATS:
        said = f"--format says {given}" if given else "--json is given"
        raise UserError(f"--output {file} is {ending} by its ending, and {said}")
    wanted = named or ending
    if wanted is None and chart is not None:
        raise UserError("--chart needs --format png or svg, or an --output that ends so")
    if wanted is None and suffix == ".pdf":
        raise UserError(f"--output {file}: no PDF is written; print the page from a browser")
    if wanted is None and suffix:
        raise UserError(f"--output {file}: end it in one of {', '.join(ENDINGS.values())}, or give --format")
    found = [name for name in FORMATS if name == (wanted or ("csv" if table is not None else "html"))]
    if not found:
        raise UserError(f"--format {named}: no such format; choose from {', '.join(FORMATS)}")
    return found[0]
