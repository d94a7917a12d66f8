"""What stands in each table that a run gives out: its columns, their types, units and meaning.

The names are an interface: scripts of others read them. Knows no run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

Kind = Literal["text", "float", "int", "bool"]
_DTYPES: Mapping[Kind, str] = {"text": "string", "float": "float64", "int": "Int64", "bool": "boolean"}


@dataclass(frozen=True)
class Column:
    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Table:
    """`row`: what one row is. `others`: the kind of columns beyond those named; None where there are none."""

    row: str
    columns: Mapping[str, Column]
    others: Kind | None = None


def _text(meaning: str) -> Column:
    return Column("text", meaning)


def _float(meaning: str) -> Column:
    return Column("float", meaning)


def _int(meaning: str) -> Column:
    return Column("int", meaning)


def _bool(meaning: str) -> Column:
    return Column("bool", meaning)


_MARKS = _text("checks whose findings mark it, by their ids in `findings`, separated by blanks")
_CASE = {
    "scenario": _text("its label"),
    "load": _text("its label, such as `4 users`"),
}
_BRACKET = {
    "kept": _float("highest load that kept every objective"),
    "broken": _float("lowest that did not"),
    "proven_kept": _float("highest whose interval says so"),
    "proven_broken": _float("lowest whose interval says so"),
}

TABLES: Mapping[str, Table] = {
    "values": Table(
        "A deployment, scenario, load and metric: the mean over starts.",
        {
            "deployment": _text("its label"),
            "engine": _text("vllm, llama_cpp ..."),
            "model": _text("as it was given"),
            "quantization": _text("bf16, gguf-q4_k_m ...; `-` where the server needs no weights"),
            **_CASE,
            "family": _text("loads on one axis: `closed loop`, `open loop, poisson`, `trace`"),
            "level": _float("users, conversations begun per second, or a trace's speed"),
            "metric": _text("`ttft_s.p95`; `bench list metrics` has each with its formula"),
            "unit": _text("of value, low and high: s, bytes, tokens/s, share ..."),
            "better": _text("higher, lower, or `-`"),
            "value": _float("geometric mean over starts, arithmetic where the metric may be 0 or below"),
            "low": _float("lower end of the mean's 95 % interval over starts; none for fewer than 3"),
            "high": _float("its upper end"),
            "least": _float("lowest start's value"),
            "most": _float("highest start's value"),
            "starts": _int("starts that have the value"),
            "n": _int("observations of all of them"),
            "requests": _int("requests that these are of, where one gives several"),
            "why": _text("why there is no value"),
            "pooled": _float("in its place the percentile of all starts' requests, if these are enough"),
            "marks": _MARKS,
        },
    ),
    "verdicts": Table(
        "Two deployments on a metric: what may be said of `a` against `b`.",
        {
            **_CASE,
            "metric": _text("as in `values`"),
            "a": _text("label of the first"),
            "b": _text("label of the second"),
            "kind": _text("of a: better, worse, same, unknown (cannot tell), none (no verdict)"),
            "verdict": _text("the same in the metric's words: faster, same within 5 % ..."),
            "is_ratio": _bool("a / b; else a - b, in the metric's unit"),
            "ratio": _float("the ratio, or the difference; none without a verdict"),
            "low": _float("lower end of its interval"),
            "high": _float("its upper end"),
            "confidence": _float("of that interval, corrected for the family of comparisons; 0.95 or more"),
            "family": _int("comparisons that were decided together"),
            "blocks": _int("pairs of starts it comes from"),
            "why": _text("why there is no verdict"),
            "marks": _MARKS,
        },
    ),
    "standings": Table(
        "With an SLO, a deployment at a load: whether it keeps it.",
        {
            **_CASE,
            "model": _text("as in `values`"),
            "deployment": _text("its label"),
            "state": _text("kept, broken, unclear, unknown (not measured)"),
            "why": _text("what decides without a share, such as a queue that only grew"),
            "marks": _MARKS,
        },
    ),
    "objectives": Table(
        "With an SLO, one objective of a deployment at a load.",
        {
            **_CASE,
            "deployment": _text("its label"),
            "objective": _text("such as `ttft_s.p95`"),
            "limit_s": _float("seconds that a request may take; none for success"),
            "asked": _float("share of requests that must meet it"),
            "share": _float("share that met it"),
            "low": _float("lower end of its 95 % interval"),
            "high": _float("its upper end"),
            "met": _int("requests that met it"),
            "n": _int("requests that it applies to"),
            "state": _text("kept, broken, unclear"),
        },
    ),
    "picks": Table(
        "With an SLO, the best of those that keep it at a load, in one respect.",
        {
            **_CASE,
            "model": _text("as in `values`"),
            "respect": _text("fastest, cheapest, smallest"),
            "metric": _text("what it is chosen by"),
            "deployment": _text("the best by its value"),
            "value": _float("its mean over starts"),
            "low": _float("lower end of the 95 % interval; none for fewer than 3 starts"),
            "high": _float("its upper end"),
            "is_proven": _bool("whether it is better than every other"),
            "ties": _text("those not told apart from it, separated by `; `"),
            "next": _text("the second by value"),
            "why": _text("why no verdict is given"),
        },
    ),
    "capacities": Table(
        "Of a search, a deployment's highest load that keeps the SLO.",
        {
            "deployment": _text("its label"),
            "scenario": _text("its label"),
            "model": _text("as in `values`"),
            "unit": _text("users, or conversations/s"),
            "value": _float("the highest load that every start kept"),
            "is_least": _bool("each kept the highest load that was allowed: it is that or more"),
            "starts": _int("starts searched"),
            "why": _text("why there is no value"),
            "marks": _MARKS,
        },
    ),
    "brackets": Table(
        "Of a search, what one start came to.",
        {
            "deployment": _text("its label"),
            "scenario": _text("its label"),
            "start": _text("its name"),
            **_BRACKET,
            "is_whole": _bool("whether the search came to its end on it"),
            "trials": _int("windows that were measured"),
        },
    ),
    "cells": Table(
        "A planned cell; a further column for each metric, as in `values`, in stored units.",
        {
            "number": _int("as in cells/<number>"),
            "start": _text("its start's name"),
            "deployment": _text("its label"),
            "engine": _text("as in `values`"),
            "model": _text("as in `values`"),
            "quantization": _text("as in `values`"),
            "repeat": _int("from 0"),
            **_CASE,
            "concurrency": _int("users; none in open loop"),
            "rate_per_s": _float("conversations begun per second; none in closed loop"),
            "status": _text("completed, failed, interrupted, in flight, not measured"),
            "validity": _text("valid, suspect, invalid; none of a cell that is not completed"),
            "reason": _text("why it is not completed, or not valid"),
            "window_s": _float("length of its window, seconds"),
        },
        others="float",
    ),
    "starts": Table(
        "A start of a server.",
        {
            "name": _text("as in starts/<name>"),
            "index": _int("place in the plan, from 0"),
            "deployment": _text("its label"),
            "repeat": _int("from 0"),
            "status": _text("completed, failed, interrupted"),
            "error": _text("what it failed with"),
            "launch_s": _float("from spawn to the first good generation, seconds"),
            "memory_kind": _text("device or host"),
            "memory_peak_bytes": _float("of its whole life"),
            "baseline_bytes": _float("in use before it"),
            "after_bytes": _float("in use after it"),
        },
    ),
    "findings": Table(
        "A reason to distrust.",
        {
            "check": _text("its id, which `marks` name"),
            "title": _text("in a few words"),
            "text": _text("what was seen"),
            "remedy": _text("what would help"),
            "cells": _text("numbers of its cells, separated by blanks; none: of the whole run"),
            "metrics": _text("metrics it bears on, separated by blanks; none: all"),
            "marks": _bool("whether it marks numbers"),
        },
    ),
    "skips": Table(
        "What was asked for and not run.",
        {"what": _text("deployment"), "reason": _text("why")},
    ),
}


def framed(name: str, rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Rows as the table of that name, its columns first, in their order and types, also where there are no
    rows."""
    table = TABLES[name]
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    others = [column for column in frame.columns if column not in table.columns] if table.others else []
    frame = frame.reindex(columns=[*table.columns, *others])
    kinds = {column: each.kind for column, each in table.columns.items()}
    kinds |= {column: table.others for column in others if table.others}
    return frame.astype({column: _DTYPES[kind] for column, kind in kinds.items()})
