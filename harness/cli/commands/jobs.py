"""Plan what `bench run`, `search`, `rerun` and `claim` measure: a new run, or what a recorded one lacks."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from serving_bench.engines.model import weights
from serving_bench.harness.cli.commands.planning import check_any, check_goals, facts_here, planned
from serving_bench.harness.cli.terminal import signals_interrupt
from serving_bench.harness.cli.trust import agreed, tell_changed
from serving_bench.harness.contracts import Plan, PlannedStart
from serving_bench.harness.errors import StoreError, UserError, refuse_first
from serving_bench.harness.install import install
from serving_bench.harness.install.tokenizer import resolved
from serving_bench.harness.plan import plan
from serving_bench.harness.quality.planned import Due, due
from serving_bench.harness.run import next_starts, racing, session
from serving_bench.harness.run.recorded import check_machine, check_outside, choices_of, recorded_plan
from serving_bench.harness.run.search import prepared, starts_left, without_trials
from serving_bench.harness.settings import config, overrides, sections
from serving_bench.harness.settings.config import Settings, as_grid
from serving_bench.harness.settings.decoding import Choices
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import RUN_FILE
from serving_bench.harness.store.store import RunRecord

# Sections of keys on which no start and no cell of a plan depends.
_OF_NO_START = {"repeats", "until", "run", "guard", "price", "slo", "compare", "race", "quality"}


@dataclass(frozen=True)
class Job:
    """A run or search in its locked directory, and the starts of it that are to be measured.

    `whole`: the plan, with what was measured already. `record`: of a new run, what its run.json will have.
    """

    directory: Path
    settings: Settings
    record: RunRecord
    whole: Plan
    starts: Sequence[PlannedStart]
    quality: Due | None  # None: nobody is asked

    @property
    def is_new(self) -> bool:
        return not (self.directory / RUN_FILE).exists()

    @property
    def may_grow(self) -> bool:
        """Return whether more starts may follow: not if a race is decided, nor if `until` has ended the run
        and no cell is missing."""
        if race := self.whole.race:
            return race.may_go_on
        has_cells = any(start.cells for start in self.starts)
        return self.settings.until is not None and (has_cells or self.record.stopped_because is None)

    @property
    def again(self) -> str:
        """Return the command that goes on with it."""
        return f"`{store.resuming(self.directory, self.record)}`"

    @property
    def more(self) -> str:
        """Return the command that measures more repeats of a finished run; an empty text if none can."""
        race = self.whole.race
        if self.may_grow or self.record.only_repeat or self.record.nodes or (race and not race.going):
            return ""
        repeats = race.most if race else self.whole.blocks
        return f"`{store.resuming(self.directory, self.record)} repeats={repeats + 2}`"


def typed_settings(given: Choices, *, is_search: bool = False) -> Settings:
    return prepared(config.search_settings(given)) if is_search else config.settings(given)


def new_plan(
    settings: Settings, output: Path | None, only_repeat: int | None = None
) -> tuple[Settings, Plan]:
    """Return the settings, with what this machine adds to them, and the plan of a new run or search.

    Raises UserError if it could not be written to the output.
    """
    session.check_output(output)
    if only_repeat is not None:
        settings = as_grid(settings, "--only-repeat measures one of a fixed number")
    settings, _ = resolved(settings, weights, install.cache_dir())
    whole = planned(settings)
    return settings, whole if only_repeat is None else _only(whole, settings, only_repeat)


def plan_again(
    source: Path, record: RunRecord, settings: Settings, changes: Collection[str], output: Path | None
) -> tuple[Settings, Plan, bool]:
    """Return the settings and the plan of a rerun, and whether that is the plan on record.

    It is planned again if the user changes what is started or played, or if this bench plans otherwise.
    """
    if {key.partition(".")[0] for key in changes} <= _OF_NO_START:
        with suppress(StoreError):
            whole = _as_asked(source, record, settings)
            session.check_output(output)
            check_goals(settings, whole)
            return settings, whole, True
    return *new_plan(settings, output, record.only_repeat), False


def _as_asked(source: Path, record: RunRecord, settings: Settings) -> Plan:
    """Return a plan on record as it was before its first start, without what cannot be started here.

    Trials of a search, and repeats that `until` added, are left out. Repeats that its budget did not hold are
    planned again, by the same seed. Raises StoreError like `recorded_plan`.
    """
    is_race = record.plan.race or "repeats" in settings.given
    planned = without_trials(record.plan, settings) if settings.search else record.plan
    # Later repeats of a race lack those that had left it.
    whole = recorded_plan(source, planned.only([0]) if record.plan.race else planned, settings)
    whole = plan.only_here(whole, facts_here(settings, whole.deployments.values()))
    if record.only_repeat:
        return whole
    race = plan.race_of(settings, whole.deployments.values()) if is_race else None
    blocks = plan.blocks_asked(settings, race)
    whole = plan.estimated(replace(whole.only(range(blocks)), race=race))
    while 0 < whole.blocks < blocks:
        whole = plan.grown(whole, settings, max(start.index for start in whole.starts) + 1)
    return whole


def _only(whole: Plan, settings: Settings, number: int) -> Plan:
    """Return one repeat of a new run, to be merged with the others."""
    what = f"--only-repeat {number}"
    refuse_first(
        (settings.until, "--only-repeat: until decides itself how many repeats there are; give repeats=N"),
        (number < 1, f"{what}: must be 1 or more"),
        (number > whole.blocks, f"{what}: the run has {whole.blocks} (repeats); give one of them"),
    )
    return plan.estimated(whole.only([number - 1]))


@contextmanager
def new_job(
    settings: Settings, whole: Plan, output: Path | None, only_repeat: int | None = None
) -> Iterator[Job]:
    """Make and lock the directory of a new run for the block. Raises UserError if nothing of it can run."""
    check_any(whole, "search" if settings.search else "run")
    quality = due_of(settings, whole)
    with signals_interrupt(), session.new_directory(output, *settings.scenario_names) as directory:
        record = session.new_record(directory.name, settings, whole, only_repeat)
        yield Job(directory, settings, record, whole, whole.starts, quality)


def due_of(settings: Settings, whole: Plan, run_dir: Path | None = None) -> Due | None:
    """Return what is asked of a plan's deployments. Only the first repeat asks for quality."""
    return due(settings.quality, whole.deployments.values(), run_dir) if 0 in whole.repeats else None


@contextmanager
def resumed_job(
    directory: Path,
    changes: list[str] | None,
    study: Path | None,
    output: Path | None,
    *,
    is_search: bool = False,
) -> Iterator[Job]:
    """Lock a run before it is read, so that no other bench measures what it lacks, and yield that."""
    is_run = (directory / RUN_FILE).is_file()
    with session.sole_writer(directory) if is_run else nullcontext():
        record, repeats = _recorded(directory, changes, study, output)
        if is_search and record.search is None:
            raise UserError(f"{directory}: is not a search; resume it with `bench run --resume {directory}`")
        job = left_of(directory, record, repeats)
        tell_changed(directory, is_held=True)
        with signals_interrupt():
            yield job


def _recorded(
    directory: Path, changes: list[str] | None, study: Path | None, output: Path | None
) -> tuple[RunRecord, int | None]:
    """Return a run's record, and how many repeats it is to have if that is more than it has."""
    given = overrides.parse(changes or [])
    refusal = "--resume takes a run's own settings; the only key to give with it is repeats=N"
    refuse_first((study or output, refusal))
    record = store.read_run(directory)
    if record.foreign:
        raise UserError(f"{directory}: was measured by {record.foreign.tool}; resume what bench measured")
    choices = choices_of(record)
    # Typed too, a value that is not taken from a stranger's file is the user's word.
    typed = {key: values for key, values in given.items() if choices.get(key) == values}
    refuse_first((given.keys() - typed.keys() - {"repeats"}, refusal))
    race = record.plan.race
    requested = {**choices, "repeats": (race.most if race else record.plan.blocks,)}
    agreed(directory, requested, typed, is_own=store.is_own(directory))
    if "repeats" not in given:
        return record, None
    if record.search is not None:
        raise UserError("repeats: cannot be added to a search; begin a new one")
    asked, blocks = sections.repeats(given), race.most if race else record.plan.blocks
    what, repeats = f"repeats={asked.text}", asked.most
    refuse_first(
        (asked.is_race and race is None, f"{what}: this run is no race; give one number"),
        (
            race and asked.is_race and asked.least != race.least,
            f"{what}: this race has {race.least if race else 0} at least; give only the most, repeats=N",
        ),
        (
            record.only_repeat or record.nodes,
            f"{what}: this run is of single repeats; measure others with --only-repeat and merge",
        ),
        (race and repeats < blocks, f"{what}: this race may have {blocks}; give more, or none"),
        (repeats < blocks, f"{what}: the run has {blocks} already; give more, or none"),
    )
    return record, repeats if repeats > blocks else None


def left_of(directory: Path, record: RunRecord, repeats: int | None = None) -> Job:
    """Return what a run or search lacks: cells, and quality, which may need a start of its own."""
    settings = typed_settings(choices_of(record), is_search=record.search is not None)
    check_machine(directory, record)
    check_outside(directory, record)
    if settings.search:
        whole = recorded_plan(directory, without_trials(record.plan, settings), settings)
        record, starts = starts_left(directory, record, whole)
    else:
        whole = recorded_plan(directory, record.plan, settings)
        if whole.race:
            race = racing.raced_on(whole, whole.race, repeats)
            given = {} if repeats is None else {"repeats": [f"{race.least}..{repeats}"]}
            whole, recorded = replace(whole, race=race), replace(record.plan, race=race)
            record = replace(record, plan=recorded, settings={**record.settings, **given})
        starts = next_starts.missing_starts(directory, record, whole)
    if repeats is not None and not whole.race:
        record, whole, more = next_starts.with_repeats(record, whole, settings, repeats, starts)
        starts += more
    quality = due_of(settings, whole, directory)
    labels = quality.labels if quality else ()
    alone = next_starts.only_asked(directory, record, whole, starts, labels)
    return Job(directory, settings, record, whole, [*alone, *starts], quality)
