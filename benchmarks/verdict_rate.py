"""How often bench names a winner among deployments that are the same, on this machine.

    python benchmarks/verdict_rate.py results/same --runs 200            # quiet
    python benchmarks/verdict_rate.py results/busy --runs 200 --beside 1 # beside programs that take a core

Each run is a short `bench run` of one model on llama.cpp under several labels, which differ only in how long
bench would wait for the server. Whatever it names is wrong. What is measured stays in the directory: the same
command goes on where it ended, and with --runs 0 it only counts. Prints each figure with a 95 % interval.
"""

import argparse
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy.special import betaincinv

from serving_bench import open_run
from serving_bench.harness.errors import StoreError
from serving_bench.reports.verdicts.decisions import SPEED, Decision, decisions_of
from serving_bench.reports.verdicts.load_cases import values_by_repeat

SPIN = [sys.executable, "-c", "while True: pass"]
RESAMPLES = 2_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--runs", type=int, default=200, help="how many runs there are in the end")
    parser.add_argument("--labels", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--window", default="1s")
    parser.add_argument("--beside", type=int, default=0, help="how many busy loops run beside it")
    parser.add_argument("settings", nargs="*", help="further settings of bench run")
    given = parser.parse_args()
    with beside(given.beside):
        for number in range(given.runs):
            measure(given, given.directory / f"{number:03d}")
    print_rate(list(decided(given.directory)))


@contextmanager
def beside(programs: int) -> Iterator[None]:
    """Run busy loops for the block."""
    running = [subprocess.Popen(SPIN) for _ in range(programs)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(given: argparse.Namespace, directory: Path) -> None:
    """Measure a run, or what it lacks."""
    if (directory / "report.html").exists():
        return
    waits = ",".join(f"{100 + number}s" for number in range(given.labels))
    settings = (
        *("engine=llama_cpp", "quantization=gguf-q4_0", f"engine.start_timeout={waits}", "quality=off"),
        *(f"repeats={given.repeats}", f"load.duration={given.window}", "load.warmup=500ms", "load.steps=1"),
        *("load.concurrency=2", "load.min_requests=1", "guard.wait=0s", *given.settings),
    )
    new = [*settings, f"seed={int(directory.name)}", "--output", str(directory)]
    words = ["--resume", str(directory)] if (directory / "run.json").exists() else new
    subprocess.run([sys.executable, "-P", "-m", "serving_bench", "run", *words, "--quiet"], check=False)


def decided(directory: Path) -> Iterator[tuple[Decision, np.ndarray]]:
    """Yield each run's decision, and the logarithm of its speeds by label and repeat."""
    for path in sorted(directory.glob("*/run.json")):
        try:
            run = open_run(path.parent).run
        except StoreError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        for decision in decisions_of(run):
            values = values_by_repeat(run, decision.groups, SPEED).values()
            speeds = np.array([[each[repeat] for repeat in decision.used] for each in values])
            if decision.best and len(speeds) > 1:
                yield decision, np.log(speeds)


def print_rate(runs: Sequence[tuple[Decision, np.ndarray]]) -> None:
    if not runs:
        print("no run with a test")
        return
    named = sum(decision.kind in ("named", "slight") for decision, _ in runs)
    same = sum(decision.kind == "same" for decision, _ in runs)
    print(f"runs with a test: {len(runs)}, level {sorted({decision.alpha for decision, _ in runs})}")
    for what, count in (("named a winner (wrong)", named), ("the same", same)):
        low, high = share_interval(count, len(runs))
        print(f"{what}: {count} = {100 * count / len(runs):.1f} % [{100 * low:.1f}, {100 * high:.1f}]")
    speeds = [speed for _, speed in runs]
    figures = (("noise of a start, %", noise), ("from start to start, r", lag), ("of a run, %", of_run))
    for name, figure in figures:
        rng = np.random.default_rng(1)
        chosen = rng.integers(len(speeds), size=(RESAMPLES, len(speeds)))
        draws = [figure([speeds[number] for number in numbers]) for numbers in chosen]
        low, high = np.quantile(draws, (0.025, 0.975))
        print(f"{name}: {figure(speeds):.2f} [{low:.2f}, {high:.2f}]")


def share_interval(count: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper and Pearson 1934)."""
    low = float(betaincinv(count, of - count + 1, 0.025)) if count else 0.0
    return low, float(betaincinv(count + 1, of - count, 0.975)) if count < of else 1.0


def rest(speed: np.ndarray) -> np.ndarray:
    """Return what is left of a run's speeds without what a repeat and a label have in common."""
    return np.asarray(speed - speed.mean(axis=0) - speed.mean(axis=1, keepdims=True) + speed.mean())


def _variance(speeds: Sequence[np.ndarray]) -> float:
    """Return the variance of a start that nothing explains, over all runs."""
    freedom = math.fsum((speed.shape[0] - 1) * (speed.shape[1] - 1) for speed in speeds)
    return math.fsum((rest(speed) ** 2).sum() for speed in speeds) / freedom


def noise(speeds: Sequence[np.ndarray]) -> float:
    return 100 * math.sqrt(_variance(speeds))


def lag(speeds: Sequence[np.ndarray]) -> float:
    """Return the correlation of what is left of a start with that of the label's next start.

    What is left of n independent values correlates by -1/n, since their mean is taken away: 1/n is added.
    What lasts for longer than a few starts is in `of_run` instead.
    """
    pairs = math.fsum((rest(speed)[:, 1:] * rest(speed)[:, :-1]).sum() for speed in speeds)
    count = math.fsum((speed.shape[0] - 1) * (speed.shape[1] - 1) for speed in speeds)
    return pairs / count / _variance(speeds) + math.fsum(1 / speed.shape[1] for speed in speeds) / len(speeds)


def of_run(speeds: Sequence[np.ndarray]) -> float:
    """Return how far apart the labels of a run are beyond what starts explain, as a standard deviation."""
    apart = [float(speed.mean(axis=1).var(ddof=1)) for speed in speeds]
    by_chance = [_variance(speeds) / speed.shape[1] for speed in speeds]
    return 100 * math.sqrt(max(0.0, float(np.mean(apart) - np.mean(by_chance))))


if __name__ == "__main__":
    main()
