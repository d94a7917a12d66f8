"""Give damaged copies of a run to the commands that read it, in one process, with limits of memory and time.

    python read_hostile.py GOOD SCRATCH EVERY

Prints what went wrong with which fault: an exception that no user should see, or a limit that was reached.
"""

from __future__ import annotations

import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from bench_command import Place, told
from hostile_runs import Fault, faults

MEMORY_BYTES = 4 << 30
LIMIT_S = 120
COMMANDS = (
    ("report", "{bad}"),
    ("report", "{bad}", "--format", "json", "--output", "{scratch}/numbers.json"),
    ("compare", "{good}", "{bad}"),
    ("gate", "{good}", "{bad}", "slo.success=50%"),
    ("view", "{scratch}/runs", "--output", "{scratch}/index.html"),
)


class TooSlowError(Exception):
    """A command that takes longer than any reading should."""


def too_slow(*_: object) -> None:
    raise TooSlowError(f"more than {LIMIT_S} s")


def wrong_with(fault: Fault, good: Path, scratch: Path) -> Iterator[str]:
    runs = scratch / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)
    places = {"bad": fault.copy_with(good, runs / "bad"), "good": good, "scratch": scratch}
    shutil.copytree(good, runs / "good")
    for words in COMMANDS:
        signal.alarm(LIMIT_S)
        try:
            done = told(Place(scratch), *(word.format_map(places) for word in words))
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__}: {error} ({at.filename}:{at.lineno})"
            yield f"{fault.name}: bench {words[0]}: {said}"
            continue
        finally:
            signal.alarm(0)
        if done.returncode == 2 and done.stderr.count("\n") != 1:
            yield f"{fault.name}: bench {words[0]}: not one line: {done.stderr[:300]}"
        if words[0] == "view" and "good" not in (scratch / "index.html").read_text(encoding="utf-8"):
            yield f"{fault.name}: bench view: the run beside it is not in the index"


def main(good: Path, scratch: Path, every: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, too_slow)
    tried = list(faults(good))[::every]
    for fault in tried:
        for line in wrong_with(fault, good, scratch):
            print(line, flush=True)
    print(f"{len(tried)} faults", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
