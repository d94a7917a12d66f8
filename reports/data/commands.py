"""The commands that go on with a run, make it again, or find out what it does not tell."""

import shlex
from collections.abc import Sequence
from math import ceil

from harness.contracts import words_of
from reports.data.asked import Heard, heard_of
from reports.data.run import Run

__all__ = ["asking_quality", "command", "resumed"]
# Long enough for all of bench's 32 texts on a slow processor.
_LEAST_S = 60.0


def command(run: Run, **changes: Sequence[str]) -> str:
    """Return `bench run key=value,value ...`, or `bench search`, with the values as they were given or are to
    be changed."""
    if run.foreign:
        return shlex.join(["bench", *run.record.argv[1:]])
    overrides = words_of({**run.record.settings, **changes})
    return shlex.join(["bench", "search" if run.record.search else "run", *overrides])


def resumed(run: Run) -> str:
    """Return the command that goes on with a run."""
    return f"bench run --resume {shlex.quote(str(run.path))}"


def asking_quality(run: Run) -> str:
    """Return the command that asks for the quality that a run does not tell: what it has not asked yet, or in
    a new run what this one was not to ask, or not long enough. Nothing where no command would help: bench did
    not run it, a server tells no probabilities, or the user has to say which one is the reference."""
    asked, record, heard = run.record.quality.asked, run.record, heard_of(run)
    is_mute = any(each.missing and not each.is_told and not _was_late(each) for each in heard.values())
    if run.foreign or is_mute or any(each.terms.base_url for each in run.deployments.values()):
        return ""
    if not asked or asked == ("tasks",):
        return command(run, quality=["fidelity", *asked])
    unasked = {label for label, each in run.deployments.items() if each.model != "-"} - heard.keys()
    if unasked and not (record.only_repeat or record.nodes or record.search):
        return resumed(run)
    kinds = ["fidelity", *(each for each in asked if each not in ("auto", "fidelity"))]
    longer_s = max(_LEAST_S, 2 * record.quality.budget_s)
    changes: dict[str, Sequence[str]] = {"quality": kinds, "quality.budget": [f"{ceil(longer_s)}s"]}
    return command(run, **changes)


def _was_late(heard: Heard) -> bool:
    return any("quality.budget" in why for why in heard.missing)
