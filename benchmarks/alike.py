"""Add runs of `bench selftest verdicts` to alike.json, and print what all runs say, quiet and beside work.

bench selftest verdicts repeats=3 guard=off --runs 40 --output DIR      # about a minute each
python benchmarks/alike.py DIR                                          # without DIR: only the table
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from serving_bench.harness.contracts import Figure
from serving_bench.reports.data import open_run
from serving_bench.reports.verdicts.alike import Alike, AlikeRun, alike_of, alike_run

KEPT = Path(__file__).parent / "alike.json"
# A run is quiet if other programs used less than this share of the processor in the mean of its windows.
QUIET = 0.15
SPEED = "output_tokens_per_s"
COLUMNS = (
    "", "runs", "named, each wrongly", "the same", "noise of a start", "correlation with the next",
    "effect of a run on one", "from run to run",
)  # fmt: skip


def added(kept: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return what is kept and the completed runs below a directory, by when each began and its number."""
    found = dict(kept)
    for path in sorted(directory.glob("*/run.json")):
        run = open_run(path.parent)
        if run.record.status != "completed" or not (came := alike_run(run)):
            continue
        found[f"{run.record.created_at} {path.parent.name}"] = {
            "processor": run.record.environment["machine"]["cpu_model"],
            "kind": came.kind,
            "wrong": came.wrong,
            "foreign_share": came.foreign_share,
            "logs": {metric: table.round(4).tolist() for metric, table in came.logs.items()},
        }
    return dict(sorted(found.items()))


def read(each: dict[str, Any]) -> AlikeRun:
    """Return a run as it was kept."""
    logs = {metric: np.array(table) for metric, table in each["logs"].items()}
    return AlikeRun(each["kind"], each["wrong"], logs, each["foreign_share"])


def row(name: str, runs: list[AlikeRun]) -> str:
    """Return a row of the table: what a kind of runs says, with 95 % intervals; only how many if few."""
    found: Alike | None = alike_of(runs) if len(runs) > 1 else None
    if found is None or SPEED not in found.by_metric:
        return f"| {name} | {len(runs)} |{' |' * 6}"
    noise = found.by_metric[SPEED]
    shown = [percent(each) for each in (found.named, found.same, noise.noise)]
    lag = f"{noise.lag.value:.2f} [{noise.lag.low:.2f}, {noise.lag.high:.2f}]"
    cells = [name, str(found.runs), *shown, lag, percent(noise.of_run), percent(noise.between)]
    return f"| {' | '.join(cells)} |"


def percent(figure: Figure) -> str:
    return f"{100 * figure.value:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def main() -> None:
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for directory in sys.argv[1:]:
        kept = added(kept, Path(directory))
    if sys.argv[1:]:
        lines = (f"{json.dumps(began)}: {json.dumps(each)}" for began, each in kept.items())
        KEPT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    runs = [read(each) for each in kept.values()]
    for cells in (COLUMNS, ["---"] * len(COLUMNS)):
        print(f"| {' | '.join(cells)} |")
    quiet = [run for run in runs if run.foreign_share is not None and run.foreign_share < QUIET]
    beside = [run for run in runs if run.foreign_share is not None and run.foreign_share >= QUIET]
    for name, some in {"quiet": quiet, "beside work": beside, "all": runs}.items():
        print(row(name, some))


if __name__ == "__main__":
    main()
