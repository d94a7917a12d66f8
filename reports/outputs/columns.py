"""What stands in each table that a run gives out: its columns, their types, units and meaning.

The names are an interface: scripts of others read them. Knows no run.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

_DTYPES = {"text": "string", "float": "float64", "int": "Int64", "bool": "boolean"}
# A table's name and what one row is; below it each column's name, kind and meaning. `*`: further columns.
_DECLARED = """
values: A deployment, scenario, load and metric: the mean over starts.
  deployment        text   its label
  engine            text   vllm, llama_cpp ...
  model             text   as it was given
  quantization      text   bf16, gguf-q4_k_m ...; `-` where the server needs no weights
  scenario          text   its label
  load              text   its label, such as `4 users`
  family            text   loads on one axis: `closed loop`, `open loop, poisson`, `trace`
  level             float  users, conversations begun per second, or a trace's speed
  metric            text   `ttft_s.p95`; `bench list metrics` has each with its formula
  unit              text   of value, low and high: s, bytes, tokens/s, share ...
  better            text   higher, lower, or `-`
  value             float  geometric mean over starts, arithmetic where the metric may be 0 or below
  low               float  lower end of the mean's 95 % interval over starts; none for fewer than 3
  high              float  its upper end
  least             float  lowest start's value
  most              float  highest start's value
  starts            int    starts that have the value
  n                 int    observations of all of them
  requests          int    requests that these are of, where one gives several
  why               text   why there is no value
  pooled            float  in its place the percentile of all starts' requests, if these are enough
  marks             text   checks whose findings mark it, by their ids in `findings`, separated by blanks

verdicts: Two deployments on a metric: what may be said of `a` against `b`.
  scenario          text   its label
  load              text   its label, such as `4 users`
  metric            text   as in `values`
  a                 text   label of the first
  b                 text   label of the second
  kind              text   of a: better, worse, same, unknown (cannot tell), none (no verdict)
  verdict           text   the same in the metric's words: faster, same within 5 % ...
  is_ratio          bool   a / b; else a - b, in the metric's unit
  ratio             float  the ratio, or the difference; none without a verdict
  low               float  lower end of its interval
  high              float  its upper end
  confidence        float  of that interval, corrected for the family of comparisons; 0.95 or more
  family            int    comparisons that were decided together
  blocks            int    pairs of starts it comes from
  why               text   why there is no verdict
  marks             text   checks whose findings mark it, by their ids in `findings`, separated by blanks

standings: With an SLO, a deployment at a load: whether it keeps it.
  scenario          text   its label
  load              text   its label, such as `4 users`
  model             text   as in `values`
  deployment        text   its label
  state             text   kept, broken, unclear, unknown (not measured)
  why               text   what decides without a share, such as a queue that only grew
  marks             text   checks whose findings mark it, by their ids in `findings`, separated by blanks

objectives: With an SLO, one objective of a deployment at a load.
  scenario          text   its label
  load              text   its label, such as `4 users`
  deployment        text   its label
  objective         text   such as `ttft_s.p95`
  limit_s           float  seconds that a request may take; none for success
  asked             float  share of requests that must meet it
  share             float  share that met it
  low               float  lower end of its 95 % interval
  high              float  its upper end
  met               int    requests that met it
  n                 int    requests that it applies to
  state             text   kept, broken, unclear

picks: With an SLO, the best of those that keep it at a load, in one respect.
  scenario          text   its label
  load              text   its label, such as `4 users`
  model             text   as in `values`
  respect           text   fastest, cheapest, smallest
  metric            text   what it is chosen by
  deployment        text   the best by its value
  value             float  its mean over starts
  low               float  lower end of the 95 % interval; none for fewer than 3 starts
  high              float  its upper end
  is_proven         bool   whether it is better than every other
  ties              text   those not told apart from it, separated by `; `
  next              text   the second by value
  why               text   why no verdict is given

capacities: Of a search, a deployment's highest load that keeps the SLO.
  deployment        text   its label
  scenario          text   its label
  model             text   as in `values`
  unit              text   users, or conversations/s
  value             float  the highest load that every start kept
  is_least          bool   each kept the highest load that was allowed: it is that or more
  starts            int    starts searched
  why               text   why there is no value
  marks             text   checks whose findings mark it, by their ids in `findings`, separated by blanks

brackets: Of a search, what one start came to.
  deployment        text   its label
  scenario          text   its label
  start             text   its name
  kept              float  highest load that kept every objective
  broken            float  lowest that did not
  proven_kept       float  highest whose interval says so
  proven_broken     float  lowest whose interval says so
  is_whole          bool   whether the search came to its end on it
  trials            int    windows that were measured

cells: A planned cell; a further column for each metric, as in `values`, in stored units.
  number            int    as in cells/<number>
  start             text   its start's name
  deployment        text   its label
  engine            text   as in `values`
  model             text   as in `values`
  quantization      text   as in `values`
  repeat            int    from 0
  scenario          text   its label
  load              text   its label, such as `4 users`
  concurrency       int    users; none in open loop
  rate_per_s        float  conversations begun per second; none in closed loop
  status            text   completed, failed, interrupted, in flight, not measured
  validity          text   valid, suspect, invalid; none of a cell that is not completed
  reason            text   why it is not completed, or not valid
  window_s          float  length of its window, seconds
  *                 float  the value of a metric, by its name

starts: A start of a server.
  name              text   as in starts/<name>
  index             int    place in the plan, from 0
  deployment        text   its label
  repeat            int    from 0
  status            text   completed, failed, interrupted
  error             text   what it failed with
  launch_s          float  from spawn to the first good generation, seconds
  memory_kind       text   device or host
  memory_peak_bytes float  of its whole life
  baseline_bytes    float  in use before it
  after_bytes       float  in use after it

findings: A reason to distrust.
  check             text   its id, which `marks` name
  title             text   in a few words
  text              text   what was seen
  remedy            text   what would help
  cells             text   numbers of its cells, separated by blanks; none: of the whole run
  metrics           text   metrics it bears on, separated by blanks; none: all
  marks             bool   whether it marks numbers

skips: What was asked for and not run.
  what              text   deployment
  reason            text   why
"""


@dataclass(frozen=True)
class Column:
    """A column: its kind (text, float, int or bool) and its meaning."""

    kind: str
    meaning: str


@dataclass(frozen=True)
class Table:
    """`row`: what one row is. `others`: the kind of columns beyond those named; None where there are none."""

    row: str
    columns: Mapping[str, Column]
    others: str | None = None


def _declared(text: str) -> tuple[str, Table]:
    head, *lines = text.strip().splitlines()
    name, row = head.split(": ", 1)
    parts = [line.split(maxsplit=2) for line in lines]
    columns = {column: Column(kind, meaning) for column, kind, meaning in parts}
    others = columns.pop("*", None)
    return name, Table(row, columns, others.kind if others else None)


TABLES: Mapping[str, Table] = dict(map(_declared, _DECLARED.split("\n\n")))


def framed(name: str, rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Return rows as the table of that name, its columns first, in their order and types, also without
    rows."""
    table = TABLES[name]
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    kinds = {column: each.kind for column, each in table.columns.items()}
    if table.others:
        kinds |= {column: table.others for column in frame.columns if column not in kinds}
    return frame.reindex(columns=list(kinds)).astype(
        {column: _DTYPES[kind] for column, kind in kinds.items()}
    )
