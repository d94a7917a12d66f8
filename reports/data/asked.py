"""What servers answered when asked for quality, who read other tokens than most, and who is the reference."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations, zip_longest
from pathlib import Path
from typing import Any

from serving_bench.harness.contracts import LOGPROBS, Asked, Fact, Item, Quality, QualityRecord, Way, because
from serving_bench.harness.errors import StoreError
from serving_bench.harness.store import store
from serving_bench.harness.store.named_files import QUALITY_FILE, TASKS_FILE
from serving_bench.harness.store.quality_table import (
    bits_of,
    deployment_rank,
    read_items,
    read_quality,
    reference_rank,
    without_bits,
)
from serving_bench.harness.store.store import StartRecord
from serving_bench.reports.data.cells import gathered, grouped
from serving_bench.reports.data.run import Run, once, open_run, without_secrets
from serving_bench.reports.stats.intervals import odd_ones

# Fewer than 1 place in 20 may name fewer tokens than `Heard.named` says: tokens of one name count once.
_ONE_PLACE_IN = 20


@dataclass(frozen=True)
class Heard:
    """What one start answered when it was asked for quality.

    `record`: how it was asked. `rows`: the answers of each way, in order. `tasks`: the items of each task.
    `name`: the deployment's label, with "of an earlier run" behind it if it is of one. `folder`: has the
    start's files.
    """

    start: StartRecord
    record: QualityRecord
    rows: Mapping[Way, Sequence[Asked]]
    tasks: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    name: str = ""
    folder: Path = Path()

    @property
    def model(self) -> str:
        return self.start.deployment.model

    @property
    def missing(self) -> list[Fact]:
        """The reasons why ways were not measured, without what the server sent."""
        whys = [why for way, why in self.record.missing.items() if way != "tasks"]
        return [Fact(why.kind, {**why.values, "sent": ""}) if "sent" in why.values else why for why in whys]

    @property
    def is_asked(self) -> bool:
        """Whether it was asked for tokens, not only for tasks."""
        return bool(self.rows or self.missing)

    @property
    def is_told(self) -> bool:
        """Whether it gave any probabilities that others can be compared with."""
        return any(self.whole(way) for way in ("chat", "text"))

    def whole(self, way: Way) -> dict[int, Asked]:
        """Return the answers of a way that have tokens and no error, by item."""
        return {row.item: row for row in self.rows.get(way, ()) if row.tokens and not row.error}

    def answered(self, way: Way) -> dict[int, Asked]:
        """Return the answers of a way that have tokens or text and no error, by item."""
        return {
            row.item: row for row in self.rows.get(way, ()) if (row.tokens or row.answer) and not row.error
        }

    def named(self, way: Way) -> int:
        """Return how many of the likeliest tokens it names at more than 95 % of the places; 0 if it names
        none."""
        counts = [len(token.top) for row in self.whole(way).values() for token in row.tokens if token.top]
        return min(LOGPROBS, sorted(counts)[(len(counts) - 1) // _ONE_PLACE_IN]) if counts else 0


@once
def heard_of(run: Run) -> dict[str, Heard]:
    """Return what each deployment answered, by label. Tokens and tasks each come from its last start that has
    any."""
    records = (*run.start_records, *run.asked_alone)
    starts = (_heard(run.path / "starts" / each.name, each, each.deployment.label) for each in records)
    by_label = grouped(filter(None, starts), lambda each: each.name)
    return {label: _last(by_label[label]) for label in run.deployments if label in by_label}


def _last(candidates: list[Heard]) -> Heard:
    answering = [each for each in candidates if each.rows] or candidates
    scored = [each for each in candidates if each.tasks] or candidates
    return replace(answering[-1], tasks=scored[-1].tasks)


@once
def chosen_of(run: Run) -> dict[str, Heard]:
    """Return the deployment that the others of a model would be compared with, by model.

    It is what quality.against names, in this run or an earlier one. Otherwise it is the deployment with most
    bits among those that read the same tokens as most. With equal bits one that gave probabilities comes
    first, then fp16 before bf16, then one that does not speculate, then the one with the largest weights. A
    model has no entry if the chosen deployment did not answer, or if the bits of one are not known.
    """
    heard = heard_of(run)
    chosen = {model: heard[label] for model, label in _choices(run).items() if label in heard}
    return {**chosen, **{each.model: each for each in _named(run)}}


@once
def _choices(run: Run) -> dict[str, str]:
    """Return the label of the chosen deployment of this run by model, whether it answered or not."""
    against, deployments = run.record.quality.against, run.deployments
    if against is not None and against not in deployments:
        return {}
    by_model = grouped(deployments, lambda label: deployments[label].model)
    choices = {
        model: min(labels, key=lambda label: _rank(run, label))
        for model, labels in by_model.items()
        if not _without_bits(run, model)
    }
    return {**choices, **({deployments[against].model: against} if against else {})}


def _rank(run: Run, label: str) -> tuple[Any, ...]:
    heard, planned = heard_of(run).get(label), run.deployments[label]
    rank = reference_rank(heard.start) if heard else deployment_rank(planned, bits_of(planned))
    return label in unlike_of(run), rank[0], not (heard and heard.is_told), rank


def _without_bits(run: Run, model: str) -> list[str]:
    heard, odd = heard_of(run), unlike_of(run)
    bits = {
        label: heard[label].record.bits if label in heard else bits_of(each)
        for label, each in run.deployments.items()
        if each.model == model and label not in odd
    }
    return without_bits(bits)


def why_no_reference(run: Run, model: str) -> Fact:
    """Return why a model has no reference."""
    named, unknown = chosen_of(run).get(model), _without_bits(run, model)
    label = named.name if named else _choices(run).get(model)
    if label:
        return because("reference_missing", label=label)
    if unknown and run.record.quality.against is None:
        return because("bits_unknown", labels=tuple(unknown))
    return because("no_reference")


def reference_folders(run_dir: Path) -> dict[str, Path]:
    """Return the folders of the references' answers by model. Raises StoreError if the run cannot be read."""
    return {model: each.folder for model, each in chosen_of(open_run(run_dir)).items()}


def references_of(run: Run) -> dict[str, Heard]:
    """Return the references that gave probabilities, by model. One that gave none is not replaced by a
    deployment of fewer bits, which would then look as good as the model itself."""
    return {model: each for model, each in chosen_of(run).items() if each.is_told}


def _named(run: Run) -> list[Heard]:
    """Return what quality.against names, in this run or an earlier one."""
    against = run.record.quality.against
    if against is None or against in run.deployments:
        return [heard for label, heard in heard_of(run).items() if label == against]
    references = [
        _heard(folder, without_secrets(start), f"{start.deployment.label} of an earlier run")
        for folder, start in store.read_references(run.path).items()
    ]
    return list(filter(None, references))


def _heard(folder: Path, start: StartRecord, name: str) -> Heard | None:
    """Return what a start answered. What a damaged file held is missing, and the record says why."""
    if start.quality is None:
        return None
    rows: dict[Way, list[Asked]] = {}
    tasks: dict[str, list[Item]] = {}
    damaged: dict[Way | Quality, Fact] = {}
    try:
        rows = gathered((row.way, row) for row in read_quality(folder / QUALITY_FILE))
    except StoreError:
        damaged["fidelity"] = because("damaged", file=f"{folder.name}/{QUALITY_FILE}")
    try:
        tasks = gathered((item.task, item) for item in read_items(folder / TASKS_FILE))
    except StoreError:
        damaged["tasks"] = because("damaged", file=f"{folder.name}/{TASKS_FILE}")
    missing = {**damaged, **start.quality.missing}
    return Heard(start, replace(start.quality, missing=missing), rows, tasks, name, folder)


# --- equal text -------------------------------------------------------------------------------------


@once
def unlike_of(run: Run) -> dict[str, Fact]:
    """Return the deployments whose prompts or texts are other tokens than most others of their model have, by
    name, each with the first token that differs.

    Where no majority agrees, all that differ are returned. A reference of an earlier run counts too.
    """
    unlike: dict[str, Fact] = {}
    heard = [each for each in [*_named(run), *heard_of(run).values()] if any(map(each.answered, each.rows))]
    for alike in grouped(heard, lambda each: (each.model, each.record.sha256)).values():
        by_name = {each.name: each for each in alike}
        pairs = permutations(by_name, 2)
        whys = {(a, b): why for a, b in pairs if (why := why_unlike(by_name[a], by_name[b]))}
        odd, is_split = odd_ones([*by_name], {frozenset(pair): why for pair, why in whys.items()})
        for (a, b), why in whys.items():
            if is_split or (a in odd and b not in odd):
                unlike.setdefault(a, why)
    return unlike


def why_unlike(heard: Heard, base: Heard) -> Fact | None:
    """Return the first difference between the tokens of two; None if there is none."""
    for way, item, row, other in _of_both(heard, base, "prompt", "text"):
        names = zip_longest(*([token.name for token in each.tokens] for each in (row, other)))
        for at, (a, b) in enumerate(names):
            if a != b:
                tokens = {"own": a or "no token", "other": b or "no token"}
                where = {"place": at + 1, "way": way, "item": item + 1, "reference": base.name}
                return because("token_differs", **where, **tokens)
    # Where one of them gives no prompt tokens, the counts are compared.
    is_told = heard.rows.get("prompt") and base.rows.get("prompt")
    for _, item, row, other in () if is_told else _of_both(heard, base, "chat"):
        counts = (row.prompt_tokens, other.prompt_tokens)
        if None not in counts and counts[0] != counts[1]:
            where = {"item": item + 1, "reference": base.name}
            return because("prompt_tokens_differ", own=counts[0], other=counts[1], **where)
    return None


def _of_both(heard: Heard, base: Heard, *ways: Way) -> Iterator[tuple[Way, int, Asked, Asked]]:
    for way in ways:
        theirs = base.answered(way)
        yield from (
            (way, item, row, theirs[item]) for item, row in heard.answered(way).items() if item in theirs
        )
