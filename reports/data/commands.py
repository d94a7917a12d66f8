"""Commands that continue a run, repeat it, or measure what it lacks."""

import shlex
from collections.abc import Sequence
from math import ceil

from serving_bench.harness.contracts import words_of
from serving_bench.harness.store.store import resuming
from serving_bench.reports.data.asked import Heard, heard_of
from serving_bench.reports.data.run import Run

__all__ = ["asking_quality", "command", "resumed"]
# Long enough for bench's 32 texts on a slow processor.
_LEAST_S = 60.0


def command(run: Run, **changes: Sequence[str]) -> str:
    """Return `bench run key=value,value ...` or `bench search ...` with the run's settings and these
    changes."""
    if run.foreign:
        return shlex.join(["bench", *run.record.argv[1:]])
    overrides = words_of({**run.record.settings, **changes})
    return shlex.join(["bench", "search" if run.record.search else "run", *overrides])


def resumed(run: Run) -> str:
    """Return the command that continues a run."""
    return resuming(run.path, run.record)


def asking_quality(run: Run) -> str:
    """Return the command that measures the quality that a run lacks.

    It continues this run if some deployments were not asked yet. Otherwise it is a new run that asks for
    quality, or allows more time for it. Empty if no command would help: bench did not measure the run, a
    server gives no probabilities, or it was running already; and if a run that was cut short asked for none.
    """
    requested, record, heard = run.record.quality.asked, run.record, heard_of(run)
    is_mute = any(each.missing and not each.is_told and not _was_late(each) for each in heard.values())
    if run.foreign or is_mute or any(each.terms.base_url for each in run.deployments.values()):
        return ""
    if not requested or requested == ("tasks",):
        return "" if run.is_cut_short else command(run, quality=["fidelity", *requested])
    unasked = {label for label, each in run.deployments.items() if each.model != "-"} - heard.keys()
    if unasked and not (record.only_repeat or record.nodes or record.search):
        return resumed(run)
    kinds = ["fidelity", *(each for each in requested if each not in ("auto", "fidelity"))]
    longer_s = max(_LEAST_S, 2 * record.quality.budget_s)
    changes: dict[str, Sequence[str]] = {"quality": kinds, "quality.budget": [f"{ceil(longer_s)}s"]}
    return command(run, **changes)


def _was_late(heard: Heard) -> bool:
    return any(why.kind == "asked_too_late" for why in heard.missing)
