"""Decide whether deployments did the same work: prompts, answers, context, real kernels, users at once.

The result says which figures may be compared, and for which deployments only figures per token are offered.
The limits of equal work and equal means are here, each with its reason.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from serving_bench.harness.contracts import Fact, because, quoted
from serving_bench.harness.store.disturbed import Disturbed, disturbed
from serving_bench.reports.data import Cell, Group, Run, StartRecord, gathered, grouped, once
from serving_bench.reports.stats.intervals import odd_ones

# For prompts, and for answers in figures per request: one token in fifty, as a doubled BOS in a short prompt.
LENGTHS_DIFFER = 0.02
# For answers in figures per token. If reading prompts takes a fifth of the time, a quarter more tokens
# changes tokens/s by a fifth of a fifth, 4 %. That is within the margin of 5 %; beyond it the work differs.
ANSWERS_APART = 0.25
# For cores, devices and threads. Beyond it the answer names them. Three times the margin of a verdict (5 %).
MEANS_APART = 1.15
# A system prompt that is used adds a sentence; one that is dropped adds at most an empty turn's token.
DROPPED_TOKENS = 1
# The share of answers that ended early although their length was forced; fewer may be an accident.
EARLY_SHARE = 0.01
# How many turns both of a pair have to answer before lengths are compared turn by turn.
TURNS_NEEDED = 5
# For the memory of machines and devices: the kernel may reserve another part of it after an update.
MEMORY_DIFFERS = 0.02
# What identifies a request. A cell's seed is the same for every deployment.
_SAME = ["seed", "conversation", "turn", "part"]
_COUNTS = ["input_tokens", "output_tokens", "cached_tokens", "max_tokens"]


def differ(values: Iterable[float | None], share: float = LENGTHS_DIFFER) -> bool:
    """Return whether the known values are further apart than this share of the least."""
    present = [value for value in values if value is not None]
    return len(present) > 1 and max(present) > min(present) * (1 + share)


def by_case(run: Run) -> list[list[Group]]:
    """Return the groups of each scenario and load."""
    return list(grouped(run.groups, lambda group: (group.scenario, group.load)).values())


def turn_table(sides: Mapping[str, tuple[Run, Group]], column: str) -> pd.DataFrame:
    """Return a token count of the ok requests of several groups, a column for each.

    A row is one request (seed, conversation, turn and part), indexed by its turn; NaN if a group did not
    answer it. If it was answered more than once, the last one counts.
    """
    counts = {name: _counts(run, group)[column].dropna() for name, (run, group) in sides.items()}
    return pd.DataFrame(counts).droplevel(["seed", "conversation", "part"])


@once
def _counts(run: Run, group: Group) -> pd.DataFrame:
    """Return the token counts of a group's ok requests, indexed by _SAME. If a request was answered more than
    once, the last one counts."""
    cells = [np.empty((len(_SAME) + len(_COUNTS), 0)), *(_counted(run, cell) for cell in group.counted)]
    rows = pd.DataFrame(dict(zip([*_SAME, *_COUNTS], np.concatenate(cells, axis=1), strict=True)))
    return rows.astype(dict.fromkeys(_SAME, np.int64)).groupby(_SAME)[_COUNTS].last()


def _counted(run: Run, cell: Cell) -> np.ndarray:
    """Return an array with a row for each of _SAME and _COUNTS and a column for each ok request of a cell."""
    columns = [run.values(cell.number, name) for name in (*_SAME[1:], *_COUNTS)]
    # A float holds 53 bits. bench's seeds have 48; a larger one is cut.
    rows = np.array([np.full_like(columns[0], cell.planned.seed % 2**53), *columns])
    is_told = run.holds(cell.number, "outcome", "ok") & ~np.isnan(rows[: len(_SAME)]).any(axis=0)
    return np.asarray(rows[:, is_told])


def mean_lengths(run: Run, groups: Iterable[Group], column: str) -> dict[str, float]:
    """Return the mean of a token count by deployment, over the requests that all deployments answered.

    Fast deployments answer more requests, which the others cannot be compared on. Deployments without a count
    are left out. Empty if there is no such request.
    """
    table = turn_table({group.deployment: (run, group) for group in groups}, column)
    means = table.dropna(axis=1, how="all").dropna().mean().dropna()
    return {str(name): float(value) for name, value in means.items()}


# --- the work of a run -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """How the work of a run's deployments differs. Groups are named by their keys."""

    # Why the prompts of two deployments of one model are not the same.
    differences: Mapping[frozenset[str], Fact]
    # Why a deployment's prompts are not those of most others of its model; all without a majority.
    odd: Mapping[str, Fact]
    # Why only figures per token are offered for a group.
    per_token_only: Mapping[tuple[str, str, str], Fact]
    # A group's mean answer over the requests that all at its load answered.
    answer_tokens: Mapping[tuple[str, str, str], float]


@once
def work_of(run: Run) -> Work:
    """Compare the work of all deployments of each model."""
    by_model = grouped(run.deployments, lambda label: run.deployments[label].model)
    tables = [
        (groups[0].load, turn_table({each.deployment: (run, each) for each in groups}, "input_tokens"))
        for groups in by_case(run)
    ]
    counts = {label: counted_prompts(run.starts_of(label)) for label in run.deployments}
    differences = {
        frozenset(pair): why
        for labels in by_model.values()
        for pair in itertools.combinations(labels, 2)
        if (why := why_unlike(pair, [counts[label] for label in pair], tables))
    }
    odd: dict[str, Fact] = {}
    for labels in by_model.values():
        odd_labels, is_split = odd_ones(labels, differences)
        others = {name: why for name in labels for pair, why in differences.items() if name in pair}
        odd |= others if is_split else odd_labels
    lengths = [(groups, mean_lengths(run, groups, "output_tokens")) for groups in by_case(run)]
    answers = {g.key: means[g.deployment] for same, means in lengths for g in same if g.deployment in means}
    return Work(differences, odd, dict(_per_token_only(run, lengths)), answers)


def why_other_work(run: Run, a: Group, b: Group) -> Fact | None:
    """Return why two deployments at a load did not do the same work; None if nothing says so."""
    names, work = (a.deployment, b.deployment), work_of(run)
    if frozenset(names) in work.differences:
        return because("prompts_not_same", why=work.differences[frozenset(names)])
    for what, limit, counts in (
        ("answers", ANSWERS_APART, [work.answer_tokens.get(each.key) for each in (a, b)]),
        ("contexts", 0.0, [run.deployments[name].terms.context_length for name in names]),
    ):
        if None not in counts and differ(counts, limit):
            tokens = {"a_tokens": counts[0], "b_tokens": counts[1]}
            return because("token_counts_differ", what=what, a=names[0], b=names[1], **tokens)
    return None


def _per_token_only(
    run: Run, lengths: Iterable[tuple[Sequence[Group], Mapping[str, float]]]
) -> Iterator[tuple[tuple[str, str, str], Fact]]:
    for groups, means in (case for case in lengths if len(case[0]) > 1):
        wanted = mean_lengths(run, groups, "max_tokens")
        for group in groups:
            length, wanted_length = means.get(group.deployment), wanted.get(group.deployment)
            is_forced = not group.cells[0].planned.scenario.ends_itself
            if is_forced and not all(record.forces_length for record in run.starts_of(group.deployment)):
                yield group.key, because("length_not_forced")
            elif ignores_length(run, group):
                yield group.key, because("length_ignored")
            elif differ(means.values()) and differ([length, wanted_length]):
                yield group.key, because("length_differs", own=length, asked=wanted_length)


def forces_length(run: Run, cell: Cell) -> bool:
    """Return whether a cell's server was told not to end an answer before the length asked for."""
    start = run.start_of(cell)
    return start is not None and start.forces_length and not cell.planned.scenario.ends_itself


def is_short(run: Run, cell: Cell) -> np.ndarray:
    """Return a mask of a cell's ok requests: whether it got fewer tokens than asked for, by the server's
    count."""
    got, wanted = (run.ok_values(cell.number, name) for name in ("output_tokens", "max_tokens"))
    # A server that does not count the end-of-sequence token counts one fewer.
    return np.asarray((got < wanted - 1) & run.holds_ok(cell.number, "token_source", "server"))


@once
def ended_early(run: Run, cell: Cell) -> np.ndarray:
    """Return a mask of a cell's ok requests: whether the model ended the answer although the server was told
    to force a longer one. Some servers accept fields such as ignore_eos silently and ignore them."""
    is_stop = run.holds_ok(cell.number, "finish_reason", "stop")
    return np.asarray(is_short(run, cell) & is_stop & forces_length(run, cell))


def ignores_length(run: Run, group: Group) -> bool:
    """Return whether more than EARLY_SHARE of a group's answers ended early; see ended_early."""
    early = [ended_early(run, cell) for cell in group.counted]
    return sum(int(each.sum()) for each in early) > EARLY_SHARE * sum(map(len, early))


# --- prompts ---------------------------------------------------------------------------------------


def counted_prompts(records: Sequence[StartRecord]) -> dict[str, int]:
    """Return the tokens of the fixed prompts by name, each from the first start that counted it."""
    return {name: count for record in reversed(records) for name, count in record.prompt_tokens.items()}


def why_unlike(
    names: tuple[str, str], counts: Sequence[Mapping[str, int]], tables: Iterable[tuple[str, pd.DataFrame]]
) -> Fact | None:
    """Return how the prompts of two deployments differ; None if they do not.

    The counts of the fixed prompts are compared first, then input tokens by turn (`tables`: a load's label
    and its turn_table), up to the first load where they differ.
    """
    if why := _by_probe(names, *counts):
        return why
    for load, table in tables:
        for turn, means in _means_by_turn(table.reindex(columns=list(names))):
            if differ(means):
                kind = "prompts_or_history_differ" if turn else "prompts_differ_by_turn"
                sides = {"a": names[0], "b": names[1], "a_tokens": means[0], "b_tokens": means[1]}
                return because(kind, load=load, turn=turn + 1, **sides)
    return None


def _means_by_turn(table: pd.DataFrame) -> Iterator[tuple[int, list[float]]]:
    """Yield each turn with the means of the columns, over the rows without a gap."""
    counts = table.to_numpy(dtype=float)
    is_whole = ~np.isnan(counts).any(axis=1)
    turns, counts = table.index.to_numpy(dtype=np.int64)[is_whole], counts[is_whole]
    for turn in np.unique(turns).tolist():
        yield turn, counts[turns == turn].mean(axis=0).tolist()


def _by_probe(names: tuple[str, str], a: Mapping[str, int], b: Mapping[str, int]) -> Fact | None:
    gaps = {name: b[name] - a[name] for name in a if name in b}
    if not any(gaps.values()):
        return None
    numbers = ", ".join(f"{name} {a[name]:,} / {b[name]:,}" for name in gaps)
    causes = []
    sides = zip(names, (a, b), strict=True) if {"user", "system"} <= gaps.keys() else ()
    dropping = [name for name, tokens in sides if tokens["system"] - tokens["user"] <= DROPPED_TOKENS]
    if len(dropping) == 1:
        causes.append(because("system_prompt_dropped", label=dropping[0]))
        del gaps["system"]
    if len(gaps) > 1 and set(gaps.values()) in ({1}, {-1}):
        less, more = names if 1 in gaps.values() else names[::-1]
        causes.append(because("one_token_more", more=more, less=less))
    elif any(gaps.values()):
        causes.append(because("other_templates", a=names[0], b=names[1]))
    return because("prompts_differ_by_probe", causes=tuple(causes), a=names[0], b=names[1], counts=numbers)


# --- what marks a deployment's name ----------------------------------------------------------------


@once
def one_at_a_time(run: Run) -> dict[str, str]:
    """Return the deployments that serve one request at a time although more are offered, and who says so."""
    one_by_one, name = {}, "concurrent_sequences"
    offered = max((cell.at_once or 0 for cell in run.planned_cells), default=0)
    for label, deployment in run.deployments.items():
        records = run.starts_of(label)
        why = next((record.unmatched[name] for record in records if name in record.unmatched), None)
        is_one = any(record.resolved.get(name) == 1 for record in records)
        is_one |= why is not None and why.kind == "one_at_a_time"
        if is_one and (deployment.terms.concurrent_sequences or offered) > 1:
            one_by_one[label] = str(why or "as its server says")
    return one_by_one


@once
def stand_ins(run: Run) -> dict[str, Fact]:
    """Return the deployments whose kernels were replaced, with what replaced them."""
    return {
        label: because("kernels_replaced") if what is True else quoted(str(what))
        for label in run.deployments
        for record in run.starts_of(label)
        if (what := record.resolved.get("kernel_stand_in"))
    }


# --- the machine ---------------------------------------------------------------------------------


def are_alike(fact: str, values: Iterable[str]) -> bool:
    """Return whether values of a fact about machines (`machine.memory_bytes`) are the same; memory sizes need
    only be within MEMORY_DIFFERS."""
    distinct = set(values)
    if not fact.endswith("memory_bytes") or not all(map(str.isdecimal, distinct)):
        return len(distinct) < 2
    return not differ(map(float, distinct), MEMORY_DIFFERS)


def disturbed_repeats(run: Run, *groups: Group) -> set[int]:
    """Return the repeats that something outside disturbed while any deployment of the groups' model was
    measured at their load; in a race only while one of these was. A measured value never decides this.

    Deployments whose kernels are replaced do not count.
    """
    return {repeat for group in groups for repeat in _by_case(run).get(_case(run, group), ())}


def _case(run: Run, group: Group) -> tuple[str, str, str]:
    # Those of a race have different repeats, so each pair has blocks of its own.
    return group.scenario, group.load, group.deployment if run.record.plan.race else group.model


@once
def _by_case(run: Run) -> dict[tuple[str, str, str], list[int]]:
    hit = disturbances_of(run).cells
    return gathered(
        (_case(run, group), cell.planned.repeat)
        for group in run.groups
        for cell in group.counted
        if cell.number in hit
    )


@once
def disturbances_of(run: Run) -> Disturbed:
    """Return the cells that decide nothing, among those of deployments with their own kernels."""
    groups = [group for group in run.groups if group.deployment not in stand_ins(run)]
    return disturbed(cell.record for group in groups for cell in group.counted if cell.record)
