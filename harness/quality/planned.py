"""Decide which deployments are asked for their quality, what, for how long, and which is the reference."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serving_bench.harness.contracts import DEFAULT_TASKS, Deployment, PlannedStart, Quality, QualityTerms
from serving_bench.harness.errors import StoreError, UserError, choose_from
from serving_bench.harness.quality.measure import most_s
from serving_bench.harness.quality.tasks import LOADING_S, Tasks, check_tasks
from serving_bench.harness.quality.texts import Items, items
from serving_bench.harness.store import quality_table, store
from serving_bench.harness.store.named_files import QUALITY_FILE, TASKS_FILE
from serving_bench.harness.store.quality_table import bits_of, deployment_rank, without_bits
from serving_bench.harness.whole_files import write_whole

_ANSWERS = (QUALITY_FILE, TASKS_FILE)


@dataclass(frozen=True)
class Due:
    """What is asked, and the labels of the deployments that have not been asked yet.

    `against`: for each model the label that its deployments are compared with if all of them answer, or the
    reason why there is none.
    """

    terms: QualityTerms
    items: Items
    labels: set[str]
    against: Mapping[str, str]
    tasks: Tasks | None = None

    @property
    def at_length(self) -> bool:
        """Return whether the later texts are asked too: only if the user asked for quality, or more time."""
        return self.terms.asked != ("auto",) or self.terms.budget_s > QualityTerms.budget_s


@dataclass(frozen=True)
class Asking:
    """What a plan is going to ask beside its load.

    Each of the `deployments` (labels) is asked for `budgets_s`, a slow one for up to `bounds_s`. `alone` are
    the labels with a start of their own for it. `tasks` are the names of the tasks that are asked. `against`
    is as in Due, `note` as in Items.
    """

    deployments: Sequence[str]
    alone: Sequence[str]
    budgets_s: Mapping[Quality, float]
    bounds_s: Mapping[Quality, float]
    tasks: Sequence[str]
    against: Mapping[str, str]
    note: str | None

    @property
    def planned_s(self) -> float:
        return len(self.deployments) * sum(self.budgets_s.values())

    @property
    def most_s(self) -> float:
        return len(self.deployments) * sum(self.bounds_s.values())


def asking(quality: Due | None, starts: Iterable[PlannedStart]) -> Asking | None:
    """Return what these starts are going to be asked; None if nothing."""
    first = dict[str, PlannedStart]()
    for start in starts:
        first.setdefault(start.deployment.label, start)
    asked_labels = [label for label in first if quality and label in quality.labels]
    if quality is None or not asked_labels:
        return None
    alone = [label for label in asked_labels if not first[label].cells]
    terms, budgets_s, bounds_s = quality.terms, dict[Quality, float](), dict[Quality, float]()
    if terms.asked != ("tasks",):
        budgets_s["fidelity"], bounds_s["fidelity"] = terms.budget_s, most_s(terms.budget_s)
    if "tasks" in terms.asked:
        budgets_s["tasks"], bounds_s["tasks"] = terms.tasks_budget_s, LOADING_S + terms.tasks_budget_s
    tasks = task_names(terms) if "tasks" in budgets_s else ()
    return Asking(asked_labels, alone, budgets_s, bounds_s, tasks, quality.against, quality.items.note)


def task_names(terms: QualityTerms) -> Sequence[str]:
    return terms.tasks or DEFAULT_TASKS


def due(terms: QualityTerms, deployments: Iterable[Deployment], run_dir: Path | None = None) -> Due | None:
    """Return what to ask of which deployments; None if nothing. `run_dir` is that of a resumed run.

    Raises UserError for a file without items, an impossible task, a reference that is not among the
    deployments, and if no deployment serves a model.
    """
    planned = list(deployments)
    by_label = {each.label: each for each in planned if each.model != "-"}
    if planned and not by_label and run_dir is None and terms.asked not in ((), ("auto",)):
        engines = ", ".join(sorted({each.engine for each in planned}))
        raise UserError(
            f"quality={','.join(terms.asked)}: would have no effect, since {engines} serves no model; "
            "leave it out, or add another engine"
        )
    against, has_copy = terms.against, run_dir is not None and bool(store.read_references(run_dir))
    if against is not None and against not in by_label and not has_copy and not Path(against).is_dir():
        raise UserError(
            f"quality.against={against}: no deployment of this run, and no directory of an earlier one; "
            f"{choose_from(against, by_label)}"
        )
    models = Counter(each.model for each in by_label.values())
    is_auto = terms.asked == ("auto",) and against is None
    labels = {label for label, each in by_label.items() if not is_auto or models[each.model] > 1}
    labels -= _answered(terms, run_dir) if run_dir else set()
    if terms.asked == () or not labels:
        return None
    check_tasks(task_names(terms) if "tasks" in terms.asked else ())
    asked_models = {by_label[label].model for label in labels}
    of_them = {label: each for label, each in by_label.items() if each.model in asked_models}
    return Due(terms, items(terms.text), labels, _references(against, of_them))


def _answered(terms: QualityTerms, run_dir: Path) -> set[str]:
    """Return the labels of the deployments that were asked before and need not be asked again.

    A record alone does not count: a start that was ended during its tasks has one, and so has a server that
    answered nothing in time.
    """
    return {
        start.deployment.label
        for start in store.read_starts(run_dir)
        if start.quality
        and ("tasks" not in terms.asked or start.status == "completed")
        and has_answers(run_dir / "starts" / start.name)
    }


def has_answers(start_dir: Path) -> bool:
    """Return whether a start answered anything when it was asked."""
    return any((start_dir / name).is_file() for name in _ANSWERS)


def _references(against: str | None, deployments: Mapping[str, Deployment]) -> dict[str, str]:
    """Return the reference's label for each model: the one that `against` names, else that with most bits.

    If only a start can decide between several, all are named. If some bits are not known, it says why.
    """
    bits: dict[str, dict[str, float | None]] = {}
    for label, each in deployments.items():
        bits.setdefault(each.model, {})[label] = bits_of(each)
    chosen = {}
    for model, of_model in bits.items():
        ranks = {label: deployment_rank(deployments[label], each) for label, each in of_model.items()}
        chosen[model] = " or ".join(label for label, rank in ranks.items() if rank == min(ranks.values()))
        if unknown := without_bits(of_model):
            why = f"the bits of {' and '.join(unknown)} are not known: give quality.against=LABEL"
            chosen[model] = f"nobody ({why})"
    if against is not None and against in deployments:
        return chosen | {deployments[against].model: against}
    return chosen if against is None else dict.fromkeys(chosen, against)


def earlier_references(
    run_dir: Path, deployments: Iterable[Deployment], references: Mapping[str, Path]
) -> list[Path]:
    """Return the folders of the references in an earlier run, one for each model of these deployments.

    `references`: the earlier run's, by model. Raises UserError if the answers for a model are missing or
    damaged.
    """
    models = {each.model for each in deployments if each.model != "-"}
    present = {model: folder for model, folder in references.items() if (folder / QUALITY_FILE).is_file()}
    missing = models - present.keys()
    if missing:
        only = f", only for {', '.join(sorted(present))}" if present else ""
        if lost := [str(references[model] / QUALITY_FILE) for model in missing & references.keys()]:
            only += f" (no file at {' and '.join(sorted(lost))})"
        raise UserError(
            f"quality.against={run_dir}: has no reference for {', '.join(sorted(missing))}{only}; measure "
            "its deployment with most bits, or its quality.against, with quality=fidelity first"
        )
    folders = [present[model] for model in sorted(models)]
    try:
        for folder in folders:
            quality_table.read_quality(folder / QUALITY_FILE)
            quality_table.read_items(folder / TASKS_FILE)
    except StoreError as error:
        raise UserError(f"quality.against={run_dir}: {error}; measure it again, or give another") from error
    return folders


def keep_references(start_dirs: Iterable[Path], run_dir: Path) -> None:
    """Copy the records and answers of starts into a run, which then no longer needs the earlier run."""
    for start_dir in start_dirs:
        folder = run_dir / store.REFERENCE / start_dir.name
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("start.json", *_ANSWERS):
            if (start_dir / name).is_file():
                write_whole(folder / name, (start_dir / name).read_bytes())
