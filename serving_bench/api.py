"""bench from Python: the functions behind the commands of the same names, with the same keys."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from serving_bench.harness.cli.commands import jobs, measuring
from serving_bench.harness.cli.commands.planning import plan_here
from serving_bench.harness.cli.commands.reading import compared
from serving_bench.harness.cli.progress import Show
from serving_bench.harness.contracts import Plan, Scalar
from serving_bench.harness.settings import config, overrides
from serving_bench.harness.store.named_files import PAGE_FILE
from serving_bench.reports import Comparison
from serving_bench.reports.data.run import open_run as read_run
from serving_bench.reports.outputs.as_notebook import html_of
from serving_bench.reports.words.report import Report as ReportData
from serving_bench.reports.words.report import report_of

# Values by key, as `bench list keys` lists them; a list is a sweep. A duration is a text with its unit: "5s".
Settings = Mapping[str, Scalar | Sequence[Scalar]]


class Report(ReportData):
    """What a run says: `answers`, `findings` (the reasons to distrust them), and `run` with every frame.

    A notebook shows it with its tables.
    """

    @property
    def page(self) -> Path:
        """Return the path of the HTML page."""
        return self.run.path / PAGE_FILE

    def _repr_html_(self) -> str:
        return html_of(self)


class _Lines(Show):
    """Gives each line of progress to a function."""

    def __init__(self, progress: Callable[[str], object] | None) -> None:
        super().__init__(quiet=True)
        self._progress = progress

    def line(self, text: str, style: str = "", *, is_whole: bool = False) -> None:
        if self._progress and text:
            self._progress(text)


def run(
    settings: Settings,
    *,
    output: str | Path | None = None,
    progress: Callable[[str], object] | None = None,
) -> Report:
    """Start each deployment in turn, play the same load at each, write the page, and return what it says.

    `output`: the directory to write, by default results/<time>. `progress` is called with each line that
    `bench run` prints. Raises UserError with what would work, BenchError with the reason if no report
    could be written, and Interrupted when a signal ends the run, whose report is written then too.
    """
    whole = jobs.new_plan(config.settings(overrides.choices_of(settings)), _path(output))
    with jobs.new_job(*whole, _path(output)) as job:
        outcome = measuring.measured(job, _Lines(progress))
        if isinstance(outcome, measuring.Stopped):
            raise outcome.by
        return _report(outcome.path)


def plan(settings: Settings) -> Plan:
    """Return what a run would do, in order, with what is skipped and why. Starts nothing.

    Raises UserError as `bench plan` does, but not if all is skipped.
    """
    return plan_here(config.settings(overrides.choices_of(settings)))[1]


def open_run(directory: str | Path) -> Report:
    """Read what a run says. Raises StoreError if the directory cannot be read."""
    return _report(Path(directory))


def compare(a: str | Path, b: str | Path, settings: Settings | None = None) -> Comparison:
    """Compare two runs, bundles or deployments of either (`DIR:deployment`), with the keys compare.*.

    Raises StoreError if a run cannot be read, UserError if the two have nothing that can be compared.
    """
    return compared(str(a), str(b), overrides.choices_of(settings or {}))


def _report(directory: Path) -> Report:
    return Report(**vars(report_of(read_run(directory))))


def _path(output: str | Path | None) -> Path | None:
    return None if output is None else Path(output)
