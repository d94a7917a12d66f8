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
ENDINGS: Mapping[Format, str] = {
    "html": ".html",
    "markdown": ".md",
    "csv": ".csv",
    "json": ".json",
    "parquet": ".parquet",
    "png": ".png",
    "svg": ".svg",
}
_BY_ENDING: Mapping[str, Format] = {
    **{ending: name for name, ending in ENDINGS.items()},
    ".htm": "html",
    ".markdown": "markdown",
}
ALL = "all"
_WIDTHS_PX = (300, 4000)
STDOUT = Path("-")


@dataclass(frozen=True)
class Given:
    """The flags of `bench report` as they were given; None: not given. An `output` that ends in a slash is a
    directory."""

    format: str | None = None
    as_json: bool = False
    output: str | Path | None = None
    table: str | None = None
    chart: str | None = None
    theme: str | None = None
    width_px: int | None = None
    height_px: int | None = None


@dataclass(frozen=True)
class Asked:
    """`output`: a file, a directory, STDOUT, or None for the format's own place. `table`: None for the
    format's own choice; `chart`: its id, or `all`; None of what is no picture. `height_px`: of the whole
    picture; None: the chart's. `is_named_folder`: whether the output's name can be a directory's only."""

    format: Format
    output: Path | None
    table: str | None
    chart: str | None
    theme: Theme
    width_px: int
    height_px: int | None
    is_named_folder: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether files go into a directory, which may have to be made. One table and one chart are a file,
        unless the directory is there."""
        if self.output is None or self.output == STDOUT:
            return False
        if self.output.exists():
            return self.output.is_dir()
        is_one = self.table is not None or self.chart not in (None, ALL)
        return self.is_named_folder or (not self.output.suffix and not is_one)


def asked(given: Given) -> Asked:
    """Raises UserError where the flags do not go together, or say what does not exist."""
    output = None if given.output is None else Path(given.output)
    if given.output == "":
        raise UserError("--output: its name is empty; give a file, a directory, or -")
    is_folder = os.fspath(given.output or "").endswith(os.sep)
    format_ = _format(given, output if not is_folder else None)
    _check_kinds(given, format_)
    if given.table is not None:
        check_table(given.table)
    for name, size in (("--width", given.width_px), ("--height", given.height_px)):
        if size is not None and not _WIDTHS_PX[0] <= size <= _WIDTHS_PX[1]:
            raise UserError(f"{name} {size}: give {_WIDTHS_PX[0]} to {_WIDTHS_PX[1]} (CSS pixels)")
    if given.theme is not None and given.theme not in THEMES:
        raise UserError(f"--theme {given.theme}: choose from {', '.join(THEMES)}")
    return Asked(
        format_,
        output,
        given.table,
        given.chart,
        given.theme or "light",
        given.width_px or 900,
        given.height_px,
        is_folder,
    )


def _format(given: Given, file: Path | None) -> Format:
    """What was said, else what the output's ending says, else what --table or --chart want."""
    suffix = file.suffix.lower() if file and not file.is_dir() else ""
    ending = _BY_ENDING.get(suffix)
    if given.as_json and given.format not in (None, "json"):
        raise UserError(f"--json is --format json; here --format {given.format} is given too")
    named = "json" if given.as_json else given.format
    if named is not None and named not in FORMATS:
        raise UserError(f"--format {named}: no such format; choose from {', '.join(FORMATS)}")
    if named is not None and ending is not None and ending != named:
        said = f"--format says {given.format}" if given.format else "--json is given"
        raise UserError(f"--output {given.output} is {ending} by its ending, and {said}")
    if named is not None:
        return named
    if ending is not None:
        return ending
    if given.chart is not None:
        raise UserError("--chart needs --format png or svg, or an --output that ends so")
    if suffix == ".pdf":
        raise UserError(f"--output {given.output}: no PDF is written; print the page from a browser")
    if suffix:
        endings = ", ".join(ENDINGS.values())
        raise UserError(f"--output {given.output}: end it in one of {endings}, or give --format")
    return "csv" if given.table is not None else "html"


def _check_kinds(given: Given, format_: Format) -> None:
    """Flags that mean nothing for a format are a mistake, not ignored."""
    if given.table is not None and format_ not in TABLES:
        raise UserError(f"--table goes with --format csv or parquet, not {format_}")
    of_pictures = {
        "--chart": given.chart,
        "--theme": given.theme,
        "--width": given.width_px,
        "--height": given.height_px,
    }
    if format_ not in PICTURES and (
        stray := [name for name, value in of_pictures.items() if value is not None]
    ):
        raise UserError(f"{stray[0]} goes with --format png or svg, not {format_}")
    if format_ in PICTURES and given.chart is None:
        who = f"--format {format_}" if given.format else f"--output {given.output}"
        raise UserError(f"{who} needs --chart ID or --chart all; --charts lists the ids")
    if given.chart == ALL and str(given.output) == str(STDOUT):
        raise UserError("--chart all writes a file for each chart: give a directory as --output")
    if format_ == "parquet" and given.output is None:
        raise UserError("--format parquet needs --output: a file, or a directory for all tables")
