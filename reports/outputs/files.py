"""Tables as CSV and Parquet."""

import difflib
from typing import IO

import pandas as pd

from harness.contracts import masked
from harness.errors import UserError
from reports.data.run import Run
from reports.outputs.columns import TABLES
from reports.outputs.tables import tables_of

REQUESTS = "requests"
NAMES = (*TABLES, REQUESTS)
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = tuple("=+-@＝＋－＠")


def check_table(name: str) -> None:
    """Raise UserError where there is no such table."""
    if name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=3, cutoff=0.5)
        raise UserError(f"--table {name}: no such table; choose from {', '.join(near or NAMES)}")


def table_of(run: Run, name: str) -> pd.DataFrame:
    """One table by its name; `requests` too, which is large."""
    return _requests(run) if name == REQUESTS else tables_of(run)[name]


def _requests(run: Run) -> pd.DataFrame:
    """Without the secrets that a server's texts may have."""
    frame = run.requests
    texts = {text: masked(text) for text in frame["error"].dropna().unique()}
    return frame.assign(error=frame["error"].map(texts))


def csv_text(frame: pd.DataFrame) -> str:
    """RFC 4180 with a heading line, UTF-8, nothing for what is missing. A text that a spreadsheet would run
    as a formula begins with an apostrophe; the lone `-` of a missing quantization is none."""
    safe = frame.copy()
    for name in frame.columns:
        if pd.api.types.is_string_dtype(frame[name].dtype) or frame[name].dtype == object:
            safe[name] = frame[name].map(_inert, na_action="ignore")
    text: str = safe.to_csv(index=False, lineterminator="\n")
    return text


def _inert(value: object) -> object:
    """Without a carriage return, which would end a line outside quotes."""
    if not isinstance(value, str):
        return value
    said = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{said}" if len(said) > 1 and said.lstrip().startswith(_FORMULA) else said


def write_parquet(frame: pd.DataFrame, file: IO[bytes]) -> None:
    """Missing text and whole numbers are nulls, missing floats NaN."""
    frame.to_parquet(file, index=False)
