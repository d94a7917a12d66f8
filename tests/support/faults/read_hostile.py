"""Give damaged copies of a run to the commands that read it, in one process, with limits of memory and time.

    python read_hostile.py GOOD SCRATCH EVERY MOST

Takes one fault of EVERY, and gives each to up to MOST of the commands, in turn. Prints what went wrong with
which fault: an exception that no user should see, or a limit that was reached.
"""

from __future__ import annotations

import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

from bench_command import Place, told
from good_run import CLAIM, FP16, KEYS
from hostile_runs import Fault, faults

from harness.errors import BenchError
from reports import open_run, tables_of
from reports.words.told import DIGEST_FILE

MEMORY_BYTES = 4 << 30
LIMIT_S = 120
# No program of it is looked for.
PLANNED = [key for key in KEYS if "/nowhere" not in key]
# What reads a run's directory. The last ones write there.
COMMANDS = {
    "report": ("report", "{bad}"),
    "JSON": ("report", "{bad}", "--format", "json", "--output", "{scratch}/run.json"),
    "Markdown": ("report", "{bad}", "--format", "markdown", "--output", "{scratch}/run.md"),
    "CSV": ("report", "{bad}", "--format", "csv", "--output", "{scratch}/tables/"),
    "Parquet": ("report", "{bad}", "--table", "requests", "--output", "{scratch}/requests.parquet"),
    "charts": ("report", "{bad}", "--charts"),
    "compare to": ("compare", "{good}", "{bad}", "--json"),
    "compare with": ("compare", "{bad}", "{good}", "--html", "{scratch}/compared.html"),
    "compare one": ("compare", f"{{bad}}:{FP16}", f"{{good}}:{FP16}"),
    "gate new": ("gate", "{good}", "{bad}", "slo.kl_nats.mean=1", "slo.tasks.score=10%"),
    "gate base": ("gate", "{bad}", "{good}", "gate.metric=output_tokens_per_s", "--json"),
    "view": ("view", "{scratch}/runs", "--output", "{scratch}/index.html"),
    "view as JSON": ("view", "{scratch}/runs", "--json"),
    "claim": ("claim", "{scratch}/claim.yaml", "--from", "{bad}"),
    "verify": ("verify", "{bad}"),
    "rerun": ("rerun", "{bad}", "--plan"),
    "bundle": ("bundle", "{bad}", "--output", "{scratch}/bad.tar.gz"),
    "merge": ("merge", "{bad}", "{good}", "--output", "{scratch}/new"),
    "plan": ("plan", *PLANNED, "quality.against={bad}"),
    "hold against": ("run", *KEYS, "quality.against={bad}", "--output", "{scratch}/new"),
    "resume": ("run", "--resume", "{bad}"),
    "search": ("search", "--resume", "{bad}"),
    "more repeats": ("run", "--resume", "{bad}", "repeats=3"),
}  # fmt: skip
FRAMES = "frames"


class TooSlowError(Exception):
    """A command that takes longer than any reading should."""


def too_slow(*_: object) -> None:
    raise TooSlowError(f"more than {LIMIT_S} s")


def wrong_with(name: str, places: Mapping[str, Path]) -> str | None:
    """Read a damaged run by a command, or as a program would. Return what went wrong."""
    if name == FRAMES:
        try:
            run = open_run(places["bad"])
            tables_of(run)
            _ = run.requests, run.host, run.device, run.server
        except BenchError as error:
            return f"not one line: {error}" if "\n" in str(error) else None
        return None
    done = told(Place(places["scratch"]), *(word.format_map(places) for word in COMMANDS[name]))
    if done.returncode == 2 and done.stderr.count("\n") != 1 and "--resume" not in COMMANDS[name]:
        return f"not one line: {done.stderr[:300]}"
    if name == "view":
        index = (places["scratch"] / "index.html").read_text(encoding="utf-8")
        is_listed = "runs/bad" in index or "bad: " in index or not (places["bad"] / "run.json").exists()
        return None if "runs/good" in index and is_listed else f"a run is not in the index: {done.stderr}"
    if "Traceback" in done.stderr:
        return f"a traceback: {done.stderr[-300:]}"
    return None


def wrong(fault: Fault, names: Sequence[str], good: Path, scratch: Path, took: Counter[str]) -> Iterator[str]:
    runs = scratch / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    (runs / "good").symlink_to(good)
    places = {"bad": fault.copy_with(good, runs / "bad"), "good": good, "scratch": scratch}
    if fault.file != DIGEST_FILE:
        (runs / "bad" / DIGEST_FILE).unlink(missing_ok=True)  # else the index would ask no more
    for name in names:
        shutil.rmtree(scratch / "new", ignore_errors=True)
        (scratch / "bad.tar.gz").unlink(missing_ok=True)
        begun = time.perf_counter()
        signal.alarm(LIMIT_S)
        try:
            problem = wrong_with(name, places)
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {error} ({at.filename}:{at.lineno})"
        finally:
            signal.alarm(0)
            took[name] += time.perf_counter() - begun
        if problem:
            yield f"{fault.name}: {name}: {problem}"


def main(good: Path, scratch: Path, every: int, most: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, too_slow)
    scratch.mkdir(exist_ok=True)
    (scratch / "tables").mkdir()
    (scratch / "claim.yaml").write_text(CLAIM)
    names, took = [FRAMES, *COMMANDS], Counter[str]()
    turns, tried = cycle(names), list(faults(good))[::every]
    for fault in tried:
        chosen = set(islice(turns, most))
        for line in wrong(fault, [name for name in names if name in chosen], good, scratch, took):
            print(line, flush=True)
    print(f"{len(tried)} faults", dict(took), file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
