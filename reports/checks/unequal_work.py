"""Reasons to doubt that deployments did the same work.

Requests: kernels, prompts, terms. Answers: lengths and token counts, the origin of the weights, answers that
are missing or change when asked again or under load, and unknown quality.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from serving_bench.harness.contracts import ServerTerm
from serving_bench.reports.checks.finding import (
    OF_COUNTS,
    OF_LENGTHS,
    SPEED,
    Case,
    check,
    of_cells,
    of_deployments,
    of_groups,
)
from serving_bench.reports.checks.ledger import Entry, ledger_of
from serving_bench.reports.data import (
    Cell,
    Group,
    Run,
    asking_quality,
    chosen_of,
    gathered,
    grouped,
    grown_in_cell,
    heard_of,
    unlike_of,
)
from serving_bench.reports.measures import equal_work, number, plural, precise
from serving_bench.reports.measures.fidelity import Outcome, outcome
from serving_bench.reports.measures.quality import answers_by, nearness, quality_of, task_scores
from serving_bench.reports.measures.speculation import became_of, unspeculated_of

# Servers look for clients that have left between two steps or once a second.
_BUSY_S = 2.0


@check(
    "Stand-ins for an engine's kernels",
    "These speeds are not the engine's: {}.",
    "Conclude only that the engine works; measure its speed on a device that it has kernels for.",
    marks=True,
    is_at_name=True,
)
def kernels_stand_in(run: Run) -> Iterator[Case]:
    for label, what in equal_work.stand_ins(run).items():
        yield of_deployments(run, [label], what)


@check(
    "Prompts differ, so these deployments are not comparable",
    "{}.",
    "Use the same engine.chat_template for all; scenario.history=scripted sends the same text to all.",
    (*SPEED, "input_tokens"),
    marks=True,
    is_at_name=True,
    can_look=lambda run: len(run.deployments) > 1,
)
def prompts_differ(run: Run) -> Iterator[Case]:
    for why, labels in gathered((why, label) for label, why in equal_work.work_of(run).odd.items()).items():
        yield of_deployments(run, labels, why, ", ".join(labels))


@check(
    "Output lengths differ",
    "Figures per request would compare different work: {}.",
    "Compare only figures per token; E2E and requests/s are left out for answers of another length.",
    OF_LENGTHS,
    marks=True,
    can_look=lambda run: len(run.deployments) > 1,
    of_requests=True,
)
def output_lengths_differ(run: Run) -> Iterator[Case]:
    for groups in equal_work.by_case(run):
        means = equal_work.mean_lengths(run, groups, "output_tokens")
        if equal_work.differ(means.values()):
            least, most = (end(means, key=lambda name: means[name]) for end in (min, max))
            pair = f"{least} {number(means[least])} against {most} {number(means[most])}"
            strays = [each for each in groups if each.key in equal_work.work_of(run).per_token_only]
            cells = [cell for group in strays or groups for cell in group.cells]
            yield Case("", f"at {groups[0].load} {pair} tokens per request", cells)


@check(
    "Not all terms are as asked",
    "Servers do not use, or could not be told, what was asked for: {}.",
    "See Trust; ask for values that all can use. Where fewer are served at once, TTFT is mostly the queue.",
    (),
)
def terms_not_matched(run: Run) -> Iterator[Case]:
    entries = (
        (f"{row.title} {_asked_and_got(entry)}", label)
        for row in ledger_of(run)
        for label, entry in row.entries.items()
        if entry.said
    )
    for words, labels in gathered(entries).items():
        yield of_deployments(run, labels, words, ", ".join(labels))


def _asked_and_got(entry: Entry) -> str:
    got = f"got {entry.got_text}" if entry.got else entry.said
    return f"asked {entry.asked_text}, {got}" + (f": {entry.clause}" if entry.clause else "")


SERVER_DIFFERS_SHARE = 0.02
SERVER_DIFFERS_TOKENS = 16
_COUNTERS: tuple[tuple[ServerTerm, str], ...] = (
    ("generated_tokens", "output_tokens"),
    ("prompt_tokens", "input_tokens"),
)


@check(
    "Server and tokenizer count differently",
    "The server's count of output tokens, which is used, is not the tokenizer's: {}.",
    "Use load.tokenizer=FILE with the served model's own tokenizer.json.",
    ("output_tokens", *OF_COUNTS),
    marks=True,
)
@of_groups
def token_counts_differ(run: Run, group: Group) -> str | None:
    both = np.concatenate([np.empty((2, 0)), *(_counted_twice(run, cell) for cell in group.counted)], axis=1)
    server, tokenizer = both.sum(axis=1).astype(int).tolist()
    if abs(server - tokenizer) <= equal_work.LENGTHS_DIFFER * max(server, 1):
        return None
    share, n = 100 * (tokenizer - server) / max(server, 1), both.shape[1]
    return f"server {server:,}, tokenizer {tokenizer:,} ({share:+.1f} %, n = {n:,} requests)"


def _counted_twice(run: Run, cell: Cell) -> np.ndarray:
    """Return two rows over a cell's ok requests that both counted: the server's output tokens and the
    tokenizer's."""
    counts = [run.ok_values(cell.number, name) for name in ("output_tokens", "tokenizer_tokens")]
    by_server = run.holds_ok(cell.number, "token_source", "server")
    return np.array(counts)[:, by_server & ~np.isnan(counts).any(axis=0)]


@check(
    "The server's counters and its answers differ",
    "Their tokens over whole cells, including the warm-up, are not the same: {}.",
    "Look for other clients of the server, and behind a load balancer for other servers.",
    ("input_tokens", "input_tokens_per_s", "output_tokens", *OF_COUNTS),
)
@of_cells
def server_counts_differ(run: Run, cell: Cell) -> str | None:
    # What the server counted of requests that failed, were resent or have no count of its own is not known.
    wanted = [("outcome", "ok"), ("token_source", "server")]
    is_sure = np.all([run.holds(cell.number, *each) for each in wanted], axis=0)
    if not is_sure.all() or run.holds(cell.number, "is_resent", True).any():
        return None
    differences = []
    for term, column in _COUNTERS:
        answers, server = float(run.values(cell.number, column).sum()), grown_in_cell(run, cell, term)
        least = max(SERVER_DIFFERS_SHARE * answers, SERVER_DIFFERS_TOKENS)
        if server is not None and abs(server - answers) > least:
            differences.append(f"{column.replace('_', ' ')}: server {server:,.0f}, answers {answers:,.0f}")
    return ", ".join(differences)


@check(
    "Origin of the weights",
    "{}.",
    "Speed and memory are those of the format, but quality is not.",
    (),
)
def weights_noted(run: Run) -> Iterator[Case]:
    notes = {record.deployment.label: record.notes for record in run.start_records}
    pairs = ((note, label) for label, of_label in notes.items() for note in of_label)
    for note, labels in gathered(pairs).items():
        yield of_deployments(run, labels, note)


# --- answers: asked again, and under load ----------------------------------------------------------

# The outcomes of asking a prompt again, in words. One that failed may only have had no time left.
BECAME: Mapping[Outcome, str] = {
    "same": "the same",
    "tie": "near ties",
    "other": "different",
    "empty": "empty",
    "cut": "cut off",
    "failed": "failed",
}
_DOUBTFUL: tuple[Outcome, ...] = ("other", "empty", "cut")
# Rounding puts servers of the same weights up to 0.002 nats apart (docs/quality.md).
SAME_WEIGHTS_NATS = 0.01


@check(
    "Deployments read different tokens",
    "They are not comparable: {}.",
    "Use the same engine.chat_template for all; look for a doubled or missing beginning-of-text token.",
    (*SPEED, "input_tokens"),
    marks=True,
    can_look=quality_of,
)
def text_not_comparable(run: Run) -> Iterator[Case]:
    return (of_deployments(run, [label], why) for label, why in unlike_of(run).items())


@check(
    "Answers are empty or break off",
    "Greedy answers without load, to prompts that the reference answers: {}.",
    "The speed may come from missing answers: look at them and at the server's log.",
    marks=True,
    can_look=quality_of,
)
def answers_missing(run: Run) -> Iterator[Case]:
    counts = {}
    for label, heard in heard_of(run).items():
        whole = chosen_of(run).get(heard.model, heard).answered("chat")
        # For an answer without text some servers report the token that ends it.
        counts[label] = Counter(
            "empty" if row.answer == "" else outcome(whole[row.item], row)
            for row in heard.rows.get("chat", ())
            if row.item in whole and whole[row.item].answer != ""
        )
    return _counted(run, counts, ("empty", "cut"))


@check(
    "Answers change under load",
    "Greedy answers at the highest load are not those of the same server without load: {}.",
    "The speed may come from worse answers: look at them and at the server's log.",
    marks=True,
    can_look=quality_of,
)
def answers_change_under_load(run: Run) -> Iterator[Case]:
    return _counted(run, {label: each.again.get("load", {}) for label, each in quality_of(run).items()})


@check(
    "Temperature 0 gives different answers",
    "The same prompts were asked twice without load, so what differs from the reference may be chance: {}.",
    "Look for a sampling parameter that the server does not take from requests.",
    (),
    can_look=quality_of,
)
def not_repeatable(run: Run) -> Iterator[Case]:
    return _counted(run, {label: each.again.get("again", {}) for label, each in quality_of(run).items()})


@check(
    "A server samples at temperature 0",
    "One prompt, asked again before any load, got another answer: {}.",
    "Its answers and their lengths are chance: look for a sampling parameter that it does not take from "
    "requests.",
    (),
    can_look=lambda run: any(record.repeats_answers is not None for record in run.start_records),
)
def server_samples(run: Run) -> Iterator[Case]:
    for label in run.deployments:
        repeating = [record for record in run.starts_of(label) if record.repeats_answers is not None]
        if odd := [record for record in repeating if not record.repeats_answers]:
            backend = f" (backend: {odd[0].resolved['backend']})" if "backend" in odd[0].resolved else ""
            what = f"in {len(odd)} of {plural(len(repeating), 'start')}"
            yield of_deployments(run, [label], what, f"{label}{backend}")


@check(
    "A server stays busy after its clients left",
    "After clients had left, short answers waited: {}.",
    "While it generates for nobody, others wait: raise load.timeout, or take a scenario that no user leaves.",
    can_look=lambda run: any(record.busy_after_leaving_s is not None for record in run.start_records),
)
def busy_after_leaving(run: Run) -> Iterator[Case]:
    for label in run.deployments:
        busy_s = max((record.busy_after_leaving_s or 0.0 for record in run.starts_of(label)), default=0.0)
        if busy_s > _BUSY_S:
            yield of_deployments(run, [label], f"for about {number(busy_s)} s")


def _counted(
    run: Run, counts: Mapping[str, Mapping[Outcome, int]], doubtful: Sequence[Outcome] = _DOUBTFUL
) -> Iterator[Case]:
    # A near tie may be rounding, which depends on what else is computed at the same time.
    for label, each in counts.items():
        of = sum(each.values())
        if words := [f"{n} of {of} {BECAME[became]}" for became in doubtful if (n := each.get(became))]:
            yield of_deployments(run, [label], ", ".join(words))


@check(
    "Speculation changes answers",
    "Greedy answers without load are not those of the same server without speculation: {}.",
    "A model should accept only the draft tokens that it would choose: look at the server's log, and turn "
    "speculation off.",
    marks=True,
    can_look=unspeculated_of,
)
def speculation_changes_answers(run: Run) -> Iterator[Case]:
    unsteady = {
        label
        for label, each in quality_of(run).items()
        if any(each.again.get("again", {}).get(became) for became in _DOUBTFUL)
    }
    counts = {
        label: became_of(run, label) for label, off in unspeculated_of(run).items() if off not in unsteady
    }
    return _counted(run, counts)


@check(
    "The same weights answer differently",
    "Their probabilities are further apart than by rounding: {}.",
    "Look for a fault in kernels or in the type of the KV cache. Neither is left out for this.",
    (),
    can_look=quality_of,
)
def same_weights_differ(run: Run) -> Iterator[Case]:
    comparable = (each for each in heard_of(run).values() if each.start.deployment.quantization != "-")
    for alike in grouped(comparable, lambda each: (each.model, each.start.deployment.quantization)).values():
        for base, heard in combinations(alike, 2):
            ends = nearness(heard, base).interval
            if ends and ends[0] > SAME_WEIGHTS_NATS:
                what = f"KL at least {precise(ends[0], 2)} nats"
                yield of_deployments(run, [heard.name, base.name], what, f"{heard.name} and {base.name}")


@check(
    "Quality is not known",
    "One that answers worse may be faster, so speed and memory alone do not decide: {}.",
    "Use quality=fidelity with a longer quality.budget, or compare the answers to your own task, or use one "
    "quantization=NAME, engine.kv_cache_type and engine.speculation for all.",
    (),
    can_look=lambda run: quality_of(run) or task_scores(run),
)
def quality_not_measured(run: Run) -> Iterator[Case]:
    qualities, scored = quality_of(run), {each.label for each in task_scores(run) if each.score is not None}
    kinds = {label: answers_by(each) for label, each in run.deployments.items() if each.model != "-"}
    first = next(iter(kinds.values()), ())
    may_differ = any(each != first and each[0] != "-" for each in kinds.values())
    if len(kinds) < 2 or not (qualities or may_differ):
        return
    whys = (
        (qualities[each].why_not_known if qualities else "not measured", each)
        for each in kinds
        if each not in scored
    )
    for why, labels in gathered(whys).items():
        if why:
            yield Case(", ".join(labels), str(why), of=tuple(labels), command=asking_quality(run))
