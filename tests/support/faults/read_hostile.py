"""Gives damaged copies of a run to the commands that read it, in one process, with limits of memory and time.

    python read_hostile.py GOOD SCRATCH FIRST:EVERY|bombs MOST

Takes every EVERYth fault from number FIRST on, or only the bombs, and gives each to up to MOST of the
commands, in turn. Prints what went wrong with which fault: an exception that no user should see, a limit
that was reached, a bomb that was read, or an answer that differs from that of the whole run without naming
the file.
"""

import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from bench_command import Place, told
from good_run import ASKED, CLAIM, FP16, KEYS
from hostile_runs import Fault, faults

from serving_bench.harness.errors import BenchError
from serving_bench.harness.store import checksums
from serving_bench.harness.store.named_files import DIGEST_FILE, PAGE_FILE
from serving_bench.reports import open_run, tables_of

MEMORY_BYTES = 4 << 30
LIMIT_S = 120
# The same keys without the environment, so that `bench plan` looks for no program in it.
PLANNED = [key for key in KEYS if "/nowhere" not in key]
# The commands that read a run's directory. The last ones write there.
COMMANDS = {
    "report": ("report", "{bad}"),
    "JSON": ("report", "{bad}", "--format", "json", "--output", "{out}/told.json"),
    "Markdown": ("report", "{bad}", "--format", "markdown", "--output", "{out}/run.md"),
    "CSV": ("report", "{bad}", "--format", "csv", "--output", "{out}/tables/"),
    "Parquet": ("report", "{bad}", "--table", "requests", "--output", "{out}/requests.parquet"),
    "charts": ("report", "{bad}", "--charts"),
    "compare to": ("compare", "{good}", "{bad}", "--json"),
    "compare with": ("compare", "{bad}", "{good}", "--html", "{out}/compared.html"),
    "compare one": ("compare", f"{{bad}}:{FP16}", f"{{good}}:{FP16}"),
    "gate new": ("gate", "{good}", "{bad}", "slo.kl_nats.mean=1", "slo.tasks.score=10%"),
    "gate base": ("gate", "{bad}", "{good}", "gate.metric=output_tokens_per_s", "--json"),
    "view": ("view", "{scratch}/runs", "--output", "{out}/index.html"),
    "view as JSON": ("view", "{scratch}/runs", "--json"),
    "claim": ("claim", "{scratch}/claim.yaml", "--from", "{bad}"),
    "verify": ("verify", "{bad}"),
    "rerun": ("rerun", "{bad}", "--plan", *ASKED),
    "bundle": ("bundle", "{bad}", "--output", "{out}/bad.tar.gz"),
    "merge": ("merge", "{bad}", "{good}", "--output", "{out}/new"),
    "plan": ("plan", *PLANNED, "quality.against={bad}"),
    "hold against": ("run", *KEYS, "quality.against={bad}", "--output", "{out}/new"),
    "resume": ("run", "--resume", "{bad}", *ASKED),
    "search": ("search", "--resume", "{bad}", *ASKED),
    "more repeats": ("run", "--resume", "{bad}", "repeats=3", *ASKED),
}  # fmt: skip
FRAMES = "frames"
WHOLE = Fault("none", "run.json", lambda path: None)
# This command reads every table that can be a bomb, and must call each damaged.
REFUSES = "report"
# Commands whose answer may differ without a word of the file, and why.
SILENT = {
    "view": "the index of hundreds of runs checks no checksums; `bench report` does, and says so on stderr",
    "view as JSON": "as view",
}
# These commands refuse every merged run, also an undamaged one, with these words.
REFUSES_MERGED = {"more repeats": "this run is of single repeats"}


class TooSlowError(Exception):
    """A command took longer than reading a run ever should."""


def too_slow(*_: object) -> None:
    raise TooSlowError(f"more than {LIMIT_S} s")


@dataclass(frozen=True)
class Answer:
    """A command's answer: its exit code, what it printed on both streams, and the files that it wrote."""

    code: int
    said: str
    complaints: str = ""
    written: Mapping[str, bytes] = field(default_factory=dict)

    def names(self, words: str, whole: "Answer") -> bool:
        """Return whether this answer has `words`, which name a file, more often than that of a whole run."""
        pairs = [(self.said + self.complaints, whole.said + whole.complaints)]
        pairs += [
            (each.decode(errors="replace"), whole.written.get(name, b"").decode(errors="replace"))
            for name, each in self.written.items()
        ]
        return any(own.count(words) > other.count(words) for own, other in pairs)


class Reading:
    """Gives damaged copies of a run to commands. Each copy is a fresh one, always at the same path."""

    def __init__(self, good: Path, scratch: Path) -> None:
        runs = scratch / "runs"
        runs.mkdir(parents=True)
        (runs / "good").symlink_to(good)
        (scratch / "claim.yaml").write_text(CLAIM)
        self.places = {"bad": runs / "bad", "good": good, "scratch": scratch, "out": scratch / "out"}
        self.took = Counter[str]()
        self.known = dict[str, Answer]()

    def whole(self, name: str) -> Answer:
        """Return the answer of the whole run."""
        if name not in self.known:
            self.known[name] = self.answer(name, WHOLE)
        return self.known[name]

    def answer(self, name: str, fault: Fault) -> Answer:
        """Return what a command, or a program (FRAMES), answers about a damaged run."""
        for folder in (self.places["bad"], self.places["out"]):
            shutil.rmtree(folder, ignore_errors=True)
        (self.places["out"] / "tables").mkdir(parents=True)
        bad = fault.copy_with(self.places["good"], self.places["bad"])
        if fault.file != DIGEST_FILE:
            (bad / DIGEST_FILE).unlink(missing_ok=True)  # else the index would not read the run
        begun = time.perf_counter()
        signal.alarm(LIMIT_S)
        try:
            return _of_frames(bad) if name == FRAMES else self._of_command(name)
        finally:
            signal.alarm(0)
            self.took[name] += time.perf_counter() - begun

    def _of_command(self, name: str) -> Answer:
        words = (word.format_map(self.places) for word in COMMANDS[name])
        done = told(Place(self.places["scratch"]), *words)
        files = [path for path in self.places["out"].rglob("*") if path.is_file()]
        page = self.places["bad"] / PAGE_FILE
        written = {str(path): path.read_bytes() for path in [*files, *[page] * page.is_file()]}
        return Answer(done.returncode, done.stdout, done.stderr, written)

    def wrong(self, name: str, fault: Fault) -> str | None:
        """Return what is wrong with a command's answer, if anything is."""
        try:
            found = self.answer(name, fault)
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {error} ({at.filename}:{at.lineno})"
        if "Traceback" in found.complaints:
            return f"a traceback: {found.complaints[-300:]}"
        if found.code == 2 and not self._is_short(name, found):
            return f"not one line: {found.complaints[:300]}"
        if name == "view":
            return self._wrong_with_index(found)
        file, whole = fault.file, self.whole(name)
        if fault.is_bomb and name == REFUSES and not found.names(f"{Path(file).name}: damaged", whole):
            return f"a bomb was read, exit code {found.code}"
        is_named = any(found.names(each, whole) for each in fault.files)
        is_refused = fault.is_merged and REFUSES_MERGED.get(name, "\0") in found.complaints
        is_silent = found != whole and not (is_named or is_refused) and name not in SILENT
        return f"another answer, exit code {found.code}, without {file}" if is_silent else None

    def _is_short(self, name: str, found: Answer) -> bool:
        """Return whether a refusal is one line, perhaps with another that names a file.

        A command that goes on with a run also prints the lines that it prints for a whole run.
        """
        if name == FRAMES:
            return True
        said = found.complaints.splitlines()
        if "--resume" in COMMANDS[name] or name == "rerun":
            usual = self.whole(name).complaints.splitlines()
            return said != [] and len([line for line in said if line not in usual]) <= 2
        return len(said) in (1, 2)

    def _wrong_with_index(self, found: Answer) -> str | None:
        index = next(iter(found.written.values()), b"").decode()
        is_listed = "runs/bad" in index or "bad: " in index or not (self.places["bad"] / "run.json").exists()
        is_right = "runs/good" in index and is_listed
        return None if is_right else f"a run is not in the index: {found.complaints}"


def _of_frames(bad: Path) -> Answer:
    """Read a run as a program does that also checks the checksums of its files."""
    try:
        run = open_run(bad)
        frames = tables_of(run) | {
            "requests": run.requests, "host": run.host, "device": run.device, "server": run.server,
        }  # fmt: skip
        written = {name: frame.to_csv().encode() for name, frame in frames.items()}
        return Answer(0, "", checksums.told(bad, checksums.findings(bad)) or "", written)
    except BenchError as error:
        return Answer(2, str(error))


def main(good: Path, scratch: Path, which: str, most: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGALRM, too_slow)
    reading = Reading(good, scratch / "hostile")
    found, names = list(faults(good)), [FRAMES, *COMMANDS]
    if which == "bombs":
        tried, names = [fault for fault in found if fault.is_bomb], [REFUSES]
    else:
        first, every = map(int, which.split(":"))
        tried = found[first::every]
    turns = cycle(names)
    for fault in tried:
        for name in islice(turns, min(most, len(names))):
            if problem := reading.wrong(name, fault):
                print(f"{fault.name}: {name}: {problem}", flush=True)
    print(f"{len(tried)} faults", dict(reading.took), file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
