"""Which deployments of a run are to be asked for their quality, with what, and against which."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.contracts import Deployment, QualityTerms
from harness.errors import UserError, choose_from
from harness.quality.tasks import Tasks
from harness.quality.texts import Items, items
from harness.store import quality_table, store, task_table
from harness.whole_files import write_whole


@dataclass(frozen=True)
class Due:
    """What is asked, and the labels of the deployments that were not asked yet."""

    terms: QualityTerms
    items: Items
    labels: set[str]
    tasks: Tasks | None = None

    @property
    def at_length(self) -> bool:
        """Whether bench's later texts are asked as well. By itself a run keeps its time to the load."""
        return self.terms.asked != ("auto",) or self.terms.budget_s > QualityTerms.budget_s


def due(terms: QualityTerms, deployments: Iterable[Deployment], run_dir: Path | None = None) -> Due | None:
    """Return what is to be asked of which deployments; None: nothing. `run_dir`: of a run that goes on.

    Raises UserError for a file without items, and for a reference that is none of these deployments.
    """
    known = {each.label: each for each in deployments if each.model != "-"}
    against, has_copy = terms.against, run_dir is not None and store.read_reference(run_dir) is not None
    if against is not None and against not in known and not has_copy and not Path(against).is_dir():
        raise UserError(
            f"quality.against={against}: no deployment of this run, and no directory of an earlier one; "
            f"{choose_from(against, known)}"
        )
    models = Counter(each.model for each in known.values())
    is_auto = terms.asked == ("auto",) and against is None
    asked = {label for label, each in known.items() if not is_auto or models[each.model] > 1}
    asked -= (
        {start.deployment.label for start in store.read_starts(run_dir) if start.quality}
        if run_dir
        else set()
    )
    if terms.asked == () or not asked:
        return None
    return Due(terms, items(terms.text), asked)


def earlier_reference(terms: QualityTerms, deployments: Iterable[Deployment]) -> Path | None:
    """Return the folder of an earlier run's start with most bits per weight, if quality.against names a run.

    Raises UserError if it has no answers of the model of these deployments, StoreError if it cannot be read.
    """
    if terms.against is None or not Path(terms.against).is_dir():
        return None
    run_dir, models = Path(terms.against), {each.model for each in deployments}
    given = f"quality.against={run_dir}"
    if len(models) > 1:
        raise UserError(f"{given}: is the reference of one model, here are {', '.join(sorted(models))}")
    store.read_run(run_dir)
    starts = {run_dir / "starts" / start.name: start for start in store.read_starts(run_dir) if start.quality}
    told = {each: start for each, start in starts.items() if (each / quality_table.FILE_NAME).is_file()}
    own = [each for each, start in told.items() if start.deployment.model in models]
    if not own:
        there = ", ".join(sorted({start.deployment.model for start in told.values()}))
        raise UserError(
            f"{given}: has no answers of {', '.join(sorted(models))}"
            f"{f', only of {there}' if there else ''}; measure it with quality=fidelity first"
        )
    return min(own, key=lambda each: quality_table.reference_rank(told[each]))


def keep_reference(start_dir: Path, run_dir: Path) -> None:
    """Copy a start's record and answers into a run, which then needs no other."""
    (run_dir / store.REFERENCE).mkdir(exist_ok=True)
    for name in ("start.json", quality_table.FILE_NAME, task_table.FILE_NAME):
        if (start_dir / name).is_file():
            write_whole(run_dir / store.REFERENCE / name, (start_dir / name).read_bytes())
