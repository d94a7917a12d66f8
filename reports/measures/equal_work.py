"""Whether deployments did the same work: prompts and answers of the same length, real kernels, users at once.

Decides which deployments' figures may stand side by side, and of which only figures per token are offered.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.store.store import StartRecord
from reports.data.cells import Group
from reports.data.run import Run, once

LENGTHS_DIFFER = 0.02
# A system prompt that is sent is a sentence; one that is dropped leaves at most an empty turn's token.
DROPPED_TOKENS = 1
# Turns that both of a pair answered, before a constant difference between them is called one.
TURNS_NEEDED = 5
_TURN_BITS = 16  # turn is an int16
_ONE = re.compile(r"\bone\b[^;.]*\bat a time\b", re.IGNORECASE)


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None of none."""
    return sum(values) / len(values) if values else None


def differ(values: Sequence[float | None]) -> bool:
    """Return whether the least and the greatest are further apart than LENGTHS_DIFFER."""
    known = [value for value in values if value is not None]
    return len(known) > 1 and max(known) > min(known) * (1 + LENGTHS_DIFFER)


def by_case(run: Run) -> list[list[Group]]:
    """Return the groups of each scenario and load."""
    cases: dict[tuple[str, str], list[Group]] = {}
    for group in run.groups:
        cases.setdefault((group.scenario, group.load), []).append(group)
    return list(cases.values())


# --- turns that several deployments answered: the fast ones play more, which would be no comparison ----


@dataclass(frozen=True)
class Turns:
    """A token count by the cell's seed, conversation and turn: what is the same request for every deployment.
    By seed: sorted keys of conversation and turn, and the count of each."""

    by_seed: Mapping[int, tuple[np.ndarray, np.ndarray]]

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def tokens(self) -> np.ndarray:
        """All counts, in the order of seed, conversation, turn."""
        return np.concatenate([np.empty(0), *(self.by_seed[seed][1] for seed in sorted(self.by_seed))])

    @cached_property
    def turn(self) -> np.ndarray:
        """The turn of each, from 0."""
        keys = [self.by_seed[seed][0] for seed in sorted(self.by_seed)]
        return np.concatenate([np.empty(0, dtype=np.int64), *keys]) & ((1 << _TURN_BITS) - 1)

    @property
    def mean(self) -> float | None:
        return float(self.tokens.mean()) if len(self) else None


def turns_of(run: Run, group: Group, column: str) -> Turns:
    """Return a token count of a group's ok requests that have it; of windows that were tried again, the
    last."""
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for cell in group.counted:
        rows = run.cell_requests(cell.number)
        tokens = rows[column].to_numpy(dtype=float, na_value=np.nan)
        kept = (rows["outcome"] == "ok").to_numpy(dtype=bool) & ~np.isnan(tokens)
        conversation, turn = (rows[name].to_numpy(dtype=np.int64) for name in ("conversation", "turn"))
        keys = (conversation << _TURN_BITS) + turn
        found.setdefault(cell.planned.seed, []).append((keys[kept], tokens[kept]))
    last = {}
    for seed, parts in found.items():
        keys, tokens = (np.concatenate([part[at] for part in parts])[::-1] for at in (0, 1))
        unique, first = np.unique(keys, return_index=True)
        last[seed] = unique, tokens[first]
    return Turns(last)


def shared(found: Sequence[Turns]) -> list[Turns]:
    """Return each with the turns that all of them have, so in one order."""
    if not found:
        return []
    intersection = functools.partial(np.intersect1d, assume_unique=True)
    common = {
        seed: functools.reduce(intersection, (turns.by_seed[seed][0] for turns in found))
        for seed in set.intersection(*(set(turns.by_seed) for turns in found))
    }
    return [
        Turns(
            {
                seed: (keys, turns.by_seed[seed][1][np.searchsorted(turns.by_seed[seed][0], keys)])
                for seed, keys in common.items()
            }
        )
        for turns in found
    ]


def same_turns(run: Run, groups: Iterable[Group], column: str) -> dict[str, Turns]:
    """Return per deployment with values a count of the turns that all of those answered."""
    found = {group.deployment: turns_of(run, group, column) for group in groups}
    found = {name: turns for name, turns in found.items() if len(turns)}
    return dict(zip(found, shared(list(found.values())), strict=True))


# --- the work of a run -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Two deployments of one model whose prompts are not the same, and what it looks like, with numbers."""

    first: str
    second: str
    why: str


@dataclass(frozen=True)
class Work:
    """Who did the same work. `prompts`: the class of each deployment's prompts by its label, from 0 (the most
    deployments) on; only deployments of one model and one class are comparable. `per_token_only`: by a
    group's key, why only its figures per token are offered."""

    differences: tuple[Difference, ...]
    prompts: Mapping[str, int]
    per_token_only: Mapping[tuple[str, str, str], str]

    @cached_property
    def unlike(self) -> frozenset[str]:
        """Deployments that are not comparable with at least one other of their model."""
        return frozenset(label for found in self.differences for label in (found.first, found.second))

    def why_unlike(self, label: str) -> str | None:
        """Return what sets a deployment's prompts apart, from the largest class that they differ from."""
        found = [each for each in self.differences if label in (each.first, each.second)]
        nearest = min(
            found, key=lambda each: min(self.prompts[each.first], self.prompts[each.second]), default=None
        )
        return nearest.why if nearest else None

    def prompt_class(self, label: str) -> str:
        """Return a letter for the class: `A`, `B` ..."""
        return chr(ord("A") + self.prompts.get(label, 0) % 26)


@once
def work_of(run: Run) -> Work:
    """Return what the run's records and requests say of equal work."""
    by_model: dict[str, list[str]] = {}
    for label, deployment in run.deployments.items():
        by_model.setdefault(deployment.model, []).append(label)
    turns = [
        (groups[0].load, {group.deployment: turns_of(run, group, "input_tokens") for group in groups})
        for groups in by_case(run)
    ]
    counts = {label: counted_prompts(run.starts_of(label)) for label in run.deployments}
    differences = tuple(
        Difference(first, second, why)
        for labels in by_model.values()
        for first, second in itertools.combinations(labels, 2)
        if (why := _by_probe(first, second, counts) or _by_turns(first, second, turns))
    )
    apart = {frozenset((found.first, found.second)) for found in differences}
    prompts: dict[str, int] = {}
    for labels in by_model.values():
        prompts |= _classes(labels, apart)
    return Work(differences, prompts, dict(_per_token_only(run)))


def _classes(labels: Sequence[str], apart: set[frozenset[str]]) -> dict[str, int]:
    """Return classes of deployments such that no two of a class are apart; the largest is 0, and a deployment
    joins the first class that it fits."""
    classes: list[list[str]] = []
    for label in labels:
        fits = (own for own in classes if not any(frozenset((label, other)) in apart for other in own))
        if (members := next(fits, None)) is not None:
            members.append(label)
        else:
            classes.append([label])
    ordered = sorted(classes, key=len, reverse=True)
    return {label: number for number, members in enumerate(ordered) for label in members}


def _per_token_only(run: Run) -> Iterator[tuple[tuple[str, str, str], str]]:
    """Yield groups whose answers have not the length asked for, where there is another one to compare
    with."""
    for groups in by_case(run):
        if len(groups) < 2:
            continue
        means = {name: found.mean for name, found in same_turns(run, groups, "output_tokens").items()}
        wanted = {name: found.mean for name, found in same_turns(run, groups, "max_tokens").items()}
        are_unlike = differ(list(means.values()))
        for group in groups:
            name = group.deployment
            if not all(record.forces_length for record in run.starts_of(name)):
                yield group.key, "the engine cannot be made to give the length asked for"
            elif are_unlike and name in means and differ([means[name], wanted.get(name)]):
                asked = f"{wanted[name]:,.1f} were asked for"
                yield group.key, f"its answers have {means[name]:,.1f} tokens where {asked}"


# --- prompts ---------------------------------------------------------------------------------------


def counted_prompts(records: Sequence[StartRecord]) -> dict[str, int]:
    """Return tokens of the fixed prompts by their names, from the first start that counted each."""
    counts: dict[str, int] = {}
    for record in records:
        counts = {**record.prompt_tokens, **counts}
    return counts


def drops_system(counts: Mapping[str, int]) -> bool:
    """Return whether a system message adds nothing to the same user message."""
    return {"user", "system"} <= counts.keys() and counts["system"] - counts["user"] <= DROPPED_TOKENS


def why_unlike(
    names: tuple[str, str], counts: Sequence[Mapping[str, int]], load: str, turns: Sequence[Turns]
) -> str | None:
    """Return what sets the prompts of two groups at one load apart, by their fixed prompts' counts and the
    input tokens of turns that both answered (empty: unknown); None where nothing does."""
    by_load = [(load, dict(zip(names, turns, strict=True)))] if turns else []
    return _by_probe(*names, dict(zip(names, counts, strict=True))) or _by_turns(*names, by_load)


def _by_probe(first: str, second: str, counts: Mapping[str, Mapping[str, int]]) -> str | None:
    """Return what the fixed prompts' counts look like; None where they are equal, or were not counted."""
    a, b = counts[first], counts[second]
    shared_names = [name for name in a if name in b]
    gaps = {name: b[name] - a[name] for name in shared_names}
    if not any(gaps.values()):
        return None
    causes = []
    if drops_system(a) != drops_system(b) and {"user", "system"} <= gaps.keys():
        causes.append(f"{first if drops_system(a) else second} drops the system prompt")
        del gaps["system"]
    if len(gaps) > 1 and set(gaps.values()) in ({1}, {-1}):
        causes.append(_bos(first, second, is_second=set(gaps.values()) == {1}))
    elif any(gaps.values()):
        causes.append(f"{first} and {second} use another chat template or tokenizer")
    numbers = ", ".join(f"{name} {a[name]:,} / {b[name]:,}" for name in shared_names)
    return f"{' and '.join(causes)} (tokens of the fixed prompts, {first} / {second}: {numbers})"


def _bos(first: str, second: str, *, is_second: bool) -> str:
    more, less = (second, first) if is_second else (first, second)
    return f"{more} has exactly one token more in each prompt: a doubled BOS, or one that {less} lacks"


def _by_turns(first: str, second: str, turns: Sequence[tuple[str, Mapping[str, Turns]]]) -> str | None:
    """Return what the input tokens of turns that both answered look like, at the first load where they
    differ."""
    for load, by_label in turns:
        if first not in by_label or second not in by_label:
            continue
        a, b = shared([by_label[first], by_label[second]])
        is_first = a.turn == 0
        opening, count = set((b.tokens - a.tokens)[is_first].tolist()), int(is_first.sum())
        if count >= TURNS_NEEDED and opening in ({1.0}, {-1.0}):
            return f"{_bos(first, second, is_second=opening == {1.0})} (at {load}, all {count:,} first turns)"
        for turn in np.unique(a.turn).tolist():
            means = [float(found.tokens[found.turn == turn].mean()) for found in (a, b)]
            if differ(means):
                tokens = f"{first} {means[0]:,.1f} against {second} {means[1]:,.1f} tokens"
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
        records = run.starts_of(label)
        asked = deployment.terms.concurrent_sequences or offered
        clause = next((c for r in records if (c := r.unmatched.get("concurrent_sequences"))), None)
        counts = [count for r in records if (count := r.resolved.get("concurrent_sequences")) is not None]
        is_one = any(count == 1 for count in counts) or bool(_ONE.search(clause or ""))
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
