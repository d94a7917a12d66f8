"""Reasons to doubt that deployments did the same work: kernels, prompts, lengths of answers, terms, cores."""

import re
from collections.abc import Iterator

from reports.checks.finding import RATES, SPEED, TOKENS, Seen, cells_of, check
from reports.checks.ledger import Entry, ledger_of
from reports.data.run import Run
from reports.data.samples import group_cores
from reports.measures.equal_work import (
    by_case,
    counted_prompts,
    differ,
    drops_system,
    mean,
    same_turns,
    stand_ins,
    too_few_at_once,
    work_of,
)
from reports.measures.written import number, several

# Cores by which servers' use of the processor may lie apart, as a share of the least: 1.0 and 1.2 differ.
CORES_DIFFER_SHARE = 0.15
_FEATURE = re.compile(r"(\w+) = 1\b")  # as llama.cpp says it: `AVX2 = 1 | AVX512 = 0`


@check(
    "stand-ins for kernels",
    "Stand-ins for an engine's kernels",
    "{}. These are no speeds of that engine.",
    "Read from it only that the engine works; measure its speed on a device that it has kernels for.",
    marks=True,
)
def kernels_stand_in(run: Run) -> Iterator[Seen]:
    """Find servers that ran with replacements for their own kernels."""
    for label, what in stand_ins(run).items():
        yield f"{label}: {what}", cells_of(run, {label})


@check(
    "unequal prompts",
    "Prompts are not the same, and such pairs not comparable",
    "{}. Only figures with equal letters compare.",
    "The same engine.chat_template for all; scenario.history=scripted sends the same text to all.",
    (*SPEED, "input_tokens"),
    marks=True,
)
def prompts_differ(run: Run) -> Iterator[Seen]:
    """Find deployments of one model whose prompts are not the same."""
    work = work_of(run)
    classes: dict[tuple[str, str], list[str]] = {}
    for label, deployment in run.deployments.items():
        if label in work.unlike:
            classes.setdefault((deployment.model, work.prompt_class(label)), []).append(label)
    for (_, letter), labels in sorted(classes.items()):
        why = "" if letter == "A" else f": {work.why_unlike(labels[0])}"
        yield f"prompts {letter}, {', '.join(labels)}{why}", cells_of(run, labels)


@check(
    "unequal lengths of answers",
    "Output lengths differ",
    "{}.",
    "Compare figures per token only: E2E and requests/s of answers of another length are left out.",
    # Of shorter answers a greater part of the time is the reading of their prompts.
    ("e2e_s", "slo_share", *RATES),
    marks=True,
)
def output_lengths_differ(run: Run) -> Iterator[Seen]:
    """Find deployments whose answers to the same turns differ in length at the same load."""
    for groups in by_case(run):
        turns = same_turns(run, groups, "output_tokens")
        means = {name: each.mean for name, each in turns.items() if each.mean is not None}
        if differ(list(means.values())):
            least, most = (end(means, key=lambda name: means[name]) for end in (min, max))
            pair = f"{least} {number(means[least])} against {most} {number(means[most])}"
            strays = [group for group in groups if group.key in work_of(run).per_token_only] or groups
            cells = [cell for group in strays for cell in group.cells]
            yield f"at {groups[0].load} {pair} tokens per request", cells


@check(
    "answers of free length",
    "Answers have the length that they come to",
    "{} cannot be made to give the length asked for.",
    "Compare figures per token only (ITL, TPOT, output tokens/s): E2E and requests/s are left out.",
    TOKENS,
)
def lengths_not_forced(run: Run) -> Iterator[Seen]:
    """Find engines that stop where the model stops, beside others."""
    for label in run.deployments if len(run.deployments) > 1 else ():
        if not all(record.forces_length for record in run.starts_of(label)):
            yield label, cells_of(run, {label})


@check(
    "a dropped system prompt",
    "A system prompt is dropped",
    "{}. The chat template leaves it out.",
    "A chat template with a system prompt: engine.chat_template=FILE.",
    (*SPEED, "input_tokens"),
)
def system_prompt_dropped(run: Run) -> Iterator[Seen]:
    """Find servers for which a system message adds nothing to the prompt."""
    for label in run.deployments:
        counts = counted_prompts(run.starts_of(label))
        if drops_system(counts):
            said = f"{label}: {counts['system']:,} tokens with it, {counts['user']:,} without"
            yield said, cells_of(run, {label})


@check(
    "terms that were not matched",
    "Not all terms are as asked",
    "Could not be matched: {}.",
    "See Trust; ask for what all of them can be given, or compare those that got it.",
    (),
)
def terms_not_matched(run: Run) -> Iterator[Seen]:
    """Find common terms of which a server got something else than was asked, or could not be told."""
    by_words: dict[str, list[str]] = {}
    alone = too_few_at_once(run)
    for row in ledger_of(run):
        for label, entry in row.entries.items():
            is_told_apart = row.term.name == "concurrent_sequences" and label in alone
            if entry.state != "same" and not is_told_apart:
                by_words.setdefault(f"{row.term.title} {_asked_and_got(entry)}", []).append(label)
    for words, labels in by_words.items():
        yield f"{', '.join(labels)}: {words}", cells_of(run, labels)


def _asked_and_got(entry: Entry) -> str:
    got = f"got {entry.got_text}" if entry.got else "could not be told"
    return f"asked {entry.asked_text}, {got}" + (f": {entry.clause}" if entry.clause else "")


@check(
    "fewer requests served at once than asked",
    "Requests served at once are not as asked",
    "{}. Others wait: with several users TTFT is mostly the queue.",
    "Compare at load.concurrency=1.",
)
def served_one_at_a_time(run: Run) -> Iterator[Seen]:
    """Find servers that answer fewer requests at once than were asked for."""
    for label, each in too_few_at_once(run).items():
        clause = f", {each.clause}" if each.clause else ", served one at a time" if each.is_one else ""
        cells = [cell for cell in cells_of(run, {label}) if cell.load.concurrency != 1]
        yield f"{label}: asked {each.asked:,}{clause}", cells


@check(
    "unequal use of the processor",
    "Servers do not use the processor alike",
    "{}. One that is faster may only use more of it.",
    "Give each engine the same threads by its own options, and compare tokens/s per core.",
)
def processor_use_differs(run: Run) -> Iterator[Seen]:
    """Find servers on the processor that keep different numbers of cores busy, or say so of their threads."""
    if any(record.memory_kind != "host" for record in run.start_records):
        return
    for groups in by_case(run):
        means = {group.deployment: mean(group_cores(run, group)) for group in groups}
        known = {label: cores for label, cores in means.items() if cores}
        if len(known) > 1:
            least, most = (end(known, key=lambda label: known[label]) for end in (min, max))
            if known[most] > known[least] * (1 + CORES_DIFFER_SHARE):
                pair = f"{known[least]:.1f} ({least}) to {known[most]:.1f} ({most})"
                cells = [cell for group in groups for cell in group.cells]
                yield f"at {groups[0].load} they kept from {pair} cores busy", cells
    threads = next((row for row in ledger_of(run) if row.term.name == "threads"), None)
    by_count: dict[str, list[str]] = {}
    for label, entry in threads.entries.items() if threads else ():
        if entry.got:
            by_count.setdefault(entry.got_text, []).append(label)
    if len(by_count) > 1:
        counts = [f"{count}: {several(labels)}" for count, labels in by_count.items()]
        labels = [label for own in by_count.values() for label in own]
        yield f"threads as they say ({'; '.join(counts)})", cells_of(run, labels)


@check(
    "other builds of one engine",
    "Programs of an engine are built differently",
    "{}, which its other programs use: a difference between them may be the build's.",
    "Compare programs that are built for the same instructions.",
)
def builds_differ(run: Run) -> Iterator[Seen]:
    """Find programs of one engine that say that they were built for other instructions of the processor."""
    by_engine: dict[str, dict[str, frozenset[str]]] = {}
    for label, deployment in run.deployments.items():
        for record in run.starts_of(label):
            if said := record.resolved.get("cpu_features"):
                features = frozenset(_FEATURE.findall(str(said)))
                by_engine.setdefault(deployment.engine, {})[label] = features
    lacking: dict[str, list[str]] = {}
    for own in by_engine.values():
        every = frozenset[str]().union(*own.values())
        for label, features in own.items():
            if features < every:
                lacking.setdefault(", ".join(sorted(every - features)), []).append(label)
    for names, labels in lacking.items():
        yield f"{several(labels)}: without {names}", cells_of(run, labels)
