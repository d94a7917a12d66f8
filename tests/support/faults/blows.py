"""Strikes a measuring bench at random moments, and checks that no measured cell is lost."""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from bench_command import Place, begun, bench, ended, quick
from waiting import patient, wait_until

from serving_bench.harness.run.session import sole_writer
from serving_bench.harness.store import checksums, store

# About as long as a whole run takes on a quiet machine. The moments are drawn from it.
LIFE_S = 6.0
SEED = int(os.environ.get("FAULTS_SEED", "7"))
NEW = [*quick("reference.label=a,b", "load.concurrency=1,2"), "--output", "run"]
# The files of a run that has ended, and of one of its cells.
OF_A_RUN = {".lock", "SHA256SUMS", "run.json", "starts", "cells", "headline.json", "report.html"}
OF_A_CELL = {"cell.json", "requests.parquet", "load.log"}

# Strikes the bench process of a place. Returns the exit codes that bench may have then, or none if bench
# ended before there was anything to strike.
Blow = Callable[[Place, subprocess.Popen[str]], set[int]]


def kill(kind: str) -> Blow:
    """Kill bench, or the first process of this kind that runs from now on."""

    def strike(place: Place, process: subprocess.Popen[str]) -> set[int]:
        while process.poll() is None:
            for each in [each for each in place.processes() if kind_of(each) == kind][:1]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
                    return {-signal.SIGKILL} if kind == "bench" else {0, 1}
        return set()

    strike.__name__ = f"kill {kind}"
    return strike


def send(*numbers: signal.Signals) -> Blow:
    """Send signals to bench, one immediately after the other."""

    def strike(place: Place, process: subprocess.Popen[str]) -> set[int]:
        for number in numbers:
            process.send_signal(number)
        # 0: only the report was left to write. -N: bench died of the signal before it had begun anything
        # that it must end. 128 + N: bench ended in order.
        return {0, -numbers[0], 128 + numbers[0]}

    strike.__name__ = " ".join(number.name for number in numbers)
    return strike


def stop_and_continue(place: Place, process: subprocess.Popen[str]) -> set[int]:
    """Let a load process stand still for a while."""
    for each in [each for each in place.processes() if kind_of(each) == "load"][:1]:
        with suppress(psutil.NoSuchProcess):
            each.suspend()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
            each.resume()
    return {0, 1}


def kind_of(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        line = " ".join(process.cmdline())
        # A watchdog's arguments hold those of what it runs.
        for kind, part in (("watchdog", "watchdog.py"), ("load", "load.worker"), ("server", "_server.py")):
            if part in line:
                return kind
        return "bench"
    return "gone"


def struck(place: Place, blows: Sequence[Blow], seed: int) -> list[int]:
    """Begin a run, strike and resume it until all blows are used, then finish it.

    Returns the exit codes of all benches that were struck.
    """
    codes = list[int]()
    rng = random.Random(seed)
    (place.path / "tmp").mkdir()
    kept: dict[Path, bytes] = {}
    rest = list(blows)
    while rest:
        with begun(place, *words_of(place), TMPDIR=str(place.path / "tmp")) as process:
            allowed = {0}
            while rest and process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patient(rng.uniform(0, LIFE_S)))
                    break
                blow = rest.pop()
                print(f"seed {seed}: {blow.__name__}", flush=True)
                then = blow(place, process)
                allowed |= then
                if not then:
                    rest.append(blow)
                if not then <= {0, 1}:
                    break
            done = ended(process)
            assert done.returncode in allowed, (done.returncode, done.stderr)
            codes.append(done.returncode)
            assert "Traceback" not in done.stderr, done.stderr
            wait_until(lambda: not place.processes(), 15)
        assert {path: path.read_bytes() for path in kept} == kept
        assert not [
            each for each in checksums.findings(place.run_dir) if each.fault in ("changed", "missing")
        ]
        kept = dict(files_of_finished_cells(place))
        assert done.returncode != 0 or is_complete(place), "exit code 0 of a run that is not complete"
    finish(place)
    assert {path: path.read_bytes() for path in kept} == kept
    return codes


def words_of(place: Place) -> list[str]:
    """Return the words that begin a run or resume it, with one more repeat if the run is complete."""
    if not is_begun(place):
        return ["run", *NEW]
    more = [f"repeats={store.read_run(place.run_dir).plan.blocks + 1}"] if is_complete(place) else []
    return ["run", "--resume", "run", *more]


def is_begun(place: Place) -> bool:
    return (place.run_dir / "run.json").exists()


def is_complete(place: Place) -> bool:
    if not is_begun(place):
        return False
    cells = store.read_cells(place.run_dir)
    run = store.read_run(place.run_dir)
    is_ended = run.status == "completed" and (place.run_dir / "report.html").exists()
    planned = sum(len(start.cells) for start in run.plan.starts)
    return is_ended and len(cells) == planned and all(cell.counts for cell in cells)


def files_of_finished_cells(place: Place) -> Iterator[tuple[Path, bytes]]:
    for cell in store.read_cells(place.run_dir) if is_begun(place) else ():
        if cell.counts:
            for path in store.cell_dir(place.run_dir, cell.number).iterdir():
                yield path, path.read_bytes()


def finish(place: Place) -> None:
    """Resume the run to its end, and check that the blows have left nothing behind."""
    words = ["run", "--resume", "run"] if is_begun(place) else words_of(place)
    done = bench(place, *words, TMPDIR=str(place.path / "tmp"))
    assert done.returncode == 0, done.stderr
    assert is_complete(place)
    assert place.report().endswith("</html>")
    assert {path.name for path in place.run_dir.iterdir()} == OF_A_RUN
    for cell in store.read_cells(place.run_dir):
        assert {path.name for path in store.cell_dir(place.run_dir, cell.number).iterdir()} == OF_A_CELL
    assert not checksums.findings(place.run_dir)
    place.wait_until_empty()
    temporary = [*place.path.rglob("*.part"), *place.path.rglob("*.board"), *(place.path / "tmp").iterdir()]
    assert not temporary
    with sole_writer(place.run_dir):
        pass
