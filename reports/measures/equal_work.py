"""Whether deployments did the same work: prompts and answers of the same length, real kernels, users at once.

Decides which deployments' figures may stand side by side, and of which only figures per token are offered.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.store.store import StartRecord
from reports.data.cells import Group, grouped
from reports.data.run import Run, once
from reports.data.tables import floats

LENGTHS_DIFFER = 0.02
# A system prompt that is sent is a sentence; one that is dropped leaves at most an empty turn's token.
DROPPED_TOKENS = 1
# Turns that both of a pair answered, before a constant difference between them is called one.
TURNS_NEEDED = 5
_ONE = re.compile(r"\bone\b[^;.]*\bat a time\b", re.IGNORECASE)


def differ(values: Iterable[float | None]) -> bool:
    """Return whether the least and the greatest are further apart than LENGTHS_DIFFER."""
    known = [value for value in values if value is not None]
    return len(known) > 1 and max(known) > min(known) * (1 + LENGTHS_DIFFER)


def by_case(run: Run) -> list[list[Group]]:
    """Return the groups of each scenario and load."""
    return list(grouped(run.groups, lambda group: (group.scenario, group.load)).values())


def turn_table(sides: Mapping[str, tuple[Run, Group]], column: str) -> pd.DataFrame:
    """Return a token count of the ok requests of several groups, a row for what is the same request of all
    (seed, conversation and turn), by its turn; NaN where one did not answer it. Of requests that were
    answered again, the last."""
    seeds: dict[int, int] = {}
    found = []
    for at, (run, group) in enumerate(sides.values()):
        for cell in group.counted:
            rows = run.cell_requests(cell.number)
            tokens = floats(rows[column])
            kept = (rows["outcome"] == "ok").to_numpy(dtype=bool) & ~np.isnan(tokens)
            conversation, turn = (
                rows[name].to_numpy(dtype=np.int64)[kept] for name in ("conversation", "turn")
            )
            seed = seeds.setdefault(cell.planned.seed, len(seeds))
            keys = (seed << 48) + (conversation << 16) + turn  # turn is an int16
            found.append((keys, np.full(len(keys), at), tokens[kept]))
    found.append((np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)))
    keys, side, tokens = (np.concatenate(parts) for parts in zip(*found, strict=True))
    unique, row = np.unique(keys, return_inverse=True)
    table = np.full((len(unique), len(sides)), np.nan)
    table[row, side] = tokens
    return pd.DataFrame(table, index=unique & 0xFFFF, columns=list(sides))


def mean_lengths(run: Run, groups: Iterable[Group], column: str) -> dict[str, float]:
    """Return the mean of a token count per deployment that has one, over the turns that all of those
    answered: the fast ones play more, which would be no comparison. Empty where there is no such turn."""
    table = turn_table({group.deployment: (run, group) for group in groups}, column)
    means = table.dropna(axis=1, how="all").dropna().mean().dropna()
    return {str(name): float(value) for name, value in means.items()}


# --- the work of a run -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Who did the same work. `differences`: why the prompts of two deployments of one model are not the same.
    `prompts`: the class of each one's prompts by its label, from 0 (the most deployments) on; only those of
    one model and one class are comparable. `per_token_only`: by a group's key, why only its figures per token
    are offered."""

    differences: Mapping[tuple[str, str], str]
    prompts: Mapping[str, int]
    per_token_only: Mapping[tuple[str, str, str], str]

    @property
    def unlike(self) -> set[str]:
        """Deployments that are not comparable with at least one other of their model."""
        return set(itertools.chain(*self.differences))

    def why_unlike(self, label: str) -> str | None:
        """Return what sets a deployment's prompts apart, from the largest class that they differ from."""
        found = [pair for pair in self.differences if label in pair]
        nearest = min(found, key=lambda pair: min(self.prompts[each] for each in pair), default=None)
        return self.differences[nearest] if nearest else None

    def prompt_class(self, label: str) -> str:
        """Return a letter for the class: `A`, `B` ..."""
        return chr(ord("A") + self.prompts.get(label, 0) % 26)


@once
def work_of(run: Run) -> Work:
    """Return what the run's records and requests say of equal work."""
    by_model = grouped(run.deployments, lambda label: run.deployments[label].model)
    tables = [
        (groups[0].load, turn_table({each.deployment: (run, each) for each in groups}, "input_tokens"))
        for groups in by_case(run)
    ]
    counts = {label: counted_prompts(run.starts_of(label)) for label in run.deployments}
    differences = {
        pair: why
        for labels in by_model.values()
        for pair in itertools.combinations(labels, 2)
        if (why := why_unlike(pair, [counts[label] for label in pair], tables))
    }
    prompts: dict[str, int] = {}
    for labels in by_model.values():
        prompts |= _classes(labels, differences)
    return Work(differences, prompts, dict(_per_token_only(run)))


def _classes(labels: Sequence[str], differences: Mapping[tuple[str, str], str]) -> dict[str, int]:
    """Return classes such that no two of a class differ; a deployment joins the first that it fits."""
    classes: list[list[str]] = []
    for label in labels:
        fits = (own for own in classes if not any((other, label) in differences for other in own))
        if (members := next(fits, None)) is not None:
            members.append(label)
        else:
            classes.append([label])
    ordered = sorted(classes, key=len, reverse=True)
    return {label: number for number, members in enumerate(ordered) for label in members}


def _per_token_only(run: Run) -> Iterator[tuple[tuple[str, str, str], str]]:
    """Yield groups whose answers have not the length asked for, beside others."""
    for groups in (found for found in by_case(run) if len(found) > 1):
        means, wanted = (mean_lengths(run, groups, column) for column in ("output_tokens", "max_tokens"))
        for group in groups:
            own, asked = means.get(group.deployment), wanted.get(group.deployment)
            if not all(record.forces_length for record in run.starts_of(group.deployment)):
                yield group.key, "the engine cannot be made to give the length asked for"
            elif differ(means.values()) and differ([own, asked]):
                yield group.key, f"its answers have {own:,.1f} tokens where {asked:,.1f} were asked for"


# --- prompts ---------------------------------------------------------------------------------------


def counted_prompts(records: Sequence[StartRecord]) -> dict[str, int]:
    """Return tokens of the fixed prompts by their names, from the first start that counted each."""
    return {name: count for record in reversed(records) for name, count in record.prompt_tokens.items()}


def drops_system(counts: Mapping[str, int]) -> bool:
    """Return whether a system message adds nothing to the same user message."""
    return {"user", "system"} <= counts.keys() and counts["system"] - counts["user"] <= DROPPED_TOKENS


def why_unlike(
    names: tuple[str, str], counts: Sequence[Mapping[str, int]], tables: Iterable[tuple[str, pd.DataFrame]]
) -> str | None:
    """Return what sets the prompts of two deployments apart: by their fixed prompts' counts, else by input
    tokens (a turn_table by load) at the first load where they differ; None where nothing does."""
    if why := _by_probe(names, *counts):
        return why
    for load, table in tables:
        if set(names) <= set(table) and (why := _by_turns(names, load, table[list(names)].dropna())):
            return why
    return None


def _by_probe(names: tuple[str, str], a: Mapping[str, int], b: Mapping[str, int]) -> str | None:
    gaps = {name: b[name] - a[name] for name in a if name in b}
    if not any(gaps.values()):
        return None
    numbers = ", ".join(f"{name} {a[name]:,} / {b[name]:,}" for name in gaps)
    causes = []
    if drops_system(a) != drops_system(b) and {"user", "system"} <= gaps.keys():
        causes.append(f"{names[0] if drops_system(a) else names[1]} drops the system prompt")
        del gaps["system"]
    if len(gaps) > 1 and (bos := _bos(names, set(gaps.values()))):
        causes.append(bos)
    elif any(gaps.values()):
        causes.append(f"{names[0]} and {names[1]} use another chat template or tokenizer")
    return f"{' and '.join(causes)} (tokens of the fixed prompts, {names[0]} / {names[1]}: {numbers})"


def _bos(names: tuple[str, str], gaps: set[float]) -> str | None:
    """Return that one has exactly one token more everywhere; None where it has not."""
    if gaps not in ({1}, {-1}):
        return None
    less, more = names if gaps == {1} else names[::-1]
    return f"{more} has exactly one token more in each prompt: a doubled BOS, or one that {less} lacks"


def _by_turns(names: tuple[str, str], load: str, both: pd.DataFrame) -> str | None:
    opening = both[both.index == 0]
    bos = _bos(names, set(opening[names[1]] - opening[names[0]]))
    if bos and len(opening) >= TURNS_NEEDED:
        return f"{bos} (at {load}, all {len(opening):,} first turns)"
    for turn, a, b in both.groupby(level=0).mean().itertuples(name=None):
        if differ([a, b]):
            tokens = f"{names[0]} {a:,.1f} against {names[1]} {b:,.1f} tokens"
            history = ", or other answers in the history" if turn else ""
            return f"at {load}, turn {turn + 1}, {tokens}: another tokenizer or chat template{history}"
    return None


# --- what has to be known of a deployment wherever its name stands ---------------------------------


@dataclass(frozen=True)
class AtOnce:
    """Requests that a server was to serve at once, and why it does not; `is_one`: it serves one at a time."""

    asked: int
    clause: str | None
    is_one: bool


def too_few_at_once(run: Run) -> dict[str, AtOnce]:
    """Return the deployments that serve one request at a time though more are offered, or cannot be told how
    many."""
    found = {}
    offered = max((cell.load.concurrency or 0 for cell in run.planned_cells), default=0)
    for label, deployment in run.deployments.items():
        records, name = run.starts_of(label), "concurrent_sequences"
        asked = deployment.terms.concurrent_sequences or offered
        clause = next((clause for record in records if (clause := record.unmatched.get(name))), None)
        counts = {record.resolved.get(name) for record in records} - {None}
        is_one = 1 in counts or bool(_ONE.search(clause or ""))
        if asked > 1 and (is_one or (clause is not None and not counts)):
            found[label] = AtOnce(asked, clause, is_one)
    return found


def stand_ins(run: Run) -> dict[str, str]:
    """Return the deployments whose kernels were replaced, and by what."""
    found = {}
    for label in run.deployments:
        for record in run.starts_of(label):
            if what := record.resolved.get("kernel_stand_in"):
                found[label] = "its kernels are replaced" if what is True else str(what)
    return found
