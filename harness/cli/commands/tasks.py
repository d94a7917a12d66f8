"""Find what `bench run` and `bench search` are going to measure: a new plan, or what is left of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engines.model import weights
from harness.cli.commands.planning import check_any, planned
from harness.cli.trust import agreed
from harness.contracts import Plan, PlannedStart, SearchTerms
from harness.errors import UserError, refuse_first
from harness.install import install
from harness.install.tokenizer import resolved
from harness.plan import plan
from harness.quality.due import Due, due
from harness.run import next_starts, session
from harness.run.search import prepared, starts_left
from harness.settings import config, overrides
from harness.settings.decoding import Choices, decode, only_value
from harness.store import store


@dataclass(frozen=True)
class Task:
    """A new run or search, or what a recorded one lacks."""

    settings: config.Settings
    whole: Plan  # with what was measured already
    starts: Sequence[PlannedStart]  # those to measure
    directory: Path | None  # None: one is made
    record: store.RunRecord | None  # None: the run is new
    search: SearchTerms | None  # None: it is a run
    may_grow: bool  # more starts may follow (until)
    quality: Due | None = None  # None: no quality is measured
    only_repeat: int | None = None  # the one repeat that is measured here
    claim: str | None = None  # the name of the claim, as it was given
    judge: Callable[[Path], object] | None = None  # judges the claim before the report is written

    @property
    def more(self) -> str:
        """Return the command that measures more repeats of a finished run; an empty text if none can."""
        if self.record is None or self.may_grow or self.record.only_repeat or self.record.nodes:
            return ""
        return f"`bench run --resume {self.directory} repeats={self.whole.blocks + 2}`"

    def again(self, directory: Path) -> str:
        return f"`bench {'search' if self.search else 'run'} --resume {directory}`"


def new_run(given: Choices, output: Path | None) -> Task:
    return new_task(config.settings(given), None, output)


def new_search(given: Choices, output: Path | None) -> Task:
    settings, terms = config.search_settings(given)
    return new_task(prepared(settings, terms), terms, output)


def new_task(settings: config.Settings, terms: SearchTerms | None, output: Path | None) -> Task:
    """Plan a new run, or a search with its terms. Raises UserError if nothing of it can run."""
    session.check_output(output)
    settings, _ = resolved(settings, weights, install.cache_dir())
    whole = planned(settings)
    check_any(whole, "search" if terms else "run")
    quality = due(settings.quality, whole.deployments.values())
    return Task(settings, whole, whole.starts, output, None, terms, settings.until is not None, quality)


def only(task: Task, number: int) -> Task:
    """Return one repeat of a new run, to be merged with the others. Only the first one asks for quality."""
    what, blocks = f"--only-repeat {number}", task.whole.blocks
    refuse_first(
        (
            task.settings.until,
            "--only-repeat: until decides itself how many repeats there are; give repeats=N",
        ),
        (number < 1, f"{what}: must be 1 or more"),
        (number > blocks, f"{what}: the run has {blocks} (repeats); give one of them"),
    )
    whole = plan.estimated(task.whole.only([number - 1]))
    quality = task.quality if number == 1 else None
    return replace(task, whole=whole, starts=whole.starts, quality=quality, only_repeat=number)


def recorded(
    directory: Path, changes: list[str] | None, study: Path | None, output: Path | None
) -> tuple[store.RunRecord, int | None]:
    given = overrides.parse(changes or [])
    said = "--resume takes a run's own settings; the only key to give with it is repeats=N"
    refuse_first((study or output, said))
    record = store.read_run(directory)
    if record.foreign:
        raise UserError(f"{directory}: was measured by {record.foreign.tool}; resume what bench measured")
    found = next_starts.choices_of(record)
    # Typed too, a value that is not taken from a stranger's file is the user's word.
    typed = {key: values for key, values in given.items() if found.get(key) == values}
    refuse_first((given.keys() - typed.keys() - {"repeats"}, said))
    asked = {**found, "repeats": (record.plan.blocks,)}
    agreed(directory, asked, typed, is_own=store.is_own(directory))
    if "repeats" not in given:
        return record, None
    if record.search is not None:
        raise UserError("repeats: cannot be added to a search; begin a new one")
    repeats = decode("repeats", int, only_value("repeats", given))
    what, blocks = f"repeats={repeats}", record.plan.blocks
    refuse_first(
        (
            record.only_repeat or record.nodes,
            f"{what}: this run is of single repeats; measure others with --only-repeat and merge",
        ),
        (repeats < blocks, f"{what}: the run has {blocks} already; give more, or none"),
    )
    return record, repeats if repeats > blocks else None


def left_of(directory: Path, record: store.RunRecord, repeats: int | None) -> Task:
    """Return what a run or search lacks: cells, and quality, which may need a start of its own."""
    task = _search_left(directory, record) if record.search else _run_left(directory, record, repeats)
    is_asked = 0 in task.whole.repeats  # only the first repeat asks for quality, see `only`
    quality = due(task.settings.quality, task.whole.deployments.values(), directory) if is_asked else None
    labels = quality.labels if quality else ()
    alone = next_starts.only_asked(directory, task.record or record, task.whole, task.starts, labels)
    return replace(task, starts=[*alone, *task.starts], quality=quality)


def _run_left(directory: Path, record: store.RunRecord, repeats: int | None) -> Task:
    """Return what a run lacks. A run that `until` has ended grows only if part of it is measured again."""
    settings = config.settings(next_starts.choices_of(record))
    whole = planned(settings, is_new=False, repeats=record.plan.blocks).only(record.plan.repeats)
    starts = next_starts.missing_starts(directory, record, whole)
    if repeats is not None:
        record, whole, more = next_starts.with_repeats(record, whole, settings, repeats, starts)
        starts += more
    may_grow = settings.until is not None and (bool(starts) or record.stopped_because is None)
    return Task(settings, whole, starts, directory, record, None, may_grow)


def _search_left(directory: Path, record: store.RunRecord) -> Task:
    settings, terms = config.search_settings(next_starts.choices_of(record))
    settings = prepared(settings, terms)
    whole = planned(settings, is_new=False)
    record, left = starts_left(directory, record, whole)
    return Task(settings, whole, left, directory, record, terms, may_grow=False)
