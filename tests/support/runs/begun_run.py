"""Makes runs that are planned and recorded, and of which nothing is measured yet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving_bench.harness.contracts import Plan, PlannedStart, Standing, plural
from serving_bench.harness.plan import plan
from serving_bench.harness.run import session
from serving_bench.harness.run.watch import Site
from serving_bench.harness.sampling.guard import Guard
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.settings.config import Settings
from serving_bench.harness.store.store import RunRecord

WORDS = ("engine=reference", "reference.label=a,b", "load.concurrency=1,2", "repeats=2", "seed=3")
Begun = tuple[Path, RunRecord, Plan]


def settings_of(*words: str) -> Settings:
    return config.settings(overrides.parse(words))


def begin(directory: Path) -> Begun:
    """Begin a run of WORDS. Return its directory, record and plan."""
    settings = settings_of(*WORDS)
    planned = plan.make(settings)
    return directory, write_begun(directory, settings, planned), planned


def write_begun(directory: Path, settings: Settings, planned: Plan, cache: Path | None = None) -> RunRecord:
    """Write the record of a new run, and return it. `cache`: what has bench's own error here."""
    directory.mkdir(parents=True, exist_ok=True)
    record = session.new_record(directory.name, settings, planned)
    return session.begin(directory, record, bare_site(directory, cache)).record


def bare_site(directory: Path, cache: Path | None = None) -> Site:
    """A site without devices, where nothing is installed and nobody watches."""
    return Site(directory, cache or directory / "no-cache", (), Guard("off", 0, Silent()), Silent())


class Silent:
    """An Observer that ignores everything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Told:
    """An Observer that collects what a growing run says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def standing(self, found: Sequence[Standing]) -> None:
        self.lines += [each.words for each in found]

    def grow(self, block: Sequence[PlannedStart], why: str) -> None:
        self.lines.append(f"{plural(len(block), 'start')} more: {why}")

    def cut(self, starts: Sequence[PlannedStart], why: str) -> None:
        self.lines.append(f"{plural(len(starts), 'start')} left out: {why}")
