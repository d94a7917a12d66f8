"""What `bench report` was asked to write, and where: its flags, checked together. Knows no run."""

from __future__ import annotations

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
    """The flags of `bench report` as they were given; None: not given."""

    format: str | None = None
    as_json: bool = False
    output: Path | None = None
    table: str | None = None
    chart: str | None = None
    theme: str | None = None
    width_px: int | None = None
    height_px: int | None = None


@dataclass(frozen=True)
class Asked:
    """`output`: a file, a directory, STDOUT, or None for the format's own place. `table`: None for the
    format's own choice; `chart`: its id, or `all`. `height_px`: of the whole picture; None: the chart's."""

    format: Format
    output: Path | None
    table: str | None
    chart: str
    theme: Theme
    width_px: int
    height_px: int | None

    @property
    def is_folder(self) -> bool:
        """Whether files go into a directory, which may have to be made."""
        if self.output is None or self.output == STDOUT:
            return False
        return self.output.is_dir() or (not self.output.suffix and not self.output.exists())


def asked(given: Given) -> Asked:
    """Raises UserError where the flags do not go together, or say what does not exist."""
    format_ = _format(given)
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
        given.output,
        given.table,
        given.chart or "",
        given.theme or "light",
        given.width_px or 900,
        given.height_px,
    )


def _format(given: Given) -> Format:
    """What was said, else what the output's ending says, else what --table or --chart want."""
    ending = (
        _BY_ENDING.get(given.output.suffix.lower()) if given.output and not given.output.is_dir() else None
    )
    if given.as_json and given.format not in (None, "json"):
        raise UserError(f"--json is --format json; here --format {given.format} is given too")
    named = "json" if given.as_json else given.format
    if named is not None and named not in FORMATS:
        raise UserError(f"--format {named}: no such format; choose from {', '.join(FORMATS)}")
    if named is not None and ending is not None and ending != named:
        raise UserError(f"--output {given.output} is {ending} by its ending, and --format says {named}")
    if named is not None:
        return named
    if ending is not None:
        return ending
    if given.chart is not None:
        raise UserError("--chart needs --format png or svg, or an --output that ends so")
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
        raise UserError(f"--format {format_} needs --chart ID or --chart all; --charts lists the ids")
    if given.chart == ALL and given.output == STDOUT:
        raise UserError("--chart all writes a file for each chart: give a directory as --output")
    if format_ == "parquet" and given.output is None:
        raise UserError("--format parquet needs --output: a file, or a directory for all tables")
