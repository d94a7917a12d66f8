"""`bench selftest verdicts`: how often bench names a winner among deployments that are the same, here."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serving_bench.harness.cli.commands.jobs import new_job, new_plan, resumed_job
from serving_bench.harness.cli.commands.measuring import Stopped, measured
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.cli.terminal import Row
from serving_bench.harness.contracts import AlikeTest, Figure, Scalar, plural
from serving_bench.harness.errors import BenchError, UserError
from serving_bench.harness.install import install
from serving_bench.harness.run.session import now
from serving_bench.harness.selftest import known_error
from serving_bench.harness.settings import config
from serving_bench.harness.settings.decoding import Choices
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import RUN_FILE

if TYPE_CHECKING:  # they import pandas
    from serving_bench.reports.data import Run
    from serving_bench.reports.verdicts.alike import AlikeRun

# A short run. The two labels differ only in how long bench would wait for the server.
_LABELS = "engine.start_timeout"
_SHORT: Mapping[str, tuple[Scalar, ...]] = {
    "engine": ("llama_cpp",),
    "quantization": ("gguf-q4_0",),
    "quality": ("off",),
    "repeats": (5,),
    "load.concurrency": (2,),
    "load.duration": ("1s",),
    "load.warmup": ("500ms",),
    "load.steps": (1,),
    "load.min_requests": (1,),
    "guard.wait": ("0s",),
}
_TITLES = {
    "output_tokens_per_s": "output tokens/s",
    "ttft_s.p50": "TTFT p50",
    "tpot_s.p50": "TPOT p50",
    "e2e_s.p50": "E2E p50",
}


def measured_verdicts(given: Choices, runs: int, directory: Path, show: Show) -> AlikeTest:
    """Measure runs of deployments that are the same until there are this many, and keep what they say.

    Raises UserError if the directory has runs of other settings, BenchError if no run came to a test, and
    Interrupted, after which the same command goes on.
    """
    if _LABELS in given or "seed" in given:
        raise UserError(f"{_LABELS} and seed: are set by bench selftest verdicts; leave them out")
    if swept := [key for key, values in given.items() if len(values) > 1]:
        raise UserError(f"{swept[0]}: bench selftest verdicts measures one deployment at one load; give one")
    choices = {**_SHORT, **given, _LABELS: ("100s", "101s")}
    config.settings(choices)
    _check(directory, choices)
    found = list(_runs(choices, runs, directory, show))
    tested = [each for each in found if each]
    if not tested:
        raise BenchError(f"{directory}: no run came to a test; the reports in it say why")
    from serving_bench.reports.verdicts.alike import alike_of

    record = store.read_run(directory / _name(0))
    label = next(iter(record.plan.deployments)).partition(" start_timeout=")[0]
    version, machine = known_error.version(), known_error.machine()
    result = AlikeTest(now(), version, machine, choices, label, **vars(alike_of(tested)))
    show.line(f"kept in {known_error.keep_alike(install.cache_dir(), result)}")
    return result


def _name(number: int) -> str:
    return f"{number:03d}"


def _check(directory: Path, choices: Choices) -> None:
    for path in directory.glob(f"*/{RUN_FILE}"):
        settings = store.read_run(path.parent).settings
        asked = {key: [*map(str, values)] for key, values in choices.items()}
        there = {key: [*map(str, values)] for key, values in settings.items() if key != "seed"}
        if differs := sorted(key for key in {*asked, *there} if asked.get(key) != there.get(key)):
            what = f"was measured with another {differs[0]} ({', '.join(there.get(differs[0], ['-']))})"
            raise UserError(f"{path.parent}: {what}; give another --output")


def _runs(choices: Choices, runs: int, directory: Path, show: Show) -> "Iterator[AlikeRun | None]":
    from serving_bench.reports.verdicts.alike import alike_run

    there = {number for number in range(runs) if _is_whole(directory / _name(number))}
    show.line(f"{plural(runs - len(there), 'run')} of deployments that are the same, in {directory}")
    began_s, done = time.monotonic(), 0
    for number in range(runs):
        run = _run(choices, number, directory / _name(number), is_there=number in there)
        found = alike_run(run)
        yield found
        if number not in there:
            done += 1
            left_s = (time.monotonic() - began_s) / done * (runs - len(there) - done)
            came = "no test" if found is None else "named a winner" if "named" in found.kind else "named none"
            left = f"; about {max(1, round(left_s / 60))} min left" if left_s else ""
            show.line(f"  run {number + 1} of {runs}: {came}{left}")


def _is_whole(directory: Path) -> bool:
    return (directory / RUN_FILE).exists() and store.read_run(directory).status == "completed"


def _run(choices: Choices, number: int, directory: Path, *, is_there: bool) -> "Run":
    from serving_bench.reports.data import open_run

    if is_there:
        return open_run(directory)
    if (directory / RUN_FILE).exists():
        jobs = resumed_job(directory, None, None, None)
    else:
        jobs = new_job(*new_plan(config.settings({**choices, "seed": (number,)}), directory), directory)
    with jobs as job:
        outcome = measured(job, Show(quiet=True))
    if isinstance(outcome, Stopped):
        outcome.by.remark = "the runs stay: the same command goes on"
        raise outcome.by
    return outcome


def verdict_rows(result: AlikeTest) -> list[Row]:
    """Return how starts differ, a row for each metric."""
    return [
        {
            "metric": _TITLES[metric],
            "noise of a start": percent(each.noise),
            "next start, correlation": f"{each.lag.value:.2f} [{each.lag.low:.2f}, {each.lag.high:.2f}]",
            "effect of a run on one": percent(each.of_run),
            "from run to run": percent(each.between),
        }
        for metric, each in result.by_metric.items()
    ]


def verdict_lines(result: AlikeTest) -> Iterator[str]:
    """Say how often a winner was named, and what reports will do with it."""
    yield (
        f"named a winner in {percent(result.named)} of {plural(result.runs, 'run')} of {result.deployment}, "
        f"each a wrong one; claimed: at most {100 * result.claimed:.1f} %. The same: {percent(result.same)}"
    )
    yield "in brackets: 95 % intervals. Reports quote this; what is surely above 0 widens their intervals"
    if result.levels:
        yield "starts have two levels: reports name no lead that may be smaller"


def percent(figure: Figure) -> str:
    return f"{100 * figure.value:.1f} % [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
